//! Many real tunnels against one real gateway: what each costs, what happens at the limit, and how those that sleep wake.
//!
//! ```text
//!  bench-scale (one thread)                                     beam serve (a child process)
//!   mode ──► Fleet: Engine, HTTP/3 ──► some UDP sockets ═══════► its workers
//!    │         └── one Tunnel each: address, token, ticket          │
//!    └── Gateway: users file, start, `beam status -j`, /proc ◄──────┘
//! ```
//!
//! The client side is the room `tunnel` with HTTP/3 by `masque` over `udp`, so that every tunnel is a whole QUIC connection
//! with a handshake and credentials of its own; only the `connect` verb is left out. Each tunnel has a source address of its
//! own (out of [`Sources`]), since a gateway judges addresses: tokens, the three-times limit, Retry.

mod ask;
mod asleep;
mod dial;
mod fleet;
mod gateway;
mod hold;
mod latency;
mod limit;
mod origin;
mod process;
mod report;
mod run;
mod sockets;
mod sources;
mod tickets;
mod users;

pub use ask::Wanted;
pub use asleep::{Asleep, asleep};
pub use gateway::GatewayConfig;
pub use hold::{Hold, hold};
pub use limit::{Bound, Limit, limit};
pub use origin::Origin;
pub use report::{Report, Row};
pub use run::{Common, INTERRUPTED};
pub use sources::Sources;
