//! What flows through tunnels are connected to: says one byte, and ends.

use anyhow::{Context, Result};
use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A listener with a thread of its own, for as long as the process lives.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    accepted: Arc<AtomicU64>,
}

impl Origin {
    /// Listens.
    ///
    /// # Errors
    /// If that address can't be had.
    pub fn start(on: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(on).with_context(|| format!("the origin can't listen on {on}"))?;
        let address = listener.local_addr()?;
        let accepted = Arc::<AtomicU64>::default();
        let counted = accepted.clone();
        std::thread::Builder::new().name("origin".into()).spawn(move || {
            for stream in listener.incoming() {
                // Whoever is gone already wanted nothing; the gateway tells the tunnel.
                let Ok(mut stream) = stream else { continue };
                counted.fetch_add(1, Relaxed);
                let _ = stream.write_all(b"!");
            }
        })?;
        Ok(Self { address, accepted })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }
}
