//! What doctor may turn on a host: one kind of knob each, read, written, and told as the command that an operator types.
//!
//! Nothing is spawned: NICs are turned by ioctl, the rest by files under /proc and /sys. All of it is the kernel's memory,
//! gone with the next boot. A value is text, as the command writes it.

use serde::{Deserialize, Serialize};
use std::{
    fmt, fs, io,
    path::{Component, Path, PathBuf},
};
use xsk::ethtool::{self, Family, HashFields};

/// What channels are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Use {
    Combined,
    Rx,
    Tx,
}

/// A ring of the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    Rx,
    Tx,
}

/// Which IP a hash is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ip {
    V4,
    V6,
}

/// One thing of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Knob {
    /// A file under /proc/sys; `net/core/rmem_max`.
    Sysctl { path: String },
    /// An offload, by the kernel's name: `rx-lro`, `rx-gro-hw`, `rx-vlan-hw-parse`. `on` or `off`.
    Feature { interface: String, feature: String },
    /// How many channels.
    Channels { interface: String, used: Use },
    /// Descriptors in each ring.
    Ring { interface: String, direction: Direction },
    /// Fields that UDP is spread by, in ethtool's letters: `sdfn`.
    UdpHash { interface: String, ip: Ip },
    /// Bytes.
    Mtu { interface: String },
    /// `up` or `down`.
    Link { interface: String },
    /// CPUs that an interrupt goes to, as a list.
    IrqAffinity { irq: u32 },
    /// Name of a CPU's frequency governor.
    Governor { cpu: u32 },
    /// How many of this size.
    Hugepages { kib: u32 },
    /// A file under /sys or /proc; `napi_defer_hard_irqs` of a NIC.
    File { path: PathBuf },
}

/// A knob and what it is to be turned to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) knob: Knob,
    pub(crate) to: String,
}

impl Change {
    /// The command that does the same.
    pub(crate) fn command(&self) -> String {
        self.knob.command(&self.to)
    }
}

impl Knob {
    /// The value now.
    pub(crate) fn read(&self) -> io::Result<String> {
        match self {
            Self::Feature { interface, feature } => {
                let all = ethtool::features(interface)?;
                let found = all.iter().find(|known| known.name == *feature);
                found.map(|found| on_off(found.on)).ok_or_else(|| unknown(feature))
            }
            Self::Channels { interface, used } => {
                let channels = ethtool::channels(interface)?;
                Ok(match used {
                    Use::Combined => channels.combined,
                    Use::Rx => channels.rx,
                    Use::Tx => channels.tx,
                }
                .to_string())
            }
            Self::Ring { interface, direction } => {
                let rings = ethtool::rings(interface)?;
                Ok(if *direction == Direction::Rx { rings.rx } else { rings.tx }.to_string())
            }
            Self::UdpHash { interface, ip } => {
                ethtool::udp_hash(interface, family(*ip)).map(HashFields::letters)
            }
            Self::Mtu { interface } => ethtool::mtu(interface).map(|mtu| mtu.to_string()),
            Self::Link { interface } => {
                ethtool::is_up(interface).map(|up| if up { "up" } else { "down" }.to_owned())
            }
            _ => fs::read_to_string(self.file()?).map(|text| text.trim().to_owned()),
        }
    }

    /// Turns it. The kernel may take another value than the one asked for: who cares reads it again.
    pub(crate) fn write(&self, to: &str) -> io::Result<()> {
        match self {
            Self::Feature { interface, feature } => {
                let on = one_of(to, ["off", "on"])?;
                ethtool::set_feature(interface, feature, on)
            }
            Self::Channels { interface, used } => {
                let mut channels = ethtool::channels(interface)?;
                let count = match used {
                    Use::Combined => &mut channels.combined,
                    Use::Rx => &mut channels.rx,
                    Use::Tx => &mut channels.tx,
                };
                *count = number(to)?;
                ethtool::set_channels(interface, channels)
            }
            Self::Ring { interface, direction } => {
                let mut rings = ethtool::rings(interface)?;
                *(if *direction == Direction::Rx { &mut rings.rx } else { &mut rings.tx }) = number(to)?;
                ethtool::set_rings(interface, rings)
            }
            Self::UdpHash { interface, ip } => {
                let fields = HashFields::from_letters(to).ok_or_else(|| unknown(to))?;
                ethtool::set_udp_hash(interface, family(*ip), fields)
            }
            Self::Mtu { interface } => ethtool::set_mtu(interface, number(to)?),
            Self::Link { interface } => ethtool::set_up(interface, one_of(to, ["down", "up"])?),
            _ => write_once(&self.file()?, to),
        }
    }

    /// What an operator would type for it.
    pub(crate) fn command(&self, to: &str) -> String {
        match self {
            // With dots, as everybody writes it, but where a part has a dot of its own (a VLAN's `eth0.7`).
            Self::Sysctl { path } if path.contains('.') => format!("sysctl -w {path}='{to}'"),
            Self::Sysctl { path } => format!("sysctl -w {}='{to}'", path.replace('/', ".")),
            Self::Feature { interface, feature } => {
                format!("ethtool -K {interface} {} {to}", short(feature))
            }
            Self::Channels { interface, used } => {
                let used = match used {
                    Use::Combined => "combined",
                    Use::Rx => "rx",
                    Use::Tx => "tx",
                };
                format!("ethtool -L {interface} {used} {to}")
            }
            Self::Ring { interface, direction } => {
                let direction = if *direction == Direction::Rx { "rx" } else { "tx" };
                format!("ethtool -G {interface} {direction} {to}")
            }
            Self::UdpHash { interface, ip } => {
                let flow = if *ip == Ip::V4 { "udp4" } else { "udp6" };
                format!("ethtool -N {interface} rx-flow-hash {flow} {to}")
            }
            Self::Mtu { interface } => format!("ip link set {interface} mtu {to}"),
            Self::Link { interface } => format!("ip link set {interface} {to}"),
            _ => match self.file() {
                Ok(path) => format!("echo '{to}' > {}", path.display()),
                Err(error) => format!("# {error}"),
            },
        }
    }

    /// The interface that it is a setting of.
    pub(crate) fn interface(&self) -> Option<&str> {
        match self {
            Self::Feature { interface, .. }
            | Self::Channels { interface, .. }
            | Self::Ring { interface, .. }
            | Self::UdpHash { interface, .. }
            | Self::Mtu { interface }
            | Self::Link { interface } => Some(interface),
            Self::File { path } => path.strip_prefix("/sys/class/net").ok()?.iter().next()?.to_str(),
            Self::Sysctl { .. }
            | Self::IrqAffinity { .. }
            | Self::Governor { .. }
            | Self::Hugepages { .. } => None,
        }
    }

    /// Whether each network namespace has one of its own.
    pub(crate) fn is_of_network(&self) -> bool {
        matches!(self, Self::Sysctl { path } if path.starts_with("net/"))
    }

    /// Whether turning it to that value may take the link away for a while, or for good: then whatever goes through the
    /// interface is cut off.
    pub(crate) fn may_drop_link(&self, to: &str) -> bool {
        match self {
            // Drivers set their rings up anew for these: ixgbe, i40e, ice, mlx5 and virtio_net among them.
            Self::Channels { .. } | Self::Ring { .. } | Self::Mtu { .. } => true,
            Self::Feature { feature, .. } => RESETTING_FEATURES.contains(&feature.as_str()),
            Self::Link { .. } => to == "down",
            _ => false,
        }
    }

    /// Where it is a file. Never one outside of /proc and /sys, whatever a journal says.
    fn file(&self) -> io::Result<PathBuf> {
        let path = match self {
            Self::Sysctl { path } => Path::new("/proc/sys").join(path),
            Self::IrqAffinity { irq } => format!("/proc/irq/{irq}/smp_affinity_list").into(),
            Self::Governor { cpu } => {
                format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor").into()
            }
            Self::Hugepages { kib } => {
                format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages").into()
            }
            Self::File { path } => path.clone(),
            _ => return Err(io::Error::other(format!("{self} is no file"))),
        };
        let climbs = path.components().any(|part| part == Component::ParentDir);
        if climbs || !(path.starts_with("/proc") || path.starts_with("/sys")) {
            return Err(io::Error::other(format!("{} is not a file of the kernel", path.display())));
        }
        Ok(path)
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { path } => write!(f, "sysctl {}", path.replace('/', ".")),
            Self::Feature { interface, feature } => write!(f, "{} of {interface}", short(feature)),
            Self::Channels { interface, used: Use::Combined } => {
                write!(f, "combined channels of {interface}")
            }
            Self::Channels { interface, used: Use::Rx } => write!(f, "rx channels of {interface}"),
            Self::Channels { interface, used: Use::Tx } => write!(f, "tx channels of {interface}"),
            Self::Ring { interface, direction: Direction::Rx } => write!(f, "rx ring of {interface}"),
            Self::Ring { interface, direction: Direction::Tx } => write!(f, "tx ring of {interface}"),
            Self::UdpHash { interface, ip: Ip::V4 } => write!(f, "RSS hash of UDP/IPv4 of {interface}"),
            Self::UdpHash { interface, ip: Ip::V6 } => write!(f, "RSS hash of UDP/IPv6 of {interface}"),
            Self::Mtu { interface } => write!(f, "MTU of {interface}"),
            Self::Link { interface } => write!(f, "link {interface}"),
            Self::IrqAffinity { irq } => write!(f, "CPUs of interrupt {irq}"),
            Self::Governor { cpu } => write!(f, "governor of CPU {cpu}"),
            Self::Hugepages { kib } => write!(f, "hugepages of {kib} KiB"),
            Self::File { path } => write!(f, "{}", path.display()),
        }
    }
}

/// Features for which drivers reset: ixgbe and mlx5 do for LRO, virtio_net for hardware GRO, ixgbe for VLAN stripping.
const RESETTING_FEATURES: [&str; 4] = ["rx-lro", "rx-gro-hw", "rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];

/// The kernel's names that ethtool has shorter ones for, which work with every version of it.
const SHORT_NAMES: [(&str, &str); 5] = [
    ("rx-lro", "lro"),
    ("rx-gro", "gro"),
    ("rx-vlan-hw-parse", "rxvlan"),
    ("tx-vlan-hw-insert", "txvlan"),
    ("rx-hashing", "rxhash"),
];

fn short(feature: &str) -> &str {
    SHORT_NAMES.iter().find(|(name, _)| *name == feature).map_or(feature, |(_, short)| short)
}

fn family(ip: Ip) -> Family {
    match ip {
        Ip::V4 => Family::V4,
        Ip::V6 => Family::V6,
    }
}

fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

/// False for the first word, true for the second.
fn one_of(text: &str, [no, yes]: [&str; 2]) -> io::Result<bool> {
    match text {
        text if text == yes => Ok(true),
        text if text == no => Ok(false),
        _ => Err(unknown(text)),
    }
}

fn number(text: &str) -> io::Result<u32> {
    text.parse().map_err(|_| unknown(text))
}

fn unknown(word: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the kernel knows no {word:?} here"))
}

/// In one write, as such files want it; never creates one.
fn write_once(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    //! Goal: commands are those that the tools take, files are never outside of the kernel's, and a journal's words mean
    //! the same after they were written and read. That knobs turn what they say is shown by tests/upkeep.
    use super::*;

    #[test]
    fn commands_are_what_an_operator_types() {
        let interface = || "eth0".to_owned();
        let sysctl = |path: &str| Knob::Sysctl { path: path.into() };
        let feature = |feature: &str| Knob::Feature { interface: interface(), feature: feature.into() };
        for (knob, to, command) in [
            (sysctl("net/core/bpf_jit_enable"), "1", "sysctl -w net.core.bpf_jit_enable='1'"),
            (sysctl("net/ipv4/conf/eth0.7/rp_filter"), "2", "sysctl -w net/ipv4/conf/eth0.7/rp_filter='2'"),
            (feature("rx-lro"), "off", "ethtool -K eth0 lro off"),
            (feature("rx-gro-hw"), "off", "ethtool -K eth0 rx-gro-hw off"),
            (
                Knob::Channels { interface: interface(), used: Use::Combined },
                "4",
                "ethtool -L eth0 combined 4",
            ),
            (
                Knob::Ring { interface: interface(), direction: Direction::Rx },
                "512",
                "ethtool -G eth0 rx 512",
            ),
            (
                Knob::UdpHash { interface: interface(), ip: Ip::V6 },
                "sdfn",
                "ethtool -N eth0 rx-flow-hash udp6 sdfn",
            ),
            (Knob::Mtu { interface: interface() }, "1500", "ip link set eth0 mtu 1500"),
            (Knob::IrqAffinity { irq: 33 }, "2", "echo '2' > /proc/irq/33/smp_affinity_list"),
        ] {
            assert_eq!(knob.command(to), command);
            let written = serde_json::to_string(&knob).unwrap();
            assert_eq!(serde_json::from_str::<Knob>(&written).unwrap(), knob, "{written}");
        }
    }

    #[test]
    fn files_are_the_kernels() {
        for path in ["/etc/passwd", "/sys/../etc/passwd", "relative", "/system"] {
            let knob = Knob::File { path: path.into() };
            assert!(knob.read().is_err() && knob.write("x").is_err(), "{path}");
        }
        let climbing = Knob::Sysctl { path: "../../etc/passwd".into() };
        assert!(climbing.read().is_err() && climbing.write("x").is_err());
        let absolute = Knob::Sysctl { path: "/etc/passwd".into() };
        assert!(absolute.read().is_err() && absolute.write("x").is_err());
        assert!(Knob::Sysctl { path: "kernel/osrelease".into() }.read().is_ok());
    }

    #[test]
    fn what_may_drop_a_link_is_known() {
        let mtu = Knob::Mtu { interface: "eth0".into() };
        let link = Knob::Link { interface: "eth0".into() };
        assert!(mtu.may_drop_link("1500") && link.may_drop_link("down") && !link.may_drop_link("up"));
        assert!(!Knob::Governor { cpu: 0 }.may_drop_link("performance"));
        let file = Knob::File { path: "/sys/class/net/eth0/gro_flush_timeout".into() };
        assert_eq!((mtu.interface(), file.interface()), (Some("eth0"), Some("eth0")));
    }
}
