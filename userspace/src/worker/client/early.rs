//! Requests before the handshake is done: where they go, and what becomes of them where the gateway refuses them.
//!
//! A gateway that refuses early data has read none of it, and QUIC forgets its streams; so does the session. Whoever asked
//! has no answer, and has sent nothing but the question, so it is asked again.

use super::{Client, ClientConfig};
use crate::worker::{
    core::Core,
    session::{Session, client_h3_config},
};
use masque::TunnelId;
use tunnel::ConnId;

/// Where a stream can be opened.
pub(super) struct Way<'a> {
    pub(super) conn: ConnId,
    pub(super) session: &'a mut Session,
    /// The gateway has not spoken yet, and may refuse what is said.
    pub(super) early: bool,
    pub(super) going_away: bool,
}

impl Way<'_> {
    /// Nothing is asked on it.
    pub(super) fn is_free(&self) -> bool {
        self.session.request_count() == 0
    }

    /// Whether the gateway has said that it has this, now or when it gave the ticket.
    pub(super) fn offers(&self, what: fn(&masque::Settings) -> bool) -> bool {
        self.session.peer_settings().is_some_and(what)
    }
}

/// What came of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Established {
    /// A tunnel.
    Up,
    /// A tunnel, but the gateway has refused the early data: no stream of it exists any more.
    UpAnew,
    /// Nothing.
    Nothing,
}

impl Client {
    /// A handshake is done on our side.
    pub(super) fn connected(&mut self, core: &mut Core, conn: ConnId) {
        let begun = self.pool.handshake_on(conn);
        let established = self.pool.connected(core, conn);
        self.probe_connected(core.now, begun, established);
        if established == Established::UpAnew {
            core.totals.early_refused += 1;
            tracing::debug!("the gateway refused early data: asking again");
            self.ask_again(core, conn);
        }
        if established != Established::Nothing {
            self.ask_all_waiting(core);
        }
    }

    /// Opens streams for all who wait, as far as there is somewhere to ask.
    pub(super) fn ask_all_waiting(&mut self, core: &mut Core) {
        self.ask_waiting(core);
        self.ask_udp_waiting(core);
        self.greet(core);
    }

    /// What was asked in early data came to nothing: those who asked wait again, in front of the others. None of them has
    /// an answer, nor has sent more than the question.
    pub(super) fn ask_again(&mut self, core: &mut Core, conn: ConnId) {
        self.ask_flows_again(core, conn);
        self.ask_udp_again(core, conn);
        self.probe_again(conn);
    }
}

/// A session in early data, where a ticket permits it.
pub(super) fn early_session(
    core: &mut Core,
    config: &ClientConfig,
    conn: ConnId,
    id: Option<TunnelId>,
) -> Option<Box<Session>> {
    let mut quic = core.engine.connection(conn).filter(|quic| quic.has_early_data())?;
    let h3 = masque::Connection::client(client_h3_config(id)).remembering(config.early.settings.get());
    match Session::open(h3, &mut quic) {
        Ok(session) => Some(Box::new(session)),
        Err(error) => {
            // The remembered limits were too narrow; those of the handshake may be wider.
            tracing::debug!("no early data: {error}");
            None
        }
    }
}
