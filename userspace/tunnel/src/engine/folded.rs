//! A value at rest, in short: how many bytes each of its words needs, and these bytes.
//!
//! quinn's connection is 6.5 KB, most of them zeros: packet spaces that are over, counters of frames that never came, options
//! without content, small numbers in large words. A gateway has a hundred thousand connections at rest, so each is folded
//! while it has nothing to do, to some 2.7 KB.
//!
//! Folding moves a value as every move in Rust does, byte by byte, to a place where nobody can reach it until it is moved
//! back. What it owns stays where it is.

#![expect(unsafe_code, reason = "moves values word by word")]

use std::marker::PhantomData;
use std::mem::MaybeUninit;

const WORD_BYTES: usize = size_of::<u64>();

/// A value of type `T`, which it owns. Empty once it was taken.
pub(super) struct Folded<T> {
    /// For each word a nibble, how many of its low bytes are kept; those bytes, one word's after the other's; and a word of
    /// zeros, so that whole words can be read and written from any of them.
    block: Box<[u8]>,
    _value: PhantomData<T>,
}

impl<T> Folded<T> {
    const WORDS: usize = {
        // A block without words couldn't be told from one that was taken.
        assert!(size_of::<T>() >= WORD_BYTES);
        assert!(size_of::<T>().is_multiple_of(WORD_BYTES) && align_of::<T>() >= align_of::<u64>());
        size_of::<T>() / WORD_BYTES
    };
    const NIBBLES_BYTES: usize = Self::WORDS.div_ceil(2);

    pub(super) fn new(value: Box<T>) -> Self {
        // SAFETY: the box frees the same memory, by the same layout. From here on the value in it is not dropped.
        let mut moved: Box<MaybeUninit<T>> = unsafe { Box::from_raw(Box::into_raw(value).cast()) };
        let words = words_of(&mut moved);
        let kept: usize = words.iter().copied().map(kept_bytes).sum();
        let mut block = vec![0; Self::NIBBLES_BYTES + kept + WORD_BYTES].into_boxed_slice();
        let (nibbles, mut bytes) = block.split_at_mut(Self::NIBBLES_BYTES);
        for (n, word) in words.iter().enumerate() {
            let kept = kept_bytes(*word);
            nibbles[n / 2] |= (kept << (n % 2 * 4)) as u8;
            bytes[..WORD_BYTES].copy_from_slice(&word.to_le_bytes());
            bytes = &mut bytes[kept..];
        }
        Self { block, _value: PhantomData }
    }

    /// The value as it was.
    pub(super) fn take(&mut self) -> Option<Box<T>> {
        let block = std::mem::take(&mut self.block);
        let (nibbles, mut bytes) = block.split_at_checked(Self::NIBBLES_BYTES)?;
        let mut value = Box::new(MaybeUninit::<T>::zeroed());
        for (n, word) in words_of(&mut value).iter_mut().enumerate() {
            let kept = usize::from(nibbles[n / 2] >> (n % 2 * 4) & 15);
            let whole = bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
            *word = whole & u64::MAX.checked_shr((8 * (WORD_BYTES - kept)) as u32).unwrap_or(0);
            bytes = &bytes[kept..];
        }
        hand_over(&mut value);
        // SAFETY: these are the words that `new` was given, all of them, and they are given out this once.
        Some(unsafe { value.assume_init() })
    }
}

impl<T> Drop for Folded<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

fn kept_bytes(word: u64) -> usize {
    WORD_BYTES - word.leading_zeros() as usize / 8
}

/// All of a value, with whatever the bytes hold that nobody wrote.
fn words_of<T>(value: &mut MaybeUninit<T>) -> &mut [u64] {
    hand_over(value);
    // SAFETY: so many words are all of it, and aligned, by the assertion at `WORDS`; each of them was written, for all that
    // the compiler knows, by `hand_over`.
    unsafe { std::slice::from_raw_parts_mut(value.as_mut_ptr().cast(), Folded::<T>::WORDS) }
}

/// Does nothing, but the compiler has to take it for code that reads all of the value and writes all of it: bytes that nobody
/// wrote (padding, and what a variant leaves unused) become what the memory holds, pointers numbers, and numbers pointers.
fn hand_over<T>(value: &mut MaybeUninit<T>) {
    // SAFETY: there is no instruction in it.
    unsafe { std::arch::asm!("/* {0} */", in(reg) value.as_mut_ptr(), options(nostack, preserves_flags)) }
}

#[cfg(test)]
mod tests {
    //! Goal: a value comes back as it was, owned once, whatever its words are. Method: words of each size, at both ends; padding
    //! and unused variants; things that count how often they are dropped (scripts/sanitize runs it under AddressSanitizer, too).
    use super::*;
    use std::sync::Arc;

    #[test]
    fn words_of_all_sizes_come_back() {
        let edges = (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1, u64::MAX << bit]);
        let mut words = [0; 193];
        words.iter_mut().zip(edges).for_each(|(word, edge)| *word = edge);
        for at in 0..words.len() {
            words.rotate_left(1);
            assert_eq!(Folded::new(Box::new(words)).take().as_deref(), Some(&words), "rotated by {at}");
        }
        for (word, block_bytes) in [(0, 1 + 8), (0xff, 1 + 1 + 8), (0x100, 1 + 2 + 8), (u64::MAX, 1 + 8 + 8)]
        {
            let mut folded = Folded::new(Box::new([word]));
            assert_eq!(folded.block.len(), block_bytes, "{word:#x}");
            assert_eq!(folded.take().as_deref(), Some(&[word]));
        }
    }

    #[derive(Clone, Debug, PartialEq)]
    enum Part {
        Byte(u8),
        Text(String),
        Shared(Arc<str>),
        Nothing,
    }

    #[test]
    fn what_it_owns_is_owned_once() {
        let shared: Arc<str> = "held".into();
        let parts =
            || [Part::Byte(7), Part::Text("text".to_owned()), Part::Shared(shared.clone()), Part::Nothing];
        let mut folded = Folded::new(Box::new(parts()));
        assert_eq!(Arc::strong_count(&shared), 2, "at rest");
        let taken = folded.take();
        assert_eq!(taken.as_deref(), Some(&parts()));
        assert!(folded.take().is_none(), "a second time");
        drop(folded);
        assert_eq!(Arc::strong_count(&shared), 2, "taken");
        drop(taken);
        assert_eq!(Arc::strong_count(&shared), 1, "dropped");
        drop(Folded::new(Box::new(parts())));
        assert_eq!(Arc::strong_count(&shared), 1, "dropped at rest");
    }
}
