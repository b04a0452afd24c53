//! `beam bench`: measures the path that tunnels take. Each verb is a file; what they share is here.

pub(crate) mod facts;
mod plan;
mod report;
mod rfc2544;
mod run;
mod serve;
mod spread;

use crate::{
    cli::{BenchArgs, BenchVerb},
    failure::Failure,
};

pub(crate) fn run(args: BenchArgs) -> Result<(), Failure> {
    match args.verb {
        BenchVerb::Serve(args) => serve::run(*args),
        BenchVerb::Run(args) => run::run(&args),
        BenchVerb::Rfc2544(args) => rfc2544::run(&args),
    }
}
