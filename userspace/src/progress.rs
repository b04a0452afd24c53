//! Progress of what takes longer than a second, on standard error: one line that changes on a terminal, a new line now
//! and then elsewhere. What is over sooner shows nothing.
//!
//! ```text
//!  let progress = Progress::begin("trying the queues");        capture · doctor --fix · diag · ping · bench
//!  progress.step(format!("{done} of {count}"));                ─► "beam: trying the queues: 3 of 8 (4 s)"
//!  progress.aside(|| println!("queue 3: copy"));               other output, without a line of ours in its way
//!  drop(progress);                                             the line is gone
//! ```
//! A thread of its own writes, so that a call that blocks for seconds still shows that time goes by. [`Line`] decides what
//! is written and when; it reads no clock.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What is over sooner needs no progress.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// How often the line of a terminal changes.
const REFRESH: Duration = Duration::from_millis(200);
/// How often a line is written where it stays.
const LINE_EACH: Duration = Duration::from_secs(5);
/// Columns of a terminal that doesn't tell.
const COLUMNS_DEFAULT: usize = 80;

/// Something that is being done; over when it is dropped.
pub(crate) struct Progress {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    over: Condvar,
}

struct State {
    line: Line,
    over: bool,
}

impl Progress {
    /// `what` reads on from "beam: ", such as "capturing on eth0".
    pub(crate) fn begin(what: impl Into<String>) -> Self {
        let line = Line::new(what.into(), Place::standard_error(), Instant::now());
        let shared =
            Arc::new(Shared { state: Mutex::new(State { line, over: false }), over: Condvar::new() });
        let of_thread = shared.clone();
        // Without a thread there is no progress to see, and nothing else is amiss.
        let writer =
            std::thread::Builder::new().name("beam-progress".into()).spawn(move || of_thread.write());
        Self { shared, writer: writer.ok() }
    }

    /// Where it has come to: "3 of 8", "12 MiB, 9,312 packets".
    pub(crate) fn step(&self, detail: impl Into<String>) {
        self.shared.lock().line.detail = detail.into();
    }

    /// Prints something else, with no line of ours in its way.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        let mut state = self.shared.lock();
        say(state.line.clear());
        print()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.over.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        say(self.shared.lock().line.clear());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of the thread.
    fn write(&self) {
        let mut state = self.lock();
        while !state.over {
            let now = Instant::now();
            if let Some(text) = state.line.due(now) {
                say(&text);
            }
            let pause = state.line.next().saturating_duration_since(now);
            state = self.over.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Nobody may be there to read it.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Where the line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// One line that changes, at most so wide.
    Terminal { columns: usize },
    /// Lines that stay.
    Log,
}

impl Place {
    fn standard_error() -> Self {
        let moves = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        if !moves || !std::io::stderr().is_terminal() {
            return Self::Log;
        }
        let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0);
        Self::Terminal { columns: columns.unwrap_or(COLUMNS_DEFAULT) }
    }
}

/// The line, and when it is due.
struct Line {
    what: String,
    detail: String,
    place: Place,
    begun: Instant,
    next: Instant,
    /// A terminal shows it now.
    shown: bool,
}

impl Line {
    fn new(what: String, place: Place, now: Instant) -> Self {
        let first = match place {
            Place::Terminal { .. } => FIRST_AFTER,
            Place::Log => LINE_EACH,
        };
        Self { what, detail: String::new(), place, begun: now, next: now + first, shown: false }
    }

    fn next(&self) -> Instant {
        self.next
    }

    /// What is to be written now, if it is time.
    fn due(&mut self, now: Instant) -> Option<String> {
        if now < self.next {
            return None;
        }
        let seconds = now.saturating_duration_since(self.begun).as_secs();
        let colon = if self.detail.is_empty() { "" } else { ": " };
        let text = format!("beam: {}{colon}{} ({seconds} s)", self.what, self.detail);
        Some(match self.place {
            Place::Terminal { columns } => {
                self.next = now + REFRESH;
                self.shown = true;
                // A line that wraps can't be overwritten; the last column wraps on some terminals.
                let fits: String = text.chars().take(columns.saturating_sub(1)).collect();
                format!("\r{fits}\x1b[K")
            }
            Place::Log => {
                self.next = now + LINE_EACH;
                format!("{text}\n")
            }
        })
    }

    /// Takes the line off a terminal; it comes back when it is due.
    fn clear(&mut self) -> &'static str {
        if std::mem::take(&mut self.shown) { "\r\x1b[K" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: nothing within the first second; then one line that fits and goes, or lines that stay. Method: told times.
    use super::*;

    fn line(place: Place) -> (Line, impl Fn(u64) -> Instant) {
        let begun = Instant::now();
        (Line::new("waiting".into(), place, begun), move |ms| begun + Duration::from_millis(ms))
    }

    #[test]
    fn a_terminal_has_one_line_that_changes_and_goes() {
        let (mut line, at) = line(Place::Terminal { columns: 24 });
        assert_eq!((line.due(at(999)), line.clear()), (None, ""));
        assert_eq!(line.due(at(1000)).as_deref(), Some("\rbeam: waiting (1 s)\x1b[K"));
        assert_eq!((line.due(at(1199)), line.next()), (None, at(1200)));
        line.detail = "3 of 8".into();
        assert_eq!(line.due(at(2500)).as_deref(), Some("\rbeam: waiting: 3 of 8 (\x1b[K"));
        assert_eq!((line.clear(), line.clear()), ("\r\x1b[K", ""));
        assert!(line.due(at(2700)).is_some(), "it comes back");
    }

    #[test]
    fn elsewhere_a_line_each_five_seconds_stays() {
        let (mut line, at) = line(Place::Log);
        assert_eq!(line.due(at(4999)), None);
        assert_eq!(line.due(at(5000)).as_deref(), Some("beam: waiting (5 s)\n"));
        line.detail = "3 of 8".into();
        assert_eq!((line.due(at(9999)), line.clear()), (None, ""));
        assert_eq!(line.due(at(10_000)).as_deref(), Some("beam: waiting: 3 of 8 (10 s)\n"));
    }

    #[test]
    fn what_is_over_soon_ends_soon_and_other_output_goes_through() {
        let progress = Progress::begin("nothing");
        progress.step("1 of 1");
        assert_eq!(progress.aside(|| 7), 7);
    }
}
