//! The terminal while `beam top` has it: raw, on the alternate screen, without a cursor; and as it was before, however
//! that ends.

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use std::{
    io::{self, IsTerminal, Stdout, Write},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether the terminal is ours now: whoever gives it back first, a panic or the end, is the only one.
static OURS: AtomicBool = AtomicBool::new(false);

/// Someone is there to look at a screen that can be drawn on.
pub(super) fn is_screen() -> bool {
    let draws = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    draws && io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// The terminal, ours until it is dropped.
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        // The message of a panic is for the screen that the user sees afterwards.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            hook(panic);
        }));
        take()?;
        match Terminal::new(CrosstermBackend::new(io::stdout())) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Gives the terminal back, stops as Ctrl-Z stops others, and takes it again once continued.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // To the whole group, as the terminal would do it. Where no shell could continue it, the kernel doesn't stop it.
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        self.resume()
    }

    /// The terminal may be in any state: somebody else has had it.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        take()?;
        self.redraw()
    }

    /// Whatever is on the screen, the next frame is drawn whole. (`Terminal::clear` would ask the terminal where its
    /// cursor is, and the thread that reads keys would have the answer.)
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    OURS.store(true, Ordering::SeqCst);
    // Where it is raw already, as far as crossterm knows, a shell may have changed that meanwhile.
    disable_raw_mode()?;
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

fn give_back() {
    if OURS.swap(false, Ordering::SeqCst) {
        // A terminal that is gone needs nothing.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}
