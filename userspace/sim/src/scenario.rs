//! What a seed stands for: hosts, paths, traffic, and what goes wrong when. A failing seed prints it.
//!
//! Swarm testing: each seed enables a random subset of the dimensions, and leaves the others at rest. All on at once
//! would hide what only shows while some are off.

use crate::host::HostOptions;
use crate::impairments::{Attack, Impairments, Loss};
use crate::nic::Rings;
use crate::node::Pace;
use std::time::Duration;
use tunnel::RetryPolicy;

mod draw;

/// Something that happens to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client's NAT gives it another address.
    Rebind {
        /// Which client.
        client: usize,
    },
    /// As `Rebind`, to an address whose queue is another worker's.
    RebindQueue {
        /// Which client.
        client: usize,
    },
    /// A client moves to another network, and knows.
    Migrate {
        /// Which client.
        client: usize,
    },
    /// Nothing passes in these directions for a while.
    Blackout {
        /// Towards the gateway.
        up: bool,
        /// Towards the clients.
        down: bool,
        /// For how long.
        time: Duration,
    },
    /// The path's MTU changes, both ways.
    Mtu {
        /// UDP payload; not below 1200.
        bytes: usize,
    },
    /// A worker does nothing for a while.
    StallWorker {
        /// Which.
        worker: usize,
        /// For how long.
        time: Duration,
    },
    /// A client does nothing for a while.
    StallClient {
        /// Which.
        client: usize,
        /// For how long.
        time: Duration,
    },
    /// The gateway's application reads nothing for a while.
    PauseEcho {
        /// At which worker.
        worker: usize,
        /// For how long.
        time: Duration,
    },
    /// The gateway's application goes on.
    ResumeEcho {
        /// At which worker.
        worker: usize,
    },
    /// A worker starts anew and knows nothing of its connections.
    LoseWorker {
        /// Which.
        worker: usize,
    },
    /// A client starts anew and knows nothing of its connections.
    LoseClient {
        /// Which.
        client: usize,
    },
    /// A client closes its connections.
    CloseClient {
        /// Which.
        client: usize,
    },
    /// A worker closes its connections.
    CloseWorker {
        /// Which.
        worker: usize,
    },
    /// Each connection of the hosts of one side updates its keys.
    UpdateKeys {
        /// At the gateway, else at the clients.
        gateway: bool,
    },
    /// A client opens one more connection; with 0-RTT where it has a ticket.
    Connect {
        /// Which client.
        client: usize,
        /// Bytes of each of its flows.
        flows: Vec<u64>,
    },
}

/// What a client does from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// Bytes of each flow.
    pub flows: Vec<u64>,
    /// Bytes of one write.
    pub chunk_bytes: usize,
    /// QUIC datagrams to send.
    pub datagrams: u64,
}

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where it comes from.
    pub seed: u64,
    /// Workers of the gateway.
    pub workers: u8,
    /// Clients.
    pub clients: Vec<ClientPlan>,
    /// TLS, transports and protection.
    pub hosts: HostOptions,
    /// The path towards the gateway.
    pub up: Impairments,
    /// The path towards the clients.
    pub down: Impairments,
    /// Each worker's rings, and each client's.
    pub rings: [Rings; 2],
    /// Each worker's pace, and each client's.
    pub pace: [Pace; 2],
    /// What happens when, in order.
    pub actions: Vec<(Duration, Action)>,
}

impl Scenario {
    /// Whether something that happens here explains a flow that failed for `reason`.
    ///
    /// A path that only loses, delays and repeats explains nothing: the flow must complete.
    pub fn excuses(&self, reason: &str) -> bool {
        let any = |test: fn(&Action) -> bool| self.actions.iter().any(|(_, action)| test(action));
        let attacked = [self.up, self.down].iter().any(|link| link.attack != Attack::default());
        let hard = [self.up, self.down].iter().any(|link| matches!(link.loss, Loss::Burst { .. }));
        let loses_worker = any(|action| matches!(action, Action::LoseWorker { .. }));
        let moves = any(|action| {
            matches!(action, Action::Rebind { .. } | Action::RebindQueue { .. } | Action::Migrate { .. })
        });
        let stands_still = any(|action| {
            matches!(
                action,
                Action::Blackout { .. } | Action::StallWorker { .. } | Action::StallClient { .. }
            )
        });
        let starved = self.rings.iter().any(|rings| rings.rx < 16 || rings.handover < 16);
        let closes = any(|action| matches!(action, Action::CloseWorker { .. }));
        // The gateway gives a handshake 10 s. What delays it that long leaves the client with a dead
        // connection, and what it still sends draws a reset.
        let slow = moves || stands_still || attacked || hard || loses_worker || starved || closes;
        let retries = ![RetryPolicy::Off, RetryPolicy::default()].contains(&self.hosts.retry);
        // quinn-proto 0.11.19 counts a Retry whose integrity tag is wrong as authenticated, and then heeds no other
        // (`on_packet_authenticated` comes before `is_valid_retry`): one damaged Retry costs the handshake.
        let Impairments { corrupt_permille, truncate_permille, tail_permille, glue_permille, .. } = self.down;
        let damaged = corrupt_permille + truncate_permille + tail_permille + glue_permille > 0;
        let slow = slow || (retries && damaged);
        match reason {
            // A Retry token is good for the address that it was sent to.
            "closed by the peer's QUIC stack (error 0xb): " => moves && retries,
            // RFC 9000 10.2.3: an application's close before the handshake is done is reported so.
            "closed by the peer's QUIC stack (error 0xc): " => closes,
            "timed out: nothing was heard from the peer" => slow,
            "the peer lost the connection's state (stateless reset)" => slow,
            "refused by the peer: it has too many connections, too little memory, or is draining" => {
                self.hosts.connections_max < self.clients.len() + self.actions.len()
            }
            "closed by this side" => any(|action| matches!(action, Action::CloseClient { .. })),
            LOST => any(|action| matches!(action, Action::LoseClient { .. })),
            // One flipped bit makes a version 0, and nothing seals the packet of that version.
            "the peer speaks no QUIC version that beam does (needs version 1)" => {
                self.down.corrupt_permille > 0 || attacked
            }
            "closed by the peer (code 7): chaos" => closes,
            _ => false,
        }
    }
}

/// Why flows of a client fail that starts anew.
pub const LOST: &str = "the client was lost";
