//! Draining: running flows finish, new ones are refused, then the daemon stops. By SIGTERM, or by `beam drain`, whose both
//! ends are here.
//!
//! ```text
//!  SIGTERM ────────┐
//!  beam drain ─────┴─► begin ─► thread: tell the workers · count flows · until none is left, or the time is over ─► stop
//!  beam drain ◄─ flows left, once a second, and how it ended ◄─┘
//! ```

use crate::{
    cli::DrainArgs,
    control::{self, Answer, Request},
    failure::Failure,
    notify,
    supervisor::Supervisor,
    worker::{mail::Command, snapshot::WorkerSnapshot},
};
use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use std::{
    io::{IsTerminal as _, Write as _},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

/// How often a draining daemon looks whether its flows are done.
const LOOK: Duration = Duration::from_millis(50);
/// How long one answer about a drain may be waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long the end of a drain waits for those that want to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Name of the JSON object's shape.
const SCHEMA: &str = "beam.drain.v1";

/// How far a daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) flows_left: u64,
    /// Until those left are cut off.
    pub(crate) left_ms: u64,
    /// It is over: so many were cut off.
    pub(crate) cut: Option<u64>,
}

/// The drain of a daemon, begun or not.
pub(crate) struct Drain {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What running flows are granted.
    within: Duration,
    until: Option<Instant>,
    flows_left: u64,
    cut: Option<u64>,
    /// Who waits for the end, and when somebody last did: between two questions nobody does for a moment.
    waiting: usize,
    asked: Option<Instant>,
}

impl Drain {
    pub(crate) fn new(within: Duration) -> Self {
        let state = State { within, until: None, flows_left: 0, cut: None, waiting: 0, asked: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants another time from now on; a drain that has begun keeps its own.
    pub(crate) fn grant(&self, within: Duration) {
        self.state().within = within;
    }

    fn begin(&self, now: Instant) -> (Duration, Instant) {
        let mut state = self.state();
        let until = now + state.within;
        state.until = Some(until);
        (state.within, until)
    }

    fn note(&self, flows_left: u64) {
        self.state().flows_left = flows_left;
    }

    /// Tells the end, and waits a moment for whoever wants to hear it.
    fn finish(&self, cut: u64) {
        let mut state = self.state();
        state.cut = Some(cut);
        self.changed.notify_all();
        let is_awaited = state.asked.is_some_and(|asked| asked.elapsed() < ANSWER_WITHIN + FAREWELL);
        let until = Instant::now() + FAREWELL;
        while is_awaited && state.asked.is_some() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Somebody wants to hear of the end.
    fn expect(&self) {
        self.state().asked = Some(Instant::now());
    }

    /// How far it is. Who waits for the end is told of it when it is there, or how far it is after `patience`.
    fn progress(&self, wait: bool, patience: Duration) -> Progress {
        let mut state = self.state();
        if wait {
            state.asked = Some(Instant::now());
            state.waiting += 1;
            let running = |state: &mut State| state.cut.is_none();
            let waited = self.changed.wait_timeout_while(state, patience, running);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
            if state.cut.is_some() && state.waiting == 0 {
                state.asked = None;
                self.changed.notify_all();
            }
        }
        let left = state.until.map(|until| until.saturating_duration_since(Instant::now()));
        Progress {
            flows_left: state.flows_left,
            left_ms: left.map_or(0, |left| left.as_millis() as u64),
            cut: state.cut,
        }
    }
}

impl Supervisor {
    /// Begins to drain on a thread of its own; `false` where that has begun already.
    pub(crate) fn begin_drain(self: &Arc<Self>) -> bool {
        if self.draining.swap(true, Ordering::SeqCst) {
            return false;
        }
        let (within, until) = self.drain.begin(Instant::now());
        let of_thread = self.clone();
        std::thread::spawn(move || of_thread.run_drain(within, until));
        true
    }

    /// Lets running flows finish, then stops the workers.
    fn run_drain(&self, within: Duration, until: Instant) {
        // A worker that doesn't answer in time is busy, and so not done.
        let flows = |snapshots: &[WorkerSnapshot]| {
            let silent = self.seats.len().saturating_sub(snapshots.len()) as u64;
            snapshots.iter().map(|s| s.flows + s.pending).sum::<u64>() + silent
        };
        self.tell_all(|| Command::Drain);
        let mut left = flows(&self.snapshots());
        self.drain.note(left);
        let draining = format!(
            "draining: {left} flow(s) may finish within {} s, new ones are refused",
            within.as_secs()
        );
        tracing::info!("{draining}");
        notify::stopping(within, &draining);
        while left > 0 && Instant::now() < until {
            std::thread::sleep(LOOK);
            left = flows(&self.snapshots());
            self.drain.note(left);
        }
        tracing::info!("drained, {left} flow(s) cut off: stopping");
        self.drain.finish(left);
        self.tell_all(|| Command::Stop);
    }

    /// `beam drain`, asked once and again.
    pub(crate) fn drained(self: &Arc<Self>, wait: bool) -> Progress {
        if wait {
            // Before it begins: it may be over in no time.
            self.drain.expect();
        }
        if self.begin_drain() {
            tracing::info!("the operator drains this daemon");
            // The first answer says what there is to wait for.
            let flows = self.snapshots().iter().map(|s| s.flows + s.pending).sum();
            self.drain.note(flows);
            return self.drain.progress(wait, Duration::ZERO);
        }
        self.drain.progress(wait, ANSWER_WITHIN)
    }
}

/// `beam drain`.
pub(crate) fn run(args: &DrainArgs) -> Result<(), Failure> {
    let mut progress = ask(args, !args.no_wait)?;
    let mut told = None;
    while !args.no_wait && progress.cut.is_none() {
        tell(args, progress, &mut told);
        progress = ask(args, true).map_err(|failure| match failure {
            // It answered a moment ago.
            Failure::Unreachable(_) => Failure::Runtime(anyhow!(
                "the daemon went away before its drain was over ({} flow(s) were left): a second signal, or a crash; its log tells",
                progress.flows_left
            )),
            other => other,
        })?;
    }
    let Progress { flows_left, left_ms, cut } = progress;
    if args.json {
        let object = serde_json::json!({
            "schema": SCHEMA, "stopped": cut.is_some(), "flows_left": flows_left, "left_ms": left_ms, "flows_cut": cut,
        });
        say!("{object}");
    }
    match cut {
        Some(0) if args.json => Ok(()),
        Some(0) => {
            say!("drained: every flow has finished");
            Ok(())
        }
        Some(cut) => Err(Failure::Runtime(anyhow!(
            "{cut} flow(s) did not finish in time and were cut off; --drain-timeout of the daemon grants more"
        ))),
        None if args.json => Ok(()),
        None => {
            say!("draining: {flows_left} flow(s) may finish within {} s", left_ms.div_ceil(1000));
            Ok(())
        }
    }
}

fn ask(args: &DrainArgs, wait: bool) -> Result<Progress, Failure> {
    match control::ask(&args.control.control, &Request::Drain { wait })? {
        Answer::Drain(progress) => Ok(progress),
        Answer::Error(error) => Err(Failure::Runtime(anyhow!(error))),
        _ => Err(Failure::Runtime(anyhow!("the daemon answers another question"))),
    }
}

/// A line on standard error: on a terminal the same one, elsewhere another where the count has changed.
fn tell(args: &DrainArgs, Progress { flows_left, left_ms, .. }: Progress, told: &mut Option<u64>) {
    if args.json {
        return;
    }
    let line =
        format!("draining: {flows_left} flow(s) left, {} s until they are cut off", left_ms.div_ceil(1000));
    let mut stderr = std::io::stderr().lock();
    let _ = match stderr.is_terminal() {
        true => write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush()),
        false if *told == Some(flows_left) => Ok(()),
        false => writeln!(stderr, "{line}"),
    };
    *told = Some(flows_left);
}

#[cfg(test)]
mod tests {
    //! Goal: whoever waits hears how a drain ended before the daemon is gone; where nobody waits, nobody is waited for.
    //! Method: threads, which meet at the condition itself.
    use super::*;

    #[test]
    fn the_end_is_heard() {
        let drain = Drain::new(Duration::from_secs(30));
        drain.begin(Instant::now());
        drain.note(2);
        let at_once = drain.progress(false, ANSWER_WITHIN);
        assert_eq!((at_once.flows_left, at_once.cut), (2, None));
        assert!(at_once.left_ms > 0);
        std::thread::scope(|scope| {
            let heard: Vec<_> =
                (0..3).map(|_| scope.spawn(|| drain.progress(true, ANSWER_WITHIN).cut)).collect();
            while drain.state().waiting < 3 {
                std::thread::yield_now();
            }
            drain.finish(1);
            for heard in heard {
                assert_eq!(heard.join().unwrap(), Some(1));
            }
        });
    }

    #[test]
    fn nobody_is_waited_for() {
        let drain = Drain::new(Duration::ZERO);
        drain.begin(Instant::now());
        let before = Instant::now();
        drain.finish(0);
        assert!(before.elapsed() < FAREWELL, "nobody had asked");
        assert_eq!(drain.progress(true, ANSWER_WITHIN).cut, Some(0));
    }
}
