//! The allocator, and what is asked of it beside memory.
#![cfg_attr(
    any(not(feature = "system-allocator"), target_env = "gnu"),
    expect(unsafe_code, reason = "the allocator's settings, and giving back")
)]

#[cfg(not(feature = "system-allocator"))]
mod apart;

/// mimalloc: per-thread heaps, so that workers share no allocator lock; with tables [`apart`]. `scripts/bench ablation`
/// measures a build without.
#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: apart::Apart = apart::Apart(mimalloc::MiMalloc);

/// mimalloc's number for how many milliseconds freed memory waits until it is given back (`mi_option_purge_delay` of its
/// mimalloc.h; the crate has no name for it), and what it is by default.
#[cfg(not(feature = "system-allocator"))]
const PURGE_DELAY: (i32, i64) = (15, 1000);

/// Does work that takes much memory for a moment, all of which goes back to the system as it is freed: reading the kernel's
/// types for the XDP program takes tens of megabytes that nothing needs afterwards. Elsewhere it goes back some time later,
/// which is faster. A delay that the environment has set stays.
pub(crate) fn giving_back<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(not(feature = "system-allocator"))]
    let _delay = NoDelay::begin();
    work()
}

/// While it lives, freed memory waits for nothing.
#[cfg(not(feature = "system-allocator"))]
struct NoDelay {
    was_default: bool,
}

#[cfg(not(feature = "system-allocator"))]
impl NoDelay {
    fn begin() -> Self {
        let (option, default_ms) = PURGE_DELAY;
        // SAFETY: a number goes in and one comes out, no pointer.
        let was_default = unsafe { libmimalloc_sys::mi_option_get(option) } == default_ms
            && std::env::var_os("MIMALLOC_PURGE_DELAY").is_none();
        if was_default {
            set_delay(0);
        }
        Self { was_default }
    }
}

#[cfg(not(feature = "system-allocator"))]
impl Drop for NoDelay {
    fn drop(&mut self) {
        if self.was_default {
            set_delay(PURGE_DELAY.1);
        }
    }
}

#[cfg(not(feature = "system-allocator"))]
fn set_delay(ms: i64) {
    // SAFETY: numbers go in, no pointer; an option that mimalloc doesn't know is ignored by it.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY.0, ms) }
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
    // SAFETY: malloc_trim takes no pointer, and may be called by any thread at any time.
    #[cfg(all(feature = "system-allocator", target_env = "gnu"))]
    unsafe {
        malloc_trim(0);
    }
}

// The C library's: no crate that beam has names it.
#[cfg(all(feature = "system-allocator", target_env = "gnu"))]
unsafe extern "C" {
    fn malloc_trim(pad: usize) -> std::ffi::c_int;
}

#[cfg(test)]
mod tests {
    //! Goal: what wasn't freed is whole, and the delay is as before once the work is done. Method: blocks of a size of their
    //! own, of which every second one stays, then one in a hundred; mimalloc's own answer. How much goes back is measured by
    //! scripts/bench targets.
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

    #[cfg(not(feature = "system-allocator"))]
    #[test]
    fn the_delay_is_gone_for_the_work_alone() {
        let delay_ms = || {
            // SAFETY: a number goes in and one comes out.
            unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY.0) }
        };
        let before = delay_ms();
        let meanwhile = giving_back(delay_ms);
        assert_eq!((meanwhile, delay_ms()), (if before == PURGE_DELAY.1 { 0 } else { before }, before));
    }
}
