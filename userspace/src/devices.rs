//! Watches the interfaces of a running daemon: says what happens to them, and gives queues that come a socket.
//!
//! One thread an interface, asleep until the kernel tells of a change. What it says is said once for each change; what
//! is so now is in `beam status`.

use crate::{
    status::InterfaceStatus,
    supervisor::{Seat, Supervisor, merge},
    worker::mail::Command,
};
use anyhow::Context;
use std::{sync::Arc, time::Duration};
use xsk::{Device, Interface, LinkState, OpenError};

/// Starts the threads.
pub(crate) fn watch(supervisor: &Arc<Supervisor>) -> anyhow::Result<()> {
    for index in 0..supervisor.interfaces.len() {
        let supervisor = supervisor.clone();
        std::thread::Builder::new()
            .name(format!("beam-device-{index}"))
            .spawn(move || follow(&supervisor, index))
            .context("can't start a thread that watches an interface")?;
    }
    if supervisor.lan.is_some() {
        let supervisor = supervisor.clone();
        std::thread::Builder::new()
            .name("beam-lan".into())
            .spawn(move || supervisor.lan.as_deref().map(follow_link))
            .context("can't start a thread that watches the LAN's interface")?;
    }
    Ok(())
}

/// Says what becomes of the LAN's link and queues, until the interface is gone. Queues that come get no socket here.
fn follow_link(device: &Device) {
    let (mut link, mut alerted, mut seen) = (LinkState::Up, None, 0);
    loop {
        let now = device.link_state();
        if now != link {
            say_link(device.name(), now);
            link = now;
        }
        if link == LinkState::Removed {
            return;
        }
        let alert = lan_alert(device);
        if alert != alerted {
            alert.iter().for_each(|alert| tracing::warn!("{alert}"));
            alerted = alert;
        }
        seen = device.wait_for_change(seen, None);
    }
}

/// How soon to try again what the kernel refused for now.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Until the interface is gone.
fn follow(supervisor: &Supervisor, index: usize) {
    let interface = &supervisor.interfaces[index];
    let (mut link, mut seen) = (LinkState::Up, 0);
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
        let unserved = interface.unserved_queues();
        let mut retry = None;
        if unserved.is_empty() {
            refused.clear();
        } else if let Err(error) = serve_new_queues(supervisor, interface) {
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
    if interface.unserved_queues().is_empty() {
        let count = interface.served_count();
        tracing::info!("{} has {count} queues now, and all of them have a socket", interface.name());
    }
    Ok(())
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
    }
}

/// The same of the LAN.
pub(crate) fn lan_status(device: &Device) -> InterfaceStatus {
    InterfaceStatus { alert: lan_alert(device), ..status(device) }
}

/// A LAN whose packets can't be addressed any more; else as any interface.
fn lan_alert(device: &Device) -> Option<String> {
    let Some(seen) = device.unmirrored() else { return alert(device) };
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
