//! What the operator may choose about one interface. Built by the binary from its flags; judged by [`Config::check`].

use crate::OpenError;

/// XDP's headroom in front of each received packet, taken by the kernel out of the chunk.
pub(crate) const XDP_HEADROOM_BYTES: u32 = 256;
/// Ethernet header and two VLAN tags: what a frame holds beside the MTU.
pub(crate) const LINK_HEADER_BYTES: u32 = 14 + 8;
/// Largest ring; above it the descriptors of one ring alone are 1 MiB.
const RING_SIZE_MAX: u32 = 1 << 16;
/// Largest UMEM of one queue.
const UMEM_BYTES_MAX: usize = 8 << 30;

/// Which queues of the interface get a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queues {
    /// All that the NIC receives on.
    All,
    /// These, in this order.
    List(Vec<u32>),
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, else in the kernel's generic hook.
    Auto,
    /// In the driver, or fail.
    Native,
    /// In the generic hook: works on every device, slowest.
    Skb,
}

/// Whether the NIC reads and writes the UMEM itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// If the driver can.
    Auto,
    /// Or fail.
    On,
    /// The kernel copies.
    Off,
}

/// One interface's sockets.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the interface.
    pub interface: String,
    /// Queues to serve.
    pub queues: Queues,
    /// Where XDP runs.
    pub mode: Mode,
    /// Whether frames are copied.
    pub zero_copy: ZeroCopy,
    /// Descriptors in the RX, TX and completion rings of a queue (the fill ring has twice as many); a power of two.
    pub ring_size: u32,
    /// Bytes of one UMEM chunk: 2048 or 4096.
    pub frame_bytes: u32,
    /// Bytes of the UMEM of one queue; rounded down to whole chunks.
    pub umem_bytes: usize,
    /// Try to back the UMEM by huge pages; ordinary ones are the step down.
    pub huge_pages: bool,
    /// Let the application's calls drive the NIC (SO_BUSY_POLL), for so many microseconds.
    pub busy_poll_usec: Option<u32>,
    /// Verify UDP checksums of received datagrams.
    pub verify_checksums: bool,
    /// The vector units that judge received frames and sum sent ones.
    pub simd: simd::Level,
    /// What the thread that follows the kernel does first.
    pub on_thread: fn(),
}

impl Config {
    /// The defaults for `interface`.
    #[must_use]
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            queues: Queues::All,
            mode: Mode::Auto,
            zero_copy: ZeroCopy::Auto,
            ring_size: 2048,
            frame_bytes: 4096,
            umem_bytes: 24 << 20,
            huge_pages: false,
            busy_poll_usec: None,
            verify_checksums: true,
            simd: simd::Level::best(),
            on_thread: || {},
        }
    }

    /// The largest MTU whose frames fit into one chunk.
    #[must_use]
    pub fn mtu_max(&self) -> u32 {
        self.frame_bytes.saturating_sub(XDP_HEADROOM_BYTES + LINK_HEADER_BYTES)
    }

    /// Chunks in the UMEM of one queue.
    #[must_use]
    pub fn frame_count(&self) -> usize {
        self.umem_bytes / self.frame_bytes.max(1) as usize
    }

    /// Refuses what can't work on any machine.
    ///
    /// # Errors
    /// Names the knob, the value seen and the value needed.
    pub fn check(&self) -> Result<(), OpenError> {
        let refuse = |knob, seen: &dyn ToString, needed: &str| {
            Err(OpenError::Config { knob, seen: seen.to_string(), needed: needed.to_owned() })
        };
        if self.interface.is_empty() || self.interface.len() >= libc::IFNAMSIZ {
            return refuse("--interface", &self.interface, "a name of 1 to 15 characters");
        }
        if !self.ring_size.is_power_of_two() || !(64..=RING_SIZE_MAX).contains(&self.ring_size) {
            return refuse("--ring-size", &self.ring_size, "a power of two from 64 to 65536");
        }
        if !matches!(self.frame_bytes, 2048 | 4096) {
            return refuse("--frame-size", &self.frame_bytes, "2048 or 4096");
        }
        if self.umem_bytes > UMEM_BYTES_MAX || self.frame_count() < self.ring_size as usize {
            let least_mib = (self.ring_size as usize * self.frame_bytes as usize).div_ceil(1 << 20);
            let needed = format!("{least_mib} to 8192 MiB, for one chunk per ring entry at least");
            return refuse("--umem", &format!("{} bytes", self.umem_bytes), &needed);
        }
        if let Queues::List(queues) = &self.queues {
            let mut sorted = queues.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() != queues.len() || queues.is_empty() {
                return refuse("--queues", &format!("{queues:?}"), "each queue once, and at least one");
            }
        }
        if self.mode == Mode::Skb && self.zero_copy == ZeroCopy::On {
            return refuse("--zero-copy", &"on with --xdp skb", "--xdp auto or --xdp native");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: nonsense is refused before anything is touched, and the refusal names the knob.
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> &'static str {
        let mut config = Config::new("eth0");
        change(&mut config);
        match config.check() {
            Err(OpenError::Config { knob, .. }) => knob,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_pass() {
        Config::new("eth0").check().unwrap();
    }

    #[test]
    fn each_knob_is_judged() {
        assert_eq!(refused(|c| c.interface = String::new()), "--interface");
        assert_eq!(refused(|c| c.interface = "sixteen-letters!".into()), "--interface");
        assert_eq!(refused(|c| c.ring_size = 1000), "--ring-size");
        assert_eq!(refused(|c| c.ring_size = 32), "--ring-size");
        assert_eq!(refused(|c| c.frame_bytes = 1500), "--frame-size");
        assert_eq!(refused(|c| c.umem_bytes = 1 << 20), "--umem");
        assert_eq!(refused(|c| c.queues = Queues::List(vec![])), "--queues");
        assert_eq!(refused(|c| c.queues = Queues::List(vec![1, 0, 1])), "--queues");
        assert_eq!(
            refused(|c| {
                c.mode = Mode::Skb;
                c.zero_copy = ZeroCopy::On;
            }),
            "--zero-copy"
        );
    }
}
