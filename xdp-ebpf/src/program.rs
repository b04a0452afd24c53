//! What touches the kernel: packet pointers, maps, helpers. Two programs: the tunnel's and the LAN's.
#![expect(unsafe_code, reason = "packet bytes and map values are raw pointers that the verifier checks")]

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::bpf_xdp_get_buff_len,
    macros::{map, xdp},
    maps::{Array, HashMap, LpmTrie, PerCpuArray, XskMap, lpm_trie::Key},
    programs::XdpContext,
};
use steer::{
    Counter, TargetKey, Verdict, lan,
    maps::{PREFIX_COUNT_MAX, PREFIX_DATA_BYTES, PrefixKey, QUEUE_COUNT_MAX, TARGET_COUNT_MAX},
    verdict,
};
use wire::{Bytes, datagram::Mac};

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

#[map]
static PREFIXES: LpmTrie<[u8; PREFIX_DATA_BYTES], u32> = LpmTrie::with_max_entries(PREFIX_COUNT_MAX, 0);

#[map]
static LAN_MAC: Array<[u8; 8]> = Array::with_max_entries(1, 0);

#[map]
static LAN_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(lan::Counter::COUNT, 0);

/// The tunnel's program: never XDP_ABORTED, never a write to the packet.
#[xdp]
fn beam_steer(context: XdpContext) -> u32 {
    let frame = Frame::new(&context);
    match verdict(&frame, is_target) {
        Verdict::Ours => match redirect(&context) {
            Some(redirect) => answer(Counter::Redirected, redirect),
            None => answer(Counter::NoSocket, XDP_PASS),
        },
        Verdict::NotOurs(reason) => answer(reason, XDP_PASS),
        Verdict::Malformed(reason) => answer(reason, XDP_DROP),
    }
}

/// The LAN's program: as above.
#[xdp]
fn beam_lan(context: XdpContext) -> u32 {
    let frame = Frame::new(&context);
    match lan::verdict(&frame, is_our_mac, prefix_value) {
        lan::Verdict::Tunnel => match redirect(&context) {
            Some(redirect) => answer_lan(lan::Counter::Tunnel, redirect),
            None => answer_lan(lan::Counter::NoSocket, XDP_PASS),
        },
        lan::Verdict::Kernel(reason) => answer_lan(reason, XDP_PASS),
        lan::Verdict::Malformed(reason) => answer_lan(reason, XDP_DROP),
    }
}

#[inline(always)]
fn is_target(key: &TargetKey) -> bool {
    TARGETS.get_ptr(key).is_some()
}

#[inline(always)]
fn is_our_mac(mac: &Mac) -> bool {
    match LAN_MAC.get(0) {
        Some([a, b, c, d, e, f, _, _]) => *mac == [*a, *b, *c, *d, *e, *f],
        None => false,
    }
}

#[inline(always)]
fn prefix_value(key: &PrefixKey) -> Option<u32> {
    PREFIXES.get(Key::new(key.bits, key.data)).copied()
}

/// To the socket of the packet's queue; `None` when the queue has no socket or no entry.
#[inline(always)]
fn redirect(context: &XdpContext) -> Option<u32> {
    XSKS.redirect(context.rx_queue_index(), u64::from(XDP_PASS)).ok()
}

#[inline(always)]
fn answer(counter: Counter, action: u32) -> u32 {
    count(&COUNTERS, counter.index());
    action
}

#[inline(always)]
fn answer_lan(counter: lan::Counter, action: u32) -> u32 {
    count(&LAN_COUNTERS, counter.index());
    action
}

#[inline(always)]
fn count(counters: &PerCpuArray<u64>, index: u32) {
    if let Some(count) = counters.get_ptr_mut(index) {
        // SAFETY: the map returned the address of this CPU's slot, and nothing else runs on this CPU's slot while
        // an XDP program does: programs run with bottom halves off.
        unsafe { *count += 1 };
    }
}

/// The frame between `data` and `end`.
struct Frame<'a> {
    data: usize,
    end: usize,
    context: &'a XdpContext,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    fn new(context: &'a XdpContext) -> Self {
        Self { data: context.data(), end: context.data_end(), context }
    }
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
