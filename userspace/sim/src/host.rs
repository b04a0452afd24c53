//! Engines with repeatable random numbers, and certificates of constant size.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, RootCertStore};
use std::sync::{Arc, OnceLock};
use tunnel::tls::{ClientAuth, TlsError, provider, quic_client, quic_server, server_tls};
use tunnel::transport::{TransportOptions, client_config, server_config};
use tunnel::{Engine, EngineConfig, Protection, RetryPolicy, Secrets, WorkerId};

/// The name on the gateway's certificate.
pub const SERVER_NAME: &str = "gateway.test";

/// The gateway's certificate: Ed25519, whose signatures have one size (ECDSA's vary by two bytes,
/// which would show in the trace). Made once a process.
pub fn identity() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    static MADE: OnceLock<(CertificateDer<'static>, Vec<u8>)> = OnceLock::new();
    let (cert, key) = MADE.get_or_init(|| make_identity().unwrap_or_else(|e| panic!("no certificate: {e}")));
    (vec![cert.clone()], PrivateKeyDer::Pkcs8(key.clone().into()))
}

fn make_identity() -> Result<(CertificateDer<'static>, Vec<u8>), rcgen::Error> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let mut params = rcgen::CertificateParams::new([SERVER_NAME.into()])?;
    params.serial_number = Some(vec![1; 16].into());
    let cert = params.self_signed(&key)?;
    Ok((cert.der().clone(), key.serialize_der()))
}

/// What the hosts of one run have in common.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The gateway's transport.
    pub gateway: TransportOptions,
    /// The clients' transport.
    pub client: TransportOptions,
    /// The suite that clients ask for first, and so get.
    pub suite: CipherSuite,
    /// Whether the gateway accepts, and clients send, 0-RTT.
    pub early_data: bool,
    /// The gateway's Retry policy.
    pub retry: RetryPolicy,
    /// Connections that each of the gateway's workers accepts.
    pub connections_max: usize,
    /// Of the gateway's and the clients' engines.
    pub protection: [Protection; 2],
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            gateway: TransportOptions::gateway(),
            client: TransportOptions::client(),
            suite: CipherSuite::TLS13_AES_128_GCM_SHA256,
            early_data: false,
            retry: RetryPolicy::default(),
            connections_max: 1000,
            protection: [Protection::default(); 2],
        }
    }
}

/// Makes the engines of one run.
pub struct Hosts {
    rng: StdRng,
    secrets: Secrets,
    options: HostOptions,
    server: Arc<quinn_proto::ServerConfig>,
}

impl Hosts {
    /// Hosts whose random numbers follow `seed`.
    pub fn new(seed: u64, options: HostOptions) -> Result<Self, TlsError> {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x686f_7374);
        let secrets = Secrets::from_rng(&mut rng);
        let (certs, key) = identity();
        let mut tls = server_tls(certs, key, ClientAuth::None)?;
        if options.early_data {
            // RFC 9001 4.6.1: the only value that QUIC knows.
            tls.max_early_data_size = u32::MAX;
        }
        let transport = Arc::new(options.gateway.build());
        let server = Arc::new(server_config(quic_server(tls)?, transport, &secrets));
        Ok(Self { rng, secrets, options, server })
    }

    /// What one client connects with, again and again: it holds that client's tickets. The random
    /// first CID stays out of the seed's reach, which does no harm: its length is constant.
    pub fn client_config(&self) -> Result<quinn_proto::ClientConfig, TlsError> {
        let mut provider = (*provider()).clone();
        // AES-128-GCM stays among them, since QUIC's Initial packets need it.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != self.options.suite);
        let mut roots = RootCertStore::empty();
        identity().0.into_iter().try_for_each(|cert| roots.add(cert))?;
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![tunnel::tls::ALPN_H3.to_vec()];
        tls.enable_early_data = self.options.early_data;
        Ok(client_config(quic_client(tls)?, Arc::new(self.options.client.build())))
    }

    /// The engine of the gateway's worker `worker`. A second one of the same worker knows nothing of
    /// the first one's connections, but can reset them.
    pub fn worker(&mut self, worker: u8) -> Engine {
        let secrets = self.secrets.clone();
        let mut config = self.engine_config(worker, secrets, Some(self.server.clone()));
        config.retry = self.options.retry;
        config.connections_max = self.options.connections_max;
        Engine::new(config)
    }

    /// The engine of a client.
    pub fn client(&mut self) -> Engine {
        let secrets = Secrets::from_rng(&mut self.rng);
        Engine::new(self.engine_config(0, secrets, None))
    }

    /// The one place where engines are set up.
    fn engine_config(
        &mut self,
        worker: u8,
        secrets: Secrets,
        server: Option<Arc<quinn_proto::ServerConfig>>,
    ) -> EngineConfig {
        let protection = self.options.protection[usize::from(server.is_none())];
        let mut config = EngineConfig::new(WorkerId(worker), secrets, server);
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        config.rng_seed = Some(seed);
        // Half of the engines fold their connections whenever they can.
        if seed[0].is_multiple_of(2) {
            config.rest_after = std::time::Duration::ZERO;
        }
        config.protection = protection;
        config
    }
}
