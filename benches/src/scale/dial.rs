//! How tunnels are made: TLS that trusts the gateway's certificate, and transports that are small.

use super::{ask::Wanted, sources::Sources, tickets::Tickets};
use anyhow::Result;
use quinn_proto::{ClientConfig, NoneTokenStore};
use rustls::client::Resumption;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tunnel::{
    tls::{self, Fingerprint, Verify},
    transport::TransportOptions,
};

/// Streams of the gateway's: HTTP/3's three.
pub(super) const GATEWAY_STREAMS: u32 = 3;

/// How tunnels are made.
#[derive(Clone, Debug)]
pub(super) struct FleetConfig {
    /// Where the gateway listens.
    pub(super) gateway: SocketAddr,
    /// Its certificate.
    pub(super) pin: Fingerprint,
    /// Addresses that tunnels come from.
    pub(super) sources: Sources,
    /// Kernel sockets that they share.
    pub(super) sockets: u16,
    /// What requests are for.
    pub(super) wanted: Wanted,
    /// Interval of keep-alives.
    pub(super) keep_alive: Option<Duration>,
    /// Tunnels from this number on sleep: they announce this idle timeout, and lapse when they were silent for so long.
    /// All then keep their tickets and tokens, and use them for early data.
    pub(super) sleepers: Option<(u32, Duration)>,
}

impl FleetConfig {
    /// For tunnels that live, and for those that sleep.
    pub(super) fn clients(&self, tickets: &Arc<Tickets>) -> Result<(ClientConfig, ClientConfig)> {
        let mut tls = tls::client_tls(Verify::Pin(self.pin), None)?;
        if self.sleepers.is_some() {
            tls.resumption = Resumption::store(tickets.clone());
            tls.enable_early_data = true;
            // The names are for these stores alone: clients of one gateway call it by one name, or by its address.
            tls.enable_sni = false;
        }
        let quic = Arc::new(tls::quic_client(tls)?);
        let client = |options: &TransportOptions| {
            let mut client = ClientConfig::new(quic.clone());
            client.transport_config(Arc::new(options.build()));
            match self.sleepers {
                Some(_) => client.token_store(tickets.clone()),
                None => client.token_store(Arc::new(NoneTokenStore)),
            };
            client
        };
        let live = TransportOptions {
            // Small enough for a hundred thousand.
            uni_streams: GATEWAY_STREAMS,
            stream_window_bytes: 64 << 10,
            connection_window_bytes: 256 << 10,
            send_window_bytes: 256 << 10,
            datagram_buffer_bytes: 16 << 10,
            mtu_max_bytes: 1200,
            keep_alive: self.keep_alive,
            ..TransportOptions::client()
        };
        let lapse = self.sleepers.map_or(live.idle_timeout, |(_, lapse)| lapse);
        let sleeper = TransportOptions { idle_timeout: lapse, keep_alive: None, ..live.clone() };
        Ok((client(&live), client(&sleeper)))
    }
}
