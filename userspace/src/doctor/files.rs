//! Files of the kernel, below a root that tests set.

use std::{fs, path::PathBuf};

/// Entries of a directory that are looked at: more processes or interrupts than any host has.
const ENTRIES_MAX: usize = 1 << 20;

/// Where /proc, /sys and /boot are.
#[derive(Clone, Debug)]
pub(super) struct Files(PathBuf);

impl Files {
    pub(super) fn of_this_host() -> Self {
        Self("/".into())
    }

    #[cfg(test)]
    pub(super) fn below(root: &std::path::Path) -> Self {
        Self(root.into())
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The contents, trimmed; `None` where there is no such file, or it can't be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The names in a directory; none where it can't be read.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().take(ENTRIES_MAX);
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    pub(super) fn link_target(&self, path: &str) -> Option<PathBuf> {
        fs::read_link(self.path(path)).ok()
    }
}

/// A list as the kernel writes it: `0-3,8`. Empty for an empty one, and for what is none.
pub(super) fn cpu_list(text: &str) -> Vec<u32> {
    text.trim().parse::<crate::cli::NumberList>().map_or(Vec::new(), |list| list.0)
}

/// The other way.
pub(super) fn told(cpus: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part =
        |(first, last): (u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    parts.into_iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    //! Goal: lists are read and told as the kernel writes them.
    use super::*;

    #[test]
    fn lists_go_both_ways() {
        for text in ["0", "0-3", "0-3,8", "1,3,5-7"] {
            assert_eq!(told(&cpu_list(text)), text);
        }
        assert_eq!(cpu_list("\n"), [0_u32; 0]);
        assert_eq!(cpu_list("(null)"), [0_u32; 0]);
    }
}
