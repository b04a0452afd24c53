//! The XDP program: reads the frame, asks [`steer::verdict`], counts, and answers the kernel.
//!
//! Built for the BPF target by `scripts/build-ebpf`; on any other target it is an empty program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
