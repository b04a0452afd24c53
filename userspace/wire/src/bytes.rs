//! A bounds-checked reader: the one thing the parser asks of a frame.

/// Bytes that may be shorter than hoped.
///
/// In userspace this is a slice. In the kernel it is the pair `data`/`data_end` of an XDP context, whose verifier
/// wants each read to follow a comparison with `data_end` at a constant offset; hence arrays of constant size, and
/// no `len`: subtracting packet pointers needs CAP_PERFMON.
pub trait Bytes {
    /// The `N` bytes from `offset`, or `None` when the end comes first.
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Whether there are at least `byte_count` bytes.
    fn holds(&self, byte_count: usize) -> bool;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn holds(&self, byte_count: usize) -> bool {
        byte_count <= self.len()
    }
}
