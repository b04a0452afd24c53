//! ADDRESS_ASSIGN and ADDRESS_REQUEST (RFC 9484 sections 4.7.1 and 4.7.2).

use crate::{CapsuleError, IpPrefix, capsule, varint};
use bytes::BufMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses in one capsule. A tunnel has one or two; a site's has its prefixes.
pub const ADDRESS_COUNT_MAX: usize = 256;

/// A request's id and a prefix. In an assignment, id 0 answers no request; in a request it is not 0, and an all-zero
/// address stands for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Which request.
    pub request_id: u64,
    /// What is assigned or asked for.
    pub prefix: IpPrefix,
}

impl Address {
    /// The answer to a request that gets nothing: 0.0.0.0/32 or ::/128, "to indicate that no address was assigned".
    #[must_use]
    pub fn refusal(request: &Self) -> Self {
        let unspecified: IpAddr = match request.prefix.address() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { request_id: request.request_id, prefix: IpPrefix::host(unspecified) }
    }

    /// In an assignment: no address was assigned.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.prefix.is_host() && self.prefix.address().is_unspecified()
    }

    /// In a request: any address of this family and prefix length will do.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.prefix.address().is_unspecified()
    }

    fn encode(&self, out: &mut impl BufMut) {
        varint::write(out, self.request_id);
        self.prefix.encode(out);
    }
}

/// "The full list of IP prefixes currently assigned to the receiver": one that is missing was taken away, none at all
/// means that all were. Invariant: at most [`ADDRESS_COUNT_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressAssign {
    addresses: Vec<Address>,
}

impl AddressAssign {
    /// An assignment, empty if need be.
    ///
    /// # Errors
    /// [`CapsuleError::TooMany`].
    pub fn new(addresses: Vec<Address>) -> Result<Self, CapsuleError> {
        check_count(capsule::ADDRESS_ASSIGN, addresses.len())?;
        Ok(Self { addresses })
    }

    /// What is assigned, refusals among it.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        self.addresses.iter().for_each(|address| address.encode(out));
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, CapsuleError> {
        decode_list(capsule::ADDRESS_ASSIGN, payload).map(|addresses| Self { addresses })
    }
}

/// What the sender would like. Invariant: 1 to [`ADDRESS_COUNT_MAX`]; no request id is 0 or occurs twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRequest {
    addresses: Vec<Address>,
}

impl AddressRequest {
    /// A request.
    ///
    /// # Errors
    /// [`CapsuleError`], when the invariant does not hold.
    pub fn new(addresses: Vec<Address>) -> Result<Self, CapsuleError> {
        check_count(capsule::ADDRESS_REQUEST, addresses.len())?;
        if addresses.is_empty() {
            return Err(CapsuleError::Malformed("an ADDRESS_REQUEST for no address"));
        }
        let mut ids: Vec<u64> = addresses.iter().map(|address| address.request_id).collect();
        ids.sort_unstable();
        if ids.first() == Some(&0) {
            return Err(CapsuleError::Malformed("an ADDRESS_REQUEST with request id 0"));
        }
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(CapsuleError::Malformed("an ADDRESS_REQUEST that uses a request id twice"));
        }
        Ok(Self { addresses })
    }

    /// What is asked for.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        self.addresses.iter().for_each(|address| address.encode(out));
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, CapsuleError> {
        decode_list(capsule::ADDRESS_REQUEST, payload).and_then(Self::new)
    }
}

fn check_count(kind: u64, count: usize) -> Result<(), CapsuleError> {
    if count <= ADDRESS_COUNT_MAX {
        Ok(())
    } else {
        Err(CapsuleError::TooMany { kind, limit_count: ADDRESS_COUNT_MAX })
    }
}

fn decode_list(kind: u64, mut payload: &[u8]) -> Result<Vec<Address>, CapsuleError> {
    let mut addresses = Vec::new();
    while !payload.is_empty() {
        check_count(kind, addresses.len() + 1)?;
        let cut = CapsuleError::Malformed("it ends in the middle of a request id");
        let (request_id, size_bytes) = varint::read(payload).ok_or(cut)?;
        payload = &payload[size_bytes..];
        let prefix = IpPrefix::take(&mut payload).map_err(CapsuleError::Malformed)?;
        addresses.push(Address { request_id, prefix });
    }
    Ok(addresses)
}
