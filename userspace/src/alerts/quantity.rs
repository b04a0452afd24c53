//! What an alert can watch: each quantity by its name, its unit, and how a value of it is written.

use crate::show;
use std::fmt;

/// One quantity of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Quantity {
    /// Round trips in the tunnel, of all connections.
    LatencyP50,
    LatencyP95,
    LatencyP99,
    /// How late a worker's loop comes back to what waits for it.
    LoopLagP99,
    HandshakeP95,
    /// All drops, or those of one counter.
    Drops(Option<String>),
    /// Share of the packets that AF_XDP should have carried and the kernel's sockets did.
    SlowPath,
    /// Queues below the mode that was asked for, or without a socket.
    ModeDegraded,
    /// Resident.
    Memory,
    /// Of one CPU; two busy workers make 200.
    Cpu,
    /// Until the certificate expires.
    Certificate,
    Connections,
    /// 1 while `beam status` says that it isn't ready.
    NotReady,
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    PerSecond,
    Percent,
    Mebibytes,
    Days,
    Count,
}

/// By name; `drops{REASON}` is the one that isn't here.
const NAMED: [(&str, Quantity); 13] = [
    ("latency_p50", Quantity::LatencyP50),
    ("latency_p95", Quantity::LatencyP95),
    ("latency_p99", Quantity::LatencyP99),
    ("loop_lag_p99", Quantity::LoopLagP99),
    ("handshake_p95", Quantity::HandshakeP95),
    ("drops", Quantity::Drops(None)),
    ("slow_path", Quantity::SlowPath),
    ("mode_degraded", Quantity::ModeDegraded),
    ("memory", Quantity::Memory),
    ("cpu", Quantity::Cpu),
    ("certificate", Quantity::Certificate),
    ("connections", Quantity::Connections),
    ("not_ready", Quantity::NotReady),
];

/// All names, for a message.
pub(super) fn names() -> String {
    NAMED.map(|(name, _)| if name == "drops" { "drops, drops{COUNTER}" } else { name }).join(", ")
}

impl Quantity {
    /// By its name, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(counter) = text.strip_prefix("drops{").and_then(|rest| rest.strip_suffix('}')) {
            return match show::meaning(counter) {
                Some(_) => Ok(Self::Drops(Some(counter.to_owned()))),
                None => Err(format!("no counter `{counter}`; their names are in: beam show errors")),
            };
        }
        let found = NAMED.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, quantity)| quantity).ok_or_else(|| format!("there is no quantity `{text}`"))
    }

    pub(crate) fn unit(&self) -> Unit {
        match self {
            Self::LatencyP50 | Self::LatencyP95 | Self::LatencyP99 => Unit::Seconds,
            Self::LoopLagP99 | Self::HandshakeP95 => Unit::Seconds,
            Self::Drops(_) => Unit::PerSecond,
            Self::SlowPath | Self::Cpu => Unit::Percent,
            Self::Memory => Unit::Mebibytes,
            Self::Certificate => Unit::Days,
            Self::ModeDegraded | Self::Connections | Self::NotReady => Unit::Count,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Drops(Some(counter)) = self {
            return write!(f, "drops{{{counter}}}");
        }
        let named = NAMED.iter().find(|(_, quantity)| quantity == self);
        f.write_str(named.map_or("?", |(name, _)| name))
    }
}

impl Unit {
    /// What a value may end in, and what that multiplies it by.
    fn suffixes(self) -> &'static [(&'static str, f64)] {
        match self {
            // A bare number of seconds is more often a mistake than meant.
            Self::Seconds => &[("s", 1.0), ("ms", 1e-3), ("us", 1e-6)],
            Self::PerSecond => &[("", 1.0), ("/s", 1.0)],
            Self::Percent => &[("", 1.0), ("%", 1.0)],
            Self::Mebibytes => &[("", 1.0), ("MiB", 1.0), ("GiB", 1024.0)],
            Self::Days => &[("", 1.0), ("d", 1.0)],
            Self::Count => &[("", 1.0)],
        }
    }

    /// For a machine.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::PerSecond => "per_second",
            Self::Percent => "percent",
            Self::Mebibytes => "mebibytes",
            Self::Days => "days",
            Self::Count => "count",
        }
    }

    /// Reads a threshold, or says what is wrong with it.
    pub(super) fn parse(self, text: &str) -> Result<f64, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let suffix = &text[digits.len()..];
        let known = self.suffixes();
        let wanted = || {
            let examples: Vec<String> = known.iter().map(|(suffix, _)| format!("5{suffix}")).collect();
            format!("`{text}` is no value in {}; write it as {}", self.name(), examples.join(" or "))
        };
        let &(_, factor) = known.iter().find(|(name, _)| *name == suffix).ok_or_else(wanted)?;
        let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let number: f64 = plain.then(|| digits.parse().ok()).flatten().ok_or_else(wanted)?;
        Ok(number * factor)
    }

    /// As a person writes it.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 1e-3 => format!("{}us", short(value * 1e6)),
            Self::Seconds if value < 1.0 => format!("{}ms", short(value * 1e3)),
            Self::Seconds => format!("{}s", short(value)),
            Self::PerSecond => format!("{}/s", short(value)),
            Self::Percent => format!("{}%", short(value)),
            Self::Mebibytes => format!("{}MiB", short(value)),
            Self::Days => format!("{}d", short(value)),
            Self::Count => short(value),
        }
    }
}

/// Two decimals at most, without zeros behind.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
