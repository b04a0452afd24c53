//! The thread that writes: workers leave changes in a bounded queue and go on.

use super::{Record, Shared, lost, store::Change};
use crate::{
    counters::Counters,
    kind::{Bounds, Stamp},
};
use crossbeam::channel::{self, Receiver, Sender};
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread::{Builder, JoinHandle},
    time::Duration,
};

/// Changes that wait: a burst of handshakes, each with its ticket; some 300 bytes each.
const QUEUE_LEN: usize = 1024;
/// Changes of one transaction: a commit costs two flushes of the disk, however many it holds.
const BATCH_MAX: usize = 256;

pub(super) enum Op {
    Put {
        now: Stamp,
        table: &'static str,
        key: Vec<u8>,
        record: Record,
        bounds: Bounds,
        counters: Arc<Counters>,
    },
    Remove {
        table: &'static str,
        key: Vec<u8>,
        counters: Arc<Counters>,
    },
    Flush(Sender<()>),
}

/// The queue and its thread, which starts with the first change: most processes never write.
pub(super) struct Writer {
    queue: Option<Sender<Op>>,
    waiting: Receiver<Op>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (queue, waiting) = channel::bounded(QUEUE_LEN);
        Self { queue: Some(queue), waiting, thread: Mutex::new(None), shared }
    }

    /// Queues a change; what doesn't fit is counted as lost.
    pub(super) fn send(&self, op: Op) {
        self.ensure_thread();
        let Some(queue) = &self.queue else { return };
        if let Err(refused) = queue.try_send(op) {
            match refused.into_inner() {
                Op::Put { counters, .. } | Op::Remove { counters, .. } => lost(&counters),
                Op::Flush(_) => {}
            }
        }
    }

    pub(super) fn flush(&self, within: Duration) -> bool {
        if self.lock().is_none() {
            return true;
        }
        let (done, wait) = channel::bounded(1);
        let Some(queue) = &self.queue else { return true };
        queue.send_timeout(Op::Flush(done), within).is_ok() && wait.recv_timeout(within).is_ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ensure_thread(&self) {
        let mut thread = self.lock();
        if thread.is_none() {
            let (waiting, shared) = (self.waiting.clone(), self.shared.clone());
            let run = move || serve(&waiting, &shared);
            // Without a thread the queue fills up, and what doesn't fit is counted.
            *thread = Builder::new().name("beam-cache".into()).spawn(run).ok();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.lock().take() {
            // It ends once the queue is empty; its panics are caught where they may happen.
            let _ = thread.join();
        }
    }
}

fn serve(waiting: &Receiver<Op>, shared: &Shared) {
    while let Ok(first) = waiting.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = waiting.try_recv()
        {
            batch.push(next);
        }
        write(&batch, shared);
        for op in batch {
            if let Op::Flush(done) = op {
                // Whoever asked may have given up.
                let _ = done.send(());
            }
        }
    }
}

fn write(batch: &[Op], shared: &Shared) {
    let mut changes = Vec::with_capacity(batch.len());
    let mut now = Stamp::default();
    for op in batch {
        match op {
            Op::Put { now: at, table, key, record, bounds, .. } => {
                now = now.max(*at);
                changes.push(Change::Put { table, key, record, bounds: *bounds });
            }
            Op::Remove { table, key, .. } => changes.push(Change::Remove { table, key }),
            Op::Flush(_) => {}
        }
    }
    if changes.is_empty() {
        return;
    }
    let evicted = shared.with(|store| store.apply(&changes, now));
    for op in batch {
        match (op, &evicted) {
            (Op::Put { counters, .. } | Op::Remove { counters, .. }, None) => lost(counters),
            (Op::Put { table, counters, .. }, Some(evicted)) => {
                counters.inserts.fetch_add(1, Relaxed);
                // Once for the table: the first of its changes books them all.
                if is_first_of(batch, op, table) {
                    counters.evictions.fetch_add(evicted.get(*table).copied().unwrap_or(0), Relaxed);
                }
            }
            _ => {}
        }
    }
}

fn is_first_of(batch: &[Op], op: &Op, of: &str) -> bool {
    let first = batch.iter().find(|other| matches!(other, Op::Put { table, .. } if *table == of));
    first.is_some_and(|first| std::ptr::eq(first, op))
}
