//! What an interface carries that nobody wants cut off: a live ssh session, the default route.

use crate::doctor::{
    files::Files,
    sockets::{self, State},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
};
use xsk::look::{self, Link};

/// The port of ssh, where the process behind a connection can't be seen.
const SSH_PORT: u16 = 22;
/// Names of processes that hold a session's socket. Since OpenSSH 9.8 a session has a program of its own.
const SSH_PROCESSES: [&str; 3] = ["sshd", "sshd-session", "dropbear"];

/// By the interface's name: what goes through it, in words.
pub(crate) struct Lifelines(BTreeMap<String, String>);

impl Lifelines {
    /// In the network namespace of the calling thread. What can't be read is taken for absent.
    pub(crate) fn look() -> Self {
        let links = look::links().unwrap_or_default();
        let mut carried: BTreeMap<u32, String> = BTreeMap::new();
        for interface in default_routes() {
            if let Some(link) = links.iter().find(|link| link.name == interface) {
                carried.insert(link.index, "the default route".to_owned());
            }
        }
        for peer in ssh_peers() {
            if let Some(way) = look::way(peer).ok().filter(|way| !way.is_local) {
                carried.insert(way.link, format!("the ssh session of {peer}"));
            }
        }
        Self(downwards(&links, carried))
    }

    /// What the interface carries.
    pub(crate) fn on(&self, interface: &str) -> Option<&str> {
        self.0.get(interface).map(String::as_str)
    }
}

/// What a bond, a bridge or a VLAN carries goes through its members and the device below, too.
fn downwards(links: &[Link], carried: BTreeMap<u32, String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut todo: Vec<(u32, String)> = carried.into_iter().collect();
    while let Some((index, what)) = todo.pop() {
        let Some(link) = links.iter().find(|link| link.index == index) else { continue };
        if !seen.insert(index) {
            continue;
        }
        let members = links.iter().filter(|member| member.master == Some(index)).map(|member| member.index);
        todo.extend(members.chain(link.below).map(|below| (below, format!("{what} (by {})", link.name))));
        found.insert(link.name.clone(), what);
    }
    found
}

/// Interfaces that a default route leaves by.
fn default_routes() -> BTreeSet<String> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let of_v4 = v4.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(1)? == &"00000000" && columns.get(7)? == &"00000000").then(|| columns[0].to_owned())
    });
    let of_v6 = v6.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_default = columns.first()?.bytes().all(|byte| byte == b'0') && columns.get(1)? == &"00";
        // The kernel's own entry that rejects what has no route is "on" the loopback.
        (is_default && columns.last()? != &"lo").then(|| columns[columns.len() - 1].to_owned())
    });
    of_v4.chain(of_v6).collect()
}

/// Who has an ssh session here.
fn ssh_peers() -> BTreeSet<IpAddr> {
    let held = ssh_sockets();
    let session = session_port();
    let connections = sockets::of(&Files::of_this_host(), "tcp").into_iter();
    connections
        .filter(|found| found.state == State::Established)
        .filter(|found| found.port == SSH_PORT || Some(found.port) == session || held.contains(&found.inode))
        .map(|found| found.peer)
        .collect()
}

/// The port that this very session came in by: "client-ip client-port server-ip server-port".
fn session_port() -> Option<u16> {
    std::env::var("SSH_CONNECTION").ok()?.split(' ').nth(3)?.parse().ok()
}

/// Inodes of the sockets that ssh servers have open, as far as this process may see.
fn ssh_sockets() -> BTreeSet<u64> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_ssh = |path: &std::path::PathBuf| {
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        SSH_PROCESSES.contains(&name.trim())
    };
    let files = processes
        .filter(is_ssh)
        .flat_map(|path| fs::read_dir(path.join("fd")).into_iter().flatten().flatten());
    let inode = |file: fs::DirEntry| {
        let target = fs::read_link(file.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    files.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: sessions are read as the kernel writes them, and what a bond carries counts for its members. Method: lines
    //! of /proc; links made up.
    use super::*;
    use crate::doctor::sockets::{endpoint, line as line_of};
    use std::net::Ipv4Addr;

    #[test]
    fn lines_of_proc() {
        let line = "   1: 010012C6:0016 020012C6:D431 01 00000000:00000000 02:0009C0F1 00000000     0        0 48151 2";
        let connection = |line: &str| {
            let found = line_of(line).filter(|found| found.state == State::Established)?;
            Some((found.port, found.peer, found.inode))
        };
        let peer = Ipv4Addr::new(198, 18, 0, 2).into();
        assert_eq!(connection(line), Some((22, peer, 48151)));
        assert_eq!(connection(&line.replace(" 01 ", " 0A ")), None, "it listens");
        let (ip, port) = endpoint("B80D0120010000000000000002000000:01BB").unwrap();
        assert_eq!((ip, port), ("2001:db8:0:1::2".parse().unwrap(), 443));
        let mapped = endpoint("0000000000000000FFFF0000020012C6:0016").unwrap();
        assert_eq!(mapped, (peer, 22));
        for nonsense in ["", "sl local_address", "x:y", "0100007F", "0100007:1", "0100007F:1FFFF"] {
            assert_eq!(endpoint(nonsense), None, "{nonsense}");
            assert_eq!(connection(nonsense), None);
        }
    }

    #[test]
    fn what_a_bond_and_a_vlan_carry_goes_through_what_is_below() {
        let link = |index, name: &str, master, below| Link {
            index,
            name: name.into(),
            master,
            below,
            ..Link::default()
        };
        let links = [
            link(1, "lo", None, None),
            link(2, "eth0", Some(5), None),
            link(3, "eth1", Some(5), None),
            link(4, "eth2", None, None),
            link(5, "bond0", None, None),
            link(6, "bond0.7", None, Some(5)),
        ];
        let found = downwards(&links, BTreeMap::from([(6, "the default route".to_owned())]));
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["bond0", "bond0.7", "eth0", "eth1"]);
        assert_eq!(found["eth1"], "the default route (by bond0.7) (by bond0)");
    }
}
