//! What a restart should not cost: session tickets, address-validation tokens, secrets, settings of gateways.
//!
//! ```text
//!  gateway   [`tickets`]  in memory, one store for all workers; on disk only while no gateway runs
//!            [`tokens`]   which NEW_TOKENs have been used; the key that seals them is among the [`secrets`]
//!  client    [`vault`]    tickets: in memory for this process, a copy on the disk for the next one
//!            [`tokens`]   tokens, the same way
//!            [`peers`]    the SETTINGS of the gateway that early data goes by
//!  both      [`state`]    the directory, and what is done where it can't be used
//! ```
//!
//! # When early data is run
//! Early data can be replayed by whoever sees it. RFC 8446 section 8.1 allows it where each ticket is taken once; rustls
//! accepts it only with a ticket that it has just taken from the gateway's store, and refuses it in every other case: the
//! client then sends its requests again once the handshake is done. So `safe` rests on the store alone:
//! - `take` removes atomically, and all workers ask the same store;
//! - a clean stop writes the tickets to the disk after the last worker has ended; a start moves them into memory and
//!   empties the disk, durably, before the first packet is read. What can't be emptied isn't used. So each ticket is in
//!   one place at any time, and neither a restart nor `kill -9` (after which there are none) gives one out twice;
//! - tickets name the host and the configuration that they were given under; those of another are not taken.
//!
//! `on` keeps to the same store, and also writes tickets to the disk as they are given and removes them as they are
//! taken, without waiting for it. So early data works after `kill -9`, too; in exchange, a ticket taken just before a
//! crash may be taken once more after it. `off` refuses all early data; tickets then still spare the certificates.
//!
//! What no setting changes: a client whose early data was refused, or got lost, sends its request again (RFC 8470), and a
//! state directory that is restored from a backup while the gateway is down brings its tickets with it.

mod at_client;
mod at_gateway;
pub(crate) mod peers;
pub(crate) mod secrets;
pub(crate) mod state;
pub(crate) mod tickets;
pub(crate) mod tokens;
pub(crate) mod vault;

pub(crate) use at_client::AtClient;
pub(crate) use at_gateway::AtGateway;

use ring::digest::{Context, SHA256};
use std::time::{Duration, SystemTime};

/// As long as rustls lets a ticket live.
pub(crate) const TICKET_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How long the end of a process waits for the disk.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// A digest of what must be the same for a ticket to be used.
pub(crate) type Circumstances = [u8; 32];

/// The digest of `parts`.
pub(crate) fn circumstances(parts: &[&[u8]]) -> Circumstances {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// The time for caches. rustls and quinn ask stores without saying what time it is.
pub(crate) fn now() -> cache::Stamp {
    cache::Stamp::of(SystemTime::now())
}
