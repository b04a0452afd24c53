//! `beam bench rfc2544`: throughput and latency of a device between two interfaces of this host (RFC 2544 sections 26.1 and
//! 26.2), in the terms of FD.io's CSIT: the no-drop rate (NDR) and the partial-drop rate (PDR).
//!
//! ```text
//!            plan ──► procedure ──► search: which rate is next, what is found
//!                        │ Tester
//!                      tester ── stamp ──► -i IF ══► device under test ══► -r IF ──► receiver ── count
//!                        └──► report, text
//! ```
//! `search`, `count`, `stamp`, `size` and `procedure` are pure; `plan` looks at the host; `tester` and `receiver` send and
//! receive.

mod count;
mod plan;
mod procedure;
mod receiver;
mod report;
mod search;
mod size;
mod stamp;
mod tester;
mod text;

use crate::{
    cli::{Cli, Rfc2544Args},
    failure::Failure,
    logging,
};
use anyhow::anyhow;
use clap::{CommandFactory as _, error::ErrorKind};
use procedure::Tester as _;
use report::Told;
use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tester::Live;

pub(super) fn run(args: &Rfc2544Args) -> Result<(), Failure> {
    logging::start_quietly(args.verbose);
    let args = &plan::completed(args);
    if let Err(text) = plan::must_fit(args) {
        Cli::command().error(ErrorKind::ValueValidation, text).exit();
    }
    let host = crate::bench::facts::host();
    let flow = plan::flow(args)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends beam at once: a bpf_link leaves nothing behind.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())
            .map_err(Failure::runtime)?;
        signal_hook::flag::register(signal, stop.clone()).map_err(Failure::runtime)?;
    }
    // Nobody may be reading.
    let _ = writeln!(io::stderr(), "rfc2544: {}", flow.announcement(args));
    let mut tester = Live::open(args, &flow, stop.clone())?;
    let receiving = tester.receiving();
    let mut rows = Vec::new();
    let measured = begin(&mut tester, args, &mut rows);
    // The interface is free again before anything is told.
    drop(tester);
    let trouble = measured.as_ref().err().map(ToString::to_string);
    let told = Told {
        args,
        host: &host,
        flow: &flow,
        receiving: &receiving,
        rows: &rows,
        interrupted: stop.load(Ordering::Relaxed),
        trouble: trouble.as_deref(),
    };
    if args.json {
        say!("{}", told.json());
    } else if measured.is_ok() || !rows.is_empty() {
        say_text!("{}", told.text());
    }
    measured
}

/// Looks for a way through first: without one, each size would only say so again.
fn begin(tester: &mut Live, args: &Rfc2544Args, rows: &mut Vec<procedure::Row>) -> Result<(), Failure> {
    if let Some(size) = text::smallest(&args.sizes, args.ipv6)
        && tester.learn(size)?.is_some()
        && !tester.is_interrupted()
    {
        return Err(Failure::Runtime(anyhow!(
            "nothing that was sent on {} came out on {}: none of {} frames of {size} bytes. See whether the device has a route to the \
             destination, knows who has it (a destination of this host's own answers by itself) and counts drops: ip -s link; ip \
             neighbour; and what arrives here: tcpdump -ni {}",
            args.interface,
            args.receive,
            tester::LEARN_COUNT,
            args.receive
        )));
    }
    procedure::measure(tester, args, &args.sizes, rows)?;
    if text::nothing_came(rows) && !tester.is_interrupted() {
        return Err(Failure::Runtime(anyhow!("the device forwarded none of the sizes that were asked for")));
    }
    Ok(())
}
