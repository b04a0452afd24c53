//! Taking back what was granted: a new configuration, and `beam kick`.
//!
//! Nothing of a client that may still do what it does is touched: its connections live on, its flows move on, and its
//! new limits hold from the next flow and the next token on.

use super::{Gateway, GatewayConfig};
use crate::{
    cli::Destination,
    worker::{
        core::{Core, End},
        ledger::FlowPermit,
        mail::Who,
        poll::FlowKey,
        session::{Session, abandon, quic_code},
        udp::{Gone, Outside},
    },
};
use ::upstream::users::ClientPolicy;
use masque::Code;
use std::{collections::HashMap, net::SocketAddr, sync::Arc};
use tunnel::ConnId;

/// What a new configuration cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked {
    pub(crate) connections: u64,
    pub(crate) flows: u64,
}

impl GatewayConfig {
    /// Does what the client once showed still open this gateway?
    fn still_admits(&self, session: &Session) -> bool {
        if let Some(identity) = &session.identity
            && !self.still_recognises(session, identity)
        {
            return false;
        }
        let Some(membership) = &session.membership else { return true };
        let name = membership.client();
        if self.client_policy(name).disabled {
            return false;
        }
        match &session.token {
            None => true,
            Some(hash) => {
                let owner = self.users.as_ref().and_then(|users| users.owner(hash));
                owner.is_some_and(|owner| owner.name == *name)
            }
        }
    }
}

impl Gateway {
    /// Works by another configuration from now on.
    pub(in crate::worker) fn configure(&mut self, core: &mut Core, config: Arc<GatewayConfig>) -> Revoked {
        let old = std::mem::replace(&mut self.config, config);
        let is_new_policy = old.policy != self.config.policy;
        let mut changed = HashMap::new();
        for member in core.ledger.members() {
            let name = &member.account.name;
            let policy = self.config.client_policy(name);
            member.account.limit(&policy);
            if is_new_policy || *old.client_policy(name) != *policy {
                changed.insert(name.clone(), policy);
            }
        }
        let gone = self.connections_of(|session| !self.config.still_admits(session));
        let connections = self.dismiss(core, gone, b"this client is no longer admitted");
        let networks = self.cut_networks(core) + self.narrow_networks(core);
        let listens_and_networks = self.revoke_listens(core) + networks;
        let flows = self.cut_forbidden(core, &changed) + listens_and_networks;
        self.forget_sleepers(&old);
        core.totals.closed_revoked += connections;
        core.totals.flows_revoked += flows;
        Revoked { connections, flows }
    }

    /// The sleepers of clients that are no longer let in go: of those that the users file no longer has or has disabled; and
    /// all, with other authorities. Who has another token wakes by that, or not at all.
    fn forget_sleepers(&self, old: &GatewayConfig) {
        let is_new_ca = old.authorities.file != self.config.authorities.file;
        let has = |config: &GatewayConfig, name: &str| {
            config.users.as_ref().is_some_and(|users| users.policies().any(|(of, _)| **of == *name))
        };
        for account in self.config.accounts.all().iter().filter(|account| account.asleep.count() > 0) {
            let name = &account.name;
            let is_gone = || has(old, name) && !has(&self.config, name);
            if is_new_ca || self.config.client_policy(name).disabled || is_gone() {
                self.config.sleepers.forget(account);
            }
        }
    }

    /// Closes the connections of one client, or one connection. How many.
    pub(in crate::worker) fn kick(&mut self, core: &mut Core, who: &Who) -> u64 {
        let gone = self.meant(who);
        let kicked = self.dismiss(core, gone, b"the operator closed this connection");
        core.totals.closed_kicked += kicked;
        kicked
    }

    /// The connections of one client, or one connection.
    pub(in crate::worker) fn meant(&self, who: &Who) -> Vec<ConnId> {
        match who {
            Who::Client(name) => {
                let of_it = |session: &Session| {
                    session.membership.as_ref().is_some_and(|membership| membership.client() == name)
                };
                self.connections_of(of_it)
            }
            Who::Connection(conn) => self.sessions.contains_key(conn).then_some(*conn).into_iter().collect(),
        }
    }

    fn connections_of(&self, which: impl Fn(&Session) -> bool) -> Vec<ConnId> {
        self.sessions.iter().filter(|(_, session)| which(session)).map(|(&conn, _)| conn).collect()
    }

    fn dismiss(&self, core: &mut Core, gone: Vec<ConnId>, why: &[u8]) -> u64 {
        let mut closed = 0;
        for conn in gone {
            // One that is closing already counts for nothing.
            if let Some(mut quic) = core.engine.connection(conn).filter(|quic| !quic.is_closed()) {
                quic.close(quic_code(Code::H3_NO_ERROR), why);
                closed += 1;
            }
        }
        closed
    }

    /// Resets running flows of these clients to where they may not go any more.
    fn cut_forbidden(&mut self, core: &mut Core, changed: &HashMap<Arc<str>, Arc<ClientPolicy>>) -> u64 {
        let policy_of =
            |permit: &Option<FlowPermit>| permit.as_ref().and_then(|permit| changed.get(permit.client()));
        let forbidden = core.flows.select(|flow| {
            let peer = || flow.socket.peer_addr().ok().and_then(|peer| peer.as_socket());
            policy_of(&flow.permit).is_some_and(|policy| !self.permits(policy, &flow.to, peer()))
        });
        let forbidden_udp = core.udp.keys(|flow| match flow.outside {
            Outside::Upstream { remote, .. } => {
                policy_of(&flow.permit).is_some_and(|policy| !self.permits(policy, &flow.to, Some(remote)))
            }
            Outside::Local { .. } => false,
        });
        let count = forbidden.len() + forbidden_udp.len();
        forbidden.into_iter().for_each(|key| self.cut(core, key));
        forbidden_udp.into_iter().for_each(|key| self.end_udp(core, key, &Gone::Refused));
        count as u64
    }

    /// Without a peer, it is connecting still.
    fn permits(&self, policy: &ClientPolicy, to: &str, peer: Option<SocketAddr>) -> bool {
        let Ok(Destination { host, port }) = to.parse() else { return true };
        match peer {
            Some(peer) => policy.check(&self.config.policy, Some(&host), peer).is_ok(),
            None => policy.check_name_possible(&self.config.policy, &host, port).is_ok(),
        }
    }

    /// Whether a flow that has just connected may go where it went, by the policy of now.
    pub(super) fn still_permits(&self, core: &mut Core, key: FlowKey) -> bool {
        let Some(flow) = core.flows.get_mut(key) else { return true };
        let Some(permit) = &flow.permit else { return true };
        let peer = flow.socket.peer_addr().ok().and_then(|peer| peer.as_socket());
        self.permits(&self.config.client_policy(permit.client()), &flow.to, peer)
    }

    fn cut(&mut self, core: &mut Core, key: FlowKey) {
        if let Some((conn, stream)) = core.flows.get_mut(key).and_then(|flow| flow.on) {
            if let Some(mut quic) = core.engine.connection(conn) {
                abandon(&mut quic, stream, Code::H3_CONNECT_ERROR);
            }
            self.forget_stream(conn, stream);
        }
        core.end_flow(key, End::Reset);
    }
}
