//! HKDF with a window: the one derivation that makes a ticket's PSK can be seen, and answered.
//!
//! RFC 8446 section 4.6.1: `HKDF-Expand-Label(resumption_secret, "resumption", ticket_nonce, Hash.length)`. Each call of
//! that shape looks at the thread's [`Window`]; all others, and all of them while it is shut, go straight through.

use rustls::crypto::ActiveKeyExchange;
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use std::cell::RefCell;
use zeroize::Zeroizing;

/// The PSKs of one connection's tickets, each with its nonce.
pub(crate) type Derived = Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>;

enum Window {
    Shut,
    /// What is derived is noted.
    Capture(Derived),
    /// This is what is derived.
    Answer(Zeroizing<Vec<u8>>),
}

thread_local! {
    static WINDOW: RefCell<Window> = const { RefCell::new(Window::Shut) };
}

/// Shuts the window at the end, however that comes.
struct Shutter;

impl Drop for Shutter {
    fn drop(&mut self) {
        WINDOW.with_borrow_mut(|window| *window = Window::Shut);
    }
}

/// Runs `work`, and says which PSKs were derived in it.
pub(crate) fn capturing<R>(work: impl FnOnce() -> R) -> (R, Derived) {
    WINDOW.with_borrow_mut(|window| *window = Window::Capture(Vec::new()));
    let shutter = Shutter;
    let done = work();
    let derived = WINDOW.with_borrow_mut(|window| match std::mem::replace(window, Window::Shut) {
        Window::Capture(derived) => derived,
        Window::Shut | Window::Answer(_) => Vec::new(),
    });
    drop(shutter);
    (done, derived)
}

/// Runs `work`, in which each ticket's PSK is this one.
pub(crate) fn answering<R>(psk: Zeroizing<Vec<u8>>, work: impl FnOnce() -> R) -> R {
    WINDOW.with_borrow_mut(|window| *window = Window::Answer(psk));
    let _shutter = Shutter;
    work()
}

/// A suite's HKDF behind the window.
pub(crate) struct Windowed(pub(crate) &'static dyn Hkdf);

impl Hkdf for Windowed {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        self.0.extract_from_zero_ikm(salt)
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        self.0.extract_from_secret(salt, secret)
    }

    fn extract_from_kx_shared_secret(
        &self,
        salt: Option<&[u8]>,
        kx: Box<dyn ActiveKeyExchange>,
        peer_pub_key: &[u8],
    ) -> Result<Box<dyn HkdfExpander>, rustls::Error> {
        self.0.extract_from_kx_shared_secret(salt, kx, peer_pub_key)
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        let inner = self.0.expander_for_okm(okm);
        let shut = WINDOW.with_borrow(|window| matches!(window, Window::Shut));
        if shut { inner } else { Box::new(Expander(inner)) }
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        self.0.hmac_sign(key, message)
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

struct Expander(Box<dyn HkdfExpander>);

impl HkdfExpander for Expander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        self.0.expand_slice(info, output)
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        let Some(nonce) = ticket_nonce(info) else { return self.0.expand_block(info) };
        WINDOW.with_borrow_mut(|window| match window {
            Window::Shut => self.0.expand_block(info),
            Window::Capture(derived) => {
                let psk = self.0.expand_block(info);
                derived.push((nonce.to_vec(), Zeroizing::new(psk.as_ref().to_vec())));
                psk
            }
            Window::Answer(psk) if psk.len() == self.0.hash_len() => OkmBlock::new(psk),
            // The PSK of another hash: it can't be this suite's ticket.
            Window::Answer(_) => self.0.expand_block(info),
        })
    }

    fn hash_len(&self) -> usize {
        self.0.hash_len()
    }
}

/// The context of a derivation labelled "resumption": length, label length, "tls13 ", label, context length, context.
fn ticket_nonce<'a>(info: &[&'a [u8]]) -> Option<&'a [u8]> {
    match info {
        [_, _, b"tls13 ", b"resumption", _, nonce] => Some(nonce),
        _ => None,
    }
}
