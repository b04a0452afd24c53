//! How an engine is set up, and the secrets that all engines of a host share.

use crate::admission::RetryPolicy;
use crate::cid::{CidCodec, CidKey, Generator, Tier, WorkerId};
use crate::header::VERSIONS;
use crate::protection::Protection;
use quinn_proto::{EndpointConfig, ServerConfig};
use rand::Rng;
use rand::TryRng;
use rand::rngs::SysRng;
use ring::{hkdf, hmac};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What all workers of a gateway must agree on, so that Retry tokens, stateless resets and CIDs
/// work whichever worker a packet lands on. Keep them over a restart, and resets reach old peers.
#[derive(Clone)]
pub struct Secrets {
    /// Encrypts connection IDs.
    pub cid_key: CidKey,
    /// Derives stateless reset tokens.
    pub reset_key: [u8; 64],
    /// Seals Retry tokens.
    pub token_key: [u8; 64],
}

impl Secrets {
    /// Fresh secrets from the system's random source.
    ///
    /// # Panics
    /// If that source fails: there is nothing safe to do without it.
    pub fn random() -> Self {
        let mut secrets = Self { cid_key: CidKey([0; 16]), reset_key: [0; 64], token_key: [0; 64] };
        for part in [&mut secrets.cid_key.0[..], &mut secrets.reset_key, &mut secrets.token_key] {
            if let Err(error) = SysRng.try_fill_bytes(part) {
                panic!("the system's random source failed: {error}");
            }
        }
        secrets
    }

    /// Secrets drawn from `rng`: for simulation.
    pub fn from_rng(rng: &mut impl Rng) -> Self {
        let mut secrets = Self { cid_key: CidKey([0; 16]), reset_key: [0; 64], token_key: [0; 64] };
        rng.fill_bytes(&mut secrets.cid_key.0);
        rng.fill_bytes(&mut secrets.reset_key);
        rng.fill_bytes(&mut secrets.token_key);
        secrets
    }

    /// The key for `quinn_proto::ServerConfig::new`.
    pub(crate) fn token_prk(&self) -> Arc<hkdf::Prk> {
        Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.token_key))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// How one engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// This engine's worker: its CIDs carry it.
    pub worker: WorkerId,
    /// This host among the fleet behind one load balancer.
    pub node: u16,
    /// Shared by all workers. The token key enters by `server`, see `transport::server_config`.
    pub secrets: Secrets,
    /// Accept connections with this; `None` makes the engine a client only.
    pub server: Option<Arc<ServerConfig>>,
    /// When to ask an unvalidated address to prove itself first.
    pub retry: RetryPolicy,
    /// Connections alive at once; further attempts are refused.
    pub connections_max: usize,
    /// Handshakes begun in one `run`: each costs about 200 us.
    pub handshakes_per_run: usize,
    /// First Initials from unproven addresses that wait for that budget; further ones are dropped.
    pub incoming_queue_max: usize,
    /// The same of addresses that a token has proved: clients that come back, all at once after a power cut.
    pub incoming_proven_max: usize,
    /// A server-side handshake that takes longer is dropped.
    pub handshake_timeout: Duration,
    /// Addresses that the three-times limit remembers; the least recently heard is forgotten.
    pub unvalidated_paths_max: usize,
    /// Largest UDP payload that peers may send us.
    pub udp_payload_max_bytes: u16,
    /// Permitted remote streams are raised on demand up to this, in each direction.
    pub remote_streams_max: u32,
    /// How packets are sealed and opened.
    pub protection: Protection,
    /// A connection that nothing reaches for one to two times this is folded into less memory until something does. Zero: as
    /// soon as nothing has between two calls of `run`.
    pub rest_after: Duration,
    /// Keeps [`crate::Batches`]; off only to measure what that costs.
    pub count_batches: bool,
    /// Copies each batch once more on its way, in and out, as if the cipher weren't the copy; only to measure what that costs.
    pub extra_copy: bool,
    /// Makes quinn's and the CIDs' random numbers repeatable: for simulation only.
    pub rng_seed: Option<[u8; 32]>,
}

impl EngineConfig {
    /// The defaults for one worker of a gateway (`server`) or a client (`None`).
    pub fn new(worker: WorkerId, secrets: Secrets, server: Option<Arc<ServerConfig>>) -> Self {
        Self {
            worker,
            node: 0,
            secrets,
            server,
            retry: RetryPolicy::default(),
            connections_max: 100_000,
            handshakes_per_run: 4,
            incoming_queue_max: 1024,
            incoming_proven_max: 12_288,
            handshake_timeout: Duration::from_secs(10),
            unvalidated_paths_max: 16_384,
            udp_payload_max_bytes: 1472,
            remote_streams_max: 4096,
            protection: Protection::default(),
            rest_after: Duration::from_millis(500),
            count_batches: true,
            extra_copy: false,
            rng_seed: None,
        }
    }

    /// quinn's view of it. Its CID factory captures worker and tier, hence one for each endpoint.
    pub(crate) fn endpoint(&self, codec: &CidCodec, tier: Tier) -> EndpointConfig {
        let seed = self.rng_seed.map(|mut seed| {
            seed[1] ^= tier;
            seed
        });
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &self.secrets.reset_key);
        let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
        endpoint
            .cid_generator(Generator::factory(codec.clone(), self.worker, tier, seed))
            .supported_versions(VERSIONS.to_vec())
            .rng_seed(seed);
        // The only error is a size out of range; the clamp keeps it in.
        let _ = endpoint.max_udp_payload_size(self.udp_payload_max_bytes.clamp(1200, 65_527));
        endpoint
    }
}
