//! AF_XDP: the only crate that names xsk-rs and aya.
//!
//! ```text
//!             open(config) ──► Interface (one)                    XskPort (one per queue, in queue order)
//!                              │ XDP program, attached by bpf_link │ UMEM, four rings, owned frames
//!                              │ TARGETS: which addresses are ours │ header templates per path
//!                              │ control thread: netlink mirror ───┴─► routes, neighbours (read by generation)
//!
//!  wire ──► XDP ──► RX ring ──► XskPort::receive ──► worker ──► XskPort::recycle ──► fill ring
//!  wire ◄── TX ring ◄── XskPort::send (headers, checksum, one frame per segment) ◄── worker
//!             └─► completion ring ──► XskPort::send_room
//! ```
//!
//! The LAN side of a tunnel ([`open_lan`], [`LanPort`]) stands on the same rings; its figure is in `lan/mod.rs`. A packet
//! generator's [`RawSocket`] does, too: it only sends, whole frames, and needs no XDP program.
//!
//! Called by the binary at start ([`open`]), by workers on the data path ([`XskPort`]), by housekeeping
//! ([`Interface`]). Keep the `Interface` alive as long as its ports are wanted: dropping it detaches the XDP program,
//! from which moment the kernel gets every packet; dropping a port takes its queue out of the steering map first.
#![allow(
    unsafe_code,
    reason = "rings shared with the kernel, and a few socket options and ioctls nobody wraps"
)]

mod attach;
mod bind;
mod config;
mod detach;
mod device;
mod error;
pub mod ethtool;
mod generation;
mod genl;
mod held;
mod interface;
mod kick;
mod lan;
pub mod look;
mod losses;
mod mirror;
mod netlink;
mod news;
mod port;
mod preflight;
mod queue;
mod quirks;
mod raw;
mod report;
mod rings;
mod stall;
mod sys;
mod targets;
mod templates;

pub use config::{Config, Mode, Queues, ZeroCopy};
pub use detach::{AttachedProgram, attached, detach};
pub use device::Device;
pub use error::{OpenError, TargetsError};
pub use interface::{Interface, open};
pub use lan::{LanInterface, LanPort, LanPrefixes, open_lan};
pub use port::XskPort;
pub use preflight::check_capabilities;
pub use raw::{Flush, RawSocket, RawTally, tx_queue_count};
pub use report::{LinkState, QueueMode, QueueReport, SocketStatistics, Step, Unmirrored};
