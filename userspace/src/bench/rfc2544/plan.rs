//! What is sent from where to where: the flags, and what the two interfaces, their addresses and the neighbours say.

use super::size::{self, FCS_BYTES};
use crate::{
    cli::{FrameSize, Rfc2544Args, XdpMode},
    doctor::fix::lifeline::Lifelines,
    failure::Failure,
    generate::host::{link, mac_text, own_address},
};
use anyhow::anyhow;
use socket2::{Domain, Socket, Type};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};
use wire::{
    Path,
    datagram::{Mac, Vlans},
    encap,
};
use xsk::look::{self, Link};

/// How long a router may take to say its MAC address.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(2);
const NEIGHBOUR_LOOK: Duration = Duration::from_millis(20);
/// RFC 863: whatever comes there is thrown away.
const DISCARD_PORT: u16 = 9;
/// Trials that last longer would need numbers of more than 32 bits.
const TIME_MAX: Duration = Duration::from_secs(600);
/// `--quick`.
const QUICK_TIME: Duration = Duration::from_millis(500);
const QUICK_SETTLE: Duration = Duration::from_millis(200);
const QUICK_PRECISION: f64 = 0.05;

/// One flow through the device.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) link: encap::Link,
    pub(super) path: Path,
    /// The device is taken for a bridge: frames go to the receiving interface itself.
    pub(super) is_bridged: bool,
}

/// `--quick` in the flags that it stands for, and all sizes where none is named.
pub(super) fn completed(args: &Rfc2544Args) -> Rfc2544Args {
    let mut args = args.clone();
    if args.quick {
        (args.time, args.settle, args.precision.0, args.runs) =
            (QUICK_TIME, QUICK_SETTLE, QUICK_PRECISION, 1);
    }
    if args.sizes.is_empty() {
        args.sizes = FrameSize::all(size::smallest(args.ipv6));
    }
    args
}

/// What the flags say together.
pub(super) fn must_fit(args: &Rfc2544Args) -> Result<(), String> {
    if args.interface == args.receive {
        return Err(format!(
            "-i {0} -r {0}: frames are sent into the device on one interface and received behind it on another; name two",
            args.interface
        ));
    }
    let version = |ip: &IpAddr| if ip.is_ipv6() { "IPv6" } else { "IPv4" };
    let named = [("-g", args.gateway), ("-d", args.destination), ("--source", args.source)];
    for (flag, ip) in named {
        if let Some(ip) = ip.filter(|ip| ip.is_ipv6() != args.ipv6) {
            let mend = if args.ipv6 { "leave -6 out" } else { "give -6, too" };
            return Err(format!("{flag} {ip} is {}; {mend}", version(&ip)));
        }
        if let Some(ip) = ip.filter(|ip| ip.is_multicast() || ip.is_unspecified() || ip.is_loopback()) {
            return Err(format!("{flag} {ip}: an address of one host on the network is needed"));
        }
    }
    let smallest = size::smallest(args.ipv6);
    let small = args.sizes.iter().find(|size| matches!(size, FrameSize::Bytes(bytes) if *bytes < smallest));
    if let Some(size) = small {
        return Err(format!(
            "-s {size}: Ethernet, IPv6, UDP, the 18 bytes of the stamp and the check sequence make {smallest} bytes at least"
        ));
    }
    if args.time.is_zero() || args.time > TIME_MAX {
        return Err(format!("-t {:?}: a trial lasts above 0 and up to {} s", args.time, TIME_MAX.as_secs()));
    }
    for (flag, rate) in [("--min-rate", args.min_rate), ("--max-rate", args.max_rate)] {
        if let Some(rate) = rate.filter(|rate| *rate < 1.0) {
            return Err(format!("{flag} {rate}: a frame a second is the least"));
        }
    }
    if let (Some(min), Some(max)) = (args.min_rate, args.max_rate)
        && min >= max
    {
        return Err(format!("--min-rate {min} isn't below --max-rate {max}: there is nothing to search"));
    }
    if args.xdp == XdpMode::Off {
        return Err("--xdp off: frames are received by AF_XDP only; use auto, native or skb".to_owned());
    }
    Ok(())
}

/// Looks at the host.
pub(super) fn flow(args: &Rfc2544Args) -> Result<Flow, Failure> {
    xsk::check_capabilities().map_err(Failure::preflight)?;
    let (sender, receiver) = (link("-i", &args.interface)?, link("-r", &args.receive)?);
    if !args.allow_link_drop {
        must_carry_nothing(&Lifelines::look(), [("-i", &sender), ("-r", &receiver)])?;
    }
    for link in [&sender, &receiver] {
        fits(args, link)?;
    }
    let own = |flag, link| own_address(flag, link, args.ipv6);
    let source = args.source.map_or_else(|| own("--source", &sender), Ok)?;
    let destination = args.destination.map_or_else(|| own("-d", &receiver), Ok)?;
    let mac = |link: &Link| {
        link.mac.ok_or_else(|| {
            Failure::Preflight(anyhow!("{} has no Ethernet address; choose another interface", link.name))
        })
    };
    let (src_mac, is_bridged) = (mac(&sender)?, args.gateway.is_none() && args.mac.is_none());
    let dst_mac = match (args.mac, args.gateway) {
        (Some(mac), _) => mac,
        (None, Some(gateway)) => mac_of(gateway, source, &sender)?,
        (None, None) => mac(&receiver)?,
    };
    let path = Path {
        local: SocketAddr::new(source, args.source_port),
        remote: SocketAddr::new(destination, args.port),
    };
    let link = encap::Link { src_mac, dst_mac, vlans: Vlans::new(&[]).unwrap_or_default() };
    Ok(Flow { link, path, is_bridged })
}

/// A flood, and a program that comes and goes, can cut off whoever sits at the other end.
fn must_carry_nothing(lifelines: &Lifelines, links: [(&str, &Link); 2]) -> Result<(), Failure> {
    for (flag, Link { name, .. }) in links {
        if let Some(carries) = lifelines.on(name) {
            return Err(Failure::Preflight(anyhow!(
                "{flag} {name}: it carries {carries}, which this would flood; attaching a program may take its link down for some \
                 seconds, too. Choose an interface of its own, or, to do it all the same, give --allow-link-drop"
            )));
        }
    }
    Ok(())
}

/// With its check sequence.
fn frame_bytes_max(link: &Link) -> u16 {
    u16::try_from(link.mtu + 14 + u32::from(FCS_BYTES)).unwrap_or(u16::MAX)
}

/// The device is to be the one that refuses frames, not this host.
fn fits(args: &Rfc2544Args, link: &Link) -> Result<(), Failure> {
    let parts = args.sizes.iter().flat_map(|size| size::parts(*size, args.ipv6));
    let bytes = parts.map(|part| if let FrameSize::Bytes(bytes) = part { bytes } else { 0 });
    let (largest, most) = (bytes.max().unwrap_or(0), frame_bytes_max(link));
    if largest <= most {
        return Ok(());
    }
    let Link { name, mtu, .. } = link;
    Err(Failure::Preflight(anyhow!(
        "frames of {largest} bytes don't pass {name}: its MTU is {mtu}, so a frame may have {most}; choose others with -s, or: \
         ip link set dev {name} mtu {}",
        largest - 14 - FCS_BYTES
    )))
}

/// Has the kernel ask for it, if it doesn't know it yet.
fn mac_of(gateway: IpAddr, source: IpAddr, link: &Link) -> Result<Mac, Failure> {
    let asked = |error| Failure::Preflight(anyhow!("asking for neighbours: {error}"));
    let name = &link.name;
    let way = look::way(gateway).ok();
    if !way.is_some_and(|way| way.link == link.index && way.gateway.is_none() && !way.is_local) {
        return Err(Failure::Preflight(anyhow!(
            "-g {gateway}: not on a network of {name}; give the router's address at that side, or its MAC address by -m (see: ip \
             route get {gateway})"
        )));
    }
    let deadline = Instant::now() + NEIGHBOUR_PATIENCE;
    loop {
        if let Some(mac) = look::neighbour_mac(link.index, gateway).map_err(asked)? {
            return Ok(mac);
        }
        if Instant::now() >= deadline {
            return Err(Failure::Preflight(anyhow!(
                "-g {gateway}: nobody on {name} has that address, by its silence for {} s; check the cable and the address, or \
                 name a MAC address by -m",
                NEIGHBOUR_PATIENCE.as_secs()
            )));
        }
        // Any packet makes the kernel look for the neighbour. If it can't be sent, nothing comes of it, which is said above.
        let local = SocketAddr::new(
            if source.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() },
            0,
        );
        let _ = UdpSocket::bind(local).and_then(|socket| socket.send_to(&[0], (gateway, DISCARD_PORT)));
        std::thread::sleep(NEIGHBOUR_LOOK);
    }
}

/// One byte from this interface to everybody's discard port.
pub(super) fn send_to_all(interface: &str, ipv6: bool) -> std::io::Result<()> {
    let (domain, to): (_, IpAddr) = match ipv6 {
        false => (Domain::IPV4, Ipv4Addr::BROADCAST.into()),
        true => (Domain::IPV6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    if !ipv6 {
        socket.set_broadcast(true)?;
    }
    socket.send_to(&[0], &SocketAddr::new(to, DISCARD_PORT).into()).map(|_| ())
}

impl Flow {
    /// What is about to happen.
    pub(super) fn announcement(&self, args: &Rfc2544Args) -> String {
        let mac = mac_text(self.link.dst_mac);
        let device = match (args.gateway, self.is_bridged) {
            (Some(gateway), _) => format!("the router {gateway} ({mac})"),
            (None, true) => {
                format!("a bridge (frames go to {mac}, {}'s own; for a router give -g)", args.receive)
            }
            (None, false) => format!("what answers to {mac}"),
        };
        format!(
            "{} → {device} → {}: UDP from {} to {}",
            args.interface, args.receive, self.path.local, self.path.remote
        )
    }
}

#[cfg(test)]
mod tests {
    //! Goal: flags that can't work together are refused with what mends them, and sizes with the MTU that they need.
    use super::*;
    use crate::cli::tests_of_rfc2544::args;

    fn judged(more: &str) -> Result<(), String> {
        must_fit(&completed(&args(more)))
    }

    #[test]
    fn flags_that_agree() {
        for good in [
            "",
            "-6",
            "-g 198.18.0.1",
            "-6 -g 2001:db8::1",
            "-s 64,imix",
            "-6 -s 84",
            "--min-rate 1k --max-rate 2k",
        ] {
            assert_eq!(judged(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn flags_that_don_t() {
        for (wrong, says) in [
            ("-g 2001:db8::1", "give -6, too"),
            ("-6 -d 198.18.0.1", "leave -6 out"),
            ("--source 0.0.0.0", "an address of one host"),
            ("-d 224.0.0.1", "an address of one host"),
            ("-6 -s 64", "84 bytes at least"),
            ("-t 0s", "above 0"),
            ("-t 11m", "600 s"),
            ("--min-rate 2k --max-rate 1k", "nothing to search"),
            ("--max-rate 0", "a frame a second"),
            ("--xdp off", "AF_XDP only"),
        ] {
            let said = judged(wrong).expect_err(wrong);
            assert!(said.contains(says), "{wrong}: {said}");
        }
        let same = Rfc2544Args { receive: "eth1".to_owned(), ..args("") };
        assert!(must_fit(&same).is_err_and(|said| said.contains("name two")));
    }

    #[test]
    fn quick_and_the_sizes() {
        let quick = completed(&args("--quick"));
        assert_eq!((quick.time, quick.runs, quick.sizes.len()), (QUICK_TIME, 1, 8));
        assert_eq!(completed(&args("-6")).sizes[0], FrameSize::Bytes(84));
    }

    #[test]
    fn the_mtu_that_a_size_needs() {
        let link = Link { name: "eth1".into(), mtu: 1500, ..Link::default() };
        assert!(fits(&completed(&args("")), &link).is_ok());
        assert!(fits(&completed(&args("-s 1519")), &link).is_err());
        let small = Link { mtu: 1280, ..link };
        assert!(fits(&completed(&args("-s 1280")), &small).is_ok());
        let said = fits(&completed(&args("-s imix")), &small).expect_err("the mix has 1518").to_string();
        assert!(said.contains("ip link set dev eth1 mtu 1500"), "{said}");
    }
}
