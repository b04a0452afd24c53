//! Alerts: rules such as `latency_p95 > 1ms for 30s`, judged once a second, said aloud when they begin to hold for long
//! enough and when that is over.
//!
//! ```text
//!  workers ─snapshot─► reading ─values─► board (a phase a rule) ─changes─► log
//!          once a second, thread `beam-alerts`   │                    ├──► queue ─► `beam-webhook`:    POST, tries again
//!                                                ▼                    └──► queue ─► `beam-alert-exec`: a program
//!                                     beam status, /metrics
//! ```
//!
//! Whoever looks never waits for whoever is told: the queues are bounded, and a notice that finds one full is counted.
//! The supervisor owns an [`Alerts`]; `serve` and `connect` make its [`Plan`] from the flags before anything else.

mod board;
mod notice;
mod phase;
mod program;
mod quantity;
mod reading;
mod rule;
mod tally;
mod webhook;

use crate::{cli::AlertArgs, failure::Failure, supervisor::Supervisor, worker::meters::Meters};
use anyhow::{Context as _, anyhow};
use board::Board;
pub(crate) use board::{AlertStatus, AlertsStatus};
use confine::Room;
use crossbeam::channel::{self, TrySendError};
use notice::{Moment, Notice, Sender};
use program::Program;
pub(crate) use reading::Asked;
use reading::{Lately, Reading, Sample};
use rule::Rule;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tally::{Fate, Tally};
use webhook::{Url, Webhook};

/// How often the rules are judged.
const EVERY: Duration = Duration::from_secs(1);
/// Notices that wait for a hook: every rule could fire at once.
const NOTICES_MAX: usize = rule::RULES_MAX;

/// What the flags ask for, checked.
#[derive(Debug)]
pub(crate) struct Plan {
    rules: Vec<Rule>,
    webhook: Option<Url>,
    program: Option<PathBuf>,
}

impl Plan {
    pub(crate) fn of(args: &AlertArgs) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::Config(anyhow!(why));
        Ok(Self {
            rules: rule::of_flags(&args.rules, reading::total_mebibytes()).map_err(wrong)?,
            webhook: args.webhook.as_deref().map(Url::parse).transpose().map_err(wrong)?,
            program: args.program.as_deref().map(program::check).transpose().map_err(wrong)?,
        })
    }

    /// The program of `--alert-exec`.
    pub(crate) fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }

    /// Starts the hooks. What they say of themselves is the daemon's role and address.
    pub(crate) fn start(self, role: &'static str, address: &str) -> anyhow::Result<Alerts> {
        let (tally, sender) = (Arc::new(Tally::default()), Sender::new(role, address));
        let mut hooks = Vec::new();
        if let Some(url) = self.webhook {
            let hook = Webhook::new(url, sender.clone(), tally.clone());
            let name = "beam-webhook";
            hooks.push(Hook::start(name, Room::Control, Fate::WebhookQueueFull, move |n| hook.post(n))?);
        }
        if let Some(path) = self.program {
            let hook = Program::new(path, sender, tally.clone());
            let name = "beam-alert-exec";
            hooks.push(Hook::start(name, Room::Hook, Fate::ExecQueueFull, move |n| hook.run(n))?);
        }
        Ok(Alerts { board: Mutex::new(Board::new(self.rules)), tally, hooks })
    }
}

/// One that is told, on a thread of its own.
struct Hook {
    queue: channel::Sender<Arc<Notice>>,
    /// Where the queue has no room.
    full: Fate,
}

impl Hook {
    fn start(
        name: &str,
        room: Room,
        full: Fate,
        tell: impl Fn(&Notice) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (queue, notices) = channel::bounded::<Arc<Notice>>(NOTICES_MAX);
        let run = move || {
            if confine::enter_or_note(room) {
                notices.iter().for_each(|notice| tell(&notice));
            }
        };
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        started.with_context(|| format!("can't start the thread {name}"))?;
        Ok(Self { queue, full })
    }
}

/// The alerts of a running daemon.
pub(crate) struct Alerts {
    board: Mutex<Board>,
    tally: Arc<Tally>,
    hooks: Vec<Hook>,
}

impl Alerts {
    /// For `beam status`.
    pub(crate) fn status(&self, now: Instant) -> AlertsStatus {
        let mut status = self.board.lock().unwrap_or_else(PoisonError::into_inner).status(now);
        status.notices = self.tally.counters();
        status
    }

    /// For Prometheus: every rule, and whether it fires.
    pub(crate) fn series(&self) -> Vec<(String, bool)> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).series()
    }

    /// For Prometheus: what became of notices, by name; all that may become of them, of the hooks that there are.
    pub(crate) fn notices(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let fates = self.hooks.iter().flat_map(|hook| hook.full.siblings());
        fates.map(|&fate| self.tally.counter(fate))
    }

    fn look(&self, reading: &Reading<'_>, now: Instant) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let notices = board.judge(|q| reading.value(q), reading.after.is_complete, now, Moment::now());
        drop(board);
        self.tell(notices);
    }

    fn tell(&self, notices: Vec<Notice>) {
        for notice in notices {
            notice.log();
            let notice = Arc::new(notice);
            for hook in &self.hooks {
                if let Err(TrySendError::Full(_)) = hook.queue.try_send(notice.clone()) {
                    self.tally.count(hook.full);
                }
            }
        }
    }
}

/// Starts the thread that looks, for as long as the daemon lives.
pub(crate) fn watch(daemon: &Arc<Supervisor>) -> anyhow::Result<()> {
    let daemon = daemon.clone();
    let run = move || {
        let (mut before, mut lately) = (Sample::take(&daemon, Instant::now()), Lately::default());
        if let Some(memory) = &daemon.identity.memory {
            memory.look(before.umem_frames);
        }
        loop {
            std::thread::sleep(EVERY);
            let now = Instant::now();
            let after = Sample::take(&daemon, now);
            let new = if after.is_complete { lately.renew(&after.meters) } else { Meters::default() };
            daemon.alerts.look(&Reading { before: &before, after: &after, lately: &new }, now);
            // What isn't complete compares with nothing: the next one does with the one before.
            if let Some(memory) = &daemon.identity.memory {
                // The UMEM of a worker that doesn't answer is still there.
                memory.look(if after.is_complete { after.umem_frames } else { before.umem_frames });
            }
            if after.is_complete || !before.is_complete {
                before = after;
            }
        }
    };
    std::thread::Builder::new()
        .name("beam-alerts".into())
        .spawn(run)
        .context("can't start the thread that judges alerts")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Goal: whoever looks waits for no hook.
    use super::*;

    #[test]
    fn a_hook_that_hangs_fills_its_queue_and_nothing_else() {
        let (release, held) = channel::bounded::<()>(0);
        let (began, is_stuck) = channel::unbounded();
        let hook = Hook::start("stuck", Room::Control, Fate::ExecQueueFull, move |_| {
            let _ = began.send(());
            let _ = held.recv();
        });
        let hooks = vec![hook.expect("a thread")];
        let alerts = Alerts { board: Mutex::new(Board::new(Vec::new())), tally: Arc::default(), hooks };
        let notices = |count: usize| {
            let (rule, since) = ("cpu > 1".parse().expect("a rule"), Moment::EPOCH);
            vec![Notice { rule, is_firing: true, value: Some(2.0), since, at: since }; count]
        };
        alerts.tell(notices(1));
        is_stuck.recv().expect("the hook has begun");
        alerts.tell(notices(NOTICES_MAX));
        assert!(alerts.status(Instant::now()).notices.is_empty());
        alerts.tell(notices(3));
        assert_eq!(alerts.status(Instant::now()).notices, [("exec_queue_full".to_owned(), 3)].into());
        drop(release);
    }
}
