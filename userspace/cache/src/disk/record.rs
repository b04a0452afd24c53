//! One record as it lies on the disk: version, time, checksum, value.

use crate::kind::Stamp;
use ring::digest::{Context, SHA256};

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 8;
const HEAD_BYTES: usize = 1 + 8 + CHECK_BYTES;

/// A value on the disk, and until when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) expires: Stamp,
    pub(crate) value: Vec<u8>,
}

impl Record {
    pub(crate) fn to_bytes(&self, table: &str, key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.value.len());
        bytes.push(VERSION);
        bytes.extend(self.expires.0.to_be_bytes());
        bytes.extend(self.check(table, key));
        bytes.extend(&self.value);
        bytes
    }

    /// `None` for whatever [`Record::to_bytes`] has not written in this table under this key.
    pub(crate) fn from_bytes(table: &str, key: &[u8], bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (check, value) = rest.split_first_chunk::<CHECK_BYTES>()?;
        let record = Self { expires: Stamp(u64::from_be_bytes(*expires)), value: value.to_vec() };
        (version == VERSION && record.check(table, key) == *check).then_some(record)
    }

    /// Part of a SHA-256: against accidents, not against whoever may write the file.
    fn check(&self, table: &str, key: &[u8]) -> [u8; CHECK_BYTES] {
        let mut context = Context::new(&SHA256);
        for part in [table.as_bytes(), key] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.update(&self.expires.0.to_be_bytes());
        context.update(&self.value);
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&context.finish().as_ref()[..CHECK_BYTES]);
        check
    }
}
