//! Watches the interfaces of a running daemon: says what happens to them, and gives queues that come a socket.
//!
//! One thread an interface, asleep until the kernel tells of a change. What it says is said once for each change; what
//! is so now is in `beam status`.

use crate::{
    interface, privileges,
    status::InterfaceStatus,
    supervisor::{Seat, Supervisor, merge},
    worker::mail::Command,
};
use anyhow::Context;
use std::{sync::Arc, time::Duration};
use xsk::{Device, Interface, LanInterface, LinkState, OpenError};

/// Starts the threads.
pub(crate) fn watch(supervisor: &Arc<Supervisor>) -> anyhow::Result<()> {
    for index in 0..supervisor.interfaces.len() {
        let supervisor = supervisor.clone();
        std::thread::Builder::new()
            .name(format!("beam-device-{index}"))
            .spawn(move || {
                let interface = &supervisor.interfaces[index];
                if !confine::enter_or_note(privileges::device_room(interface.queues_may_come())) {
                    return;
                }
                follow(interface, || serve_new_queues(&supervisor, interface), |_| None);
                supervisor.tell_all(|| Command::Look);
            })
            .context("can't start a thread that watches an interface")?;
    }
    if supervisor.lan.is_some() {
        let supervisor = supervisor.clone();
        std::thread::Builder::new()
            .name("beam-lan".into())
            .spawn(move || {
                let Some(lan) = &supervisor.lan else { return };
                if !confine::enter_or_note(privileges::device_room(lan.queues_may_come())) {
                    return;
                }
                follow(lan, || serve_new_lan_queues(&supervisor, lan), unaddressable);
                supervisor.tell_all(|| Command::Look);
            })
            .context("can't start a thread that watches the LAN's interface")?;
    }
    Ok(())
}

/// How soon to try again what the kernel refused for now.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Until the interface is gone. `trouble` is what else may befall it, in words.
fn follow(
    interface: &Device,
    serve_new_queues: impl Fn() -> Result<(), OpenError>,
    trouble: impl Fn(&Device) -> Option<String>,
) {
    let (mut link, mut troubled, mut seen) = (LinkState::Up, None, 0);
    // The new queues that were last tried, in vain.
    let mut refused = Vec::new();
    loop {
        let now = interface.link_state();
        if now != link {
            say_link(interface.name(), now);
            link = now;
        }
        if link == LinkState::Removed {
            return;
        }
        let trouble_now = trouble(interface);
        if trouble_now != troubled {
            trouble_now.iter().for_each(|trouble| tracing::warn!("{trouble}"));
            troubled = trouble_now;
        }
        let unserved = interface.unserved_queues();
        let mut retry = None;
        if unserved.is_empty() {
            refused.clear();
        } else if let Err(error) = serve_new_queues() {
            if unserved != refused {
                tracing::warn!("{}: the new queues can't be served: {error}", interface.name());
                if let Some(alert) = alert(interface) {
                    tracing::warn!("{alert}");
                }
            }
            refused = unserved;
            // What the driver doesn't have it won't have later.
            let is_final = matches!(error, OpenError::NoZeroCopy { .. });
            retry = (!is_final).then_some(RETRY_AFTER);
        }
        seen = interface.wait_for_change(seen, retry);
    }
}

fn say_link(name: &str, link: LinkState) {
    match link {
        LinkState::Up => tracing::info!("{name}: the link is up"),
        LinkState::NoCarrier => tracing::warn!("{name}: the link has no carrier; see: ethtool {name}"),
        LinkState::Down => tracing::warn!("{name}: the interface is down; run: ip link set {name} up"),
        LinkState::Removed => tracing::error!("{name}: the interface is gone"),
    }
}

fn serve_new_queues(supervisor: &Supervisor, interface: &Interface) -> Result<(), OpenError> {
    for port in interface.serve_new_queues()? {
        let report = port.report().clone();
        // One that sends by this interface already, else its answers would leave by the kernel's path.
        let load = |seat: &Seat| {
            let lane = seat.lane();
            (!lane.is_on(interface.name()), lane.queues.len())
        };
        // A command that isn't taken drops the port, and so leaves the queue to the kernel.
        if let Some(seat) = supervisor.seats.iter().min_by_key(|seat| load(seat))
            && seat.mailbox.command(Command::AddPort(Box::new(port)))
        {
            seat.lane().add_queue(interface.name(), &report);
        } else {
            tracing::warn!("{}: no worker takes queue {}", interface.name(), report.queue);
        }
    }
    say_all_served(interface);
    Ok(())
}

/// The same of the LAN, whose queues are shared out as they were at the start.
fn serve_new_lan_queues(supervisor: &Supervisor, lan: &LanInterface) -> Result<(), OpenError> {
    for queue in lan.serve_new_queues()? {
        let report = queue.report().clone();
        let seat = &supervisor.seats[report.queue as usize % supervisor.seats.len()];
        if seat.mailbox.command(Command::AddLanQueue(Box::new(queue))) {
            interface::say(lan.name(), &report);
        } else {
            tracing::warn!("{}: no worker takes queue {}", lan.name(), report.queue);
        }
    }
    say_all_served(lan);
    Ok(())
}

fn say_all_served(interface: &Device) {
    if interface.unserved_queues().is_empty() {
        let count = interface.served_count();
        tracing::info!("{} has {count} queues now, and all of them have a socket", interface.name());
    }
}

/// What `beam status` says of an interface.
pub(crate) fn status(interface: &Device) -> InterfaceStatus {
    InterfaceStatus {
        name: interface.name().to_owned(),
        driver: interface.driver(),
        link: interface.link_state().to_string(),
        mtu: interface.mtu(),
        queues_now: interface.queue_count().unwrap_or(0),
        queues_served: interface.served_count(),
        alert: alert(interface),
        steering: merge(interface.steering_counters().into_iter()),
        nic_drops: merge(interface.nic_drops().into_iter().flatten()),
    }
}

/// The same of the LAN.
pub(crate) fn lan_status(device: &Device) -> InterfaceStatus {
    InterfaceStatus { alert: unaddressable(device).or_else(|| alert(device)), ..status(device) }
}

/// A LAN whose packets can't be addressed any more.
fn unaddressable(device: &Device) -> Option<String> {
    let seen = device.unmirrored()?;
    Some(format!(
        "packets to the LAN {} are dropped (lan_tx_unroutable): beam addresses them by the main routing table alone, and \
         now there is {seen}. {}",
        device.name(),
        seen.mend()
    ))
}

/// A lost program or queues without a socket, and what to do about them.
fn alert(interface: &Device) -> Option<String> {
    if !interface.has_program() {
        let name = interface.name();
        return Some(format!(
            "{name} has no XDP program: every packet takes the kernel's path; the log says why. Restart beam"
        ));
    }
    let unserved = interface.unserved_queues();
    if unserved.is_empty() {
        return None;
    }
    let (name, served) = (interface.name(), interface.served_count());
    let counters = interface.steering_counters();
    let passed = counters.iter().find(|(name, _)| name.ends_with("_no_socket"));
    let (counter, passed) = passed.copied().unwrap_or_default();
    Some(format!(
        "{name} has {} queues, {served} have a socket: packets on the others take the kernel's path \
         ({counter} {passed}); the log says why. Restart beam to serve them, or: {}",
        served + unserved.len() as u32,
        interface.queue_command(served)
    ))
}
