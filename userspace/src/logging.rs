//! The log: one line an event on stderr, as text or JSON. Never used in the packet loop.

use crate::cli::{LogArgs, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging of a daemon; `BEAM_LOG` (a tracing filter) wins over `-v`.
pub(crate) fn start(log: LogArgs) {
    start_at(log.log_format, log.verbose.saturating_add(1));
}

/// Of a verb whose output is something else: only what went wrong.
pub(crate) fn start_quietly(verbosity: u8) {
    start_at(LogFormat::Text, verbosity);
}

fn start_at(format: LogFormat, level: u8) {
    let default = match level {
        0 => "warn",
        1 => "beam=info,beam_xsk=info,beam_udp=info,beam_tunnel=info,beam_upstream=info,warn",
        2 => "beam=debug,beam_xsk=debug,beam_udp=debug,beam_tunnel=debug,beam_upstream=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("BEAM_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| crate::log_ring::StderrAndRing)
        .log_internal_errors(false)
        .with_target(false);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).init();
        }
    }
}
