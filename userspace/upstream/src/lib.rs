//! What the gateway may connect to, and who may ask.
//!
//! ```text
//!  request ──► users::Users::authenticate ──► policy::Policy::check_name_possible ──► resolver::Resolver::resolve
//!                                                                                              │
//!  answer ◄── failure::ConnectFailure ◄── connect(2), owned by the worker ◄── policy::Policy::check(each address)
//! ```
//!
//! No sockets here: the worker owns those. A `Policy` and a `Users` are read-only once built and shared by all
//! workers; a reload builds new ones. Only the [`resolver`] has threads, since the system's resolver blocks.

pub mod failure;
pub mod host;
pub mod policy;
pub mod resolver;
pub mod users;
