//! `beam-broker`: the thread that does for others what takes a privilege at run time.
//!
//! Workers send it closures and go on ([`later`]): orders are carried out one by one, as they came. Where an answer is needed
//! at once ([`ask`]: a port below 1024, when a client's `-R` begins), the worker waits, at most for [`ANSWER_WITHIN`].
//! Where no broker was started (`--sandbox off`, a daemon that never had privileges) the caller does it itself.

use confine::{Capabilities, Room};
use crossbeam::channel::{self, Sender};
use std::{io, sync::OnceLock, thread::Builder, time::Duration};

/// Orders that wait: some for each IP session that begins or ends; the kernel takes tens of microseconds for each.
const ORDERS_MAX: usize = 1024;
/// As much as a worker may lose over a port.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

type Order = Box<dyn FnOnce() + Send>;

static BROKER: OnceLock<Sender<Order>> = OnceLock::new();

/// Starts the thread with what of `kept` this process has. Once, before privileges are given up.
pub(crate) fn start(kept: Capabilities) -> io::Result<()> {
    let has = rustix::thread::capabilities(None)?.permitted;
    if confine::report().is_none() || !has.intersects(kept) || BROKER.get().is_some() {
        return Ok(());
    }
    let (sender, orders) = channel::bounded::<Order>(ORDERS_MAX);
    Builder::new().name("beam-broker".into()).spawn(move || {
        if !confine::enter_or_note(Room::Broker(kept)) {
            return;
        }
        orders.iter().for_each(|order| order());
    })?;
    let _ = BROKER.set(sender);
    Ok(())
}

/// Has something done soon. Too many orders, which takes a kernel that hangs: this one is lost, and that is said.
pub(crate) fn later(order: impl FnOnce() + Send + 'static) {
    match BROKER.get() {
        None => order(),
        Some(broker) => {
            if broker.try_send(Box::new(order)).is_err() {
                tracing::error!(
                    "{ORDERS_MAX} changes of addresses and routes wait for the kernel: one more is lost"
                );
            }
        }
    }
}

/// Has something done now; `None` if it took too long.
pub(crate) fn ask<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let Some(broker) = BROKER.get() else { return Some(work()) };
    let (reply, answer) = channel::bounded(1);
    // The asker may have given up by then.
    let order = Box::new(move || drop(reply.send(work())));
    broker.try_send(order).ok()?;
    answer.recv_timeout(ANSWER_WITHIN).ok()
}
