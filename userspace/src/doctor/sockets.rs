//! Who holds a socket or a bpf_link, by /proc: all of it for root, one's own processes for others.

use super::files::Files;
use std::{fmt, net::IpAddr, path::Path};

/// A line of /proc/net/{udp,tcp}{,6}.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// The other end's; unspecified without one.
    pub(super) peer: IpAddr,
    pub(super) state: State,
    pub(super) inode: u64,
}

/// What the checks tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Established,
    Listening,
    Other,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// The sockets of a protocol, both families: `udp` or `tcp`.
pub(super) fn of(files: &Files, protocol: &str) -> Vec<Socket> {
    let read = |suffix| files.text(&format!("/proc/net/{protocol}{suffix}")).unwrap_or_default();
    parsed(&read("")).into_iter().chain(parsed(&read("6"))).collect()
}

fn parsed(table: &str) -> Vec<Socket> {
    table.lines().skip(1).filter_map(line).collect()
}

/// `sl local remote st ... inode`.
pub(super) fn line(line: &str) -> Option<Socket> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, port) = endpoint(words.get(1)?)?;
    let (peer, _) = endpoint(words.get(2)?)?;
    let state = match u8::from_str_radix(words.get(3)?, 16).ok()? {
        1 => State::Established,
        10 => State::Listening,
        _ => State::Other,
    };
    Some(Socket { address, port, peer, state, inode: words.get(9)?.parse().ok()? })
}

/// `0100007F:0016`.
pub(super) fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    Some((address_of(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// Words of 32 bits, each in the host's order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            // An IPv4 connection of an IPv6 socket.
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// The process that has the socket open; `None` also when it is another user's.
pub(super) fn holder(files: &Files, inode: u64) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    find(files, |directory, fd| {
        files.link_target(&format!("{directory}/fd/{fd}")).as_deref() == Some(Path::new(&wanted))
    })
}

/// The process that holds the bpf_link.
pub(super) fn link_holder(files: &Files, link_id: u32) -> Option<Holder> {
    let is_link = |directory: &str, fd: &str| {
        let target = files.link_target(&format!("{directory}/fd/{fd}"));
        target.is_some_and(|target| {
            target.to_string_lossy().contains("bpf_link") || target.to_string_lossy().contains("bpf-link")
        }) && files.text(&format!("{directory}/fdinfo/{fd}")).is_some_and(|info| has_link_id(&info, link_id))
    };
    find(files, is_link)
}

fn has_link_id(info: &str, link_id: u32) -> bool {
    let id = info.lines().find_map(|line| line.strip_prefix("link_id:"));
    id.is_some_and(|id| id.trim().parse() == Ok(link_id))
}

fn find(files: &Files, is_it: impl Fn(&str, &str) -> bool) -> Option<Holder> {
    let pids = files.names("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
    pids.into_iter().find_map(|pid| {
        let directory = format!("/proc/{pid}");
        let found = files.names(&format!("{directory}/fd")).iter().any(|fd| is_it(&directory, fd));
        let name = || files.text(&format!("{directory}/comm")).unwrap_or_else(|| "?".into());
        found.then(|| Holder { pid, name: name() })
    })
}

#[cfg(test)]
mod tests {
    //! Goal: lines that kernels wrote become sockets, and what is none is left out.
    use super::*;

    #[test]
    fn recorded_lines() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21325 1 0000\n   \
             1: 010012C6:0016 020012C6:D2F0 01 00000000:00000000 02:000A7D0F 00000000     0        0 40112 2 0000\n\
             nonsense\n";
        let socket = |address: [u8; 4], peer: [u8; 4], state, inode| Socket {
            address: address.into(),
            port: 22,
            peer: peer.into(),
            state,
            inode,
        };
        let expected = [
            socket([127, 0, 0, 1], [0; 4], State::Listening, 21325),
            socket([198, 18, 0, 1], [198, 18, 0, 2], State::Established, 40112),
        ];
        assert_eq!(parsed(table), expected);
        let v6 = "head\n 5: B80D0120000000000000000001000000:01BB 00000000000000000000000000000000:0000 07 \
                  00000000:00000000 00:00000000 00000000 0 0 999 2 0000 0\n";
        let found = parsed(v6);
        assert_eq!(found[0].address, "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!((found[0].port, found[0].inode), (443, 999));
        let mapped = address_of("0000000000000000FFFF0000010012C6").unwrap();
        assert_eq!(mapped, IpAddr::from([198, 18, 0, 1]));
        assert_eq!(address_of("00"), None);
    }

    #[test]
    fn links_are_known_by_their_id() {
        let info = "pos:\t0\nflags:\t02000000\nlink_type:\txdp\nlink_id:\t17\nprog_tag:\tab\nprog_id:\t4\nifindex:\t3\n";
        assert!(has_link_id(info, 17) && !has_link_id(info, 1) && !has_link_id("", 0));
    }

    #[test]
    fn this_process_holds_its_own_socket() {
        let files = Files::of_this_host();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let sockets = of(&files, "udp");
        let found = sockets.iter().find(|known| known.port == port).unwrap();
        assert_eq!(holder(&files, found.inode).unwrap().pid, std::process::id());
    }
}
