//! The steering verdict and the map layout: what the XDP program decides and what it shares with userspace.
//!
//! ```text
//!  frame ──► verdict ──┬── Ours ──────► XSKS[rx queue] ──► AF_XDP socket, or the kernel when the queue has none
//!                      ├── NotOurs ───► kernel (XDP_PASS)
//!                      └── Malformed ─► dropped (XDP_DROP)          each under exactly one Counter
//! ```
//!
//! A redirect into an AF_XDP socket works only on the queue that the socket is bound to, so the verdict says *ours or
//! not*, never *which core*. The same code runs in the kernel (`main.rs`) and in tests on the host, where it is the
//! oracle for what the kernel answers. `xsk` loads [`OBJECT`], fills [`maps::TARGETS`] and [`maps::XSKS`] and reads
//! [`maps::COUNTERS`]; nothing is written per connection.
//!
//! The object holds a second program, for the interface that a tunnel's inner packets come from and go to: [`lan`].
//! Each interface has its own copy of the maps, and uses those of its program.
#![no_std]

mod counter;
pub mod lan;
pub mod maps;
mod verdict;

pub use counter::Counter;
pub use maps::TargetKey;
pub use verdict::{Verdict, verdict};

/// Name of the program in the object.
pub const PROGRAM: &str = "beam_steer";

/// The committed eBPF object, built from `main.rs` by `scripts/build-ebpf`; CI rebuilds and compares it.
#[cfg(not(target_arch = "bpf"))]
pub const OBJECT: &[u8] = &ALIGNED_OBJECT.0;

/// ELF64 readers want eight-byte alignment, which `include_bytes!` doesn't give.
#[cfg(not(target_arch = "bpf"))]
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

#[cfg(not(target_arch = "bpf"))]
const ALIGNED_OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../beam-steer.bpf.o"));
