//! `beam`: a kernel-bypass QUIC tunnel appliance.
//!
//! This file parses the command line and maps failures to exit codes; `serve` and `connect` wire a daemon together;
//! `worker` is where packets and flows live; `control` is the socket that the read verbs talk to.

mod cli;
mod connect;
mod control;
mod failure;
mod identity;
mod interface;
mod logging;
mod serve;
mod socks;
mod status;
mod supervisor;
mod users;
mod worker;

use clap::Parser;

/// mimalloc: per-thread heaps, so that workers share no allocator lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    let outcome = match cli.verb {
        cli::Verb::Serve(args) => serve::run(*args),
        cli::Verb::Connect(args) => connect::run(*args),
        cli::Verb::Status(args) => status::run(&args),
        cli::Verb::User(args) => users::run(&args),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("beam: {failure}");
            failure.exit_code()
        }
    }
}
