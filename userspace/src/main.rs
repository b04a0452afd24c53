//! `beam`: a kernel-bypass QUIC tunnel appliance.
//!
//! This file parses the command line and maps failures to exit codes; `serve` and `connect` wire a daemon together;
//! `worker` is where packets and flows live; `control` is the socket that the read verbs talk to.

mod cli;
mod connect;
mod control;
mod devices;
mod doctor;
mod early;
mod failure;
mod identity;
mod inner;
mod interface;
mod logging;
mod notify;
mod orders;
mod privileges;
mod protection;
mod reload;
mod serve;
mod settings;
mod show;
mod socks;
mod status;
mod supervisor;
mod users;
mod worker;

use clap::{CommandFactory as _, FromArgMatches as _};
use std::io::Write;

/// mimalloc: per-thread heaps, so that workers share no allocator lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let command = cli::Cli::command();
    let matches = command.clone().get_matches();
    settings::remember(&command, &matches);
    let cli = cli::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    raise_descriptor_limit();
    let outcome = match cli.verb {
        cli::Verb::Serve(args) => serve::run(*args),
        cli::Verb::Connect(args) => connect::run(*args),
        cli::Verb::Status(args) => status::run(&args),
        cli::Verb::Show(args) => show::run(&args),
        cli::Verb::Clear(args) => orders::clear(&args),
        cli::Verb::Reload(args) => orders::reload(&args),
        cli::Verb::Kick(args) => orders::kick(&args),
        cli::Verb::User(args) => users::run(&args),
        cli::Verb::Doctor(args) => doctor::run(&args),
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
