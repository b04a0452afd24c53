//! XDP on an interface: what the driver says, who is there already, and whether a socket binds.

use super::{
    finding::Finding,
    host::{FOR_XDP, Host, Nic},
    quirks, sockets,
};
use rustix::thread::CapabilitySet;
use xsk::{
    AttachedProgram,
    look::{self, Trial},
};

pub(super) fn features(host: &Host, nic: &Nic) -> Finding {
    let plan = &host.plan;
    if !plan.wants_xdp() {
        return Finding::not_applicable("--xdp off");
    }
    let needed =
        if plan.insists_on_zero_copy() { "basic, redirect and xsk-zerocopy" } else { "basic and redirect" };
    let Some(features) = nic.features else {
        return Finding::not_seen("this kernel doesn't tell (before Linux 6.3)", needed);
    };
    let seen = match features.zc_max_segs {
        0 => format!("{features}"),
        segs => format!("{features}; at most {segs} buffer(s) a zero-copy packet"),
    };
    if !(features.has("basic") && features.has("redirect")) {
        let seen = format!("{seen}: no XDP in the driver, so the generic hook is what's left");
        return Finding::lacks(plan.insists_on_native(), seen, needed).command("beam serve --xdp auto ...");
    }
    if plan.insists_on_zero_copy() && !features.has("xsk-zerocopy") {
        return Finding::fail(seen, needed).command("beam serve --zero-copy auto ...");
    }
    Finding::pass(seen, needed)
}

pub(super) fn program(host: &Host, nic: &Nic) -> Finding {
    let needed = "no other XDP program";
    let program = match xsk::attached(nic.name()) {
        Ok(None) => return Finding::pass("none is attached", needed),
        Ok(Some(program)) => program,
        Err(error) => return Finding::not_seen(error, needed),
    };
    let AttachedProgram { name, id, mode, link_id, is_beam, .. } = &program;
    // What holds the link is told in /proc, to root only.
    let holder = link_id.and_then(|id| sockets::link_holder(&host.files, id));
    let seen = format!("XDP program {name} (id {id}, {mode})");
    if !host.capabilities.contains(CapabilitySet::SYS_ADMIN) {
        let seen = format!("{seen}; whose it is isn't seen: needs CAP_SYS_ADMIN");
        return Finding::warn(seen, needed).command("sudo beam doctor xdp-program ...");
    }
    match (is_beam, holder) {
        (true, Some(holder)) => Finding::pass(format!("beam's own: {seen}, held by {holder}"), needed),
        (true, None) => Finding::fail(format!("left behind by a beam that is gone: {seen}"), needed)
            .command(format!("beam detach -i {}", nic.name())),
        (false, holder) => {
            let by = holder.map_or(String::new(), |holder| format!(", held by {holder}"));
            Finding::fail(format!("{seen}{by}: beam doesn't replace it"), needed)
                .command(program.removal(nic.name()))
        }
    }
}

pub(super) fn trial_copy(host: &Host, nic: &Nic) -> Finding {
    let needed = "a socket that binds in copy mode";
    trial(host, nic, needed).unwrap_or_else(|queue| match look::trial(nic.name(), queue, false) {
        Ok(Trial::Bound { zero_copy: false }) => {
            Finding::pass(format!("queue {queue}: bound and read back, copy; closed again"), needed)
        }
        Ok(other) => refused(host.plan.insists_on_xdp(), queue, other, needed),
        Err(error) => Finding::lacks(host.plan.insists_on_xdp(), error.to_string(), needed),
    })
}

pub(super) fn trial_zero_copy(host: &Host, nic: &Nic) -> Finding {
    let insists = host.plan.insists_on_zero_copy();
    let needed = "a socket that binds without copies, for full speed";
    let advice = "beam serve --zero-copy auto ...";
    if nic.features.is_some_and(|features| !features.has("xsk-zerocopy")) {
        let seen = "the driver says that it has none (see xdp-features): the kernel copies";
        return match insists {
            true => Finding::fail(seen, needed).command(advice),
            // A veth never has it: that is no fault to mend.
            false => Finding::skip(format!("not tried: {seen}"), needed),
        };
    }
    if !quirks::binds_in_peace(nic.driver()) && !host.plan.may_pause {
        let why = "it might pause a queue that carries traffic; to try it all the same, name it: \
                   beam doctor trial-zero-copy";
        return Finding::skip(format!("not tried: {why}"), needed);
    }
    trial(host, nic, needed).unwrap_or_else(|queue| match look::trial(nic.name(), queue, true) {
        Ok(Trial::Bound { zero_copy: true }) => {
            Finding::pass(format!("queue {queue}: bound and read back, zero-copy; closed again"), needed)
        }
        Ok(other) => refused(insists, queue, other, needed).command(advice),
        Err(error) => Finding::lacks(insists, error.to_string(), needed),
    })
}

/// The queue to try on, or why none.
///
/// A socket that binds without a program gets no packet, and a queue whose socket is bound refuses another one, so
/// neither a running beam nor the kernel's own traffic notices. All the same, nothing is tried where a program or a
/// socket is: whoever has it may be about to bind the very queue.
fn trial(host: &Host, nic: &Nic, needed: &str) -> Result<Finding, u32> {
    if !host.plan.wants_xdp() {
        return Ok(Finding::not_applicable("--xdp off"));
    }
    let missing = host.lacks(&FOR_XDP);
    if !missing.is_empty() {
        return Ok(Finding::not_seen(format!("needs {}", missing.join(", ")), needed));
    }
    if !nic.link.up || !nic.link.is_ethernet {
        return Ok(Finding::skip("not tried: see link", needed));
    }
    match xsk::attached(nic.name()) {
        Ok(None) => {}
        Ok(Some(program)) => {
            let seen = format!(
                "not tried: XDP program {} is there, and its sockets might be disturbed",
                program.name
            );
            return Ok(Finding::skip(seen, needed));
        }
        Err(error) => return Ok(Finding::not_seen(error, needed)),
    }
    if let Some(taken) = nic.queues.iter().find(|queue| queue.has_socket) {
        let seen = format!("not tried: queue {} has a socket already", taken.queue);
        return Ok(Finding::skip(seen, needed));
    }
    // The last one: the first is where unspread traffic arrives.
    Err(host.plan.queues_of(nic.queue_count).last().copied().unwrap_or(0).min(nic.queue_count - 1))
}

fn refused(insists: bool, queue: u32, trial: Trial, needed: &str) -> Finding {
    match trial {
        Trial::Taken => Finding::skip(format!("not tried: queue {queue} has a socket already"), needed),
        Trial::Bound { zero_copy } => {
            let mode = if zero_copy { "zero-copy" } else { "copy" };
            Finding::lacks(insists, format!("queue {queue} bound, but the kernel says {mode}"), needed)
        }
        Trial::Refused(error) => {
            Finding::lacks(insists, format!("queue {queue}: the kernel refused ({error})"), needed)
        }
    }
}
