//! The kernel: its version, XDP sockets, the JIT, and what its verifier says of the steering program.

use super::{
    files::Files,
    finding::Finding,
    fix::knob::Knob,
    host::{Host, TO_LOAD},
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, socket},
};

/// The steering program asks for `bpf_xdp_get_buff_len`, which came with 5.18.
const OLDEST: (u32, u32) = (5, 18);

pub(super) fn version(host: &Host) -> Finding {
    let release = release(&host.files);
    let needed = "Linux 5.18 or newer with CONFIG_XDP_SOCKETS";
    let Some(version) = parsed(&release) else {
        return Finding::not_seen(format!("kernel release {release} is no version"), needed);
    };
    if version < OLDEST {
        let upgrade = "apt install linux-image-amd64 && reboot";
        return Finding::lacks(host.plan.insists_on_xdp(), format!("Linux {release}"), needed)
            .command(upgrade);
    }
    // Without CAP_NET_RAW the answer is EPERM, and that only where the family exists.
    match socket(AddressFamily::XDP, SocketType::RAW, None) {
        Ok(_) | Err(Errno::PERM) => Finding::pass(format!("Linux {release} with XDP sockets"), needed),
        Err(Errno::AFNOSUPPORT) => {
            let seen = format!("Linux {release} without XDP sockets (CONFIG_XDP_SOCKETS)");
            Finding::lacks(host.plan.insists_on_xdp(), seen, needed).command("beam serve --xdp off ...")
        }
        Err(error) => Finding::not_seen(format!("opening an XDP socket: {error}"), needed),
    }
}

pub(super) fn jit(host: &Host) -> Finding {
    let needed = "the steering program as machine code (net.core.bpf_jit_enable = 1)";
    let knob = Knob::Sysctl { path: "net/core/bpf_jit_enable".into() };
    let off = |seen: String| Finding::warn(seen, needed).change(knob, "1");
    match host.files.number::<u32>("/proc/sys/net/core/bpf_jit_enable") {
        Some(0) => off("net.core.bpf_jit_enable = 0: each packet is steered by an interpreter".into()),
        Some(value) => Finding::pass(format!("net.core.bpf_jit_enable = {value}"), needed),
        // The sysctl is shown in the first network namespace only.
        None => match host.loaded() {
            Ok(true) => Finding::pass("the kernel compiled the steering program", needed),
            Ok(false) => off("the kernel interprets the steering program".into()),
            Err(_) => {
                Finding::not_seen("this network namespace doesn't show net.core.bpf_jit_enable", needed)
            }
        },
    }
}

pub(super) fn verifier(host: &Host) -> Finding {
    let needed = "a kernel that takes the steering program";
    if !host.plan.wants_xdp() {
        return Finding::not_applicable("--xdp off");
    }
    match host.loaded() {
        Ok(_) => Finding::pass("it takes the steering program (loaded, not attached, unloaded)", needed),
        Err(error) => match host.lacks(&TO_LOAD).as_slice() {
            [] => Finding::lacks(host.plan.insists_on_xdp(), error.to_string(), needed)
                .command("beam serve --xdp off ..."),
            missing => Finding::not_seen(format!("needs {}", missing.join(", ")), needed),
        },
    }
}

pub(super) fn release(files: &Files) -> String {
    files.text("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// `6.18.44-fc` is 6.18.
pub(super) fn parsed(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    //! Goal: releases as distributions write them are versions.
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(parsed("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parsed("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(parsed("7.2"), Some((7, 2)));
        assert_eq!(parsed("next"), None);
        assert!(parsed(&release(&Files::of_this_host())).is_some());
    }
}
