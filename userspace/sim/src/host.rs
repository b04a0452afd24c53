//! Engines with repeatable random numbers, and certificates of constant size.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::{Arc, OnceLock};
use tunnel::tls::{ClientAuth, TlsError, Verify, client_tls, quic_client, quic_server, server_tls};
use tunnel::transport::{TransportOptions, client_config, server_config};
use tunnel::{Engine, EngineConfig, Secrets, WorkerId};

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

/// Seeds the engines of one run.
pub struct Hosts {
    rng: StdRng,
    secrets: Secrets,
    server: Arc<quinn_proto::ServerConfig>,
    client: quinn_proto::ClientConfig,
}

impl Hosts {
    /// Hosts for one run, with the given transports.
    pub fn new(seed: u64, gateway: &TransportOptions, client: &TransportOptions) -> Result<Self, TlsError> {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x686f_7374);
        let secrets = Secrets::from_rng(&mut rng);
        let (certs, key) = identity();
        let tls = quic_server(server_tls(certs, key, ClientAuth::None)?)?;
        let server = Arc::new(server_config(tls, Arc::new(gateway.build()), &secrets));
        let tls = quic_client(client_tls(Verify::Insecure, None)?)?;
        let client = client_config(tls, Arc::new(client.build()));
        Ok(Self { rng, secrets, server, client })
    }

    /// The configuration that clients connect with. The random first CID stays out of the seed's
    /// reach, which does no harm: its length is constant.
    pub fn client_config(&self) -> quinn_proto::ClientConfig {
        self.client.clone()
    }

    /// The engine of the gateway's worker `worker`.
    pub fn worker(&mut self, worker: u8, tune: impl FnOnce(&mut EngineConfig)) -> Engine {
        let mut config = EngineConfig::new(WorkerId(worker), self.secrets.clone(), Some(self.server.clone()));
        config.rng_seed = Some(self.seed());
        tune(&mut config);
        Engine::new(config)
    }

    /// The engine of a client.
    pub fn client(&mut self) -> Engine {
        let mut config = EngineConfig::new(WorkerId(0), Secrets::from_rng(&mut self.rng), None);
        config.rng_seed = Some(self.seed());
        Engine::new(config)
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }
}
