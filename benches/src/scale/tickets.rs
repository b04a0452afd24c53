//! What tunnels keep for the next time: session tickets, and the tokens that prove their addresses.
//!
//! All tunnels share one TLS configuration. rustls and quinn ask these stores by the server's name, so each tunnel has a name
//! of its own for the gateway ([`server_name`]), whose certificate is pinned.

use bytes::Bytes;
use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};
use std::sync::{Mutex, PoisonError};
use tunnel::TokenStore;

const DOMAIN: &str = ".gateway.test";

/// The name that tunnel `number` calls the gateway by.
pub(super) fn server_name(number: u32) -> String {
    format!("t{number}{DOMAIN}")
}

fn number(name: &str) -> Option<usize> {
    name.strip_prefix('t')?.strip_suffix(DOMAIN)?.parse().ok()
}

/// The newest ticket and the newest token of each tunnel.
#[derive(Debug, Default)]
pub(super) struct Tickets(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    tickets: Vec<Option<Box<Tls13ClientSessionValue>>>,
    tokens: Vec<Option<Bytes>>,
    ticket_count: u64,
    token_count: u64,
}

impl Tickets {
    fn with<R>(&self, work: impl FnOnce(&mut Kept) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tunnels that have a ticket, and tunnels that have a token.
    pub(super) fn counts(&self) -> (u64, u64) {
        self.with(|kept| (kept.ticket_count, kept.token_count))
    }
}

/// Puts a value into a place of a table; says whether the place was empty.
fn put<T>(table: &mut Vec<Option<T>>, at: usize, value: T) -> bool {
    if table.len() <= at {
        table.resize_with(at + 1, || None);
    }
    table[at].replace(value).is_none()
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.with(|kept| kept.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|kept| kept.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        if let Some(at) = number(&name.to_str()) {
            self.with(|kept| kept.ticket_count += u64::from(put(&mut kept.tickets, at, Box::new(value))));
        }
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let at = number(&name.to_str())?;
        self.with(|kept| {
            let ticket = kept.tickets.get_mut(at)?.take()?;
            kept.ticket_count -= 1;
            Some(*ticket)
        })
    }
}

impl TokenStore for Tickets {
    fn insert(&self, name: &str, token: Bytes) {
        if let Some(at) = number(name) {
            // A copy of its own: the frame's buffer is a whole receive slab.
            let token = Bytes::copy_from_slice(&token);
            self.with(|kept| kept.token_count += u64::from(put(&mut kept.tokens, at, token)));
        }
    }

    fn take(&self, name: &str) -> Option<Bytes> {
        let at = number(name)?;
        self.with(|kept| {
            let token = kept.tokens.get_mut(at)?.take()?;
            kept.token_count -= 1;
            Some(token)
        })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a name leads back to its tunnel, and nobody else's does.
    use super::*;

    #[test]
    fn names_are_numbers() {
        assert_eq!(number(&server_name(123_456)), Some(123_456));
        assert_eq!(number("gateway.test"), None);
        let tickets = Tickets::default();
        tickets.insert(&server_name(7), Bytes::from_static(b"a"));
        tickets.insert(&server_name(7), Bytes::from_static(b"b"));
        tickets.insert("gateway.test", Bytes::from_static(b"c"));
        assert_eq!(tickets.counts(), (0, 1));
        assert_eq!(tickets.take(&server_name(6)), None);
        assert_eq!(tickets.take(&server_name(7)).as_deref(), Some(&b"b"[..]));
        assert_eq!((tickets.take(&server_name(7)), tickets.counts()), (None, (0, 0)));
    }
}
