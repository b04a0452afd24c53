//! `beam`: a kernel-bypass QUIC tunnel appliance.
//!
//! This file parses the command line and maps failures to exit codes; `serve` and `connect` wire a daemon together;
//! `worker` is where packets and flows live; `control` is the socket that the read verbs talk to.

#[macro_use]
mod say;

mod ablation;
mod alerts;
mod allocator;
mod bench;
mod capture;
mod check;
mod cli;
mod config;
mod connect;
mod control;
mod detach;
mod devices;
mod diag;
mod doctor;
mod drain;
mod early;
mod enroll;
mod failure;
mod generate;
mod identity;
mod inner;
mod interface;
mod key;
mod log_ring;
mod logging;
mod memory;
mod metrics;
mod notify;
mod orders;
mod paper;
mod ping;
mod privileges;
mod progress;
mod protection;
mod reload;
mod serve;
mod settings;
mod show;
mod socks;
mod status;
mod supervisor;
mod top;
mod users;
mod worker;

use std::io::Write;

/// As many descriptors as this process may have: each flow is a socket. Where it can't be raised, what there is serves.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

fn main() -> std::process::ExitCode {
    let outcome = match config::start() {
        Ok(cli) => run(cli),
        Err(config::Refused::Usage(error)) => error.exit(),
        Err(refused) => Err(refused.into()),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may be there to read it; the exit code still tells.
            let _ = writeln!(std::io::stderr(), "beam: {failure}");
            failure.exit_code()
        }
    }
}

fn run(cli: cli::Cli) -> Result<(), failure::Failure> {
    raise_descriptor_limit();
    match cli.verb {
        cli::Verb::Serve(args) => serve::run(*args),
        cli::Verb::Connect(args) => connect::run(*args),
        cli::Verb::Status(args) => status::run(&args),
        cli::Verb::Show(args) => show::run(&args),
        cli::Verb::Top(args) => top::run(&args),
        cli::Verb::Clear(args) => orders::clear(&args),
        cli::Verb::Reload(args) => orders::reload(&args),
        cli::Verb::Kick(args) => orders::kick(&args),
        cli::Verb::Capture(args) => capture::run(&args),
        cli::Verb::User(args) => users::run(&args),
        cli::Verb::Ping(args) => ping::run(&args),
        cli::Verb::Pktgen(args) => generate::run(&args),
        cli::Verb::Bench(args) => bench::run(args),
        cli::Verb::Key(args) => key::run(&args),
        cli::Verb::Enrol(args) => enroll::run(&args),
        cli::Verb::Doctor(args) => doctor::run(&args),
        cli::Verb::Detach(args) => detach::run(&args),
        cli::Verb::Diag(args) => diag::run(&args),
        cli::Verb::Check(args) => check::run(&args),
        cli::Verb::Drain(args) => drain::run(&args),
        cli::Verb::Completions(args) => paper::completions(&args),
        cli::Verb::Man(args) => paper::man(&args),
    }
}
