//! What touches the kernel: packet pointers, maps, helpers.
#![expect(unsafe_code, reason = "packet bytes and map values are raw pointers that the verifier checks")]

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::bpf_xdp_get_buff_len,
    macros::{map, xdp},
    maps::{HashMap, PerCpuArray, XskMap},
    programs::XdpContext,
};
use steer::{
    Counter, TargetKey, Verdict,
    maps::{QUEUE_COUNT_MAX, TARGET_COUNT_MAX},
    verdict,
};
use wire::Bytes;

/// The kernel offers some helpers to GPL programs only; this one needs none of them.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";

#[map]
static XSKS: XskMap = XskMap::with_max_entries(QUEUE_COUNT_MAX, 0);

#[map]
static TARGETS: HashMap<TargetKey, u32> = HashMap::with_max_entries(TARGET_COUNT_MAX, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// The program: never XDP_ABORTED, never a write to the packet.
#[xdp]
fn beam_steer(context: XdpContext) -> u32 {
    let frame = Frame { data: context.data(), end: context.data_end(), context: &context };
    match verdict(&frame, is_target) {
        Verdict::Ours => redirect(&context),
        Verdict::NotOurs(reason) => answer(reason, XDP_PASS),
        Verdict::Malformed(reason) => answer(reason, XDP_DROP),
    }
}

#[inline(always)]
fn is_target(key: &TargetKey) -> bool {
    TARGETS.get_ptr(key).is_some()
}

/// To the socket of the packet's queue. The map answers XDP_PASS when the queue has no socket or no entry.
#[inline(always)]
fn redirect(context: &XdpContext) -> u32 {
    match XSKS.redirect(context.rx_queue_index(), u64::from(XDP_PASS)) {
        Ok(redirect) => answer(Counter::Redirected, redirect),
        Err(_) => answer(Counter::NoSocket, XDP_PASS),
    }
}

#[inline(always)]
fn answer(counter: Counter, action: u32) -> u32 {
    if let Some(count) = COUNTERS.get_ptr_mut(counter.index()) {
        // SAFETY: the map returned the address of this CPU's slot, and nothing else runs on this CPU's slot while
        // an XDP program does: programs run with bottom halves off.
        unsafe { *count += 1 };
    }
    action
}

/// The frame between `data` and `end`.
struct Frame<'a> {
    data: usize,
    end: usize,
    context: &'a XdpContext,
}

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.data + offset;
        if start + N > self.end {
            return None;
        }
        // SAFETY: the comparison above has shown that N bytes from `start` lie before the packet's end; the
        // verifier proves it again. Byte arrays have no alignment.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    /// By a helper, because the length is compared with a variable here: subtracting packet pointers, or adding a
    /// variable to one, needs CAP_PERFMON.
    #[inline(always)]
    fn holds(&self, byte_count: usize) -> bool {
        // SAFETY: the context is the one that the kernel passed in.
        byte_count as u64 <= unsafe { bpf_xdp_get_buff_len(self.context.ctx) }
    }
}

/// A loop, so that the verifier refuses a program that can panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
