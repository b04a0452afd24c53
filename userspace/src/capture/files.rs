//! The qlog files of `beam capture --qlog DIR`: one for each connection, named by its original destination CID.
//!
//! A file is JSON text sequences (RFC 7464), as qlog 0.3 has them and qvis opens them. quinn leaves open who writes and
//! when it began; that is filled in here, in the first record. Disk is bounded: [`FILE_BYTES_MAX`] a file, [`FILES_MAX`]
//! files a run. Names are hex digits, files are new and 0600, and no link is followed.

use super::Granted;
use crate::failure::Failure;
use anyhow::{Context, anyhow};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, mkdir, open, openat},
    io::Errno,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// A record that would lead beyond this is left out, and so are all that follow.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 20;
pub(crate) const FILES_MAX: usize = 4096;
/// Files open at once; connections beyond it have none.
const OPEN_MAX: usize = 512;

/// RFC 7464: what begins a record.
const RECORD_SEPARATOR: u8 = 0x1E;

/// See the module.
pub(crate) struct Files {
    directory: OwnedFd,
    path: PathBuf,
    about: Granted,
    open: HashMap<u32, Log>,
    /// Files made.
    pub(crate) file_count: usize,
    /// Records written, those of the files' heads included.
    pub(crate) record_count: u64,
    /// Connections and records that were left out.
    pub(crate) left_out: u64,
}

struct Log {
    file: BufWriter<File>,
    odcid: String,
    written_bytes: u64,
    record_count: u64,
}

impl Files {
    /// Opens the directory, and makes it if need be.
    pub(crate) fn in_directory(path: &Path, about: Granted) -> Result<Self, Failure> {
        match mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(Failure::Runtime(anyhow!("can't make {} for --qlog: {error}", path.display())));
            }
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty())
            .with_context(|| format!("--qlog {}: can't open it as a directory", path.display()))
            .map_err(Failure::Runtime)?;
        Ok(Self {
            directory,
            path: path.to_owned(),
            about,
            open: HashMap::new(),
            file_count: 0,
            record_count: 0,
            left_out: 0,
        })
    }

    /// Where they are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A connection begins.
    pub(crate) fn begin(&mut self, number: u32, odcid: &str) -> Result<(), Failure> {
        let is_sane = (1..=40).contains(&odcid.len()) && odcid.bytes().all(|c| c.is_ascii_hexdigit());
        if !is_sane || self.file_count >= FILES_MAX || self.open.len() >= OPEN_MAX {
            self.left_out += 1;
            return Ok(());
        }
        let name = format!("{odcid}.sqlog");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = match openat(&self.directory, &name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => file,
            // Not ours to touch, whatever it is.
            Err(Errno::EXIST) => {
                self.left_out += 1;
                return Ok(());
            }
            Err(error) => {
                let path = self.path.join(name);
                return Err(Failure::Runtime(anyhow!("can't make {}: {error}", path.display())));
            }
        };
        let log = Log {
            file: BufWriter::new(File::from(file)),
            odcid: odcid.to_owned(),
            written_bytes: 0,
            record_count: 0,
        };
        self.open.insert(number, log);
        self.file_count += 1;
        Ok(())
    }

    /// One record of a connection.
    pub(crate) fn record(&mut self, number: u32, record: &[u8]) -> Result<(), Failure> {
        let Some(log) = self.open.get_mut(&number) else {
            self.left_out += 1;
            return Ok(());
        };
        let head;
        let mut record = record;
        if log.record_count == 0 {
            head = complete(record, &log.odcid, &self.about).unwrap_or_else(|| record.to_vec());
            record = &head;
        }
        if log.written_bytes + record.len() as u64 > FILE_BYTES_MAX {
            self.left_out += 1;
            // A shorter one that fits would stand behind a gap.
            log.written_bytes = FILE_BYTES_MAX;
            return Ok(());
        }
        log.written_bytes += record.len() as u64;
        log.record_count += 1;
        self.record_count += 1;
        let written = log.file.write_all(record);
        written.with_context(|| full(&self.path)).map_err(Failure::Runtime)
    }

    /// A connection has ended.
    pub(crate) fn end(&mut self, number: u32) -> Result<(), Failure> {
        let Some(mut log) = self.open.remove(&number) else { return Ok(()) };
        log.file.flush().with_context(|| full(&self.path)).map_err(Failure::Runtime)
    }

    /// All have.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let numbers: Vec<u32> = self.open.keys().copied().collect();
        numbers.into_iter().try_for_each(|number| self.end(number))
    }
}

fn full(path: &Path) -> String {
    format!("can't write a qlog in {}: is there room? see df {}", path.display(), path.display())
}

/// The first record, with what quinn leaves open: whose view it is, and when its times begin.
fn complete(record: &[u8], odcid: &str, about: &Granted) -> Option<Vec<u8>> {
    let (&RECORD_SEPARATOR, json) = record.split_first()? else { return None };
    let mut head: Value = serde_json::from_slice(json).ok()?;
    let is_gateway = about.role == "gateway";
    head["title"] = json!(format!("beam {}, connection {odcid}", about.role));
    let trace = head.get_mut("trace")?.as_object_mut()?;
    trace.insert(
        "vantage_point".to_owned(),
        json!({
            "name": format!("beam {} {}", about.role, about.version),
            "type": if is_gateway { "server" } else { "client" },
        }),
    );
    trace.insert(
        "common_fields".to_owned(),
        json!({
            "ODCID": odcid,
            "time_format": "relative",
            "reference_time": about.wall_ns as f64 / 1e6,
        }),
    );
    let mut out = vec![RECORD_SEPARATOR];
    serde_json::to_writer(&mut out, &head).ok()?;
    out.push(b'\n');
    Some(out)
}

#[cfg(test)]
mod tests {
    //! Goal: files that a reader of qlog takes, in bounded number, where no other file or link is touched.
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn about() -> Granted {
        Granted {
            id: 1,
            role: "gateway".into(),
            version: "9".into(),
            wall_ns: 1_700_000_000_000_000_000,
            notes: Vec::new(),
        }
    }

    const HEAD: &[u8] =
        b"\x1e{\"qlog_version\":\"0.3\",\"qlog_format\":\"JSON-SEQ\",\"trace\":{\"vantage_point\":{\"type\":\"unknown\"}}}\n";

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("beam-qlog-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_file_says_whose_view_it_is() {
        let path = directory("view");
        let mut files = Files::in_directory(&path, about()).unwrap();
        files.begin(7, "c0ffee").unwrap();
        files.record(7, HEAD).unwrap();
        files.record(7, b"\x1e{\"time\":1}\n").unwrap();
        files.record(8, b"\x1e{\"of\":\"nobody\"}\n").unwrap();
        files.finish().unwrap();
        let file = path.join("c0ffee.sqlog");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read(&file).unwrap();
        let records: Vec<Value> = text
            .split(|byte| *byte == RECORD_SEPARATOR)
            .skip(1)
            .map(|record| serde_json::from_slice(record).unwrap())
            .collect();
        assert_eq!(records[0]["qlog_version"], "0.3");
        assert_eq!(records[0]["trace"]["vantage_point"]["type"], "server");
        assert_eq!(records[0]["trace"]["common_fields"]["ODCID"], "c0ffee");
        assert_eq!(records[0]["trace"]["common_fields"]["reference_time"], 1.7e12);
        assert_eq!(records[1], json!({"time": 1}));
        assert_eq!((files.file_count, files.record_count, files.left_out), (1, 2, 1));
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn nothing_that_is_there_is_touched_and_no_name_leads_elsewhere() {
        let path = directory("links");
        let mut files = Files::in_directory(&path, about()).unwrap();
        let victim = path.join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, path.join("aa.sqlog")).unwrap();
        std::os::unix::fs::symlink(path.join("nowhere"), path.join("bb.sqlog")).unwrap();
        fs::write(path.join("cc.sqlog"), "old").unwrap();
        for (number, odcid) in ["aa", "bb", "cc", "../dd", "", "gg", &"a".repeat(41)].iter().enumerate() {
            files.begin(number as u32, odcid).unwrap();
            files.record(number as u32, HEAD).unwrap();
        }
        files.finish().unwrap();
        assert_eq!((files.file_count, files.left_out), (0, 14));
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read(path.join("cc.sqlog")).unwrap(), b"old");
        assert!(!path.join("nowhere").exists());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_file_has_a_limit() {
        let path = directory("limit");
        let mut files = Files::in_directory(&path, about()).unwrap();
        files.begin(0, "ab").unwrap();
        files.record(0, HEAD).unwrap();
        let record = [&b"\x1e\""[..], &vec![b'x'; (1 << 20) - 4], b"\"\n"].concat();
        for _ in 0..70 {
            files.record(0, &record).unwrap();
        }
        files.record(0, b"\x1e{}\n").unwrap();
        files.finish().unwrap();
        let bytes = fs::metadata(path.join("ab.sqlog")).unwrap().len();
        assert!((FILE_BYTES_MAX - (1 << 20)..=FILE_BYTES_MAX).contains(&bytes), "{bytes}");
        assert_eq!(files.left_out, 70 - 63 + 1);
        fs::remove_dir_all(&path).unwrap();
    }
}
