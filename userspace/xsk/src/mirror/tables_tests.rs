//! Goal: a packet leaves as the kernel would send it, or not by us at all. Method: tables made by hand, one rule each.
use super::*;

const NIC: u32 = 7;
const OTHER: u32 = 8;
const VLAN_100: u32 = 9;
const QINQ: u32 = 10;
const PEER_MAC: Mac = [2, 0, 0, 0, 0, 2];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(name: &str, vlan: Option<(u32, u16, u16)>) -> Link {
    Link {
        name: name.into(),
        mac: Some([2, 0, 0, 0, 0, name.len() as u8]),
        mtu: 1500,
        up: true,
        carrier: true,
        vlan: vlan.map(|(below, tpid, tci)| (below, Vlan { tpid, tci })),
    }
}

fn via(link: u32, gateway: Option<&str>) -> NextHop {
    NextHop { link, gateway: gateway.map(ip), usable: true }
}

struct World(Tables);

impl World {
    fn new() -> Self {
        let links = BTreeMap::from([
            (NIC, link("nic", None)),
            (OTHER, link("other", None)),
            (VLAN_100, link("nic.100", Some((NIC, 0x8100, 100)))),
            (QINQ, link("nic.100.5", Some((VLAN_100, 0x8100, 5)))),
        ]);
        let addresses = BTreeSet::from([(NIC, ip("198.18.0.1")), (NIC, ip("2001:db8::1"))]);
        let tables = Tables { links: Arc::new(links), addresses: Arc::new(addresses), ..Tables::default() };
        Self(tables)
            .route("198.18.0.0", 24, 0, vec![via(NIC, None)])
            .route("2001:db8::", 64, 256, vec![via(NIC, None)])
            .neighbour(NIC, "198.18.0.2")
            .neighbour(NIC, "2001:db8::2")
    }

    fn route(mut self, prefix: &str, prefix_len: u8, metric: u32, hops: Vec<NextHop>) -> Self {
        Arc::make_mut(&mut self.0.routes).insert(ip(prefix), prefix_len, Route { metric, hops });
        self
    }

    fn neighbour(mut self, link: u32, address: &str) -> Self {
        let neighbour = Neighbour { mac: PEER_MAC, used: Used::default() };
        Arc::make_mut(&mut self.0.neighbours).insert((link, ip(address)), neighbour);
        self
    }

    fn link(mut self, index: u32, change: impl FnOnce(&mut Link)) -> Self {
        change(Arc::make_mut(&mut self.0.links).get_mut(&index).unwrap());
        self
    }

    fn resolve(&self, remote: &str) -> Option<Hop> {
        let remote = SocketAddr::new(ip(remote), 4433);
        let local = if remote.is_ipv4() { "198.18.0.1:443" } else { "[2001:db8::1]:443" };
        self.0.resolve(NIC, &local.parse().unwrap(), &remote)
    }
}

#[test]
fn on_link_neighbours_resolve() {
    for remote in ["198.18.0.2", "2001:db8::2"] {
        let hop = World::new().resolve(remote).unwrap();
        assert_eq!((hop.dst_mac, hop.src_mac, hop.mtu), (PEER_MAC, [2, 0, 0, 0, 0, 3], 1500));
        assert_eq!(hop.vlans.as_slice(), []);
    }
}

#[test]
fn unknown_neighbours_and_routes_are_left_to_the_kernel() {
    let world = World::new();
    for remote in
        ["198.18.0.3", "203.0.113.1", "2001:db8::3", "2001:db8:1::1", "198.18.0.1", "224.0.0.1", "0.0.0.0"]
    {
        assert!(world.resolve(remote).is_none(), "{remote}");
    }
}

#[test]
fn the_gateway_is_the_neighbour() {
    let world = World::new().route("0.0.0.0", 0, 100, vec![via(NIC, Some("198.18.0.2"))]);
    assert!(world.resolve("203.0.113.1").is_some());
    let onlink =
        World::new().route("0.0.0.0", 0, 0, vec![via(NIC, Some("198.19.0.9"))]).neighbour(NIC, "198.19.0.9");
    assert!(onlink.resolve("203.0.113.1").is_some());
    let v4_via_v6 = World::new().route("0.0.0.0", 0, 0, vec![via(NIC, Some("2001:db8::2"))]);
    assert!(v4_via_v6.resolve("203.0.113.1").is_some());
}

#[test]
fn the_longest_prefix_wins_then_the_lowest_metric() {
    let world = World::new()
        .route("203.0.113.0", 24, 10, vec![via(OTHER, None)])
        .route("203.0.113.0", 24, 5, vec![via(NIC, Some("198.18.0.2"))])
        .route("203.0.113.128", 25, 1, vec![via(OTHER, Some("198.18.0.2"))]);
    assert!(world.resolve("203.0.113.1").is_some());
    assert!(world.resolve("203.0.113.129").is_none(), "the kernel would send it by another device");
}

#[test]
fn unreachable_dead_and_down_are_not_used() {
    let gateway = "198.18.0.2";
    assert!(World::new().route("198.18.0.2", 32, 0, vec![]).resolve(gateway).is_none());
    let dead = NextHop { usable: false, ..via(NIC, None) };
    assert!(World::new().route("198.18.0.2", 32, 0, vec![dead]).resolve(gateway).is_none());
    assert!(World::new().link(NIC, |nic| nic.up = false).resolve(gateway).is_none());
    assert!(World::new().link(NIC, |nic| nic.carrier = false).resolve(gateway).is_none());
}

#[test]
fn multipath_takes_only_usable_hops() {
    let dead = NextHop { usable: false, ..via(OTHER, Some("198.18.0.9")) };
    let world = World::new().route("0.0.0.0", 0, 0, vec![dead, via(NIC, Some("198.18.0.2"))]);
    assert!(world.resolve("203.0.113.1").is_some());
}

#[test]
fn vlan_devices_on_our_interface_tag_their_packets() {
    let world = World::new()
        .route("198.19.1.0", 24, 0, vec![via(VLAN_100, None)])
        .neighbour(VLAN_100, "198.19.1.2")
        .route("198.19.2.0", 24, 0, vec![via(QINQ, None)])
        .neighbour(QINQ, "198.19.2.2")
        .link(VLAN_100, |vlan| vlan.vlan = Some((NIC, Vlan { tpid: 0x88a8, tci: 100 })));
    let service = Vlan { tpid: 0x88a8, tci: 100 };
    let customer = Vlan { tpid: 0x8100, tci: 5 };
    assert_eq!(world.resolve("198.19.1.2").unwrap().vlans.as_slice(), [service]);
    assert_eq!(world.resolve("198.19.2.2").unwrap().vlans.as_slice(), [service, customer]);
    assert_eq!(world.resolve("198.19.2.2").unwrap().src_mac[5], "nic.100.5".len() as u8);
    let parent_down = world.link(NIC, |nic| nic.up = false);
    assert!(parent_down.resolve("198.19.1.2").is_none());
}

#[test]
fn link_local_peers_stay_on_our_interface() {
    let world = World::new()
        .route("fe80::", 64, 256, vec![via(OTHER, None)])
        .route("fe80::", 64, 256, vec![via(NIC, None)])
        .neighbour(NIC, "fe80::2");
    assert!(world.resolve("fe80::2").is_some());
}

#[test]
fn policy_routing_and_overflow_leave_all_to_the_kernel() {
    let mut world = World::new();
    Arc::make_mut(&mut world.0.routes).beyond_mirror = Some(Unmirrored::SourceRoute);
    assert!(world.resolve("198.18.0.2").is_none());

    let mut routes = Routes::default();
    for i in 0..=ROUTE_COUNT_MAX as u32 {
        let prefix = IpAddr::V4(std::net::Ipv4Addr::from_bits(i << 8));
        routes.insert(prefix, 24, Route { metric: 0, hops: vec![] });
    }
    assert_eq!(routes.beyond_mirror, Some(Unmirrored::TooManyRoutes { max: ROUTE_COUNT_MAX }));
}
