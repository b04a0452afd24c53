//! A box whose memory is wiped when it is dropped, padding included: ring leaves its expanded keys behind, and the padding
//! of ours holds whatever lay on the stack when they were made.

use std::{mem::MaybeUninit, ops::Deref, ptr, slice};
use zeroize::Zeroize;

/// Invariant: the value is there until the drop.
pub(crate) struct Wiped<T>(Box<MaybeUninit<T>>);

impl<T> Wiped<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Box::new(MaybeUninit::new(value)))
    }
}

impl<T> Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> Drop for Wiped<T> {
    fn drop(&mut self) {
        // SAFETY: the invariant; nobody can look at the value after its last owner's drop.
        unsafe { self.0.assume_init_drop() };
        let memory = ptr::from_mut(&mut *self.0).cast::<MaybeUninit<u8>>();
        // SAFETY: the box's own memory, as long as the type it was made for; bytes that may be anything.
        unsafe { slice::from_raw_parts_mut(memory, size_of::<T>()) }.zeroize();
    }
}
