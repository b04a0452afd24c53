//! Where a knob is: which boot, which network namespace, which interface behind the name.

use super::{journal::Place, knob::Knob};
use std::{fs, io, os::unix::fs::MetadataExt, time::SystemTime};

impl Place {
    /// Of a knob that is about to be turned, now.
    pub(crate) fn of(knob: &Knob) -> io::Result<Self> {
        Ok(Self { index: knob.interface().map(index_of).transpose()?, ..Self::here()? })
    }

    /// Of no interface in particular.
    pub(crate) fn here() -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let netns = fs::metadata("/proc/self/ns/net")?.ino();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Self { boot, netns, index: None, unix_s: since.as_secs() })
    }
}

fn index_of(interface: &str) -> io::Result<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(name_to_index(socket, interface)?)
}
