//! What is to be sent: the flags, and what the interface, its addresses and the neighbour table say.

use super::host::{link, mac_text, own_address};
use crate::{cli::PktgenArgs, failure::Failure};
use anyhow::anyhow;
use pktgen::{Net, Plan, Shape, Sizes, Spec, headers_bytes};
use wire::datagram::{Mac, Vlan, Vlans};
use xsk::look::{self, Link};

/// The shortest frame of Ethernet, without its check sequence.
const FRAME_BYTES_MIN: usize = 60;
const ETHERTYPE_VLAN: u16 = 0x8100;

/// What is sent, and how.
pub(super) struct Ready {
    pub(super) spec: Spec,
    pub(super) plan: Plan,
}

/// Why nothing is sent.
pub(super) enum Refused {
    /// The command line contradicts itself.
    Usage(String),
    /// The host has to be another way.
    Unfit(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Unfit(failure)
    }
}

pub(super) fn ready(args: &PktgenArgs) -> Result<Ready, Refused> {
    let sizes = sizes(args).map_err(Refused::Usage)?;
    let link = link("-i", &args.interface)?;
    fits(&link, sizes, tags(args).len())?;
    let source = match args.sources {
        Some(source) => source,
        None => own_address("--sources", &link, args.ipv6)?.into(),
    };
    let (src_mac, dst_mac) = macs(args, &link)?;
    let spec = Spec {
        src_mac,
        dst_mac,
        vlans: Vlans::new(&tags(args)).unwrap_or_default(),
        source,
        source_ports: args.source_ports,
        destination: args.destination,
        destination_ports: args.ports,
        sizes,
        shape: shape(args),
        repeats: args.clones.max(1).saturating_mul(args.burst),
    };
    let plan = Plan { count: args.count, burst: args.burst as usize, gap_ns: f64::from(args.delay_ns) };
    Ok(Ready { spec, plan })
}

fn shape(args: &PktgenArgs) -> Shape {
    args.quic.map_or(Shape::Pktgen, Shape::from)
}

fn tags(args: &PktgenArgs) -> Vec<Vlan> {
    args.outer_vlan.iter().chain(&args.vlan).map(|&id| Vlan { tpid: ETHERTYPE_VLAN, tci: id }).collect()
}

/// Judges what the flags say together.
fn sizes(args: &PktgenArgs) -> Result<Sizes, String> {
    let version = |net: &Net| if net.is_ipv6() { "IPv6" } else { "IPv4" };
    if args.destination.is_ipv6() != args.ipv6 {
        let (seen, wanted) = (version(&args.destination), if args.ipv6 { "IPv6" } else { "IPv4" });
        let mend = if args.ipv6 { "leave -6 out" } else { "give -6, too" };
        return Err(format!("-d {} is {seen}, but {wanted} is needed; {mend}", args.destination));
    }
    if let Some(sources) = args.sources.filter(|sources| sources.is_ipv6() != args.ipv6) {
        return Err(format!("--sources {sources} is {}, and -d isn't", version(&sources)));
    }
    let (headers, shape) = (headers_bytes(args.ipv6, tags(args).len()), shape(args));
    let smallest = (headers + shape.payload_bytes_min()).max(FRAME_BYTES_MIN);
    if args.imix {
        return Ok(Sizes::Imix(smallest));
    }
    match args.size.map(usize::from) {
        None => Ok(Sizes::Fixed((headers + shape.payload_bytes_default()).max(FRAME_BYTES_MIN))),
        Some(size) if size >= smallest => Ok(Sizes::Fixed(size)),
        Some(size) => Err(format!("-s {size}: these frames have {smallest} bytes at least")),
    }
}

/// The driver would get larger frames all the same, and what comes of that is its own.
fn fits(link: &Link, sizes: Sizes, tag_count: usize) -> Result<(), Failure> {
    let (most, largest) = (link.mtu as usize + 14 + 4 * tag_count, sizes.max());
    if largest <= most {
        return Ok(());
    }
    let Link { name, mtu, .. } = link;
    Err(Failure::Preflight(anyhow!(
        "frames of {largest} bytes don't pass {name}: its MTU is {mtu}, so a frame may have {most}; lower -s, or: ip link set \
         dev {name} mtu {}",
        largest - 14 - 4 * tag_count
    )))
}

/// Ours, and the next hop's: the destination, or the router towards it.
fn macs(args: &PktgenArgs, link: &Link) -> Result<(Mac, Mac), Failure> {
    let interface = &args.interface;
    let Some(ours) = link.mac else {
        return Err(Failure::Preflight(anyhow!(
            "{interface} has no Ethernet address; choose another interface"
        )));
    };
    if let Some(mac) = args.mac {
        return Ok((ours, mac));
    }
    let to = args.destination.address();
    // Where the destination isn't routed by this interface, it counts as one of its neighbours.
    let hop =
        look::way(to).ok().filter(|way| way.link == link.index).and_then(|way| way.gateway).unwrap_or(to);
    match look::neighbour_mac(link.index, hop) {
        Ok(Some(mac)) => Ok((ours, mac)),
        Ok(None) => Err(Failure::Preflight(anyhow!(
            "the neighbour table has no MAC address for {hop} on {interface}; ping it first, or name one with -m"
        ))),
        Err(error) => Err(Failure::Preflight(anyhow!("asking for neighbours: {error}"))),
    }
}

impl Ready {
    /// What is about to happen.
    pub(super) fn announcement(&self, args: &PktgenArgs) -> String {
        let Spec { destination, destination_ports, dst_mac, source, source_ports, sizes, .. } = &self.spec;
        let frames = match sizes {
            Sizes::Fixed(bytes) => format!("frames of {bytes} bytes"),
            Sizes::Imix(_) => "IMIX".to_owned(),
        };
        let count = match args.count {
            0 => "until a signal comes".to_owned(),
            count => format!("{count} from each of {} thread(s)", args.threads),
        };
        let what = args
            .quic
            .map_or("UDP".to_owned(), |shape| format!("QUIC ({})", format!("{shape:?}").to_lowercase()));
        format!(
            "drives AF_XDP (copy mode): {} to {destination} ({}), {what} port {destination_ports}, from {source} port \
             {source_ports}, {frames}, {count}",
            args.interface,
            mac_text(*dst_mac)
        )
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what the flags say together is judged: IP versions, and the smallest frame of each kind.
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::Parser as _;

    fn judged(more: &str) -> Result<Sizes, String> {
        let line = format!("beam pktgen -i eth0 {more}");
        match Cli::parse_from(line.split_whitespace()).verb {
            Verb::Pktgen(args) => sizes(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_smallest_frames() {
        let v4 = "-d 198.18.0.1";
        let v6 = "-6 -d 2001:db8::1";
        for (flags, bytes) in [
            (v4.to_owned(), 60),
            (v6.to_owned(), 78),
            (format!("{v4} --vlan 5"), 62),
            (format!("{v4} --vlan 5 --outer-vlan 6"), 66),
            (format!("{v4} --quic initial"), 1242),
            (format!("{v6} --quic mixed"), 1262),
            (format!("{v4} --quic short"), 142),
            (format!("{v4} -s 1400"), 1400),
        ] {
            assert_eq!(judged(&flags), Ok(Sizes::Fixed(bytes)), "{flags}");
        }
        assert_eq!(judged(&format!("{v6} --imix")), Ok(Sizes::Imix(78)));
        assert!(judged(&format!("{v4} --quic initial -s 1241")).is_err());
        assert!(judged(&format!("{v6} -s 77")).is_err());
    }

    #[test]
    fn ip_versions_agree() {
        assert!(judged("-d 2001:db8::1").is_err());
        assert!(judged("-6 -d 198.18.0.1").is_err());
        assert!(judged("-d 198.18.0.1 --sources 2001:db8::/64").is_err());
    }

    #[test]
    fn too_large_for_the_link() {
        let link = Link { name: "eth0".into(), mtu: 1500, ..Link::default() };
        assert!(fits(&link, Sizes::Fixed(1514), 0).is_ok());
        assert!(fits(&link, Sizes::Fixed(1515), 0).is_err());
        assert!(fits(&link, Sizes::Fixed(1518), 1).is_ok());
        assert!(fits(&Link { mtu: 1400, ..link }, Sizes::Imix(60), 0).is_err());
    }
}
