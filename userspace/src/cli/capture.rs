//! `beam capture`: tcpdump's letters.

use crate::capture::Point;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// Only packets of this interface: a NIC, `udp` (kernel sockets) or `inner`
    #[arg(short = 'i', long, value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// Write pcapng to this file, or to standard output (-); without it, one line a packet is printed
    #[arg(short = 'w', long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Stop after so many packets
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Keep so many bytes of each packet (0: all)
    #[arg(short = 's', long = "snap", value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    pub(crate) snap: u32,
    /// Where to look; may be given several times [default: rx and tx]
    #[arg(long = "point", value_name = "POINT", value_enum, value_delimiter = ',')]
    pub(crate) points: Vec<Point>,
    /// Only packets of this client, or of this tunnel (an id of `beam show tunnels`)
    #[arg(long, value_name = "CLIENT")]
    pub(crate) client: Option<String>,
    /// With the TLS secrets of connections that begin meanwhile, so that Wireshark decrypts; for root only
    #[arg(long, requires = "write")]
    pub(crate) keylog: bool,
    /// Write a qlog of each connection that begins meanwhile into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) qlog: Option<PathBuf>,
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = crate::control::DEFAULT_PATH, env = "BEAM_CONTROL")]
    pub(crate) control: PathBuf,
}
