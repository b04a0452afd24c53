//! Quirks.
use super::{
    finding::Note,
    host::{Host, Nic},
};
pub(super) fn of(_: &'static str, _: &Host, _: &Nic) -> Vec<Note> {
    Vec::new()
}
pub(super) fn mtu_max(_: &str) -> Option<u32> {
    None
}
