//! `beam pktgen`: sends made-up frames out of an interface of the operator's own, by AF_XDP, and counts what left.
//!
//! `plan` makes of the flags, the interface and the neighbour table what is to be sent; this file opens the sockets, runs the
//! threads and is asked to stop; `report` says what came of it. Frames and pace are the room `pktgen`'s.

pub(crate) mod host;
mod plan;
mod report;

use crate::{
    cli::{Cli, PktgenArgs},
    failure::Failure,
};
use anyhow::anyhow;
use clap::{CommandFactory as _, error::ErrorKind};
use pktgen::{Maker, Outcome, Source as _, Wall};
use plan::{Ready, Refused};
use report::{Result as ThreadResult, hex};
use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};
use xsk::RawSocket;

/// One thread, ready to start.
struct Sender {
    cpu: u32,
    queue: u32,
    socket: RawSocket,
}

pub(crate) fn run(args: &PktgenArgs) -> Result<(), Failure> {
    let ready = match plan::ready(args) {
        Ok(ready) => ready,
        Err(Refused::Usage(text)) => Cli::command().error(ErrorKind::ValueValidation, text).exit(),
        Err(Refused::Unfit(failure)) => return Err(failure),
    };
    let senders = senders(args)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).map_err(Failure::runtime)?;
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    note(&ready.announcement(args));
    if args.verbose {
        note(&format!("seed {seed}"));
        senders
            .iter()
            .for_each(|sender| note(&format!("CPU {} sends on queue {}", sender.cpu, sender.queue)));
    }
    if args.hex {
        note(&format!("the first frame: {}", first_frame(&ready, seed)));
    }
    let results = send(senders, &ready, seed, &stop)?;
    report::print(args, &ready, &results);
    judge(args, &results)
}

/// A socket for each thread, on the queue of its CPU, as pktgen's QUEUE_MAP_CPU has it.
fn senders(args: &PktgenArgs) -> Result<Vec<Sender>, Failure> {
    let interface = &args.interface;
    let queue_count = xsk::tx_queue_count(interface);
    let cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    if args.threads > queue_count {
        return Err(Failure::Preflight(anyhow!(
            "-t {}: {interface} sends on {queue_count} queue(s), and each has one AF_XDP socket at most; lower -t, or add \
             queues: ethtool -L {interface} combined N (or tx N)",
            args.threads
        )));
    }
    (args.first_cpu..args.first_cpu + args.threads)
        .map(|cpu| {
            if !cpus.contains(&(cpu as usize)) {
                return Err(Failure::Preflight(anyhow!(
                    "-t {} -f {}: there is no CPU {cpu} for a thread, only {cpus:?}; lower -t or -f",
                    args.threads,
                    args.first_cpu
                )));
            }
            let queue = cpu % queue_count;
            let socket =
                RawSocket::open(interface, queue).map_err(|error| host::refused(error, interface))?;
            Ok(Sender { cpu, queue, socket })
        })
        .collect()
}

fn first_frame(ready: &Ready, seed: u64) -> String {
    let now = Instant::now();
    let mut frame = vec![0; ready.spec.sizes.max()];
    let length = Maker::new(ready.spec, seed, now).fill(now, &mut frame).unwrap_or(0);
    hex(&frame[..length])
}

/// Starts all threads and waits for them.
fn send(
    senders: Vec<Sender>,
    ready: &Ready,
    seed: u64,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<ThreadResult>, Failure> {
    let threads: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(index, sender)| {
            let (spec, plan, stop) = (ready.spec, ready.plan, stop.clone());
            let body = move || -> io::Result<ThreadResult> {
                let Sender { cpu, mut socket, .. } = sender;
                if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu as usize }) {
                    note(&format!("the kernel doesn't let this thread run on CPU {cpu} alone"));
                }
                let mut maker = Maker::new(spec, seed.wrapping_add(index as u64), Instant::now());
                let stop = || stop.load(Ordering::Relaxed);
                let outcome = pktgen::run(&mut socket, &mut maker, &plan, &mut Wall, &stop)?;
                Ok(ThreadResult { cpu, outcome, by_size: maker.by_size() })
            };
            thread::Builder::new().name(format!("pktgen-{index}")).spawn(body)
        })
        .collect::<io::Result<_>>()
        .map_err(Failure::runtime)?;
    threads
        .into_iter()
        .map(|thread| match thread.join() {
            Ok(result) => result.map_err(Failure::runtime),
            Err(_) => {
                Err(Failure::Runtime(anyhow!("a sending thread ended by a panic, which is a bug of beam's")))
            }
        })
        .collect()
}

/// Whoever asked for a number of packets is told by the exit code whether they left.
fn judge(args: &PktgenArgs, results: &[ThreadResult]) -> Result<(), Failure> {
    if args.count == 0 {
        return Ok(());
    }
    let total = |of: fn(&Outcome) -> u64| results.iter().map(|result| of(&result.outcome)).sum::<u64>();
    let (sent, failed) = (total(|outcome| outcome.sent), total(|outcome| outcome.failed));
    let asked = args.count * u64::from(args.threads);
    if sent + failed < asked {
        return Err(Failure::Runtime(anyhow!("interrupted after {} of {asked} packets", sent + failed)));
    }
    if failed > 0 {
        let interface = &args.interface;
        return Err(Failure::Runtime(anyhow!(
            "{sent} packets were sent and {asked} were asked for: {interface} refused {failed}, because its queue was full or its \
             link down; slow down with -w, or see: ip -s link show dev {interface}"
        )));
    }
    Ok(())
}

/// Says something beside the result.
fn note(text: &str) {
    // Nobody may be reading.
    let _ = writeln!(io::stderr(), "pktgen: {text}");
}
