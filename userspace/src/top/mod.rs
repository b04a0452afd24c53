//! `beam top`: a running daemon, looked at each second: on a terminal a screen with keys, else plain text.
//!
//! ```text
//!  daemon ─ control socket ─► [`sample`] ─ two of them ─► [`model`] ─► [`tables`] ─► [`draw`]   a terminal
//!                              (a thread)                                      └───► [`plain`]  a pipe, --once
//!  keys, signals ─► [`watch`] ─► [`ui`]
//! ```
//! Only [`sample`] and [`watch`] touch the world; the rest are functions of what they are given.

mod draw;
mod figures;
mod model;
mod plain;
pub(crate) mod sample;
mod table;
mod tables;
mod terminal;
#[cfg(test)]
mod tests;
mod ui;
mod watch;

use self::{model::Model, sample::Sample};
use crate::{
    cli::TopArgs,
    control::{self, Answer, Request},
    failure::Failure,
};
use anyhow::anyhow;
use std::{io::Write, path::Path};

pub(crate) fn run(args: &TopArgs) -> Result<(), Failure> {
    // A daemon that never answered is said at once, on the screen that stays.
    let first = ask(&args.control.control)?;
    check_interface(args, &first)?;
    if !args.once && terminal::is_screen() { watch::run(args, first) } else { print(args, first) }
}

fn ask(control: &Path) -> Result<Sample, Failure> {
    match control::ask(control, &Request::Sample)? {
        Answer::Sample(sample) => Ok(*sample),
        Answer::Error(error) => Err(Failure::Runtime(anyhow!("the daemon says: {error}"))),
        _ => Err(Failure::Runtime(anyhow!("the daemon answers another question"))),
    }
}

/// `-i` names an interface that the daemon serves.
fn check_interface(args: &TopArgs, sample: &Sample) -> Result<(), Failure> {
    let Some(wanted) = &args.interface else { return Ok(()) };
    let mut served: Vec<&str> =
        sample.status.workers.iter().filter_map(|worker| worker.interface.as_deref()).collect();
    served.dedup();
    if served.contains(&wanted.as_str()) {
        return Ok(());
    }
    let seen = if served.is_empty() { "kernel UDP alone".to_owned() } else { served.join(", ") };
    Err(Failure::Config(anyhow!(
        "-i {wanted}: no worker of this daemon has that interface; they have {seen}"
    )))
}

/// Blocks of text, one each interval, with an empty line between them.
fn print(args: &TopArgs, first: Sample) -> Result<(), Failure> {
    let mut before = Some(first);
    let mut separator = "";
    let mut said_gone = false;
    loop {
        std::thread::sleep(args.delay);
        match ask(&args.control.control) {
            Ok(sample) => {
                let model = Model::new(before.as_ref(), &sample, args.interface.as_deref());
                if !say(&format!("{separator}{}", plain::block(&model))) {
                    return Ok(());
                }
                (separator, said_gone) = ("\n", false);
                before = Some(sample);
            }
            Err(error) if args.once => return Err(error),
            Err(error) => {
                // Once: the next line is that it is back.
                if !std::mem::replace(&mut said_gone, true)
                    && !say(&format!("{separator}beam top: {error}\n"))
                {
                    return Ok(());
                }
                before = None;
            }
        }
        if args.once {
            return Ok(());
        }
    }
}

/// False if nobody reads any more, as behind `| head`.
fn say(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}
