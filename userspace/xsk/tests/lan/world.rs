//! A LAN of one host, whose kernel routes the tunnel's prefixes to us, and a port of ours on it.

use crate::{
    packet,
    rig::{self, OURS, PEER, Rig, Side, ip as address, wait_for},
};
use beam_xsk::{LanInterface, LanPort, Mode, open_lan};
use ip::{InnerPort, InnerSink, Vnet, icmp::Trouble};
use port::Drop as Reason;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fs::File,
    io::Write,
    net::{IpAddr, SocketAddr},
    time::Instant,
};
use wire::{checksum as sums, datagram::Vlan};

/// Hosts behind the tunnel, and the prefixes that they are in.
pub(crate) const FAR: [&str; 2] = ["198.19.0.5", "2001:db8:19::5"];
pub(crate) const PREFIXES: [(&str, u8); 2] = [("198.19.0.0", 16), ("2001:db8:19::", 48)];

/// Everything that came, and room for so many.
pub(crate) struct Sink {
    pub(crate) got: Vec<(Vnet, Vec<u8>)>,
    pub(crate) room: usize,
}

impl InnerSink for Sink {
    fn wants_more(&mut self) -> bool {
        self.got.len() < self.room
    }

    fn packet(&mut self, vnet: Vnet, packet: &[u8]) {
        self.got.push((vnet, packet.to_vec()));
    }
}

pub(crate) struct World {
    pub(crate) lan: LanInterface,
    pub(crate) port: LanPort,
    pub(crate) raw: File,
    pub(crate) rig: Rig,
}

impl World {
    pub(crate) fn new(mode: Mode) -> Self {
        let rig = Rig::new(1);
        rig.peer(&format!("ip route add {}/{} via {}", PREFIXES[0].0, PREFIXES[0].1, OURS[0]));
        rig.peer(&format!("ip -6 route add {}/{} via {}", PREFIXES[1].0, PREFIXES[1].1, OURS[1]));
        let config = beam_xsk::Config { mode, ..rig::config() };
        let (lan, mut ports) = rig.inside(Side::Ours, || open_lan(&config)).unwrap_or_else(|e| panic!("{e}"));
        lan.set_prefixes(&PREFIXES.map(|(prefix, length)| (address(prefix), length))).unwrap();
        let raw = rig.inside(Side::Peer, || packet::socket(c"p0"));
        Self { lan, port: ports.pop().unwrap(), raw, rig }
    }

    /// Waits for packets.
    pub(crate) fn receive_some(&mut self) -> Vec<(Vnet, Vec<u8>)> {
        let mut sink = Sink { got: Vec::new(), room: 1 };
        let began = Instant::now();
        loop {
            self.port.receive(Instant::now(), &mut sink).unwrap();
            if !sink.got.is_empty() {
                return sink.got;
            }
            assert!(began.elapsed() < rig::PATIENCE, "no packet");
            let mut fds = [PollFd::from_borrowed_fd(self.port.poll_fds()[0], PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
        }
    }

    pub(crate) fn receive_one(&mut self) -> (Vnet, Vec<u8>) {
        let mut got = self.receive_some();
        assert_eq!(got.len(), 1);
        got.remove(0)
    }

    /// Sends a frame, then a good one that shows that the first has been dealt with; what came of the first.
    pub(crate) fn put(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let marker = udp(PEER[0], FAR[0], b"marker");
        self.raw.write_all(frame).unwrap();
        self.raw.write_all(&ethernet(&marker, &[])).unwrap();
        let mut got = Vec::new();
        while got.last() != Some(&marker) {
            let at_least_one = self.receive_some();
            got.extend(at_least_one.into_iter().map(|(_, packet)| packet));
        }
        got.pop();
        got
    }

    pub(crate) fn dropped(&mut self, frame: &[u8], reason: Reason) {
        let before = *self.port.port_counters();
        assert_eq!(self.put(frame), Vec::<Vec<u8>>::new());
        let after = *self.port.port_counters();
        assert_eq!(after.drops.get(reason), before.drops.get(reason) + 1, "{reason:?}");
        assert_eq!(after.drops.rx_total(), before.drops.rx_total() + 1);
    }

    pub(crate) fn steering(&self, name: &str) -> u64 {
        self.lan.steering_counters().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// Flushes until nothing is left to do.
    pub(crate) fn flush(&mut self) {
        wait_for("the port to have nothing left to do", || {
            self.port.flush(Instant::now()).unwrap();
            self.port.next_deadline().is_none()
        });
    }

    pub(crate) fn refused(&mut self) -> Vec<Trouble> {
        std::iter::from_fn(|| self.port.next_refused()).map(|(_, trouble)| trouble).collect()
    }

    /// Every frame is accounted for, and every packet.
    pub(crate) fn assert_conserved(&mut self) {
        let census = self.port.census();
        assert!(census.holds() && census.out == 0, "{census:?}");
        let counters = self.port.port_counters();
        assert_eq!(counters.rx_datagrams, counters.rx_delivered + counters.drops.rx_total(), "{counters:?}");
    }
}

/// A UDP packet, from port 1000 to port 2000, as the RFCs have it.
pub(crate) fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (SocketAddr::new(address(from), 1000), SocketAddr::new(address(to), 2000));
    let length = (8 + payload.len()) as u16;
    let mut datagram =
        [from.port().to_be_bytes(), to.port().to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
    datagram.extend_from_slice(payload);
    let sum = sums::udp(&from, &to, &datagram).unwrap();
    datagram[6..8].copy_from_slice(&sum);
    let mut packet = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (20 + length).to_be_bytes();
            let mut header = [0x45, 0, total[0], total[1], 0, 7, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = sums::ipv4_header(&header);
            header[10..12].copy_from_slice(&sum);
            header.to_vec()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = length.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], 17, 64];
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        _ => panic!("two families"),
    };
    packet.extend(datagram);
    packet
}

/// A frame from the LAN host to us.
pub(crate) fn ethernet(packet: &[u8], tags: &[Vlan]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend(tag.tpid.to_be_bytes());
        frame.extend(tag.tci.to_be_bytes());
    }
    frame.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
    frame.extend(packet);
    frame
}

pub(crate) fn skip(test: &str) -> bool {
    !rig::root_or_skip(test)
}
