//! Watches the interfaces of a running daemon: says what happens to them, and gives queues that come a socket.
//!
//! One thread an interface, asleep until the kernel tells of a change. What it says is said once for each change; what
//! is so now is in `beam status`.

use crate::{
    status::InterfaceStatus,
    supervisor::{Supervisor, merge},
    worker::mail::Command,
};
use anyhow::Context;
use std::sync::Arc;
use xsk::{Interface, LinkState};

/// Starts the threads.
pub(crate) fn watch(supervisor: &Arc<Supervisor>) -> anyhow::Result<()> {
    for index in 0..supervisor.interfaces.len() {
        let supervisor = supervisor.clone();
        std::thread::Builder::new()
            .name(format!("beam-device-{index}"))
            .spawn(move || follow(&supervisor, index))
            .context("can't start a thread that watches an interface")?;
    }
    Ok(())
}

/// Until the interface is gone.
fn follow(supervisor: &Supervisor, index: usize) {
    let interface = &supervisor.interfaces[index];
    let (mut link, mut unserved, mut seen) = (LinkState::Up, Vec::new(), 0);
    loop {
        let now = interface.link_state();
        if now != link {
            say_link(interface.name(), now);
            link = now;
        }
        if link == LinkState::Removed {
            return;
        }
        let new = interface.unserved_queues();
        if new != unserved && !new.is_empty() {
            serve_new_queues(supervisor, interface);
        }
        unserved = interface.unserved_queues();
        seen = interface.wait_for_change(seen);
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

fn serve_new_queues(supervisor: &Supervisor, interface: &Interface) {
    let ports = match interface.serve_new_queues() {
        Ok(ports) => ports,
        Err(error) => {
            tracing::warn!("{}: the new queues can't be served: {error}", interface.name());
            if let Some(alert) = alert(interface) {
                tracing::warn!("{alert}");
            }
            return;
        }
    };
    for port in ports {
        let report = port.report().clone();
        let least_loaded = supervisor.seats.iter().min_by_key(|seat| seat.lane().queues.len());
        let Some(seat) = least_loaded else { return };
        // A command that isn't taken drops the port, and so leaves the queue to the kernel.
        if seat.mailbox.command(Command::AddPort(Box::new(port))) {
            seat.lane().add_queue(interface.name(), &report);
        }
    }
    tracing::info!(
        "{} has {} queues now, and all of them have a socket",
        interface.name(),
        interface.served_count()
    );
}

/// What `beam status` says of an interface.
pub(crate) fn status(interface: &Interface) -> InterfaceStatus {
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

/// Queues without a socket, and what to do about them.
fn alert(interface: &Interface) -> Option<String> {
    let unserved = interface.unserved_queues();
    if unserved.is_empty() {
        return None;
    }
    let (name, served) = (interface.name(), interface.served_count());
    let counters = interface.steering_counters();
    let passed = counters.iter().find(|(name, _)| *name == "ours_no_socket").map_or(0, |&(_, n)| n);
    Some(format!(
        "{name} has {} queues, {served} have a socket: packets on the others take the kernel's path \
         (ours_no_socket {passed}); the log says why. Restart beam to serve them, or: {}",
        served + unserved.len() as u32,
        interface.queue_command(served)
    ))
}
