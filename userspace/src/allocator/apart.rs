//! Tables lie apart: each is a mapping of its own, that goes back to the system whole when the table goes or grows.
//!
//! ```text
//!   12 KiB and more, but 64 KiB, 128 KiB and so on ──► mmap, mremap, munmap
//!   all else ──► mimalloc
//! ```
//! What a burst of connections makes grow (lists, hash tables, histograms, chunks of records) doubles a dozen times, and
//! what it outgrew lies among what stays: an allocator that keeps blocks of one size together can't give those pages back.
//! Such a block comes and goes seldom, and moves without a copy. What the datapath reads into is 64 and 256 KiB, and comes
//! and goes all the time: powers of two from there on stay with mimalloc, which keeps some at hand.

use mimalloc::MiMalloc;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap, munmap};
use std::{
    alloc::{GlobalAlloc, Layout},
    ptr,
};

/// Smaller blocks would leave much of their last page unused.
const TABLE_BYTES: usize = 12 << 10;
/// From here on a power of two is a buffer.
const BUFFER_BYTES: usize = 64 << 10;
/// No system has smaller pages, so all mappings are aligned to this.
const ALIGN_MAX: usize = 4096;

/// See the module.
pub(super) struct Apart(pub(super) MiMalloc);

fn is_table(layout: &Layout) -> bool {
    let bytes = layout.size();
    let is_buffer = bytes >= BUFFER_BYTES && bytes.is_power_of_two();
    bytes >= TABLE_BYTES && !is_buffer && layout.align() <= ALIGN_MAX
}

/// A mapping of zeroes for a table. Null: it is none, the system has no memory, or it lets this process have no more
/// mappings (`vm.max_map_count`).
fn map(layout: &Layout) -> *mut u8 {
    if !is_table(layout) {
        return ptr::null_mut();
    }
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping where the kernel sees fit touches nothing that is there.
    unsafe { mmap_anonymous(ptr::null_mut(), layout.size(), prot, flags) }
        .map_or(ptr::null_mut(), <*mut _>::cast)
}

/// Whether a block as large as a table is a mapping. Where none could be made, mimalloc has given it.
fn is_mapping(block: *mut u8) -> bool {
    // SAFETY: the address is compared with mimalloc's own, and not read from.
    !unsafe { libmimalloc_sys::mi_is_in_heap_region(block.cast()) }
}

// SAFETY: a block is mimalloc's, or a mapping of at least its size, which starts at a page and so is aligned to all that
// `is_table` lets through; nothing else lies in it. Which of the two a block is follows from its layout, which callers
// give again, and for tables from where it lies, which never changes.
unsafe impl GlobalAlloc for Apart {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let table = map(&layout);
        if !table.is_null() {
            return table;
        }
        // SAFETY: as the caller promised.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let table = map(&layout);
        if !table.is_null() {
            return table;
        }
        // SAFETY: as the caller promised.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_table(&layout) && is_mapping(block) {
            // SAFETY: the mapping of this block, whole, which nobody uses any more. It can't fail but for a range that is
            // none; then it stays, and nothing depends on it.
            let _ = unsafe { munmap(block.cast(), layout.size()) };
            return;
        }
        // SAFETY: the block is mimalloc's, of this layout.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller promised that the size, rounded up to the alignment, is no larger than `isize::MAX`.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        let was_table = is_table(&layout);
        if !was_table && !is_table(&wanted) {
            // SAFETY: as the caller promised; the block is mimalloc's.
            return unsafe { self.0.realloc(block, layout, bytes) };
        }
        if was_table && is_table(&wanted) && is_mapping(block) {
            // SAFETY: the mapping of this block, whole; its owner takes the address that comes back for the old one.
            let moved = unsafe { mremap(block.cast(), layout.size(), bytes, MremapFlags::MAYMOVE) };
            return moved.map_or(ptr::null_mut(), <*mut _>::cast);
        }
        // SAFETY: the size isn't zero, as the caller promised.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least as long as what is copied, and different.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size().min(bytes)) };
            // SAFETY: the old block is of this layout, and given back once. Without a new one it stays.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    //! Goal: blocks are whole, aligned and apart from each other, whoever gave them and however they grow. Method: random
    //! blocks that come, grow, shrink and go, each full of a byte of its own; their ends are looked at, and the rest when
    //! they go. A block that mimalloc gave in place of a mapping is made by asking it.
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const SIZES: [usize; 14] = [
        1,
        100,
        4096,
        12_287,
        12_288,
        12_289,
        16_384,
        16_385,
        20_480,
        49_152,
        65_536,
        65_537,
        200_000,
        1 << 20,
    ];

    struct Block {
        at: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Block {
        /// The block is this test's own, of this layout, and was filled.
        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: nobody else has it.
            unsafe { std::slice::from_raw_parts_mut(self.at, self.layout.size()) }
        }

        fn fill(&mut self, from: usize) {
            assert!(!self.at.is_null() && self.at.addr().is_multiple_of(self.layout.align()));
            let byte = self.byte;
            self.bytes()[from..].fill(byte);
        }

        fn starts_whole(&mut self, bytes: usize) -> bool {
            let byte = self.byte;
            self.bytes()[..bytes].iter().all(|&there| there == byte)
        }

        fn is_whole(&mut self) -> bool {
            self.starts_whole(self.layout.size())
        }
    }

    #[test]
    fn blocks_are_whole_through_all_that_happens_to_them() {
        let seed = 7;
        println!("seed {seed}");
        let (mut rng, heap) = (StdRng::seed_from_u64(seed), Apart(MiMalloc));
        let mut blocks: Vec<Block> = Vec::new();
        let (mut grown, mut foreign) = (0, 0);
        for step in 0..4_000u32 {
            let bytes = SIZES[rng.random_range(0..SIZES.len())];
            let byte = step as u8 | 1;
            match rng.random_range(0..4) {
                0 | 1 if blocks.len() < 200 => {
                    let layout = Layout::from_size_align(bytes, 1 << rng.random_range(0..14)).unwrap();
                    let how = rng.random_range(0..3);
                    let at = match how {
                        // SAFETY: no size is zero.
                        0 => unsafe { heap.alloc(layout) },
                        // SAFETY: no size is zero.
                        1 => unsafe { heap.alloc_zeroed(layout) },
                        // SAFETY: no size is zero.
                        _ => unsafe { heap.0.alloc(layout) },
                    };
                    foreign += u32::from(how == 2 && is_table(&layout));
                    let mut block = Block { at, layout, byte };
                    assert!(how != 1 || block.bytes().iter().all(|&byte| byte == 0), "step {step}");
                    block.fill(0);
                    blocks.push(block);
                }
                2 if !blocks.is_empty() => {
                    let at = rng.random_range(0..blocks.len());
                    let block = &mut blocks[at];
                    let kept = block.layout.size().min(bytes);
                    // SAFETY: the block is of this allocator and layout, and no size is zero.
                    block.at = unsafe { heap.realloc(block.at, block.layout, bytes) };
                    block.layout = Layout::from_size_align(bytes, block.layout.align()).unwrap();
                    assert!(block.starts_whole(kept), "step {step}");
                    block.fill(kept);
                    grown += 1;
                }
                _ if !blocks.is_empty() => {
                    let mut block = blocks.swap_remove(rng.random_range(0..blocks.len()));
                    assert!(block.is_whole(), "step {step}: {:?}", block.layout);
                    // SAFETY: the block is of this allocator and layout, and this was the last of it.
                    unsafe { heap.dealloc(block.at, block.layout) };
                }
                _ => {}
            }
        }
        assert!(grown > 500 && foreign > 50, "{grown} grown, {foreign} given by mimalloc");
        for mut block in blocks {
            assert!(block.is_whole());
            // SAFETY: as above.
            unsafe { heap.dealloc(block.at, block.layout) };
        }
    }

    #[test]
    fn a_table_is_a_mapping_and_a_buffer_is_not() {
        let heap = Apart(MiMalloc);
        for (bytes, is_apart) in [
            (12_287, false),
            (12_288, true),
            (16_384, true),
            (65_536, false),
            (262_144, false),
            (262_145, true),
        ] {
            let layout = Layout::from_size_align(bytes, 8).unwrap();
            // SAFETY: the size isn't zero.
            let block = unsafe { heap.alloc(layout) };
            assert_eq!(is_mapping(block), is_apart, "{bytes} bytes");
            // SAFETY: the block is of this allocator and layout.
            unsafe { heap.dealloc(block, layout) };
        }
        // What the system can't give is an error, and nothing else.
        let layout = Layout::from_size_align((1 << 47) + 1, 8).unwrap();
        // SAFETY: the size isn't zero.
        assert!(unsafe { heap.alloc(layout) }.is_null());
    }
}
