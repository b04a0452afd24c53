//! The allocator, and what is asked of it beside memory.
#![cfg_attr(not(feature = "system-allocator"), expect(unsafe_code, reason = "mimalloc's settings"))]

/// mimalloc: per-thread heaps, so that workers share no allocator lock. `scripts/bench ablation` measures a build without.
#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's number for how many milliseconds freed memory waits until it is given back (`mi_option_purge_delay` of its
/// mimalloc.h; the crate has no name for it), and what it is by default.
#[cfg(not(feature = "system-allocator"))]
const PURGE_DELAY: (i32, i64) = (15, 1000);

/// Has memory given back to the system as soon as it is freed, or again some time later, as it is by default. At once is for
/// the start: reading the kernel's types for the XDP program takes tens of megabytes that nothing needs afterwards. A delay
/// that the environment has set stays.
pub(crate) fn give_back_at_once(at_once: bool) {
    #[cfg(not(feature = "system-allocator"))]
    {
        let (option, default) = PURGE_DELAY;
        let (from, to) = if at_once { (default, 0) } else { (0, default) };
        // SAFETY: a number goes in and one comes out, no pointer.
        let is_default = unsafe { libmimalloc_sys::mi_option_get(option) } == from;
        if is_default && std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            // SAFETY: as above; an option that mimalloc doesn't know is ignored by it.
            unsafe { libmimalloc_sys::mi_option_set(option, to) };
        }
    }
    #[cfg(feature = "system-allocator")]
    let _ = at_once;
}

/// Gives memory that this thread has freed back to the system. By itself the allocator does so only as more is allocated or
/// freed, some time later: what a burst leaves stays resident in a process that then rests. Takes milliseconds after much was
/// freed, so it is for the end of a burst, not for one.
pub(crate) fn give_back() {
    // SAFETY: mi_collect takes no pointer and may be called by any thread at any time; it touches memory that is free only.
    #[cfg(not(feature = "system-allocator"))]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what was freed is no longer resident, what wasn't is whole. Method: blocks of a size of their own, each second
    //! one freed, then all but one in a hundred.
    use super::*;

    #[test]
    fn what_is_kept_is_whole() {
        let block = |n: usize| vec![n as u8; 3000];
        let mut blocks: Vec<_> = (0..20_000).map(|n| Some(block(n))).collect();
        for every in [2, 100] {
            for (n, kept) in blocks.iter_mut().enumerate() {
                kept.take_if(|_| n % every != 0);
            }
            give_back();
            for (n, kept) in blocks.iter().enumerate() {
                assert_eq!(*kept, (n % every == 0).then(|| block(n)), "block {n}");
            }
        }
    }
}
