//! Why there is no device, and what to do about it.

use std::io;

/// Why a device can't be made.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel has no TUN driver, or the node is missing.
    #[error(
        "/dev/net/tun isn't there; load the driver: modprobe tun (in a container: --device /dev/net/tun)"
    )]
    NoDriver,
    /// The node or the device is somebody else's.
    #[error(
        "no permission to make TUN device {name} ({error}); run as root, or: setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock,cap_net_bind_service+ep $(command -v beam)"
    )]
    Permission {
        /// The device.
        name: String,
        /// The kernel's word.
        error: io::Error,
    },
    /// An interface has the name already.
    #[error(
        "interface {name} exists already; see whose it is: ip -d link show {name}; or choose another name: --tun NAME"
    )]
    NameTaken {
        /// The device.
        name: String,
    },
    /// No interface may be called so.
    #[error("`{name}` can't be an interface's name: 1 to 15 characters, no slash, no space, not . or ..")]
    NameInvalid {
        /// What was asked for.
        name: String,
    },
    /// The driver lacks what is needed.
    #[error("TUN device {name}: {what} failed: {error}; beam needs Linux 5.11 or later")]
    Refused {
        /// The device.
        name: String,
        /// The call.
        what: &'static str,
        /// The kernel's word.
        error: io::Error,
    },
}

/// Why an address, an MTU or a route can't be set.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}; by hand: {command}")]
pub struct NetworkError {
    /// What was to be done.
    pub what: String,
    /// The kernel's word.
    pub error: io::Error,
    /// The command that does the same.
    pub command: String,
}
