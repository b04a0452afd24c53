//! Tunnels that sleep: a client without flows lets its connection lapse, and comes back in 0-RTT with its next one.
//!
//! ```text
//!  client                                                                             gateway
//!   │            SETTINGS: BEAM_SLEEP = the tunnel's id       (each connection, in early data too)
//!   ├──────────────────────────────────────────────────────────────────────────────────►│
//!   │            max_idle_timeout (RFC 9000 section 10.1): the agreed silence
//!   ├──────────────────────────────────────────────────────────────────────────────────►│
//!   │            … no flow is open: nobody sends a packet …                              │
//!   │ forgets its connection, a little earlier                     its idle timeout: asleep, one record is left
//!   │                                                                                    │
//!   │  0-RTT: SETTINGS with the same id, and the next flow's request                     │
//!   ├──────────────────────────────────────────────────────────────────────────────────►│ awake: the record's numbers
//!   │                                                                                    │ go on
//! ```
//!
//! **The setting.** [`BEAM_SLEEP`] is sent by clients alone, and only by one that nothing has to reach while it is silent.
//! Its value is the tunnel's [`TunnelId`]: a random number from 1 to 2^61 - 1, drawn by the client process for each
//! connection that it holds at once, and sent again in each further connection that takes the place of an earlier one. A
//! gateway takes a value outside of that range as if the setting weren't there, and so it does with one of a client that
//! has not shown who it is: an id means something only together with the client's name, so that nobody wakes another
//! client's tunnel.
//!
//! **The silence.** It is QUIC's: the smaller of both ends' `max_idle_timeout`. A client that sends nothing for so long has
//! fallen asleep; one that has a flow open sends PINGs in time and doesn't. The client forgets its connection
//! [`SLEEP_MARGIN`] before that time is over at the gateway, so that it never sends into a connection that is gone.
//!
//! A gateway that knows no such setting, and a client that sends none, meet as ever: the connection then times out.

use crate::{Settings, varint};
use std::{num::NonZeroU64, time::Duration};

/// The setting with which a client says that its tunnel may sleep; its value is the tunnel's id. "BEAMDOZE" in ASCII, less
/// the two bits that a varint has not got. For [`crate::Config::extra_settings`].
pub const BEAM_SLEEP: u64 = 0x4245_414d_444f_5a45 & varint::VARINT_MAX;

/// "Setting identifiers of the format 0x1f * N + 0x21" are sent to be ignored (RFC 9114 section 7.2.4.1).
const _: () = assert!(!(BEAM_SLEEP - 0x21).is_multiple_of(0x1f));

/// How long before the end of the agreed silence a client forgets its connection: longer than its last packet may have
/// been under way.
pub const SLEEP_MARGIN: Duration = Duration::from_secs(2);

/// A tunnel of one client, over all of its connections. Invariant: 1 to 2^61 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelId(NonZeroU64);

impl TunnelId {
    const MAX: u64 = (1 << 61) - 1;

    /// The id that this number is; `None` if it is none.
    #[must_use]
    pub fn new(value: u64) -> Option<Self> {
        NonZeroU64::new(value).filter(|value| value.get() <= Self::MAX).map(Self)
    }

    /// An id from a random number.
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        Self(NonZeroU64::new(random & Self::MAX).unwrap_or(NonZeroU64::MIN))
    }

    /// The setting's value.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl Settings {
    /// The client's tunnel may sleep, and has this id (see [`crate::sleep`]).
    #[must_use]
    pub fn beam_sleep(&self) -> Option<TunnelId> {
        self.get(BEAM_SLEEP).and_then(TunnelId::new)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the identifier is what it is said to be, and only numbers in range are ids, over the wire too.
    use super::*;
    use crate::{Config, Connection, Event};

    #[test]
    fn the_identifier_is_spelled_out() {
        assert_eq!(BEAM_SLEEP.to_be_bytes()[1..], *b"EAMDOZE");
    }

    #[test]
    fn ids_are_in_range() {
        for (value, is_one) in [(0, false), (1, true), ((1 << 61) - 1, true), (1 << 61, false)] {
            assert_eq!(TunnelId::new(value).map(TunnelId::get), is_one.then_some(value));
        }
        assert!([0, 1, u64::MAX].iter().all(|&random| {
            let id = TunnelId::from_random(random);
            TunnelId::new(id.get()) == Some(id)
        }));
    }

    #[test]
    fn a_server_reads_what_a_client_sends() {
        for (value, read) in [(7, TunnelId::new(7)), (0, None), (1 << 61, None)] {
            let config = Config { extra_settings: vec![(BEAM_SLEEP, value)], ..Config::default() };
            let opening = Connection::client(config).opening();
            let mut server = Connection::server(Config::default());
            server.uni_opened(2).unwrap();
            let events = server.uni_data(2, opening, false).unwrap();
            assert!(matches!(&events[..], [Event::Settings(settings)] if settings.beam_sleep() == read));
        }
    }
}
