//! What the engine has told this thread, and what the keys tell the engine: the seam between quinn's calls and the
//! batches.
//!
//! quinn calls a key with bytes and a packet number and nothing else, so who is being served is said by the thread. Two
//! scopes exist, and never both at once: [`sealing`] around `poll_transmit`, and [`Reading`] around `handle_event`.
//! Outside of them every key is eager.

use simd::{HeaderKey, PacketKey};
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::None) };
}

enum Scope {
    None,
    Sealing(Notes),
    Reading(State),
}

/// One packet that quinn made within [`sealing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Its bytes are as the wire may see them.
    Protected {
        /// Header, payload and tag.
        packet_bytes: usize,
    },
    /// Header and payload are in the clear, the tag's place is empty.
    Plain {
        /// Index into [`Notes::keys`].
        keys: u32,
        packet_number: u64,
        packet_bytes: usize,
        header_bytes: usize,
        /// 0 until quinn has asked for the header's protection.
        packet_number_bytes: usize,
    },
}

/// Keys of one connection and direction.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) packet: Arc<PacketKey>,
    /// Missing only between quinn's two calls for the first packet under these keys.
    pub(crate) header: Option<Arc<HeaderKey>>,
}

/// The packets that quinn made within [`sealing`], in the order of their bytes.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) packets: Vec<Noted>,
    /// Each differs from the one before it.
    pub(crate) keys: Vec<Keys>,
    /// quinn has called the keys in another order than it used to: nothing noted may be sent.
    pub(crate) broken: bool,
}

impl Notes {
    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        self.keys.clear();
        self.broken = false;
    }

    fn plain(&mut self, key: &Arc<PacketKey>, packet_number: u64, header_bytes: usize, packet_bytes: usize) {
        // An unfinished packet before this one: its header would go out unprotected.
        self.broken |= matches!(self.packets.last(), Some(Noted::Plain { packet_number_bytes: 0, .. }));
        if self.keys.last().is_none_or(|last| !Arc::ptr_eq(&last.packet, key)) {
            self.keys.push(Keys { packet: key.clone(), header: None });
        }
        let keys = self.keys.len() as u32 - 1;
        self.packets.push(Noted::Plain {
            keys,
            packet_number,
            packet_bytes,
            header_bytes,
            packet_number_bytes: 0,
        });
    }

    fn header(&mut self, key: &Arc<HeaderKey>, bytes: usize) {
        let (Some(Noted::Plain { packet_number_bytes: unset @ 0, .. }), Some(keys)) =
            (self.packets.last_mut(), self.keys.last_mut())
        else {
            self.broken = true;
            return;
        };
        *unset = bytes;
        let header = keys.header.get_or_insert_with(|| key.clone());
        self.broken |= !Arc::ptr_eq(header, key);
    }
}

/// Runs `f`, in which packets with a short header are noted instead of sealed. The notes are added to `notes`.
pub(crate) fn sealing<R>(notes: &mut Notes, f: impl FnOnce() -> R) -> R {
    struct Leave<'a>(&'a mut Notes);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            if let Scope::Sealing(notes) = SCOPE.replace(Scope::None) {
                *self.0 = notes;
            }
        }
    }
    enter(Scope::Sealing(std::mem::take(notes)));
    let _leave = Leave(notes);
    f()
}

fn enter(scope: Scope) {
    let before = SCOPE.replace(scope);
    assert!(matches!(before, Scope::None), "one scope at a time");
}

/// A key has been asked to seal a packet with a short header. True if it is noted, and left as it is.
pub(super) fn note_plain(
    key: &Arc<PacketKey>,
    packet_number: u64,
    header_bytes: usize,
    packet_bytes: usize,
) -> bool {
    SCOPE.with_borrow_mut(|scope| match scope {
        Scope::Sealing(notes) => {
            notes.plain(key, packet_number, header_bytes, packet_bytes);
            true
        }
        _ => false,
    })
}

/// A key has been asked to protect a short header. True if that is noted, and the header left as it is.
pub(super) fn note_header(key: &Arc<HeaderKey>, packet_number_bytes: usize) -> bool {
    SCOPE.with_borrow_mut(|scope| match scope {
        Scope::Sealing(notes) => {
            notes.header(key, packet_number_bytes);
            true
        }
        _ => false,
    })
}

/// A packet has been sealed on the spot.
pub(super) fn note_protected(packet_bytes: usize) {
    SCOPE.with_borrow_mut(|scope| {
        if let Scope::Sealing(notes) = scope {
            notes.packets.push(Noted::Protected { packet_bytes });
        }
    });
}

/// What the batch found about a packet that quinn is about to handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Index into the burst's keys.
    pub(crate) keys: u32,
    pub(crate) packet_number: u64,
    pub(crate) authentic: bool,
}

/// What became of the datagrams that a [`Reading`] has given to quinn, for the [`super::Mirror`].
#[derive(Debug, Default)]
pub(crate) struct Authenticated {
    /// The number of a 1-RTT packet that was authentic.
    pub(crate) packet_number: Option<u64>,
    /// It was opened eagerly, by this key, in this key phase.
    pub(crate) eager: Option<(Arc<PacketKey>, bool)>,
    /// Its header had been protected by this key.
    pub(crate) header: Option<Arc<HeaderKey>>,
    /// The verdict was about another key or number than quinn asked for: the packet was opened anew.
    pub(crate) restored: bool,
}

#[derive(Default)]
struct State {
    keys: Vec<Arc<PacketKey>>,
    verdict: Option<Verdict>,
    outcome: Authenticated,
}

/// The scope in which quinn handles the datagrams of a burst. Dropping it ends the scope and gives the keys back.
pub(crate) struct Reading<'a>(&'a mut Vec<Arc<PacketKey>>);

impl<'a> Reading<'a> {
    /// Verdicts will name `keys` by their index.
    pub(crate) fn enter(keys: &'a mut Vec<Arc<PacketKey>>) -> Self {
        enter(Scope::Reading(State { keys: std::mem::take(keys), ..State::default() }));
        Self(keys)
    }

    /// Has quinn handle one datagram, about which there may be a verdict.
    pub(crate) fn one(&self, verdict: Option<Verdict>, handle: impl FnOnce()) -> Authenticated {
        with_state(|state| state.verdict = verdict);
        handle();
        with_state(|state| {
            state.verdict = None;
            std::mem::take(&mut state.outcome)
        })
        .unwrap_or_default()
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Scope::Reading(state) = SCOPE.replace(Scope::None) {
            *self.0 = state.keys;
        }
    }
}

fn with_state<R>(f: impl FnOnce(&mut State) -> R) -> Option<R> {
    SCOPE.with_borrow_mut(|scope| match scope {
        Scope::Reading(state) => Some(f(state)),
        _ => None,
    })
}

/// A key has been asked to unmask a short header. True if that is done already.
pub(super) fn header_is_plain(key: &Arc<HeaderKey>) -> bool {
    with_state(|state| {
        let is_plain = state.verdict.is_some();
        if !is_plain {
            state.outcome.header = Some(key.clone());
        }
        is_plain
    })
    .unwrap_or(false)
}

/// How a key is to open a packet with a short header.
pub(super) enum Opened {
    /// Not at all yet.
    Eagerly,
    /// The payload is there.
    Authentic,
    /// It was a forgery.
    Forged,
    /// After the payload has been encrypted again, by this key under this number, which had opened it.
    AfterRestoring(Arc<PacketKey>, u64),
}

/// What is known of the packet that a key has been asked to open.
pub(super) fn verdict(key: &Arc<PacketKey>, packet_number: u64) -> Opened {
    with_state(|state| {
        let Some(verdict) = state.verdict.take() else { return Opened::Eagerly };
        let opened_by = &state.keys[verdict.keys as usize];
        if verdict.packet_number != packet_number || !Arc::ptr_eq(opened_by, key) {
            state.outcome.restored = true;
            return match verdict.authentic {
                true => Opened::AfterRestoring(opened_by.clone(), verdict.packet_number),
                false => Opened::Eagerly,
            };
        }
        match verdict.authentic {
            true => {
                state.outcome.packet_number = Some(packet_number);
                Opened::Authentic
            }
            false => Opened::Forged,
        }
    })
    .unwrap_or(Opened::Eagerly)
}

/// A packet with a short header was opened eagerly, and was authentic.
pub(super) fn opened_eagerly(key: &Arc<PacketKey>, packet_number: u64, phase: bool) {
    with_state(|state| {
        state.outcome.packet_number = Some(packet_number);
        state.outcome.eager = Some((key.clone(), phase));
    });
}
