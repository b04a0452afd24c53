//! `beam-broker`: the thread that does for others what takes a privilege at run time.
//!
//! Workers send it closures and go on ([`later`]): orders are carried out one by one, as they came. Where an answer is needed
//! at once ([`ask`]: a port below 1024, when a client's `-R` begins), the worker waits, at most for [`ANSWER_WITHIN`], and
//! what it asks goes before all orders.
//! Where no broker was started (`--sandbox off`, a daemon that never had privileges) the caller does it itself.

use confine::{Capabilities, Room};
use crossbeam::channel::{self, Receiver, Sender, select};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::Builder,
    time::Duration,
};

/// Orders that wait: one for each network of the IP sessions that begin or end, 256 a session at most; the kernel takes
/// tens of microseconds for each. 64 full sessions may end at once.
const ORDERS_MAX: usize = 64 * 256;
/// Workers that ask at once.
const ASKS_MAX: usize = 256;
/// As much as a worker may lose over a port.
const ANSWER_WITHIN: Duration = Duration::from_millis(50);

type Order = Box<dyn FnOnce() + Send>;

struct Broker {
    asks: Sender<Order>,
    orders: Sender<Order>,
}

static BROKER: OnceLock<Broker> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

/// Starts the thread with what of `kept` this process has. Once, before privileges are given up.
pub(crate) fn start(kept: Capabilities) -> io::Result<()> {
    let has = rustix::thread::capabilities(None)?.permitted;
    if confine::report().is_none() || !has.intersects(kept) || BROKER.get().is_some() {
        return Ok(());
    }
    let (asks, asked) = channel::bounded::<Order>(ASKS_MAX);
    let (orders, ordered) = channel::bounded::<Order>(ORDERS_MAX);
    Builder::new().name("beam-broker".into()).spawn(move || {
        if confine::enter_or_note(Room::Broker(kept)) {
            serve(&asked, &ordered);
        }
    })?;
    let _ = BROKER.set(Broker { asks, orders });
    Ok(())
}

/// What is asked goes before what is ordered.
fn serve(asked: &Receiver<Order>, ordered: &Receiver<Order>) {
    let next = || match asked.try_recv() {
        Ok(order) => Ok(order),
        Err(_) => select! { recv(asked) -> order => order, recv(ordered) -> order => order },
    };
    while let Ok(order) = next() {
        // The next one is somebody else's. The panic's own message is on standard error.
        let _ = catch_unwind(AssertUnwindSafe(order));
    }
}

/// Orders that found no room.
pub(crate) fn orders_lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Has something done soon. Too many orders, which takes a kernel that hangs: this one is lost, and that is said.
pub(crate) fn later(order: impl FnOnce() + Send + 'static) {
    match BROKER.get() {
        None => order(),
        Some(broker) => {
            if broker.orders.try_send(Box::new(order)).is_err() {
                let lost = LOST.fetch_add(1, Ordering::Relaxed) + 1;
                // Not a line for each: they come by the hundred.
                if lost.is_power_of_two() {
                    tracing::error!(
                        "{ORDERS_MAX} changes of addresses and routes wait for the kernel, more don't: {lost} lost so \
                         far; what `ip route` shows may differ from `beam show routes` until beam starts again"
                    );
                }
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
    broker.asks.try_send(order).ok()?;
    answer.recv_timeout(ANSWER_WITHIN).ok()
}
