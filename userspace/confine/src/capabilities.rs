//! Capabilities of the calling thread. (The kernel keeps them for each thread; that all threads of a process have the same
//! is a fiction of libc's that Rust's threads don't take part in.)

use rustix::{
    io::{Errno, Result},
    thread::{
        CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

/// A set of them.
pub type Capabilities = rustix::thread::CapabilitySet;

/// Takes all others from the effective and permitted set, and every one from the inheritable and the ambient set; from
/// the bounding set, too, where that is permitted: `no_new_privs` makes it matter no more.
pub(crate) fn keep_only(kept: Capabilities) -> Result<()> {
    match clear_ambient_capability_set() {
        // A kernel without them.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    let now = capabilities(None)?;
    if now.effective.contains(Capabilities::SETPCAP) {
        empty_bounding_set()?;
    }
    let kept = now.permitted & kept;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: Capabilities::empty() };
    set_capabilities(None, sets)
}

fn empty_bounding_set() -> Result<()> {
    for number in 0..u64::BITS {
        let one = Capabilities::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(true) => remove_capability_from_bounding_set(one)?,
            Ok(false) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// `NET_ADMIN, NET_RAW`, or `none`.
#[must_use]
pub fn set_names(set: Capabilities) -> String {
    let names: Vec<&str> = set.iter_names().map(|(name, _)| name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    //! Goal: sets read as an operator knows them.
    use super::*;

    #[test]
    fn sets_are_named() {
        assert_eq!(set_names(Capabilities::empty()), "none");
        assert_eq!(set_names(Capabilities::NET_RAW | Capabilities::NET_ADMIN), "NET_ADMIN, NET_RAW");
    }
}
