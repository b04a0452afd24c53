//! The undo journal: what beam turned on this host, and what was there before. It survives `kill -9` at any point.
//!
//! ```text
//!  fix    {"line":"intent","step":7,"knob":...,"before":"9000","after":"3818",...}   on the disk BEFORE the knob is turned
//!         (the knob is turned)
//!         {"line":"done","step":7,"reads":"3818"}      or   {"line":"failed","step":7,"why":"..."}
//!  undo   (the knob is turned back)
//!         {"line":"closed","step":7,"how":"restored"}
//! ```
//! One file, only ever appended to, one JSON object a line, each flushed to the disk. A line that was cut off by a crash
//! was never relied upon, so it is left out, and cut away before the next one is written. An intent without an end
//! stands for a knob that was or wasn't turned: undo looks. When no step is open the file begins anew.

use super::knob::{Change, Knob};
use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The file in the state directory.
const FILE_NAME: &str = "doctor.journal";
/// A host has some hundreds of knobs at most; a journal that is longer is none of ours.
const BYTES_MAX: u64 = 4 << 20;
/// Steps that wait to be undone.
const OPEN_MAX: usize = 4096;

/// Where and when a knob was turned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The kernel's id of its boot: what it held is gone after the next.
    pub(crate) boot: String,
    /// Inode of the network namespace.
    pub(crate) netns: u64,
    /// Index of the interface, where the knob is of one: another may get its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<u32>,
    /// When, in seconds since 1970.
    pub(crate) unix_s: u64,
}

/// A knob about to be turned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) knob: Knob,
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) place: Place,
}

/// How a step was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Closed {
    /// Turned back.
    Restored,
    /// It was as before already: the crash came first, or somebody else turned it back.
    AsBefore,
    /// Of an earlier boot: the kernel has forgotten it.
    OtherBoot,
    /// The interface is gone, and its setting with it.
    Gone,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "line")]
enum Line {
    Intent {
        step: u64,
        #[serde(flatten)]
        intent: Intent,
    },
    /// The knob reads so since.
    Done {
        step: u64,
        reads: String,
    },
    /// The kernel refused, and nothing has changed.
    Failed {
        step: u64,
        why: String,
    },
    Closed {
        step: u64,
        how: Closed,
    },
}

/// A step that is to be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) number: u64,
    pub(crate) intent: Intent,
    /// What the knob read after it was turned; `None` when beam was killed before it looked.
    pub(crate) reads: Option<String>,
}

/// What the lines come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    /// Oldest first.
    open: Vec<Step>,
    next_step: u64,
    /// Numbers of whole lines that make no sense.
    unreadable: Vec<usize>,
    /// Bytes up to the end of the last whole line.
    whole_bytes: usize,
}

impl Contents {
    fn read(bytes: &[u8]) -> Self {
        let whole_bytes = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        let mut contents = Self { whole_bytes, ..Self::default() };
        for (index, line) in bytes[..whole_bytes].split(|&byte| byte == b'\n').enumerate() {
            match serde_json::from_slice(line) {
                Ok(line) => contents.take(line),
                Err(_) if line.is_empty() => {}
                Err(_) => contents.unreadable.push(index + 1),
            }
        }
        contents
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Intent { step, intent } => {
                self.next_step = self.next_step.max(step.saturating_add(1));
                self.open.push(Step { number: step, intent, reads: None });
            }
            Line::Done { step, reads } => {
                if let Some(step) = self.open.iter_mut().find(|open| open.number == step) {
                    step.reads = Some(reads);
                }
            }
            Line::Failed { step, .. } | Line::Closed { step, .. } => {
                self.open.retain(|open| open.number != step);
            }
        }
    }
}

/// The journal, held by this process alone.
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    contents: Contents,
}

/// Where it is.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

/// The steps that wait to be undone, without holding the journal or touching it.
pub(crate) fn peek(state_dir: &Path) -> anyhow::Result<Vec<Step>> {
    let path = path(state_dir);
    match fs::read(&path) {
        Ok(bytes) => Ok(Contents::read(&bytes).open),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(anyhow!("can't read the undo journal {}: {error}; run it as root", path.display())),
    }
}

/// Refuses what somebody else could have written: its steps are taken with all privileges.
fn ours_alone(path: &Path, metadata: &Metadata) -> anyhow::Result<()> {
    let us = rustix::process::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner == us && mode & 0o022 == 0 && !metadata.is_symlink() {
        return Ok(());
    }
    Err(anyhow!(
        "the undo journal must be out of others' reach, and {} has owner {owner} and mode {mode:04o}; needed are owner {us} \
         and no writing by others: see what it holds, then mend it or give --state-dir DIR",
        path.display()
    ))
}

impl Journal {
    /// Opens it, and makes it where there is none.
    pub(crate) fn open(state_dir: &Path) -> anyhow::Result<Self> {
        let path = path(state_dir);
        let advice = || {
            format!(
                "can't keep the undo journal {}, without which nothing is changed; run it as root, or give --state-dir DIR",
                path.display()
            )
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).with_context(advice)?;
        ours_alone(state_dir, &fs::symlink_metadata(state_dir).with_context(advice)?)?;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let mut file = options.open(&path).with_context(advice)?;
        ours_alone(&path, &file.metadata().with_context(advice)?)?;
        // A new file is there after a crash only once its directory is on the disk.
        File::open(state_dir).and_then(|directory| directory.sync_all()).with_context(advice)?;
        let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::flock(&file, lock).map_err(|_| {
            anyhow!("another beam holds the undo journal {}; try again when it is done", path.display())
        })?;
        let length = file.metadata().with_context(advice)?.len();
        if length > BYTES_MAX {
            return Err(anyhow!(
                "the undo journal {} has {length} bytes, more than the {BYTES_MAX} that it may have; undo what it holds \
                 (beam doctor --undo), or move it away",
                path.display()
            ));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(advice)?;
        let contents = Contents::read(&bytes);
        let mut journal = Self { file, path, contents };
        journal.cut(bytes.len())?;
        Ok(journal)
    }

    /// Cuts a torn line away; and everything, when all of it is settled.
    fn cut(&mut self, length: usize) -> anyhow::Result<()> {
        let settled = self.contents.open.is_empty() && self.contents.unreadable.is_empty();
        let keep = if settled { 0 } else { self.contents.whole_bytes };
        if keep < length {
            self.file.set_len(keep as u64)?;
            self.file.sync_all()?;
            self.file.seek(SeekFrom::End(0))?;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Steps that wait to be undone, oldest first.
    pub(crate) fn open_steps(&self) -> &[Step] {
        &self.contents.open
    }

    /// Numbers of the lines that make no sense: somebody edited the file, or the disk lost them.
    pub(crate) fn unreadable(&self) -> &[usize] {
        &self.contents.unreadable
    }

    /// Says what is about to be done. Only after this may the knob be turned.
    pub(crate) fn intend(&mut self, change: &Change, before: &str, place: Place) -> anyhow::Result<u64> {
        if self.contents.open.len() >= OPEN_MAX {
            return Err(anyhow!(
                "the undo journal {} has {OPEN_MAX} open steps, which is as many as it may; undo them: beam doctor --undo",
                self.path.display()
            ));
        }
        let step = self.contents.next_step;
        let Change { knob, to } = change.clone();
        let intent = Intent { knob, before: before.to_owned(), after: to, place };
        self.append(Line::Intent { step, intent })?;
        Ok(step)
    }

    /// The knob was turned, and reads so.
    pub(crate) fn done(&mut self, step: u64, reads: &str) -> anyhow::Result<()> {
        self.append(Line::Done { step, reads: reads.to_owned() })
    }

    /// The kernel refused: nothing has changed.
    pub(crate) fn failed(&mut self, step: u64, why: &str) -> anyhow::Result<()> {
        self.append(Line::Failed { step, why: why.to_owned() })
    }

    /// There is nothing more to undo about it.
    pub(crate) fn close(&mut self, step: u64, how: Closed) -> anyhow::Result<()> {
        self.append(Line::Closed { step, how })
    }

    fn append(&mut self, line: Line) -> anyhow::Result<()> {
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("can't write to the undo journal {}", self.path.display()))?;
        self.contents.take(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: whatever a crash leaves of the file, what was settled is read, what was begun is known, and writing goes on.
    //! Method: a journal cut at every byte, read and written on; and lines that make no sense among good ones.
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("beam-journal-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn place() -> Place {
        Place { boot: "b".into(), netns: 1, index: Some(3), unix_s: 1_795_000_000 }
    }

    fn mtu(to: &str) -> Change {
        Change { knob: Knob::Mtu { interface: "g0".into() }, to: to.into() }
    }

    /// Three steps: one restored, one done, one begun.
    fn write(directory: &Path) -> Vec<u8> {
        let mut journal = Journal::open(directory).unwrap();
        for (step, to) in ["1400", "1300", "1280"].into_iter().enumerate() {
            assert_eq!(journal.intend(&mtu(to), "1500", place()).unwrap(), step as u64);
            if step < 2 {
                journal.done(step as u64, to).unwrap();
            }
        }
        journal.close(0, Closed::Restored).unwrap();
        fs::read(path(directory)).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = Directory::new("read");
        write(&directory.0);
        let journal = Journal::open(&directory.0).unwrap();
        let open: Vec<_> =
            journal.open_steps().iter().map(|step| (step.number, step.reads.clone())).collect();
        assert_eq!(open, [(1, Some("1300".into())), (2, None)]);
        assert_eq!(journal.open_steps()[0].intent.before, "1500");
        assert_eq!(peek(&directory.0).unwrap(), journal.open_steps());
        assert!(Journal::open(&directory.0).is_err_and(|error| error.to_string().contains("another beam")));
    }

    #[test]
    fn cut_at_every_byte() {
        let directory = Directory::new("cut");
        let whole = write(&directory.0);
        for length in 0..=whole.len() {
            fs::write(path(&directory.0), &whole[..length]).unwrap();
            // As the lines that are whole say, and no more.
            let lines = whole[..length].iter().filter(|&&byte| byte == b'\n').count();
            let opened = |steps: &[Step]| steps.iter().map(|step| step.number).collect::<Vec<_>>();
            let expected: &[u64] = match lines {
                0 => &[],
                1 | 2 => &[0],
                3 | 4 => &[0, 1],
                5 => &[0, 1, 2],
                _ => &[1, 2],
            };
            let mut journal = Journal::open(&directory.0).unwrap();
            assert_eq!(opened(journal.open_steps()), expected, "cut at {length}");
            assert!(journal.unreadable().is_empty(), "cut at {length}");
            let next = journal.intend(&mtu("1290"), "1500", place()).unwrap();
            assert!(!expected.contains(&next), "cut at {length}: step {next} twice");
            drop(journal);
            let journal = Journal::open(&directory.0).unwrap();
            assert_eq!(opened(journal.open_steps()), [expected, &[next]].concat(), "cut at {length}");
            assert!(journal.unreadable().is_empty(), "cut at {length}");
        }
    }

    #[test]
    fn a_settled_journal_begins_anew() {
        let directory = Directory::new("settled");
        write(&directory.0);
        let mut journal = Journal::open(&directory.0).unwrap();
        journal.close(1, Closed::AsBefore).unwrap();
        journal.failed(2, "refused").unwrap();
        drop(journal);
        assert!(Journal::open(&directory.0).unwrap().open_steps().is_empty());
        assert_eq!(fs::metadata(path(&directory.0)).unwrap().len(), 0);
    }

    #[test]
    fn lines_that_make_no_sense_are_told_and_kept() {
        let directory = Directory::new("nonsense");
        let mut bytes = write(&directory.0);
        bytes.splice(0..0, b"{\"line\":\"intent\"}\nnonsense\n\xff\n".iter().copied());
        fs::write(path(&directory.0), &bytes).unwrap();
        let journal = Journal::open(&directory.0).unwrap();
        assert_eq!(journal.unreadable(), [1, 2, 3]);
        assert_eq!(journal.open_steps().len(), 2);
        assert_eq!(fs::read(path(&directory.0)).unwrap(), bytes);
    }
}
