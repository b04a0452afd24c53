//! Two NICs of this machine, joined by a wire, in the place of the veth pair between client and gateway. Only a guest of
//! `scripts/kernels` has any to spare: it names them in `BEAM_RIG_NICS`.

use super::{Ns, Rig, must, output};

/// The NICs by their names outside of the rig.
#[derive(Clone, Debug)]
pub(crate) struct Nics {
    client: String,
    gateway: String,
}

impl Nics {
    /// `BEAM_RIG_NICS=gateway's,client's`, where it is set.
    pub(crate) fn from_environment() -> Option<Self> {
        let text = std::env::var("BEAM_RIG_NICS").ok()?;
        let (gateway, client) = text.split_once(',').expect("BEAM_RIG_NICS names two NICs: eth0,eth1");
        Some(Self { client: client.to_owned(), gateway: gateway.to_owned() })
    }

    fn pairs(&self) -> [(&str, Ns); 2] {
        [(&self.gateway, Ns::Gateway), (&self.client, Ns::Client)]
    }

    /// Moves both into their namespaces, as `c0` and `g0`.
    pub(super) fn enter(&self, rig: &Rig) {
        for (name, ns) in self.pairs() {
            // As a test before may have left it, had it failed half-way.
            must("ip", &["link", "set", name, "down", "mtu", "1500", "promisc", "off"]);
            let _ = output("ethtool", &["-K", name, "rx-vlan-offload", "on"]);
            must("ip", &["link", "set", name, "netns", &rig.netns(ns), "name", ns.interface()]);
            // QEMU 10's igb makes IP fragments of what the driver asks it to segment (seen: the peer's steering counted
            // `pass_fragment`): its segmentation of UDP predates UDP_SEGMENT.
            let info = rig.command(ns, "ethtool").args(["-i", ns.interface()]).output().expect("run ethtool");
            if String::from_utf8_lossy(&info.stdout).contains("driver: igb\n") {
                let off = ["-K", ns.interface(), "tx-udp-segmentation", "off"];
                let done = rig.command(ns, "ethtool").args(off).status().expect("run ethtool");
                assert!(done.success(), "ethtool {off:?} failed");
            }
        }
    }

    /// Moves both back, by hand: the kernel would do so some time after their namespaces are gone.
    pub(super) fn leave(&self, rig: &Rig) {
        for (name, ns) in self.pairs() {
            let netns = rig.netns(ns);
            let _ = output("ip", &["-n", &netns, "link", "set", ns.interface(), "down"]);
            let _ = output("ip", &["-n", &netns, "link", "set", ns.interface(), "netns", "1", "name", name]);
        }
    }
}
