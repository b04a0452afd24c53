//! What a client remembers of gateways: their SETTINGS, which early data goes by (RFC 9114 section 7.2.4.2).

use super::{Circumstances, TICKET_LIFETIME, now};
use cache::{Bounds, Cache, CacheReport, Kind, Limits};
use masque::Settings;
use std::sync::Arc;

/// Settings by gateway.
pub(crate) struct PeerSettings;

impl Kind for PeerSettings {
    const NAME: &'static str = "settings";
    const LIMITS: Limits = Limits {
        local_entries_max: 0,
        shared: Bounds { entries_max: 64, bytes_max: 64 << 10 },
        disk: Bounds { entries_max: 64, bytes_max: 64 << 10 },
        ttl_max: TICKET_LIFETIME,
    };
    type Key = Circumstances;
    type Value = Arc<Settings>;

    fn weight_bytes(_key: &Circumstances, value: Option<&Arc<Settings>>) -> usize {
        32 + value.map_or(0, |settings| settings.to_bytes().len())
    }

    fn encode(_key: &Circumstances, value: &Arc<Settings>) -> Option<Vec<u8>> {
        Some(value.to_bytes())
    }

    fn encode_key(key: &Circumstances) -> Vec<u8> {
        key.to_vec()
    }

    fn decode(key: &[u8], value: &[u8]) -> Option<(Circumstances, Arc<Settings>)> {
        Some((key.try_into().ok()?, Arc::new(Settings::from_bytes(value)?)))
    }
}

/// The settings of one gateway.
pub(crate) struct Remembered {
    cache: Arc<Cache<PeerSettings>>,
    of: Circumstances,
}

impl Remembered {
    /// With what an earlier process wrote down.
    pub(crate) fn open(cache: Arc<Cache<PeerSettings>>, of: Circumstances) -> Self {
        // Into memory now: workers ask later.
        cache.get_through(now(), &of);
        Self { cache, of }
    }

    pub(crate) fn get(&self) -> Option<Settings> {
        self.cache.get(now(), &self.of).hit().map(Arc::unwrap_or_clone)
    }

    /// They came. Written down only where they are others than before.
    pub(crate) fn put(&self, settings: &Settings) {
        if self.get().as_ref() != Some(settings) {
            self.cache.put_through(now(), self.of, Arc::new(settings.clone()), TICKET_LIFETIME);
        }
    }

    pub(crate) fn report(&self) -> CacheReport {
        self.cache.report()
    }
}
