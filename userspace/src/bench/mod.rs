//! `beam bench`: measures the path that tunnels take. Each verb is a file; what they share is here.

use crate::{cli::BenchArgs, failure::Failure};

pub(crate) fn run(args: BenchArgs) -> Result<(), Failure> {
    match args.verb {}
}
