//! Pages of the program that only its start, or a burst of connections, has needed.
#![expect(unsafe_code, reason = "madvise")]

use std::{fs, io, ops::Range, sync::OnceLock};

/// The program's own mappings, which are never taken down, unlike those of libraries.
static OWN: OnceLock<Vec<Range<usize>>> = OnceLock::new();

/// Gives back all resident pages of program and libraries that are as they lie in their files: most of what the start has
/// run is never needed again. What is needed comes back as it is touched, out of the page cache. How many bytes that were.
///
/// # Errors
/// If the process can't read its own map. Mappings that the kernel keeps (locked ones) stay, and are no error.
pub fn release_program() -> io::Result<usize> {
    let map = fs::read_to_string("/proc/self/smaps")?;
    let mappings = of_files(&map);
    if let Ok(program) = fs::read_link("/proc/self/exe") {
        let own = mappings.iter().filter(|mapping| program.to_str() == Some(&mapping.file));
        // Whoever was first has read the same.
        let _ = OWN.set(own.map(|mapping| mapping.pages.clone()).collect());
    }
    Ok(mappings.into_iter().filter(|mapping| release(&mapping.pages)).map(|mapping| mapping.resident).sum())
}

/// The same once more, of the program alone and without a look at the map, so that a confined thread can. Does nothing
/// unless [`release_program`] was called before.
pub fn release_program_again() {
    for pages in OWN.get().into_iter().flatten() {
        release(pages);
    }
}

/// A mapping whose pages are all its file's.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    pages: Range<usize>,
    file: String,
    resident: usize,
}

/// The mappings that nobody can write to, that have never been written to (relocations are: their pages are anonymous
/// by now), and that have a file.
fn of_files(map: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut current: Option<Mapping> = None;
    for line in map.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(pages) = pages(first) {
            let (rights, file) = (words.next().unwrap_or_default(), words.nth(3).unwrap_or_default());
            let is_files = matches!(rights, "r--p" | "r-xp") && file.starts_with('/');
            found.extend(current.take());
            current = is_files.then(|| Mapping { pages, file: file.to_owned(), resident: 0 });
            continue;
        }
        match first {
            "Rss:" => {
                let kib: usize = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                current.iter_mut().for_each(|mapping| mapping.resident = kib << 10);
            }
            "Anonymous:" => current = current.filter(|_| words.next() == Some("0")),
            _ => {}
        }
    }
    found.extend(current);
    found
}

/// `7f12a000-7f12c000`.
fn pages(word: &str) -> Option<Range<usize>> {
    let (from, to) = word.split_once('-')?;
    let parse = |hex| usize::from_str_radix(hex, 16).ok();
    Some(parse(from)?..parse(to)?).filter(|pages| !pages.is_empty())
}

fn release(pages: &Range<usize>) -> bool {
    let start = std::ptr::without_provenance_mut(pages.start);
    // SAFETY: the range is a private mapping of a file that can't be written to, and none of whose pages has been: so each
    // page that is let go comes back from the file with the same bytes. Whoever reads or runs it meanwhile only waits. It
    // is still that mapping: either the map was just read, or it is the program's own, which nobody takes down.
    unsafe { libc::madvise(start, pages.len(), libc::MADV_DONTNEED) == 0 }
}

#[cfg(test)]
mod tests {
    //! Goal: code goes and comes back; what was written to, or could be, is left alone.
    use super::*;

    const MAP: &str = "\
55d0e0000000-55d0e0400000 r--p 00000000 fe:00 1234    /usr/bin/beam
Rss:                1024 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
55d0e0400000-55d0e0c00000 r-xp 00400000 fe:00 1234    /usr/bin/beam
Rss:                4096 kB
Anonymous:             0 kB
55d0e0c00000-55d0e0c40000 r--p 00c00000 fe:00 1234    /usr/bin/beam
Rss:                 256 kB
Anonymous:           256 kB
55d0e0c40000-55d0e0c50000 rw-p 00c40000 fe:00 1234    /usr/bin/beam
Rss:                  64 kB
Anonymous:             0 kB
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0       [vdso]
Rss:                   8 kB
Anonymous:             0 kB
7f0000000000-7f0000100000 r--p 00000000 00:00 0
Rss:                   8 kB
Anonymous:             0 kB
";

    #[test]
    fn only_what_lies_in_files_is_found() {
        let (found, file) = (of_files(MAP), || "/usr/bin/beam".to_owned());
        assert_eq!(
            found,
            [
                Mapping { pages: 0x55d0e0000000..0x55d0e0400000, file: file(), resident: 1 << 20 },
                Mapping { pages: 0x55d0e0400000..0x55d0e0c00000, file: file(), resident: 4 << 20 },
            ]
        );
        assert_eq!(of_files(""), []);
    }

    #[test]
    fn the_program_runs_on() {
        let before = fs::read_to_string("/proc/self/smaps").unwrap();
        let resident = |map: &str| of_files(map).iter().map(|mapping| mapping.resident).sum::<usize>();
        let released = release_program().unwrap();
        let after = fs::read_to_string("/proc/self/smaps").unwrap();
        println!("{} bytes before, {released} released, {} after", resident(&before), resident(&after));
        assert!(released > 0 && resident(&after) < resident(&before));
        // Where there is none, the second time has nothing to do.
        assert!(OWN.get().is_some_and(|own| !own.is_empty()), "{after}");
        (0..100).for_each(|_| release_program_again());
    }
}
