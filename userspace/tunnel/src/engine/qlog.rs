//! A qlog for each connection that begins while somebody wants one.
//!
//! quinn takes the log with the transport's configuration, and that is a connection's own: a server may accept each
//! connection with another one. It can't be copied, so it is built anew from the options.

use super::Engine;
use crate::transport::TransportOptions;
use quinn_proto::{ClientConfig, ConnectionId, Incoming, QlogConfig, QlogStream, ServerConfig};
use rand::RngExt;
use std::{io::Write, sync::Arc, time::Instant};

/// Opens the log of the connection whose original destination CID this is; `None`: it has none.
type Open = dyn Fn(&[u8]) -> Option<Box<dyn Write + Send + Sync>> + Send;

/// Where logs go.
pub struct Qlog {
    /// What the connections' transport is built from.
    pub transport: TransportOptions,
    /// Times in the logs are relative to this.
    pub epoch: Instant,
    /// What opens a log.
    pub open: Box<Open>,
}

impl Qlog {
    fn stream(&self, odcid: &[u8]) -> Option<QlogStream> {
        let mut config = QlogConfig::default();
        config.writer((self.open)(odcid)?).start_time(self.epoch);
        config.into_stream()
    }
}

impl Engine {
    /// Gives connections that begin from now on a log, or doesn't any longer.
    pub fn set_qlog(&mut self, qlog: Option<Qlog>) {
        self.qlog = qlog;
    }

    pub(super) fn logged_server(&self, incoming: &Incoming) -> Option<Arc<ServerConfig>> {
        let qlog = self.qlog.as_ref()?;
        let stream = qlog.stream(incoming.orig_dst_cid())?;
        let mut transport = qlog.transport.build();
        transport.qlog_stream(Some(stream));
        let mut server = ServerConfig::clone(self.server.as_ref()?);
        server.transport_config(Arc::new(transport));
        Some(Arc::new(server))
    }

    pub(super) fn logged_client(&self, mut config: ClientConfig) -> ClientConfig {
        let Some(qlog) = &self.qlog else { return config };
        // As quinn would: unpredictable, and as long as it may be.
        let odcid: [u8; 20] = rand::rng().random();
        if let Some(stream) = qlog.stream(&odcid) {
            let mut transport = qlog.transport.build();
            transport.qlog_stream(Some(stream));
            config.transport_config(Arc::new(transport));
            config.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&odcid)));
        }
        config
    }
}
