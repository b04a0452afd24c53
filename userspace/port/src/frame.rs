//! A [`Region`] of memory cut into equal chunks, and [`Frame`], the owned token of one chunk.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::{
    fmt, io,
    ops::{Deref, DerefMut, Range},
    ptr::{self, NonNull},
    sync::Arc,
};

/// A mapping cut into `chunk_count` chunks of `chunk_bytes` each.
///
/// Invariant: the mapping is valid for reads and writes of `chunk_bytes * chunk_count` bytes for as long as `owner`
/// lives, and `frames` was handed out once, so at most one [`Frame`] exists for each chunk.
pub struct Region {
    base: NonNull<u8>,
    chunk_bytes: usize,
    chunk_count: usize,
    _owner: Box<dyn Send + Sync>,
}

// SAFETY: a Region itself gives no access to the bytes; only a Frame does, and there is at most one for each chunk.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` exposes sizes only.
unsafe impl Sync for Region {}

impl Region {
    /// Wraps a mapping that someone else made (a UMEM) and hands out the frames of all its chunks, in order.
    ///
    /// # Safety
    /// `base` is valid for reads and writes of `chunk_bytes * chunk_count` bytes until `owner` is dropped; nothing but
    /// the returned frames, and a kernel that was given a frame's chunk, touches those bytes.
    #[must_use]
    pub unsafe fn from_raw(
        base: NonNull<u8>,
        chunk_bytes: usize,
        chunk_count: usize,
        owner: Box<dyn Send + Sync>,
    ) -> Vec<Frame> {
        assert!(chunk_bytes > 0 && chunk_bytes <= u32::MAX as usize && chunk_count <= u32::MAX as usize);
        let region = Arc::new(Self { base, chunk_bytes, chunk_count, _owner: owner });
        (0..chunk_count)
            .map(|chunk| Frame {
                region: region.clone(),
                chunk: chunk as u32,
                start: 0,
                end: chunk_bytes as u32,
                front: 0,
            })
            .collect()
    }

    /// A private mapping, for ports without a UMEM. Pages that no packet has touched cost nothing.
    ///
    /// # Errors
    /// If the kernel gives no address space.
    pub fn anonymous(chunk_bytes: usize, chunk_count: usize) -> io::Result<Vec<Frame>> {
        let bytes = chunk_bytes.checked_mul(chunk_count).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let owner = Mapping { base, bytes };
        // SAFETY: the mapping has exactly that size, is reached through these frames alone, and is unmapped by `Mapping`
        // when the last of them is gone.
        Ok(unsafe { Self::from_raw(base, chunk_bytes, chunk_count, Box::new(owner)) })
    }

    /// Bytes in one chunk.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Chunks in the region.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.chunk_count
    }
}

/// Unmaps its region.
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the owner only unmaps the region; it never reads it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `mmap_anonymous` in `Region::anonymous` with this size, and unmapped once, here, when no frame
        // is left to reach it.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "the mapping was ours");
    }
}

/// The only handle on one chunk of a [`Region`]. Not `Copy`, not `Clone`: posting it to a ring consumes it, polling
/// the ring returns it.
///
/// A frame shows a window of its chunk: the part that holds the packet. It derefs to that window.
/// Invariant: `front <= start <= end <= chunk_bytes`.
pub struct Frame {
    region: Arc<Region>,
    chunk: u32,
    start: u32,
    end: u32,
    /// Where the packet begins whose payload the window shows: the headers lie between. Not above `start`.
    front: u32,
}

impl Frame {
    /// Index of the chunk within its region.
    #[must_use]
    pub fn chunk(&self) -> usize {
        self.chunk as usize
    }

    /// The region the frame belongs to.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The window, as offsets within the chunk.
    #[must_use]
    pub fn window(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Moves the window.
    ///
    /// # Panics
    /// If the range is not inside the chunk: offsets that come from the kernel are checked here, in release builds too.
    pub fn set_window(&mut self, window: Range<usize>) {
        assert!(
            window.start <= window.end && window.end <= self.region.chunk_bytes,
            "window outside its chunk"
        );
        self.start = window.start as u32;
        self.end = window.end as u32;
        self.front = self.start;
    }

    /// Narrows the window to `range`, given relative to the present window.
    ///
    /// # Panics
    /// If `range` is not inside the present window.
    pub fn narrow(&mut self, range: Range<usize>) {
        assert!(range.end <= self.len());
        let (base, front) = (self.start as usize, self.front);
        self.set_window(base + range.start..base + range.end);
        self.front = front;
    }

    /// The window, and what lies in front of it that [`Self::narrow`] took off: a received packet with its headers.
    #[must_use]
    pub fn with_front(&self) -> &[u8] {
        self.bytes(self.front as usize..self.end as usize)
    }

    fn bytes(&self, window: Range<usize>) -> &[u8] {
        let offset = self.chunk as usize * self.region.chunk_bytes + window.start;
        // SAFETY: chunk < chunk_count, so the offset lies in the mapping that `from_raw` vouches for.
        let first = unsafe { self.region.base.add(offset) };
        // SAFETY: front <= start <= end <= chunk_bytes keeps the slice inside this chunk; this frame is the chunk's only
        // handle and the kernel does not hold it while the frame exists outside a ring.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), window.len()) }
    }
}

impl Deref for Frame {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes(self.start as usize..self.end as usize)
    }
}

impl DerefMut for Frame {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let offset = self.chunk as usize * self.region.chunk_bytes + self.start as usize;
        // SAFETY: as in `deref`.
        let first = unsafe { self.region.base.add(offset) };
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), (self.end - self.start) as usize) }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Frame {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}[{}..{}])", self.chunk, self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: frames never alias, windows never leave their chunk, memory lives as long as the last frame.
    use super::*;

    #[test]
    fn frames_are_disjoint_and_writable() {
        let mut frames = Region::anonymous(64, 8).unwrap();
        for (i, frame) in frames.iter_mut().enumerate() {
            frame.fill(i as u8);
        }
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!(frame.len(), 64);
            assert!(frame.iter().all(|&b| b == i as u8));
        }
    }

    #[test]
    fn the_last_frame_keeps_the_memory() {
        let mut frames = Region::anonymous(32, 4).unwrap();
        let mut last = frames.pop().unwrap();
        drop(frames);
        last.fill(7);
        assert_eq!(&*last, &[7; 32]);
    }

    #[test]
    #[should_panic(expected = "window outside its chunk")]
    fn a_window_past_the_chunk_is_refused() {
        Region::anonymous(32, 1).unwrap().pop().unwrap().set_window(0..33);
    }

    #[test]
    fn narrow_is_relative() {
        let mut frame = Region::anonymous(32, 1).unwrap().pop().unwrap();
        frame.set_window(8..24);
        frame.fill(9);
        frame.narrow(2..10);
        assert_eq!(frame.window(), 10..18);
        assert_eq!(frame.with_front(), [9; 10], "from where the window first was to its end");
        frame.narrow(4..8);
        assert_eq!((frame.window(), frame.with_front().len()), (14..18, 10));
        frame.set_window(0..4);
        assert_eq!(frame.with_front().len(), 4, "another packet");
    }
}
