//! rustls' view of the tickets of one client: whatever was laid out on this thread just now.

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// Values that one call of rustls may bring.
const INSERTED_MAX: usize = 16;

thread_local! {
    static LAID_OUT: RefCell<Option<Tls13ClientSessionValue>> = const { RefCell::new(None) };
    static INSERTED: RefCell<Option<Vec<Tls13ClientSessionValue>>> = const { RefCell::new(None) };
}

/// Runs `work`, in which rustls finds this value, once.
pub(super) fn laying_out<R>(value: Option<Tls13ClientSessionValue>, work: impl FnOnce() -> R) -> R {
    LAID_OUT.with_borrow_mut(|place| *place = value);
    let done = work();
    LAID_OUT.with_borrow_mut(|place| *place = None);
    done
}

/// Runs `work`, and says what rustls wanted kept.
pub(super) fn collecting<R>(work: impl FnOnce() -> R) -> (R, Vec<Tls13ClientSessionValue>) {
    INSERTED.with_borrow_mut(|place| *place = Some(Vec::new()));
    let done = work();
    (done, INSERTED.with_borrow_mut(Option::take).unwrap_or_default())
}

/// Keeps nothing but the group that the gateway chose last: a wrong guess costs a round trip, and early data with it.
#[derive(Debug, Default)]
pub(crate) struct Store {
    group: Mutex<Option<NamedGroup>>,
}

impl ClientSessionStore for Store {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, group: NamedGroup) {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
    }

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_tls12_session(&self, _server_name: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        INSERTED.with_borrow_mut(|place| {
            if let Some(inserted) = place.as_mut().filter(|inserted| inserted.len() < INSERTED_MAX) {
                inserted.push(value);
            }
        });
    }

    fn take_tls13_ticket(&self, _server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        LAID_OUT.with_borrow_mut(Option::take)
    }
}
