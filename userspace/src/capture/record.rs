//! What travels from a worker to the plane and from there to the verb: records, one after the other.
//!
//! ```text
//!   length u32 │ kind u8 │ body      (little-endian; `length` counts kind and body)
//! ```

use super::{Interface, Point, Tally, Way};
use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read};

/// The longest record: a whole UDP datagram with its headers and comment fits several times.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;

const PACKET: u8 = 1;
const INTERFACE: u8 = 2;
const SECRETS: u8 = 3;
const TALLY: u8 = 4;
const QLOG_BEGIN: u8 = 5;
const QLOG_RECORD: u8 = 6;
const QLOG_END: u8 = 7;
const END: u8 = 8;

/// Bytes of a packet's record in front of its comment, `length` included.
pub(crate) const PACKET_HEAD_BYTES: usize = 4 + 1 + 1 + 1 + 2 + 8 + 4 + 1;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    pub(crate) point: Point,
    pub(crate) way: Way,
    pub(crate) interface: u16,
    /// Since 1970.
    pub(crate) at_ns: u64,
    /// Before it was cut to the snap length.
    pub(crate) wire_bytes: u32,
    /// Empty: none.
    pub(crate) comment: &'a str,
    pub(crate) bytes: &'a [u8],
}

/// A connection whose qlog begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QlogBegin {
    pub(crate) number: u32,
    /// Its original destination CID, in hex digits.
    pub(crate) odcid: String,
}

/// Any record.
#[derive(Debug)]
pub(crate) enum Record<'a> {
    Packet(Packet<'a>),
    Interface(Interface),
    /// Lines in the format of NSS.
    Secrets(&'a str),
    Tally(Tally),
    QlogBegin(QlogBegin),
    QlogEvent {
        number: u32,
        json: &'a [u8],
    },
    QlogEnd {
        number: u32,
    },
    /// The daemon has said everything.
    End,
}

/// Appends a packet's record; its bytes are `head` and then `body`, together `kept_bytes` at most.
pub(crate) fn put_packet(out: &mut Vec<u8>, packet: &Packet<'_>, body: &[u8], kept_bytes: usize) {
    let head = &packet.bytes[..packet.bytes.len().min(kept_bytes)];
    let body = &body[..body.len().min(kept_bytes - head.len())];
    let comment = &packet.comment.as_bytes()[..packet.comment.len().min(255)];
    let length = PACKET_HEAD_BYTES - 4 + comment.len() + head.len() + body.len();
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&[PACKET, packet.point as u8, packet.way as u8]);
    out.extend_from_slice(&packet.interface.to_le_bytes());
    out.extend_from_slice(&packet.at_ns.to_le_bytes());
    out.extend_from_slice(&packet.wire_bytes.to_le_bytes());
    out.push(comment.len() as u8);
    out.extend_from_slice(comment);
    out.extend_from_slice(head);
    out.extend_from_slice(body);
}

fn put(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32 + 1).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(body);
}

fn put_json(out: &mut Vec<u8>, kind: u8, body: &impl Serialize) {
    // Plain structs of numbers and strings can't fail.
    put(out, kind, &serde_json::to_vec(body).unwrap_or_default());
}

pub(crate) fn put_interface(out: &mut Vec<u8>, interface: &Interface) {
    put_json(out, INTERFACE, interface);
}

pub(crate) fn put_secrets(out: &mut Vec<u8>, lines: &str) {
    put(out, SECRETS, lines.as_bytes());
}

pub(crate) fn put_tally(out: &mut Vec<u8>, tally: &Tally) {
    put_json(out, TALLY, tally);
}

pub(crate) fn put_qlog_begin(out: &mut Vec<u8>, begin: &QlogBegin) {
    put_json(out, QLOG_BEGIN, begin);
}

pub(crate) fn put_qlog_record(out: &mut Vec<u8>, number: u32, json: &[u8]) {
    out.extend_from_slice(&(json.len() as u32 + 5).to_le_bytes());
    out.push(QLOG_RECORD);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(json);
}

pub(crate) fn put_qlog_end(out: &mut Vec<u8>, number: u32) {
    put(out, QLOG_END, &number.to_le_bytes());
}

pub(crate) fn put_end(out: &mut Vec<u8>) {
    put(out, END, &[]);
}

/// Splits the first record off: its kind with its body, and what follows.
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// When a packet's record says that it was seen; of others, the beginning of time.
pub(crate) fn time_of(record: &[u8]) -> u64 {
    match record {
        [PACKET, _, _, _, _, rest @ ..] => rest.first_chunk().map_or(0, |at| u64::from_le_bytes(*at)),
        _ => 0,
    }
}

/// Reads one record into `buffer`; false at the end of the stream.
pub(crate) fn read(from: &mut impl Read, buffer: &mut Vec<u8>) -> anyhow::Result<bool> {
    let mut length = [0; 4];
    let mut got = 0;
    while got < length.len() {
        match from.read(&mut length[got..]) {
            Ok(0) if got == 0 => return Ok(false),
            Ok(0) => bail!("the daemon broke off in the middle of a record"),
            Ok(n) => got += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length == 0 || length > RECORD_BYTES_MAX {
        bail!("a record of {length} bytes, but 1 to {RECORD_BYTES_MAX} are possible");
    }
    buffer.resize(length, 0);
    from.read_exact(buffer).context("the daemon broke off in the middle of a record")?;
    Ok(true)
}

/// What a record says.
pub(crate) fn parse(record: &[u8]) -> anyhow::Result<Record<'_>> {
    let short = || anyhow!("a record ends too early");
    let (&kind, body) = record.split_first().ok_or_else(short)?;
    Ok(match kind {
        PACKET => Record::Packet(packet(body).ok_or_else(short)?),
        INTERFACE => Record::Interface(serde_json::from_slice(body)?),
        SECRETS => Record::Secrets(std::str::from_utf8(body)?),
        TALLY => Record::Tally(serde_json::from_slice(body)?),
        QLOG_BEGIN => Record::QlogBegin(serde_json::from_slice(body)?),
        QLOG_RECORD => {
            let (number, json) = body.split_first_chunk().ok_or_else(short)?;
            Record::QlogEvent { number: u32::from_le_bytes(*number), json }
        }
        QLOG_END => Record::QlogEnd { number: u32::from_le_bytes(*body.first_chunk().ok_or_else(short)?) },
        END => Record::End,
        other => bail!("a record of kind {other}, which this version doesn't know"),
    })
}

fn packet(body: &[u8]) -> Option<Packet<'_>> {
    let ([point, way, interface0, interface1], rest) = body.split_first_chunk()?;
    let (at, rest) = rest.split_first_chunk()?;
    let (wire_bytes, rest) = rest.split_first_chunk()?;
    let (&comment_bytes, rest) = rest.split_first()?;
    let (comment, bytes) = rest.split_at_checked(usize::from(comment_bytes))?;
    Some(Packet {
        point: *Point::ALL.get(usize::from(*point))?,
        way: if *way == Way::In as u8 { Way::In } else { Way::Out },
        interface: u16::from_le_bytes([*interface0, *interface1]),
        at_ns: u64::from_le_bytes(*at),
        wire_bytes: u32::from_le_bytes(*wire_bytes),
        comment: std::str::from_utf8(comment).ok()?,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    //! Goal: records read back as they were put, and no bytes at all make the reader panic.
    use super::*;
    use rand::{RngExt, SeedableRng};

    const PACKET_SEEN: Packet<'static> = Packet {
        point: Point::Drop,
        way: Way::In,
        interface: 0x0102,
        at_ns: 1_700_000_000_123_456_789,
        wire_bytes: 9,
        comment: "why",
        bytes: &[1, 2, 3, 4],
    };

    #[test]
    fn a_packet_reads_back_and_is_cut_behind_the_snap_length() {
        for (kept, bytes) in
            [(9, &[1, 2, 3, 4, 5, 6, 7, 8, 9][..]), (6, &[1, 2, 3, 4, 5, 6]), (2, &[1, 2]), (0, &[])]
        {
            let mut out = Vec::new();
            put_packet(&mut out, &PACKET_SEEN, &[5, 6, 7, 8, 9], kept);
            put_end(&mut out);
            let (record, rest) = split(&out).unwrap();
            assert_eq!(time_of(record), PACKET_SEEN.at_ns);
            let Record::Packet(packet) = parse(record).unwrap() else { panic!("a packet") };
            assert_eq!(packet, Packet { bytes, ..PACKET_SEEN });
            let (record, rest) = split(rest).unwrap();
            assert!(matches!(parse(record).unwrap(), Record::End) && rest.is_empty());
        }
    }

    #[test]
    fn the_others_read_back() {
        let interface = Interface { id: 7, name: "eth0".into(), description: "queue 1".into(), link: 1 };
        let begin = QlogBegin { number: 3, odcid: "c0ffee".into() };
        let mut out = Vec::new();
        put_interface(&mut out, &interface);
        put_secrets(&mut out, "A B C\n");
        put_qlog_begin(&mut out, &begin);
        put_qlog_record(&mut out, 3, b"{}");
        put_qlog_end(&mut out, 3);
        put_tally(&mut out, &Tally { secrets_missed: 5, ..Tally::default() });
        let mut from = &out[..];
        let mut buffer = Vec::new();
        let mut next = || {
            assert!(read(&mut from, &mut buffer).unwrap());
            format!("{:?}", parse(&buffer).unwrap())
        };
        assert_eq!(next(), format!("Interface({interface:?})"));
        assert_eq!(next(), r#"Secrets("A B C\n")"#);
        assert_eq!(next(), format!("QlogBegin({begin:?})"));
        assert_eq!(next(), "QlogEvent { number: 3, json: [123, 125] }");
        assert_eq!(next(), "QlogEnd { number: 3 }");
        assert!(next().contains("secrets_missed: 5"));
        assert!(!read(&mut from, &mut buffer).unwrap(), "the end");
    }

    #[test]
    fn rubbish_is_an_error() {
        let seed = 20_261_126;
        println!("seed {seed}");
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let mut buffer = Vec::new();
        for _ in 0..20_000 {
            let mut bytes = vec![0; rng.random_range(0..64)];
            rng.fill(&mut bytes[..]);
            if let Some(kind) = bytes.first_mut() {
                *kind %= 10;
            }
            let _ = parse(&bytes);
            let _ = split(&bytes);
            let _ = read(&mut &bytes[..], &mut buffer);
        }
        let long = (RECORD_BYTES_MAX as u32 + 1).to_le_bytes();
        assert!(read(&mut &long[..], &mut buffer).is_err());
        assert!(read(&mut &[2, 0, 0, 0, 1][..], &mut buffer).is_err());
    }
}
