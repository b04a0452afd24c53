//! The loop of the screen: one channel that looks, keys and signals come by, and a thread for each of them.

use super::{
    ask,
    draw::{self, HISTORY_MAX, Looks, View},
    model::Model,
    sample::Sample,
    terminal::Screen,
    ui::{Action, Ui},
};
use crate::{cli::TopArgs, failure::Failure};
use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM};
use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

/// Keys that a stopped loop may be behind.
const MESSAGES_MAX: usize = 64;

enum Message {
    Looked(Box<Result<Sample, Failure>>),
    Key(Event),
    /// Stopped, and going on: somebody else may have had the terminal.
    Continued,
    End,
}

pub(super) fn run(args: &TopArgs, first: Sample) -> Result<(), Failure> {
    let (messages, heard) = channel::bounded(MESSAGES_MAX);
    let (intervals, paces) = channel::bounded(1);
    watch_signals(messages.clone()).map_err(Failure::runtime)?;
    let mut screen = Screen::open().map_err(Failure::runtime)?;
    watch_keys(messages.clone());
    look_again_and_again(args, messages, paces);
    let mut watch = Watch::new(args, first);
    let outcome = watch.run(&mut screen, &heard, &intervals);
    drop(screen);
    match outcome {
        // The terminal has gone away.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected) => {
            Ok(())
        }
        other => other.map_err(Failure::runtime),
    }
}

fn watch_signals(to: Sender<Message>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCONT])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let message = if signal == SIGCONT { Message::Continued } else { Message::End };
            if to.send(message).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Keys, and changes of the terminal's size.
fn watch_keys(to: Sender<Message>) {
    std::thread::spawn(move || {
        loop {
            let message = event::read().map_or(Message::End, Message::Key);
            let is_last = matches!(message, Message::End);
            if to.send(message).is_err() || is_last {
                return;
            }
        }
    });
}

/// Asks the daemon each interval, until nobody wants to know. A new interval is an occasion to ask at once.
fn look_again_and_again(args: &TopArgs, to: Sender<Message>, paces: Receiver<Duration>) {
    let (control, mut interval) = (args.control.control.clone(), args.delay);
    std::thread::spawn(move || {
        loop {
            match paces.recv_timeout(interval) {
                Ok(new) => interval = new,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if to.send(Message::Looked(Box::new(ask(&control)))).is_err() {
                return;
            }
        }
    });
}

/// What is known, and how it is shown.
struct Watch<'a> {
    args: &'a TopArgs,
    ui: Ui,
    looks: Looks,
    last: Option<Sample>,
    model: Option<Model>,
    gone: Option<(String, Instant)>,
    history: VecDeque<(u64, u64)>,
    /// Rows that the focused table shows.
    page: usize,
}

impl<'a> Watch<'a> {
    fn new(args: &'a TopArgs, first: Sample) -> Self {
        Self {
            args,
            ui: Ui::new(args.delay),
            looks: looks(),
            model: Some(Model::new(None, &first, args.interface.as_deref())),
            last: Some(first),
            gone: None,
            history: VecDeque::new(),
            page: 0,
        }
    }

    fn run(
        &mut self,
        screen: &mut Screen,
        heard: &Receiver<Message>,
        intervals: &Sender<Duration>,
    ) -> io::Result<()> {
        self.draw(screen)?;
        for message in heard {
            match message {
                Message::Looked(look) => self.looked(*look),
                Message::Continued => screen.resume()?,
                Message::End => return Ok(()),
                Message::Key(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                    match self.ui.on_key(key, self.page) {
                        Action::Quit => return Ok(()),
                        Action::Suspend => screen.suspend()?,
                        Action::Redraw => screen.redraw()?,
                        // One that waits is as new as ours.
                        Action::Interval => drop(intervals.try_send(self.ui.interval)),
                        Action::Draw => {}
                        Action::Nothing => continue,
                    }
                }
                // Another size: what is drawn next fills it.
                Message::Key(_) => {}
            }
            self.draw(screen)?;
        }
        Ok(())
    }

    fn looked(&mut self, look: Result<Sample, Failure>) {
        match look {
            Ok(sample) => {
                self.gone = None;
                let model = Model::new(self.last.as_ref(), &sample, self.args.interface.as_deref());
                if let (Some(rx), Some(tx)) = (model.total.rx_bits, model.total.tx_bits) {
                    self.history.push_front((rx as u64, tx as u64));
                    self.history.truncate(HISTORY_MAX);
                }
                self.last = Some(sample);
                if !self.ui.paused {
                    self.model = Some(model);
                }
            }
            Err(error) => {
                let since = self.gone.take().map_or_else(Instant::now, |(_, since)| since);
                self.gone = Some((error.to_string(), since));
                self.last = None;
            }
        }
    }

    fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        let gone = self.gone.as_ref().map(|(why, since)| (why.as_str(), since.elapsed()));
        let view = View { model: self.model.as_ref(), gone, history: &self.history, looks: self.looks };
        let (ui, page) = (&mut self.ui, &mut self.page);
        screen.terminal.draw(|frame| *page = draw::draw(frame, &view, ui))?;
        Ok(())
    }
}

/// As the environment says.
fn looks() -> Looks {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
    Looks { colour: set("NO_COLOR").is_none(), unicode: locale.contains("utf-8") || locale.contains("utf8") }
}
