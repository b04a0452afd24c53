//! Settings of a NIC, read and turned by ioctl as ethtool and ip do, on hosts that have neither. For `beam doctor`; the
//! network namespace is the calling thread's.

use crate::sys;
use std::io;

/// Bytes of a name in one of the kernel's tables of names.
const NAME_BYTES: usize = 32;
/// The kernel has 64 features today.
const FEATURES_MAX: usize = 256;

/// How many channels of each kind a NIC uses, and may use: `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    command: u32,
    /// For receiving only, at most.
    pub rx_max: u32,
    /// For sending only, at most.
    pub tx_max: u32,
    /// For neither, at most.
    pub other_max: u32,
    /// For both, at most.
    pub combined_max: u32,
    /// For receiving only.
    pub rx: u32,
    /// For sending only.
    pub tx: u32,
    /// For neither: link interrupts.
    pub other: u32,
    /// For both.
    pub combined: u32,
}

/// The channels.
///
/// # Errors
/// No such interface, or its driver doesn't tell (EOPNOTSUPP).
pub fn channels(interface: &str) -> io::Result<Channels> {
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    sys::ethtool(interface, &mut channels).map(|_| channels)
}

/// Sets how many there are of each kind; real NICs drop the link meanwhile.
///
/// # Errors
/// The driver refuses.
pub fn set_channels(interface: &str, wanted: Channels) -> io::Result<()> {
    const ETHTOOL_SCHANNELS: u32 = 0x3d;
    let mut channels = Channels { command: ETHTOOL_SCHANNELS, ..wanted };
    sys::ethtool(interface, &mut channels).map(drop)
}

/// Descriptors in the NIC's own rings: `struct ethtool_ringparam`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    command: u32,
    /// In a receive ring, at most.
    pub rx_max: u32,
    rx_mini_max: u32,
    rx_jumbo_max: u32,
    /// In a send ring, at most.
    pub tx_max: u32,
    /// In a receive ring.
    pub rx: u32,
    rx_mini: u32,
    rx_jumbo: u32,
    /// In a send ring.
    pub tx: u32,
}

/// The rings.
///
/// # Errors
/// No such interface, or its driver doesn't tell (EOPNOTSUPP).
pub fn rings(interface: &str) -> io::Result<Rings> {
    const ETHTOOL_GRINGPARAM: u32 = 0x10;
    let mut rings = Rings { command: ETHTOOL_GRINGPARAM, ..Rings::default() };
    sys::ethtool(interface, &mut rings).map(|_| rings)
}

/// Sets their sizes; real NICs drop the link meanwhile.
///
/// # Errors
/// The driver refuses.
pub fn set_rings(interface: &str, wanted: Rings) -> io::Result<()> {
    const ETHTOOL_SRINGPARAM: u32 = 0x11;
    let mut rings = Rings { command: ETHTOOL_SRINGPARAM, ..wanted };
    sys::ethtool(interface, &mut rings).map(drop)
}

/// An offload, by the kernel's name for it (`rx-lro`, `rx-gro-hw`, `rx-vlan-hw-parse`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name.
    pub name: String,
    /// Whether it is on.
    pub on: bool,
    /// Whether somebody wants it on; it may be off for want of another feature.
    pub wanted: bool,
    /// Whether it can be turned at all.
    pub changeable: bool,
}

/// All features that the kernel has a name for.
///
/// # Errors
/// No such interface.
pub fn features(interface: &str) -> io::Result<Vec<Feature>> {
    const ETHTOOL_GFEATURES: u32 = 0x3a;
    const FIELDS: usize = 4;
    let names = feature_names(interface)?;
    let blocks = names.len().div_ceil(32);
    // struct ethtool_gfeatures: command, number of blocks, then of each block available, requested, active, never_changed.
    let mut words = vec![0u32; 2 + FIELDS * blocks];
    (words[0], words[1]) = (ETHTOOL_GFEATURES, blocks as u32);
    sys::ethtool(interface, words.as_mut_slice())?;
    let bit = |index: usize, field: usize| words[2 + FIELDS * (index / 32) + field] >> (index % 32) & 1 == 1;
    let named = names.into_iter().enumerate().filter(|(_, name)| !name.is_empty());
    let feature = |(index, name)| Feature {
        name,
        on: bit(index, 2),
        wanted: bit(index, 1),
        changeable: bit(index, 0) && !bit(index, 3),
    };
    Ok(named.map(feature).collect())
}

/// Turns one feature.
///
/// # Errors
/// There is no such feature, or it can't be turned here, or it wants another one.
pub fn set_feature(interface: &str, name: &str, on: bool) -> io::Result<()> {
    const ETHTOOL_SFEATURES: u32 = 0x3b;
    let names = feature_names(interface)?;
    let index = names.iter().position(|known| known == name).ok_or(io::ErrorKind::NotFound)?;
    let blocks = names.len().div_ceil(32);
    // struct ethtool_sfeatures: command, number of blocks, then of each block which bits are meant, and their values.
    let mut words = vec![0u32; 2 + 2 * blocks];
    (words[0], words[1]) = (ETHTOOL_SFEATURES, blocks as u32);
    let bit = 1 << (index % 32);
    words[2 + 2 * (index / 32)] = bit;
    words[3 + 2 * (index / 32)] = if on { bit } else { 0 };
    match sys::ethtool(interface, words.as_mut_slice())? {
        0 => Ok(()),
        // ETHTOOL_F_UNSUPPORTED, ETHTOOL_F_WISH.
        1 => Err(io::Error::other(format!("{name} can't be turned on {interface}"))),
        _ => Err(io::Error::other(format!(
            "{interface} can't have {name} as asked, as its other features are"
        ))),
    }
}

/// By bit; empty where a bit has no name.
fn feature_names(interface: &str) -> io::Result<Vec<String>> {
    const ETHTOOL_GSSET_INFO: u32 = 0x37;
    const ETHTOOL_GSTRINGS: u32 = 0x1b;
    const ETH_SS_FEATURES: u32 = 4;
    // struct ethtool_sset_info: command, reserved, a mask of 64 bits, then one length for each set that the mask names.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0, 0];
    let mask = (1u64 << ETH_SS_FEATURES).to_ne_bytes();
    info[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
    info[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
    sys::ethtool(interface, info.as_mut_slice())?;
    let count = info[4] as usize;
    if count > FEATURES_MAX {
        return Err(io::Error::other(format!("{interface} has {count} features; {FEATURES_MAX} are read")));
    }
    // struct ethtool_gstrings: command, set, count, then the names.
    let mut words = vec![0u32; 3 + count * NAME_BYTES / 4];
    words[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
    sys::ethtool(interface, words.as_mut_slice())?;
    let bytes: Vec<u8> = words[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = |bytes: &[u8]| {
        let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    };
    Ok(bytes.chunks_exact(NAME_BYTES).map(name).collect())
}

/// Which fields of a packet choose its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashFields(u64);

impl HashFields {
    /// Source and destination addresses and ports.
    pub const FOUR_TUPLE: Self = Self(0xf0);
    /// RXH_* of linux/ethtool.h, by the letters of `ethtool -N IF rx-flow-hash`.
    const LETTERS: [(char, u64); 8] = [
        ('m', 1 << 1),
        ('v', 1 << 2),
        ('t', 1 << 3),
        ('s', 1 << 4),
        ('d', 1 << 5),
        ('f', 1 << 6),
        ('n', 1 << 7),
        ('r', 1 << 31),
    ];

    /// As ethtool writes them: `sdfn` is the 4-tuple, `sd` the addresses alone.
    #[must_use]
    pub fn letters(self) -> String {
        Self::LETTERS.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(letter, _)| *letter).collect()
    }

    /// The other way; `None` when there is a letter that means nothing.
    #[must_use]
    pub fn from_letters(letters: &str) -> Option<Self> {
        let bit = |letter| Self::LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| *bit);
        letters.chars().try_fold(0, |fields, letter| Some(fields | bit(letter)?)).map(Self)
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// The head of struct ethtool_rxnfc, and room for the rest, which the kernel copies whole.
#[repr(C)]
#[derive(Default)]
struct Classification {
    command: u32,
    flow_type: u32,
    data: u64,
    rest: [u64; 22],
}

impl Classification {
    fn of_udp(command: u32, family: Family, fields: HashFields) -> Self {
        const UDP_V4_FLOW: u32 = 2;
        const UDP_V6_FLOW: u32 = 6;
        let flow_type = if family == Family::V4 { UDP_V4_FLOW } else { UDP_V6_FLOW };
        Self { command, flow_type, data: fields.0, rest: [0; 22] }
    }
}

/// What UDP packets are spread over queues by.
///
/// # Errors
/// The driver has no such hash, or doesn't tell (EOPNOTSUPP).
pub fn udp_hash(interface: &str, family: Family) -> io::Result<HashFields> {
    const ETHTOOL_GRXFH: u32 = 0x29;
    let mut question = Classification::of_udp(ETHTOOL_GRXFH, family, HashFields(0));
    sys::ethtool(interface, &mut question).map(|_| HashFields(question.data))
}

/// Sets it.
///
/// # Errors
/// The driver refuses.
pub fn set_udp_hash(interface: &str, family: Family, fields: HashFields) -> io::Result<()> {
    const ETHTOOL_SRXFH: u32 = 0x2a;
    sys::ethtool(interface, &mut Classification::of_udp(ETHTOOL_SRXFH, family, fields)).map(drop)
}

/// Receive rings, by another question than [`channels`]: some drivers answer only this one.
pub(crate) fn rx_ring_count(interface: &str) -> io::Result<u32> {
    const ETHTOOL_GRXRINGS: u32 = 0x2d;
    let mut question = Classification { command: ETHTOOL_GRXRINGS, ..Classification::default() };
    sys::ethtool(interface, &mut question)?;
    u32::try_from(question.data).map_err(io::Error::other)
}

/// The largest IP packet of the interface.
///
/// # Errors
/// No such interface.
pub fn mtu(interface: &str) -> io::Result<u32> {
    const SIOCGIFMTU: libc::c_ulong = 0x8921;
    let mut request = sys::interface_request(interface)?;
    sys::interface_ioctl(SIOCGIFMTU, &mut request)?;
    // SAFETY: the kernel filled this member, and any bytes are an integer.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(io::Error::other)
}

/// Sets it; some drivers drop the link meanwhile.
///
/// # Errors
/// The driver refuses: beyond its limits, or an XDP program stands against it.
pub fn set_mtu(interface: &str, mtu: u32) -> io::Result<()> {
    const SIOCSIFMTU: libc::c_ulong = 0x8922;
    let mut request = sys::interface_request(interface)?;
    request.ifr_ifru.ifru_mtu = i32::try_from(mtu).map_err(io::Error::other)?;
    sys::interface_ioctl(SIOCSIFMTU, &mut request).map(drop)
}

/// Whether the interface is administratively up.
///
/// # Errors
/// No such interface.
pub fn is_up(interface: &str) -> io::Result<bool> {
    flags(interface).map(|flags| flags & libc::IFF_UP as i16 != 0)
}

/// Takes it up or down.
///
/// # Errors
/// The kernel refuses.
pub fn set_up(interface: &str, up: bool) -> io::Result<()> {
    const SIOCSIFFLAGS: libc::c_ulong = 0x8914;
    let mut request = sys::interface_request(interface)?;
    let others = flags(interface)? & !(libc::IFF_UP as i16);
    request.ifr_ifru.ifru_flags = others | if up { libc::IFF_UP as i16 } else { 0 };
    sys::interface_ioctl(SIOCSIFFLAGS, &mut request).map(drop)
}

fn flags(interface: &str) -> io::Result<i16> {
    const SIOCGIFFLAGS: libc::c_ulong = 0x8913;
    let mut request = sys::interface_request(interface)?;
    sys::interface_ioctl(SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the kernel filled this member, and any bytes are an integer.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

#[cfg(test)]
mod tests {
    //! Goal: the kernel's structures are read as it means them. Method: the loopback interface, whose settings are known;
    //! letters there and back. Turning things is tested in namespaces, by `beam doctor --fix`.
    use super::*;

    #[test]
    fn loopback_is_read() {
        assert!(mtu("lo").unwrap() >= 1280);
        assert!(is_up("lo").is_ok());
        let features = features("lo").unwrap();
        let named = |name: &str| features.iter().find(|feature| feature.name == name).unwrap();
        assert!(named("loopback").on && !named("loopback").changeable, "{features:?}");
        assert!(!named("rx-lro").on, "{features:?}");
        assert!(channels("lo").is_err() && rings("lo").is_err());
    }

    #[test]
    fn names_that_are_none() {
        for name in ["", "beam-no-such", "longer-than-any-name-of-an-interface"] {
            assert!(mtu(name).is_err() && features(name).is_err() && channels(name).is_err(), "{name:?}");
        }
        assert!(set_feature("lo", "no-such-feature", true).is_err());
    }

    #[test]
    fn hash_fields_have_letters() {
        assert_eq!(HashFields::FOUR_TUPLE.letters(), "sdfn");
        assert_eq!(HashFields::from_letters("sdfn"), Some(HashFields::FOUR_TUPLE));
        assert_eq!(HashFields::from_letters("x"), None);
    }
}
