//! What a gateway reads again on SIGHUP and `beam reload`: the users file, the certificate and the authorities.
//!
//! Flags stay as they were at the start. Everything is read and built before anything is replaced, so that a bad file
//! changes nothing. A self-signed certificate is kept: a new one would break every pin.

use crate::{cli::ServeArgs, early::AtGateway, failure::Failure, identity, serve, worker::GatewayConfig};
use rustls::pki_types::CertificateDer;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use tunnel::{Secrets, tls::Fingerprint};
use upstream::users::Users;

/// The parts of a running gateway that can be built anew.
pub(crate) struct Reloader {
    args: ServeArgs,
    secrets: Secrets,
    early: Arc<AtGateway>,
    /// Where it isn't from files.
    self_signed: Option<identity::Credentials>,
    current: Mutex<Loaded>,
}

/// One complete configuration.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) config: Arc<GatewayConfig>,
    pub(crate) server: Arc<quinn_proto::ServerConfig>,
    pub(crate) fingerprint: Fingerprint,
    /// The gateway's certificate.
    pub(crate) leaf: CertificateDer<'static>,
}

/// What differs between two configurations, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference(String);

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Reloader {
    /// Reads everything for the first time.
    pub(crate) fn start(args: ServeArgs, secrets: Secrets, early: Arc<AtGateway>) -> Result<Self, Failure> {
        let credentials = identity::gateway(&args)?;
        let leaf = credentials.chain[0].clone();
        let fingerprint = Fingerprint::of(&leaf);
        let self_signed = args.tls_cert.is_none().then(|| credentials.clone());
        let users = serve::users(&args)?;
        let server = serve::quic_server(&args, credentials, &secrets, &early, users.as_ref())?;
        let config = Arc::new(serve::gateway_config(&args, users)?);
        let current = Mutex::new(Loaded { config, server, fingerprint, leaf });
        Ok(Self { args, secrets, early, self_signed, current })
    }

    /// The configuration in use.
    pub(crate) fn current(&self) -> Loaded {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The flags of the start.
    pub(crate) fn args(&self) -> &ServeArgs {
        &self.args
    }

    /// Reads everything again. With an error, nothing has changed. One reload runs at a time: `install` is called while
    /// no other can begin.
    pub(crate) fn reload<T>(&self, install: impl FnOnce(&Loaded) -> T) -> Result<(Difference, T), Failure> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let credentials = match &self.self_signed {
            Some(credentials) => credentials.clone(),
            None => identity::gateway(&self.args)?,
        };
        let leaf = credentials.chain[0].clone();
        let fingerprint = Fingerprint::of(&leaf);
        let users = serve::users(&self.args)?;
        let server = serve::quic_server(&self.args, credentials, &self.secrets, &self.early, users.as_ref())?;
        let config = Arc::new(current.config.renewed(users, serve::authorities(&self.args)?));
        let new = Loaded { config, server, fingerprint, leaf };
        let difference = Difference::between(&current, &new);
        *current = new.clone();
        Ok((difference, install(&new)))
    }
}

impl Difference {
    fn between(old: &Loaded, new: &Loaded) -> Self {
        let users = users_difference(old.config.users.as_ref(), new.config.users.as_ref());
        let certificate = if old.fingerprint == new.fingerprint {
            "the certificate is the same".to_owned()
        } else {
            format!("new certificate, fingerprint {}", new.fingerprint)
        };
        Self(format!("{users}; {certificate}"))
    }
}

/// How many came, went, and may do something else now.
fn users_difference(old: Option<&Users>, new: Option<&Users>) -> String {
    let (Some(old), Some(new)) = (old, new) else { return "no users file".to_owned() };
    let names = |users: &Users| users.policies().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
    let (before, after) = (names(old), names(new));
    let added = after.difference(&before).count();
    let removed = before.difference(&after).count();
    let both = after.intersection(&before);
    let changed = both.filter(|name| old.policy(name) != new.policy(name)).count();
    format!(
        "{} client(s) in the users file: {added} added, {removed} removed, {changed} changed",
        after.len()
    )
}
