//! Counts what is allocated: the allocator of beam, with two counters of its own for each thread.
//!
//! A program that counts makes it its own: `#[global_allocator] static ALLOCATOR: Counting = Counting;`. In others nothing
//! counts, and [`seen`] stays at nought.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ops::{AddAssign, Sub};

thread_local! {
    // Constant and without a destructor: reading it never allocates, nor comes too late.
    static SEEN: Cell<Allocations> = const { Cell::new(Allocations { count: 0, bytes: 0 }) };
}

/// What a thread has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Calls: allocations and reallocations.
    pub count: u64,
    /// Bytes of them; of a reallocation, what it grew by.
    pub bytes: u64,
}

impl Sub for Allocations {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, bytes: self.bytes - earlier.bytes }
    }
}

impl AddAssign for Allocations {
    fn add_assign(&mut self, more: Self) {
        self.count += more.count;
        self.bytes += more.bytes;
    }
}

/// What this thread has asked for since it began.
#[must_use]
pub fn seen() -> Allocations {
    SEEN.get()
}

fn count(bytes: usize) {
    let Allocations { count, bytes: before } = SEEN.get();
    SEEN.set(Allocations { count: count + 1, bytes: before + bytes as u64 });
}

/// mimalloc, as in beam, counted.
pub struct Counting;

// SAFETY: every call goes to mimalloc unchanged, which keeps the trait's promises; counting neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that mimalloc asks for.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size.saturating_sub(layout.size()));
        // SAFETY: as in `alloc`; the pointer came from mimalloc, since all of ours do.
        unsafe { MiMalloc.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}
