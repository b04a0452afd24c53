//! qlog of connections: what quinn writes, record by record, on its way to the plane.
//!
//! quinn serialises its events where they happen, in the worker, under a mutex that is the connection's own: nobody
//! contends for it. Writing into [`Writer`] neither blocks nor does I/O: a whole record goes into a bounded queue, or is
//! missed. A connection keeps its log for as long as it lives; once the capture is over its writer throws everything away, but
//! quinn goes on serialising (about a microsecond an event) until the connection ends: the transport's configuration
//! can't be changed under way.

use super::record::{self, QlogBegin};
use crossbeam::queue::ArrayQueue;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

/// Records and their bytes that wait for the plane.
pub(crate) const QUEUE_BYTES_MAX: usize = 8 << 20;
const QUEUE_RECORDS_MAX: usize = 32_768;
/// The longest record: quinn's are below one kilobyte.
const RECORD_BYTES_MAX: usize = 64 << 10;

enum Entry {
    Begin(QlogBegin),
    Record(u32, Box<[u8]>),
    End(u32),
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Self::Record(_, json) => json.len(),
            Self::Begin(_) | Self::End(_) => 0,
        }
    }
}

/// The logs of one capture.
pub(crate) struct Logs {
    queue: ArrayQueue<Entry>,
    queued_bytes: AtomicUsize,
    next: AtomicU32,
    is_open: AtomicBool,
    records_missed: AtomicU64,
    connections_missed: AtomicU64,
}

impl Logs {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: ArrayQueue::new(QUEUE_RECORDS_MAX),
            queued_bytes: AtomicUsize::new(0),
            next: AtomicU32::new(0),
            is_open: AtomicBool::new(true),
            records_missed: AtomicU64::new(0),
            connections_missed: AtomicU64::new(0),
        })
    }

    /// The writer of a new connection's log; `None`, and it has none, where the queue is full.
    pub(crate) fn begin(self: &Arc<Self>, odcid: &[u8]) -> Option<Writer> {
        if !self.is_open.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let odcid = odcid.iter().map(|byte| format!("{byte:02x}")).collect();
        if !self.push(Entry::Begin(QlogBegin { number, odcid })) {
            self.connections_missed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Writer { logs: self.clone(), number, record: Vec::new(), is_lost: false })
    }

    fn push(&self, entry: Entry) -> bool {
        let bytes = entry.bytes();
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUE_BYTES_MAX
            && self.queue.push(entry).is_ok()
        {
            return true;
        }
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        false
    }

    /// Appends what waits, as records.
    pub(crate) fn take(&self, out: &mut Vec<u8>) {
        for entry in std::iter::from_fn(|| self.queue.pop()).take(QUEUE_RECORDS_MAX) {
            self.queued_bytes.fetch_sub(entry.bytes(), Ordering::Relaxed);
            match entry {
                Entry::Begin(begin) => record::put_qlog_begin(out, &begin),
                Entry::Record(number, json) => record::put_qlog_record(out, number, &json),
                Entry::End(number) => record::put_qlog_end(out, number),
            }
        }
    }

    /// Records and connections that found no room.
    pub(crate) fn missed(&self) -> (u64, u64) {
        (self.records_missed.load(Ordering::Relaxed), self.connections_missed.load(Ordering::Relaxed))
    }

    /// The capture is over: writers throw away what they get.
    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::Relaxed);
    }
}

/// What quinn writes one connection's log into.
pub(crate) struct Writer {
    logs: Arc<Logs>,
    number: u32,
    /// What there is of a record, which ends with a newline; JSON has none inside.
    record: Vec<u8>,
    /// The record is too long, and its rest isn't wanted.
    is_lost: bool,
}

impl Writer {
    fn end_record(&mut self) {
        let json = std::mem::take(&mut self.record).into_boxed_slice();
        let lost = std::mem::take(&mut self.is_lost);
        if lost || !self.logs.push(Entry::Record(self.number, json)) {
            self.logs.records_missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl io::Write for Writer {
    /// Never fails: quinn would say so in the log for each event.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.logs.is_open.load(Ordering::Relaxed) {
            self.record = Vec::new();
            return Ok(bytes.len());
        }
        if self.record.len() + bytes.len() <= RECORD_BYTES_MAX {
            self.record.extend_from_slice(bytes);
        } else {
            self.is_lost = true;
        }
        if bytes.last() == Some(&b'\n') {
            self.end_record();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Where it finds no room the verb closes the file at its own end.
        let _ = self.logs.push(Entry::End(self.number));
    }
}

#[cfg(test)]
mod tests {
    //! Goal: whole records or none, in bounded memory, and nothing once it is over.
    use super::*;
    use crate::capture::record::Record;
    use std::io::Write as _;

    /// What the plane would send, in words.
    fn said(logs: &Logs) -> Vec<String> {
        let (mut out, mut said) = (Vec::new(), Vec::new());
        logs.take(&mut out);
        let mut rest = &out[..];
        while let Some((record, after)) = record::split(rest) {
            rest = after;
            said.push(match record::parse(record).unwrap() {
                Record::QlogBegin(begin) => format!("{} begins {}", begin.number, begin.odcid),
                Record::QlogEvent { number, json } => {
                    format!("{number} {:?}", String::from_utf8_lossy(json))
                }
                Record::QlogEnd { number } => format!("{number} ends"),
                other => format!("{other:?}"),
            });
        }
        said
    }

    #[test]
    fn records_are_whole() {
        let logs = Logs::new();
        let mut writer = logs.begin(&[0xc0, 0x01]).unwrap();
        for part in [&b"\x1e"[..], b"{\"a\"", b":1}", b"\n", b"\x1e{}\n", b"\x1e{\"half"] {
            writer.write_all(part).unwrap();
        }
        drop(writer);
        assert_eq!(said(&logs), ["0 begins c001", r#"0 "\u{1e}{\"a\":1}\n""#, r#"0 "\u{1e}{}\n""#, "0 ends"]);
        assert_eq!(logs.missed(), (0, 0));
    }

    #[test]
    fn a_full_queue_and_a_monstrous_record_are_missed_and_counted() {
        let logs = Logs::new();
        let mut writer = logs.begin(&[1]).unwrap();
        writer.write_all(&vec![b'x'; RECORD_BYTES_MAX + 1]).unwrap();
        writer.write_all(b"\n").unwrap();
        assert_eq!(logs.missed(), (1, 0));
        let mut record = vec![b'y'; 1 << 15];
        record.push(b'\n');
        let fits = QUEUE_BYTES_MAX / record.len();
        for _ in 0..fits + 5 {
            writer.write_all(&record).unwrap();
        }
        assert_eq!(logs.missed(), (1 + 5, 0));
        assert_eq!(said(&logs).len(), 1 + fits);
        logs.close();
        writer.write_all(&record).unwrap();
        assert!(said(&logs).is_empty() && logs.begin(&[2]).is_none());
    }
}
