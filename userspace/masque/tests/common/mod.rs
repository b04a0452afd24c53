//! Builders of raw frames and raw field sections: what a peer that breaks rules would send.
#![allow(dead_code, reason = "each test binary uses its own part")]

use bytes::Bytes;
use masque::{Item, Message, MessageError, MessageReader, varint};

pub(crate) const DATA: u64 = 0x00;
pub(crate) const HEADERS: u64 = 0x01;

pub(crate) fn varints(values: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|&value| varint::write(&mut out, value));
    out
}

pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [varints(&[kind, payload.len() as u64]), payload.to_vec()].concat()
}

/// Literal names and values, no Huffman, nothing checked. Lengths below 127 + 128.
pub(crate) fn section(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in lines {
        integer(&mut out, 0x20, 7, name.len());
        out.extend_from_slice(name.as_bytes());
        integer(&mut out, 0, 127, value.len());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

fn integer(out: &mut Vec<u8>, flags: u8, mask: usize, value: usize) {
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(crate) fn headers(lines: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, &section(lines))
}

pub(crate) fn connect() -> Vec<u8> {
    headers(&[(":method", "CONNECT"), (":authority", "example.com:443")])
}

pub(crate) fn get() -> Vec<u8> {
    headers(&[(":method", "GET"), (":scheme", "https"), (":authority", "example.com"), (":path", "/")])
}

/// Everything that a stream of exactly these chunks, closed cleanly, comes to.
pub(crate) fn read_chunks<M: Message>(
    reader: &mut MessageReader<M>,
    chunks: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Vec<Item<M>>, MessageError> {
    let mut items = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::from(chunk));
        while let Some(item) = reader.next()? {
            items.push(item);
        }
    }
    reader.finish();
    while let Some(item) = reader.next()? {
        items.push(item);
    }
    Ok(items)
}

/// Short text for items, adjacent DATA joined: two streams that mean the same have the same text.
pub(crate) fn outline<M: Message + std::fmt::Debug>(items: &[Item<M>]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut joined = Vec::new();
    for item in items {
        if let Item::Data(data) = item {
            joined.extend_from_slice(data);
            continue;
        }
        if !joined.is_empty() {
            out.push(format!("data {}", joined.escape_ascii()));
            joined.clear();
        }
        out.push(format!("{item:?}"));
    }
    if !joined.is_empty() {
        out.push(format!("data {}", joined.escape_ascii()));
    }
    out
}
