//! Transport parameters, sized on a worksheet, and the server configuration without its fat.
//!
//! # Worksheet
//! Windows bound memory and speed alike. One stream carries at most `stream window / RTT`, one
//! connection `connection window / RTT`; a sender holds at most `send window`.
//!
//! | | gateway | client | at 10 ms | at 30 ms | at 60 ms |
//! |---|---|---|---|---|---|
//! | stream receive window | 4 MiB | 8 MiB | 3.3 / 6.7 Gbit/s | 1.1 / 2.2 | 0.56 / 1.1 |
//! | connection receive window | 8 MiB | 16 MiB | 6.7 / 13 | 2.2 / 4.4 | 1.1 / 2.2 |
//! | … and for each open flow, up to 32 | 4 MiB | 8 MiB | | | |
//! | send window | 8 MiB | 8 MiB | 6.7 | 2.2 | 1.1 |
//! | datagram buffers, each way | 512 KiB | 1 MiB | | | |
//!
//! A flow whose reader stands still fills its stream window and keeps that much of the connection's; two such flows would
//! stop all others of their tunnel. So each open flow brings its own share with it
//! ([`TransportOptions::connection_window_for`]), up to a limit, beyond which stalled flows do hold others up.
//!
//! Worst case of one gateway connection, all windows full and nothing read: 8 + 8 + 0.5 + 0.5 =
//! 17 MiB, and 4 MiB for each open flow: 145 MiB at most, of which a client that has opened no flow
//! (and so has not authenticated) can take 17. Idle, windows cost nothing. Under memory pressure lower them connection by connection:
//! `ConnMut::set_receive_window`, `set_send_window`.
//!
//! Streams: quinn keeps a map entry for each *permitted* remote stream (100 + 100 by default, 8.6 KB
//! a connection; 4 + 3, all that the smallest map has
//! room for: 0.4 KB), so few are permitted at first. Once half of them are open, the engine permits four times
//! as many as are open: a hundred flows at once have their streams after two round trips.
//!
//! ACK frequency: 830 ns to build an ACK and 920 to consume it, each second packet by default. Peers
//! that know the extension (our own ends) are asked for one each 10 packets or 5 ms, and at once
//! upon reordering. The start window is 10 packets, so slow start is not held up.

use crate::config::Secrets;
use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::crypto;
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, IdleTimeout, MtuDiscoveryConfig, NoneTokenLog, NoneTokenStore,
    ServerConfig, TokenLog, TokenStore, TransportConfig, ValidationTokenConfig, VarInt,
};
use std::sync::Arc;
use std::time::Duration;

/// Flows of one connection that bring their own share of its receive window.
const FLOWS_WITH_A_SHARE_MAX: u32 = 32;

/// Bidirectional streams that a gateway permits a client that hasn't shown who it is, at most.
pub const STRANGER_STREAMS_MAX: u32 = 32;

/// Which congestion controller paces a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// The default, and fair to TCP.
    #[default]
    Cubic,
    /// Rides over random loss. quinn's is the first version, and experimental.
    Bbr,
    /// The RFC 9002 reference.
    NewReno,
}

/// Knobs of one end's transport. Start from [`gateway`](Self::gateway) or [`client`](Self::client).
#[derive(Clone, Debug)]
pub struct TransportOptions {
    /// Bytes that a peer may have outstanding on one stream.
    pub stream_window_bytes: u32,
    /// Bytes that a peer may have outstanding on all streams, while no flow is open.
    pub connection_window_bytes: u32,
    /// Bytes written and not yet acknowledged, all streams.
    pub send_window_bytes: u64,
    /// Bidirectional streams that the peer may have open, to begin with.
    pub bidi_streams: u32,
    /// Unidirectional streams that the peer may have open, to begin with.
    pub uni_streams: u32,
    /// Bytes of QUIC datagrams buffered, each way.
    pub datagram_buffer_bytes: usize,
    /// UDP payload that path MTU discovery tries to reach; it starts from 1200.
    pub mtu_max_bytes: u16,
    /// A connection that heard nothing for so long is dropped.
    pub idle_timeout: Duration,
    /// Interval of keep-alives when idle.
    pub keep_alive: Option<Duration>,
    /// The congestion controller.
    pub congestion: Congestion,
    /// Packets that one ACK covers, asked of peers that know the extension; `None` asks nothing.
    pub ack_each_packets: Option<u32>,
}

impl TransportOptions {
    /// For the accepting side: bounded per connection, since there are many.
    pub fn gateway() -> Self {
        Self {
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 8 << 20,
            send_window_bytes: 8 << 20,
            bidi_streams: 4,
            // RFC 9114 section 6.2: at least three.
            uni_streams: 3,
            datagram_buffer_bytes: 512 << 10,
            mtu_max_bytes: 1452,
            // So that a client may sleep after a minute of silence: see masque's `sleep`.
            idle_timeout: Duration::from_secs(62),
            keep_alive: None,
            congestion: Congestion::Cubic,
            ack_each_packets: Some(10),
        }
    }

    /// For the opening side: few connections, larger windows, and it keeps the NAT open.
    pub fn client() -> Self {
        Self {
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 16 << 20,
            // HTTP/3 servers open no bidirectional streams (RFC 9114 6.1).
            bidi_streams: 0,
            idle_timeout: Duration::from_secs(60),
            datagram_buffer_bytes: 1 << 20,
            keep_alive: Some(Duration::from_secs(25)),
            ..Self::gateway()
        }
    }

    /// The connection's receive window while `flow_count` flows are open: see the worksheet.
    pub fn connection_window_for(&self, flow_count: u32) -> u32 {
        let shares = flow_count.min(FLOWS_WITH_A_SHARE_MAX).saturating_mul(self.stream_window_bytes);
        self.connection_window_bytes.saturating_add(shares)
    }

    /// quinn's form of it.
    pub fn build(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        let congestion: Arc<dyn ControllerFactory + Send + Sync> = match self.congestion {
            Congestion::Cubic => Arc::new(CubicConfig::default()),
            Congestion::Bbr => Arc::new(BbrConfig::default()),
            Congestion::NewReno => Arc::new(NewRenoConfig::default()),
        };
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_max_bytes.max(1200));
        let idle = IdleTimeout::try_from(self.idle_timeout).unwrap_or(VarInt::from_u32(u32::MAX).into());
        transport
            .stream_receive_window(self.stream_window_bytes.into())
            .receive_window(self.connection_window_bytes.into())
            .send_window(self.send_window_bytes)
            .max_concurrent_bidi_streams(self.bidi_streams.into())
            .max_concurrent_uni_streams(self.uni_streams.into())
            .datagram_receive_buffer_size(Some(self.datagram_buffer_bytes))
            .datagram_send_buffer_size(self.datagram_buffer_bytes)
            .initial_mtu(1200)
            .mtu_discovery_config((self.mtu_max_bytes > 1200).then_some(discovery))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(self.keep_alive)
            .congestion_controller_factory(congestion)
            .ack_frequency_config(self.ack_each_packets.map(ack_frequency));
        transport
    }
}

fn ack_frequency(each_packets: u32) -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config
        // The threshold is how many may stay unacknowledged.
        .ack_eliciting_threshold(each_packets.saturating_sub(1).into())
        .max_ack_delay(Some(Duration::from_millis(5)));
    config
}

/// A lean server configuration: no NEW_TOKEN, no token log, small buffers for waiting Initials.
///
/// The incoming limits here are the endpoint's own; the engine's queue is stricter in count.
pub fn server_config(
    tls: impl crypto::ServerConfig + 'static,
    transport: Arc<TransportConfig>,
    secrets: &Secrets,
) -> ServerConfig {
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0).log(Arc::new(NoneTokenLog));
    let mut server = ServerConfig::new(Arc::new(tls), secrets.token_prk());
    server
        .transport_config(transport)
        .validation_token_config(tokens)
        .retry_token_lifetime(Duration::from_secs(15))
        .migration(true)
        .max_incoming(16_384)
        // A large ClientHello needs two or three datagrams; more can be sent again.
        .incoming_buffer_size(16 << 10)
        .incoming_buffer_size_total(16 << 20);
    server
}

/// How long an address-validation token is good for.
const NEW_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Has a server give each client a token that proves its address at the next connection: early data then meets no
/// three-times limit, and no Retry. `used` keeps a token from proving an address twice.
pub fn with_new_tokens(mut server: ServerConfig, used: Arc<dyn TokenLog>) -> ServerConfig {
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(1).lifetime(NEW_TOKEN_LIFETIME).log(used);
    server.validation_token_config(tokens);
    server
}

/// A lean client configuration: no store of address-validation tokens.
pub fn client_config(
    tls: impl crypto::ClientConfig + 'static,
    transport: Arc<TransportConfig>,
) -> ClientConfig {
    client_config_with_tokens(tls, transport, Arc::new(NoneTokenStore))
}

/// The same with such a store.
pub fn client_config_with_tokens(
    tls: impl crypto::ClientConfig + 'static,
    transport: Arc<TransportConfig>,
    tokens: Arc<dyn TokenStore>,
) -> ClientConfig {
    let mut client = ClientConfig::new(Arc::new(tls));
    client.transport_config(transport).token_store(tokens);
    client
}
