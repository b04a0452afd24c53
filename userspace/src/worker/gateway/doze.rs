//! Tunnels that sleep, at the gateway: what a connection's setting and its end mean (see [`masque::sleep`]).

use super::Gateway;
use crate::worker::{
    account::Account,
    core::Core,
    session::{Session, Slot},
    sleepers::{Awake, Moved},
};
use masque::Event as H3Event;
use std::sync::Arc;
use tunnel::{CloseReason, ConnId};

impl Gateway {
    /// What a client says on its control stream. GOAWAY and MAX_PUSH_ID ask nothing of us: we push nothing.
    pub(super) fn heard(&mut self, core: &mut Core, conn: ConnId, events: &[H3Event]) {
        let id = events.iter().find_map(|event| match event {
            H3Event::Settings(settings) => settings.beam_sleep(),
            _ => None,
        });
        if let (Some(id), Some(session)) = (id, self.sessions.get_mut(&conn)) {
            session.tunnel_id = Some(id);
            self.note_awake(core, conn);
        }
    }

    /// Finds a connection's record, once both is known: which tunnel it is, and whose.
    pub(super) fn note_awake(&mut self, core: &mut Core, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&conn).filter(|session| session.awake.is_none()) else {
            return;
        };
        let Some(id) = session.tunnel_id else { return };
        let account: Arc<Account> = match (&session.membership, &session.identity) {
            (Some(membership), _) => membership.member().account.clone(),
            (None, Some(identity)) => self.config.accounts.of(&identity.name),
            (None, None) => return,
        };
        let awake = self.config.sleepers.begin(core.now, &account, id);
        if awake.woke {
            tracing::debug!("a tunnel of {} is awake", account.name);
        }
        session.awake = Some(Box::new(awake));
    }

    /// A connection has ended: its tunnel sleeps, or has ended with it.
    pub(super) fn left(&self, core: &mut Core, conn: ConnId, session: &Session, reason: &CloseReason) {
        let Some(awake) = &session.awake else { return };
        // A client that has forgotten its connection says so when a late packet of ours reaches it.
        let in_silence = matches!(reason, CloseReason::TimedOut | CloseReason::Reset);
        let is_idle = session.slots.values().all(|slot| matches!(slot, Slot::Uni));
        if in_silence && is_idle {
            self.config.sleepers.lapse(core.now, awake, moved(core, conn));
        } else {
            self.config.sleepers.end(awake);
        }
    }

    /// A connection's tunnel, where it may sleep: its id, and what it has moved so far.
    pub(in crate::worker) fn dozer(&self, conn: ConnId) -> Option<&Awake> {
        self.sessions.get(&conn)?.awake.as_deref()
    }
}

/// What a connection has moved.
fn moved(core: &mut Core, conn: ConnId) -> Moved {
    let (tx_bytes, rx_bytes) = core.engine.moved_by(conn).unwrap_or_default();
    Moved { tx_bytes, rx_bytes, flows_opened: core.flows_opened_on(conn) }
}
