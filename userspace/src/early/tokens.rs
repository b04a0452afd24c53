//! Address-validation tokens (RFC 9000 section 8.1.3): which of them a gateway has seen, and those that a client has.

use super::{Circumstances, now};
use cache::{Bounds, Cache, CacheReport, Disk, Kind, Limits};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tunnel::{TokenLog, TokenReuseError, TokenStore};

/// As long as the gateway's tokens hold.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Tokens that have proved an address, by their nonce.
pub(crate) struct UsedTokens;

impl Kind for UsedTokens {
    const NAME: &'static str = "used-tokens";
    /// A used token that was pushed out proves its address once more: an attacker who holds that many, for one address,
    /// may have that many handshakes' answers sent there without the three-times limit.
    const LIMITS: Limits = Limits {
        local_entries_max: 0,
        shared: Bounds { entries_max: 65_536, bytes_max: 4 << 20 },
        disk: Bounds { entries_max: 65_536, bytes_max: 8 << 20 },
        ttl_max: LIFETIME,
    };
    type Key = u128;
    type Value = ();

    fn weight_bytes(_key: &u128, _value: Option<&()>) -> usize {
        32
    }

    fn encode(_key: &u128, (): &()) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn encode_key(key: &u128) -> Vec<u8> {
        key.to_be_bytes().to_vec()
    }

    fn decode(key: &[u8], _value: &[u8]) -> Option<(u128, ())> {
        Some((u128::from_be_bytes(key.try_into().ok()?), ()))
    }
}

/// The gateway's log of them.
pub(crate) struct TokensUsed(Arc<Cache<UsedTokens>>);

impl TokensUsed {
    pub(crate) fn new(disk: Option<Arc<Disk>>) -> Arc<Self> {
        Arc::new(Self(Cache::new(disk)))
    }

    /// Those of the last runs. They stay on the disk: to know of a token for longer than need be harms nobody.
    pub(crate) fn load(&self) {
        self.0.read_all(now());
    }

    pub(crate) fn keep(&self) {
        self.0.save_all(now());
    }

    pub(crate) fn report(&self) -> CacheReport {
        self.0.report()
    }
}

impl TokenLog for TokensUsed {
    /// Two workers that meet one token at the same instant may both believe it: it is only an address that it proves.
    fn check_and_insert(
        &self,
        nonce: u128,
        issued: SystemTime,
        lifetime: Duration,
    ) -> Result<(), TokenReuseError> {
        let now = now();
        if self.0.get(now, &nonce).hit().is_some() {
            return Err(TokenReuseError);
        }
        let left = Duration::from_millis(cache::Stamp::of(issued + lifetime).0.saturating_sub(now.0));
        self.0.put(now, nonce, (), left);
        Ok(())
    }
}

/// Tokens that gateways gave a client.
pub(crate) struct ClientTokens;

impl Kind for ClientTokens {
    const NAME: &'static str = "tokens";
    const LIMITS: Limits = Limits {
        local_entries_max: 0,
        shared: Bounds { entries_max: 512, bytes_max: 256 << 10 },
        disk: Bounds { entries_max: 512, bytes_max: 256 << 10 },
        ttl_max: LIFETIME,
    };
    /// Whose, and a place among those of it.
    type Key = (Circumstances, u8);
    type Value = bytes::Bytes;

    fn weight_bytes(_key: &Self::Key, value: Option<&bytes::Bytes>) -> usize {
        33 + value.map_or(0, bytes::Bytes::len)
    }

    fn encode(_key: &Self::Key, value: &bytes::Bytes) -> Option<Vec<u8>> {
        Some(value.to_vec())
    }

    fn encode_key((of, place): &Self::Key) -> Vec<u8> {
        [&of[..], &[*place]].concat()
    }

    fn decode(key: &[u8], value: &[u8]) -> Option<(Self::Key, bytes::Bytes)> {
        let (&of, place) = key.split_first_chunk::<32>()?;
        let &[place] = place else { return None };
        Some(((of, place), bytes::Bytes::copy_from_slice(value)))
    }
}

/// quinn's view of a client's tokens.
pub(crate) struct TokensHeld(pub(crate) super::vault::Pile<ClientTokens>);

/// More than a Retry packet can hold is no token of use.
const TOKEN_BYTES_MAX: usize = 1024;

impl TokenStore for TokensHeld {
    fn insert(&self, _server_name: &str, token: bytes::Bytes) {
        if token.len() <= TOKEN_BYTES_MAX {
            // A copy of its own: the frame's buffer is a whole receive slab.
            self.0.put(bytes::Bytes::copy_from_slice(&token), LIFETIME);
        }
    }

    fn take(&self, _server_name: &str) -> Option<bytes::Bytes> {
        self.0.take()
    }
}
