//! What the kernel says of this host's interfaces, for `beam doctor`: read once and aloud, never on the data path.
//!
//! * `link`: which interfaces there are, and what they belong to;
//! * `netdev`: XDP features, and the queues' sockets and interrupts;
//! * `way`: the route and the neighbour towards an address;
//! * `trial`: whether the steering program loads, and whether a socket binds.
//!
//! All of it counts in the network namespace of the calling thread, and needs no privilege but the trials.

mod link;
mod trial;
mod way;

pub use crate::{
    attach::PAGE_MTU_MAX,
    genl::netdev::{RxQueue, XdpFeatures, rx_queues, xdp_features},
    sys::{clock_is_synchronised, rx_queue_count},
};
pub use link::{Link, addresses, links};
pub use trial::{Trial, program_loads, trial};
pub use way::{Way, neighbour, neighbour_mac, way};
