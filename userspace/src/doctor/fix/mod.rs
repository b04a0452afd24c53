//! What doctor may turn on a host, and how it is turned back.

#[allow(dead_code, reason = "nothing turns anything yet")]
pub(crate) mod knob;
