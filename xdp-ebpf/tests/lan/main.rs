//! Goal: of a LAN's frames exactly those go into the tunnel that a router would forward there; everything else reaches
//! the kernel, and each frame is counted once.
//! Method: a table of frames whose fate is written down by hand, damaged frames against an oracle that shares no code
//! with the library ([`host`]), and the loaded program against the library ([`program`], as root). BEAM_SEED=N repeats.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../craft/mod.rs"]
mod craft;
mod frames;
mod host;
#[path = "../kernel/mod.rs"]
mod kernel;
mod program;
