//! Who asks, and what that client may do: a request's identity, its account, and its place among the client's flows.
//!
//! A connection belongs to one client, whose first good request claims it; it then counts among the client's
//! connections. One more than `max-connections` gets 429 for each request until a place is free: the newest is refused,
//! not the oldest closed, since two hosts with one token would otherwise close each other's tunnels for ever. A client
//! that vanished holds its place until its idle timeout.

use super::{Gateway, GatewayConfig, Refusal};
use crate::worker::{
    core::Core,
    ledger::{FlowPermit, Member, Membership},
    session::Session,
};
use ::upstream::users::{ClientPolicy, How, Identity, KeyHash, TokenHash};
use masque::{Credentials, Scheme, Via, status};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::{fmt, sync::Arc};
use tunnel::{
    ConnId,
    tls::{self, Fingerprint},
};

/// Streams of a client at once, once it has shown who it is.
pub(super) const STREAMS_MAX: u32 = 4096;

/// The client behind a request. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::worker) struct Asker {
    pub(in crate::worker) identity: Identity,
    /// What it may do, by the users file of the time of the request.
    pub(in crate::worker) policy: Arc<ClientPolicy>,
    /// Its numbers on this worker.
    pub(in crate::worker) member: Arc<Member>,
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

impl Asker {
    /// Counts one flow more of this client, for as long as the permit lives.
    pub(in crate::worker) fn open_flow(&self, core: &mut Core) -> Result<FlowPermit, Refusal> {
        FlowPermit::take(&self.member).ok_or_else(|| {
            core.totals.refused_limit += 1;
            tracing::debug!("{self} has as many flows as it may");
            Refusal::limit("the client has as many flows as it may")
        })
    }
}

impl Refusal {
    /// 429: a limit of the client's, which may be gone soon.
    pub(in crate::worker) fn limit(why: &str) -> Self {
        let proxy_status = format!("beam; error=connection_limit_reached; details=\"{why}\"");
        let fields = vec![("retry-after", "1".to_owned()), ("proxy-status", proxy_status)];
        Self { status: status::TOO_MANY_REQUESTS, fields }
    }
}

/// The authorities that verify client certificates.
#[derive(Clone, Default)]
pub(crate) struct Authorities {
    /// The bytes of `--client-ca`, which tell one set from another; empty without.
    pub(crate) file: Arc<[u8]>,
    pub(crate) judge: Option<tls::Authorities>,
}

impl GatewayConfig {
    /// Whom a connection's certificate shows, and by which key of the users file, if by one.
    ///
    /// The chain is judged again, although the handshake did so: of a resumed session, or one that began before a reload,
    /// it may have been let in for a key that is no longer in the users file, and then the name in it is its owner's
    /// invention.
    pub(super) fn recognise(&self, chain: &[CertificateDer<'_>]) -> Option<(Identity, Option<KeyHash>)> {
        let leaf = chain.first()?;
        let key = Fingerprint::of_key(leaf).map(|fingerprint| KeyHash(fingerprint.0));
        let owner = key.and_then(|key| self.users.as_ref()?.key_owner(&key));
        if let Some(owner) = owner {
            return Some((owner.clone(), key));
        }
        let judge = self.authorities.judge.as_ref()?;
        let name = judge.signed(chain, UnixTime::now()).then(|| (self.certificate_name)(leaf))??;
        Some((Identity { name: name.into(), how: How::Certificate }, None))
    }

    /// Would that certificate be recognised as the same client's today?
    pub(super) fn still_recognises(&self, session: &Session, identity: &Identity) -> bool {
        match &session.key {
            Some(key) => {
                let owner = self.users.as_ref().and_then(|users| users.key_owner(key));
                owner.is_some_and(|owner| owner.name == identity.name)
            }
            // Whoever changes the authorities doesn't want those that the old ones let in.
            None => session.authorities == self.authorities.file,
        }
    }

    /// What the client of that name may do.
    pub(crate) fn client_policy(&self, name: &str) -> Arc<ClientPolicy> {
        self.users.as_ref().map_or_else(Arc::default, |users| users.policy(name).clone())
    }
}

impl Gateway {
    /// The client that asks: by its certificate, else by its token. The first request claims the connection for it.
    pub(super) fn identify(
        &mut self,
        core: &mut Core,
        conn: ConnId,
        credentials: Option<&Credentials>,
    ) -> Result<Asker, Refusal> {
        let by_certificate = self.sessions.get(&conn).and_then(|session| session.identity.clone());
        let (identity, token) = match by_certificate {
            Some(identity) => (identity, None),
            None => {
                let known = self.by_token(credentials);
                known.map(|(identity, hash)| (identity, Some(hash))).ok_or_else(|| {
                    core.totals.refused_unauthenticated += 1;
                    unauthenticated(credentials)
                })?
            }
        };
        let policy = self.config.client_policy(&identity.name);
        if policy.disabled {
            core.totals.refused_unauthenticated += 1;
            return Err(Refusal::new(status::FORBIDDEN));
        }
        let member = self.claim(core, conn, &identity, &policy, token)?;
        Ok(Asker { identity, policy, member })
    }

    fn by_token(&self, credentials: Option<&Credentials>) -> Option<(Identity, TokenHash)> {
        let credentials = credentials.filter(|credentials| credentials.scheme == Scheme::Bearer)?;
        let hash = TokenHash::of(std::str::from_utf8(credentials.token.expose()).ok()?)?;
        Some((self.config.users.as_ref()?.owner(&hash)?.clone(), hash))
    }

    /// The connection is this client's from now on, unless it is another's, or one too many.
    fn claim(
        &mut self,
        core: &mut Core,
        conn: ConnId,
        identity: &Identity,
        policy: &ClientPolicy,
        token: Option<TokenHash>,
    ) -> Result<Arc<Member>, Refusal> {
        let Some(session) = self.sessions.get_mut(&conn) else {
            return Err(Refusal::new(status::BAD_REQUEST));
        };
        if let Some(membership) = &session.membership {
            if *membership.client() == identity.name {
                // Each request shows its token anew: the last one counts, should a reload ask.
                session.token = token;
                return Ok(membership.member().clone());
            }
            core.totals.refused_other_client += 1;
            return Err(Refusal::new(status::MISDIRECTED_REQUEST));
        }
        let member = core.ledger.member(&self.config.accounts, &identity.name, policy);
        let Some(membership) = Membership::take(&member) else {
            core.totals.refused_limit += 1;
            tracing::debug!("{identity} has as many connections as it may");
            return Err(Refusal::limit("the client has as many connections as it may"));
        };
        session.membership = Some(membership);
        session.token = token;
        tracing::debug!("{identity} has a tunnel");
        if let Some(mut quic) = core.engine.connection(conn) {
            quic.permit_streams(STREAMS_MAX);
        }
        self.note_awake(core, conn);
        Ok(member)
    }
}

/// 407 only to a client that speaks to us as its proxy (cli.md).
fn unauthenticated(credentials: Option<&Credentials>) -> Refusal {
    let (status, challenge) = match credentials.map(|credentials| credentials.via) {
        Some(Via::ProxyAuthorization) => (status::PROXY_AUTHENTICATION_REQUIRED, "proxy-authenticate"),
        Some(Via::Authorization) | None => (status::UNAUTHORIZED, "www-authenticate"),
    };
    Refusal { status, fields: vec![(challenge, "Bearer".to_owned())] }
}
