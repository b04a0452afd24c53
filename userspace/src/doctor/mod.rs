//! `beam doctor`: looks at the host, and says of each thing what was seen, what is needed and what mends it.
//!
//! ```text
//!   flags ──► Plan (what beam would be started with) ─┐
//!   /proc, /sys, netlink, ethtool ──► Host, Nic ──────┴──► a function per check ──► Finding ──► text or JSON
//!                                                                                      └──► fix (applies changes)
//! ```
//!
//! Every check is one row of [`TABLE`]. A check only looks: what it can't see without a privilege it names, as a SKIP. FAIL
//! means that beam would not start with these flags, or carry nothing; WARN, that it would do worse than it could.

mod cpus;
mod files;
mod finding;
pub(crate) mod fix;
mod host;
mod kernel;
mod link;
mod nic;
mod plan;
mod privilege;
mod quirks;
mod reach;
#[cfg(test)]
mod recorded;
mod report;
mod simd;
mod sockets;
mod trust;
mod xdp;

pub(crate) use finding::{Finding, Mend, Outcome};
use fix::Change;

use crate::{cli::DoctorArgs, failure::Failure};
use anyhow::anyhow;
use host::{Host, Nic};
use plan::Plan;
use report::Report;

/// What a check looks at.
enum Look {
    /// The host, once.
    Host(fn(&Host) -> Finding),
    /// Each interface that was named.
    Nic(fn(&Host, &Nic) -> Finding),
}

struct Check {
    name: &'static str,
    look: Look,
}

const fn host(name: &'static str, look: fn(&Host) -> Finding) -> Check {
    Check { name, look: Look::Host(look) }
}

const fn nic(name: &'static str, look: fn(&Host, &Nic) -> Finding) -> Check {
    Check { name, look: Look::Nic(look) }
}

/// All checks, in the order in which they are told.
const TABLE: [Check; 29] = [
    host("kernel", kernel::version),
    host("bpf-jit", kernel::jit),
    host("verifier", kernel::verifier),
    host("capabilities", privilege::capabilities),
    host("memlock", privilege::memlock),
    host("hugepages", privilege::hugepages),
    host("governor", cpus::governor),
    host("isolation", cpus::isolation),
    host("simd", simd::simd),
    host("clock", trust::clock),
    host("certificate", trust::certificate),
    host("listen", reach::listen),
    host("route", reach::route),
    host("neighbour", reach::neighbour),
    nic("link", link::link),
    nic("master", link::master),
    nic("mtu", link::mtu),
    nic("xdp-features", xdp::features),
    nic("xdp-program", xdp::program),
    nic("trial-copy", xdp::trial_copy),
    nic("trial-zero-copy", xdp::trial_zero_copy),
    nic("channels", nic::channels),
    nic("rings", nic::rings),
    nic("rss", nic::rss),
    nic("lro", nic::lro),
    nic("vlan", nic::vlan),
    nic("irq", cpus::irq),
    nic("numa", cpus::numa),
    nic("ssh", reach::ssh),
];

/// The checks' names.
pub(crate) const CHECKS: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = TABLE[index].name;
        index += 1;
    }
    names
};

pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    if args.fix.undo {
        return fix::undo(&args.fix.how(args.json));
    }
    let findings = examine(args)?;
    if args.fix.fix {
        return mend(args, &findings);
    }
    judge(args, findings, args.json)
}

/// Turns what is amiss, then looks again.
fn mend(args: &DoctorArgs, findings: &[Finding]) -> Result<(), Failure> {
    let mends = || findings.iter().flat_map(|finding| &finding.mend);
    let changes: Vec<Change> = mends().filter_map(Mend::change).cloned().collect();
    fix::fix(&changes, &args.fix.how(args.json))?;
    match (args.json, args.fix.dry_run) {
        (true, _) => Ok(()),
        (false, true) => {
            let by_hand = mends().filter(|mend| mend.change().is_none());
            by_hand.for_each(|mend| say!("# by hand: {}", mend.command()));
            Ok(())
        }
        (false, false) => judge(args, examine(args)?, false),
    }
}

fn judge(args: &DoctorArgs, findings: Vec<Finding>, json: bool) -> Result<(), Failure> {
    let report = Report::new(findings);
    report.print(json)?;
    let bad = report.count(Outcome::Fail) + if args.strict { report.count(Outcome::Warn) } else { 0 };
    match bad {
        0 => Ok(()),
        count => {
            Err(Failure::Preflight(anyhow!("{count} of {} checks failed: see above", report.findings.len())))
        }
    }
}

/// Runs the checks that were named, or all.
pub(crate) fn examine(args: &DoctorArgs) -> Result<Vec<Finding>, Failure> {
    let host = Host::look(Plan::new(args)?).map_err(Failure::runtime)?;
    let wanted = |check: &&Check| args.checks.is_empty() || args.checks.iter().any(|name| name == check.name);
    let mut findings = Vec::new();
    for check in TABLE.iter().filter(wanted) {
        match check.look {
            Look::Host(look) => findings.push(look(&host).named(check.name, None)),
            Look::Nic(look) => findings.extend(of_interfaces(&host, check.name, look)),
        }
    }
    Ok(findings)
}

/// One finding for each interface; of those that aren't there, `link` alone tells.
fn of_interfaces(host: &Host, name: &'static str, look: fn(&Host, &Nic) -> Finding) -> Vec<Finding> {
    if host.plan.interfaces.is_empty() {
        let seen = format!("not asked: -i IF looks at one of {}", host.interfaces_told());
        return match name {
            "link" => vec![Finding::skip(seen, "-i IF").named(name, None)],
            _ => Vec::new(),
        };
    }
    let mut findings = Vec::new();
    for asked in &host.plan.interfaces {
        match host.nic(asked) {
            Some(nic) => {
                let finding = look(host, nic).named(name, Some(asked));
                findings.push(finding.with_quirks(quirks::of(name, host, nic)));
            }
            None if name == "link" => {
                let seen = format!("no interface {asked}; there are: {}", host.interfaces_told());
                let finding = Finding::fail(seen, "an interface of this host").command("ip -brief link");
                findings.push(finding.named(name, Some(asked)));
            }
            None => {}
        }
    }
    findings
}
