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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(request_id: u64, prefix: &str) -> Address {
        Address { request_id, prefix: prefix.parse().unwrap() }
    }

    /// The layout of RFC 9484 figure 8, byte by byte.
    #[test]
    fn the_layout() {
        let assign =
            AddressAssign::new(vec![address(0, "198.18.0.7"), address(300, "2001:db8::/64")]).unwrap();
        let mut out = Vec::new();
        assign.encode(&mut out);
        let v6 = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(out, [&[0, 4, 198, 18, 0, 7, 32][..], &[0x41, 0x2c, 6], &v6, &[64]].concat());
        assert_eq!(AddressAssign::decode(&out), Ok(assign));
        assert_eq!(AddressAssign::decode(&[]), Ok(AddressAssign::default()), "an assignment can be empty");
    }

    /// RFC 9484 section 4.7: "It MUST be either 4 or 6"; "less than or equal to the length of the IP Address field";
    /// "the lower bits [...] MUST all be set to 0"; "MUST NOT be reused by an endpoint and MUST NOT be zero"; "zero
    /// Requested Addresses, it MUST abort the IP proxying request stream".
    #[test]
    fn each_rule_broken() {
        let malformed = |payload: &[u8]| {
            let is = |error| matches!(error, CapsuleError::Malformed(_));
            let assign = AddressAssign::decode(payload).is_err_and(is);
            let request = AddressRequest::decode(payload).is_err_and(is);
            (assign, request)
        };
        assert_eq!(malformed(&[1, 5, 198, 18, 0, 7, 32]), (true, true), "version 5");
        assert_eq!(malformed(&[1, 4, 198, 18, 0, 7, 33]), (true, true), "33 of 32 bits");
        assert_eq!(malformed(&[&[1, 6][..], &[0; 16], &[129]].concat()), (true, true), "129 of 128 bits");
        assert_eq!(malformed(&[1, 4, 198, 18, 0, 7, 31]), (true, true), "a host bit");
        assert_eq!(malformed(&[1, 4, 198, 18, 0, 7]), (true, true), "no length");
        assert_eq!(malformed(&[1, 6, 198, 18, 0, 7, 32]), (true, true), "an IPv4 address as IPv6");
        assert_eq!(malformed(&[0x40]), (true, true), "half an id");
        assert_eq!(malformed(&[]), (false, true), "an empty request");
        assert_eq!(malformed(&[0, 4, 198, 18, 0, 7, 32]), (false, true), "request id 0");
        let twice = [[1, 4, 198, 18, 0, 7, 32], [1, 4, 198, 18, 0, 8, 32]].concat();
        assert_eq!(malformed(&twice), (false, true), "a request id twice");
        assert_eq!(malformed(&[1, 4, 198, 18, 0, 7, 32]), (false, false), "the valid one");
    }

    #[test]
    fn the_bound_on_entries() {
        let entries = |count: u64| (1..=count).map(|id| address(id, "198.18.0.7")).collect::<Vec<_>>();
        let encoded: Vec<u8> = [1, 4, 198, 18, 0, 7, 32].repeat(257);
        for error in
            [AddressAssign::new(entries(257)).unwrap_err(), AddressAssign::decode(&encoded).unwrap_err()]
        {
            assert_eq!(error, CapsuleError::TooMany { kind: 1, limit_count: 256 });
        }
        let request = AddressRequest::new(entries(256)).unwrap();
        let mut out = Vec::new();
        request.encode(&mut out);
        assert_eq!(AddressRequest::decode(&out), Ok(request));
        assert!(matches!(AddressRequest::new(entries(257)), Err(CapsuleError::TooMany { kind: 2, .. })));
    }

    /// "If the requested address was not assigned, the IP address SHALL be all-zero, and the IP Prefix Length SHALL be
    /// the maximum length (0.0.0.0/32 or ::/128)" (RFC 9484 section 4.7.2).
    #[test]
    fn a_refusal() {
        for (asked, refused) in [("198.18.0.0/24", "0.0.0.0/32"), ("::/64", "::/128")] {
            let refusal = Address::refusal(&address(5, asked));
            assert_eq!(refusal, address(5, refused));
            assert!(refusal.is_refusal() && !address(5, asked).is_refusal());
        }
        assert!(address(1, "0.0.0.0/32").is_any() && address(1, "::/64").is_any());
    }
}
