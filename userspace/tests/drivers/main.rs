//! Goal: beam works on the NIC drivers that its users have, in every mode that they offer, and every frame is accounted
//! for: transfers, VLANs, malformed frames, several queues, links that flap, daemons that die.
//! Method: a table of cases, run for one mode after the other on one pair of NICs, by real processes in namespaces. On an
//! ordinary machine the NICs are a veth pair; `scripts/kernels` carries this program into emulated machines with real
//! drivers and other kernels. The mode is read back from the kernel, never believed.
//!
//!   drivers [--modes zero-copy,copy,generic,off] [--cases NAME,...] [--list]
//!
//! `BEAM_RIG_BEST` names the best mode that the driver has, else it is the first of `--modes`. Results go to standard output, and as one JSON object a line
//! to the file that `BEAM_DRIVERS_RESULTS` names.

mod bench;
mod cases;
#[allow(clippy::unwrap_used, reason = "its own tests use the rest of it, and allow it")]
#[path = "../../../xdp-ebpf/tests/craft/mod.rs"]
mod craft;
#[path = "../rig/packet.rs"]
mod packet;
#[path = "../pair/mod.rs"]
mod pair;
mod results;
#[path = "../rig/mod.rs"]
mod rig;
#[path = "../tools/mod.rs"]
mod tools;

use bench::{Bench, Mode};
use results::{Outcome, Results};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("drivers: {why}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        cases::ALL.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    if !rig::root_or_skip("drivers") {
        return ExitCode::SUCCESS;
    }
    let mut results = Results::open();
    results.facts(bench::facts());
    let best = match std::env::var("BEAM_RIG_BEST") {
        Ok(name) => Mode::parse(&name).expect("BEAM_RIG_BEST is a mode"),
        Err(_) => options.modes[0],
    };
    for &mode in &options.modes {
        for case in cases::ALL.iter().filter(|case| options.wants(case.name)) {
            let is_due = match case.when {
                cases::When::EveryMode => true,
                cases::When::Xdp => mode != Mode::Off,
                cases::When::Once => mode == best,
            };
            if is_due {
                results.run(case.name, mode.name(), || {
                    let mut bench = Bench::new(mode, best);
                    let outcome = (case.run)(&mut bench);
                    (outcome, bench.into_facts())
                });
            }
        }
    }
    results.finish()
}

struct Options {
    modes: Vec<Mode>,
    cases: Option<Vec<String>>,
    list: bool,
}

impl Options {
    /// What cargo passes on to other tests (a filter, `--nocapture`) is taken for a case's name, or ignored.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { modes: vec![Mode::Copy, Mode::Generic, Mode::Off], cases: None, list: false };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => options.list = true,
                "--modes" => {
                    let text = args.next().ok_or("--modes needs a value: zero-copy,copy,generic,off")?;
                    options.modes = text.split(',').map(Mode::parse).collect::<Result<_, _>>()?;
                }
                "--cases" => {
                    let text = args.next().ok_or("--cases needs a value; known: see --list")?;
                    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
                    if let Some(name) =
                        names.iter().find(|name| !cases::ALL.iter().any(|case| case.name == **name))
                    {
                        return Err(format!("no case {name:?}; known: see --list"));
                    }
                    options.cases = Some(names);
                }
                "--test-threads" | "--skip" | "--format" | "--color" => drop(args.next()),
                flag if flag.starts_with('-') => {}
                filter => {
                    let matching = cases::ALL.iter().filter(|case| case.name.contains(filter));
                    options.cases = Some(matching.map(|case| case.name.to_owned()).collect());
                }
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.cases.as_ref().is_none_or(|cases| cases.iter().any(|case| case == name))
    }
}

/// What a case came to, where it didn't panic.
type Verdict = Result<(), NotHere>;

/// This machine lacks what the case needs.
struct NotHere(String);

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Ok(()) => Self::Pass,
            Err(NotHere(why)) => Self::Skip(why),
        }
    }
}
