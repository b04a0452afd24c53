//! Why an interface can't be opened: what failed, the value seen, the value needed, the next command.

use crate::Unmirrored;
use std::io;

/// Set-up failed. All of these mean that the machine isn't ready (exit code 4), but [`OpenError::Config`] (3).
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A knob has a value that can't work anywhere.
    #[error("{knob} is {seen}, but must be {needed}. Give another: {knob} VALUE, or leave it out")]
    Config {
        /// The flag.
        knob: &'static str,
        /// Its value.
        seen: String,
        /// What it has to be.
        needed: String,
    },
    /// There is no such interface.
    #[error("no interface {interface}; there are: {}. Choose one with --interface", available.join(", "))]
    NoSuchInterface {
        /// The name asked for.
        interface: String,
        /// The names there are.
        available: Vec<String>,
    },
    /// The interface isn't Ethernet.
    #[error(
        "interface {interface} has link type {seen}, but XDP sockets here need Ethernet. Choose another with --interface, or --xdp off"
    )]
    NotEthernet {
        /// The interface.
        interface: String,
        /// Its link type.
        seen: String,
    },
    /// The interface is administratively down.
    #[error("interface {interface} is down, but must be up. Bring it up: ip link set {interface} up")]
    InterfaceDown {
        /// The interface.
        interface: String,
    },
    /// Frames of this MTU don't fit into one chunk.
    #[error(
        "interface {interface} has MTU {seen}, but XDP with {frame_bytes}-byte frames takes {max} at most. \
         Run: ip link set {interface} mtu {max}"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU.
        seen: u32,
        /// The largest that works.
        max: u32,
        /// Bytes of a chunk.
        frame_bytes: u32,
    },
    /// A queue was asked for that the NIC doesn't have.
    #[error(
        "interface {interface} has no queue {queue}: it has {count} (0 to {}). Choose among them with --queues; {more}",
        count.saturating_sub(1)
    )]
    NoSuchQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// Queues there are.
        count: u32,
        /// The command that adds it, or why there is none.
        more: String,
    },
    /// Another XDP program sits on the interface.
    #[error(
        "interface {interface} already runs XDP program {name} (id {id}, {mode}), and beam doesn't replace it. \
         If it may go: {detach}"
    )]
    OtherProgram {
        /// The interface.
        interface: String,
        /// The program's name, as far as the kernel tells.
        name: String,
        /// Its id.
        id: u32,
        /// `native`, `skb` or `offloaded`.
        mode: &'static str,
        /// The command that removes it.
        detach: String,
    },
    /// The process may not do this.
    #[error(
        "this process lacks {}; it needs CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW. Run it as root, or once: \
         setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock,cap_net_bind_service+ep {executable}", missing.join(", ")
    )]
    MissingCapability {
        /// Those that are missing.
        missing: Vec<&'static str>,
        /// Path of this program.
        executable: String,
    },
    /// The process may not open a socket that sends frames.
    #[error(
        "this process lacks CAP_NET_RAW, and a socket that sends frames on an interface needs it. Run it as root, or once: \
         setcap cap_net_raw,cap_ipc_lock+ep {executable}"
    )]
    NoRawSocket {
        /// Path of this program.
        executable: String,
    },
    /// A queue was asked for that the NIC doesn't send on.
    #[error("interface {interface} sends on {count} queue(s), and queue {queue} is none of them. {more}")]
    NoSuchTxQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// Queues there are.
        count: u32,
        /// What to do.
        more: String,
    },
    /// The UMEM doesn't fit into the memory that the process may lock.
    #[error(
        "the kernel refused {needed_bytes} bytes of UMEM ({source}): RLIMIT_MEMLOCK is {limit}, and \
         {needed_bytes} bytes are needed for all queues. Run: ulimit -l {} (LimitMEMLOCK= in systemd), give \
         CAP_IPC_LOCK, or lower --umem", needed_bytes.div_ceil(1024)
    )]
    Memlock {
        /// The limit, in words.
        limit: String,
        /// Bytes of all queues' UMEMs.
        needed_bytes: u64,
        /// ENOBUFS or ENOMEM.
        source: io::Error,
    },
    /// XDP doesn't work on this interface in the mode asked for.
    #[error("interface {interface} takes no {mode} XDP program: {why}. {hint}")]
    XdpUnsupported {
        /// The interface.
        interface: String,
        /// `native` or `skb`.
        mode: &'static str,
        /// What the kernel said.
        why: String,
        /// The next thing to try.
        hint: String,
    },
    /// Zero-copy was demanded and isn't there.
    #[error(
        "queue {queue} of {interface} has no zero-copy: {why}. The driver must have xsk-zerocopy for it. Use --zero-copy auto to \
         let the kernel copy"
    )]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        why: String,
    },
    /// Another socket holds the queue.
    #[error(
        "queue {queue} of {interface} is still in use by another XDP socket after {waited_ms} ms. \
         See who: ss --xdp -p; then stop it, or choose other queues with --queues"
    )]
    QueueBusy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// How long beam kept trying.
        waited_ms: u64,
    },
    /// The kernel has no XDP sockets.
    #[error("this kernel has no XDP sockets (CONFIG_XDP_SOCKETS): {source}. Use --xdp off")]
    NoXdpSockets {
        /// EAFNOSUPPORT.
        source: io::Error,
    },
    /// The steering program doesn't load.
    #[error(
        "the kernel refused the steering program: {why}. Linux 5.18 or newer is needed; use --xdp off without it"
    )]
    Load {
        /// The verifier's or loader's words.
        why: String,
    },
    /// Packets to the LAN can't be addressed.
    #[error(
        "beam addresses packets to the LAN {interface} by this host's main routing table, which has to be all that it \
         routes by, but there is {seen}. {} Or use --tun, and let the kernel route", seen.mend()
    )]
    PolicyRouting {
        /// The interface.
        interface: String,
        /// The first thing that stands against it.
        seen: Unmirrored,
    },
    /// Something else the kernel refused.
    #[error("{doing} on {interface} failed: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

/// The addresses to steer couldn't be set.
#[derive(Debug, thiserror::Error)]
pub enum TargetsError {
    /// More than the steering map holds.
    #[error(
        "{seen} addresses to steer, but at most {max} fit. Listen on fewer addresses (--listen ADDR:PORT)"
    )]
    TooMany {
        /// After wildcards were expanded.
        seen: usize,
        /// Capacity of the map.
        max: usize,
    },
    /// More prefixes than the LAN's map holds.
    #[error(
        "{seen} prefixes to steer on the LAN, this host's own addresses and routes within included, but at most {max} fit. \
         Announce fewer and shorter ones"
    )]
    TooManyPrefixes {
        /// All of them.
        seen: usize,
        /// Capacity of the map.
        max: usize,
    },
    /// The map update failed.
    #[error("writing the steering map failed: {0}")]
    Map(String),
}
