//! What a gateway reads again on SIGHUP and `beam reload`: the configuration file, the users file, the certificate and the
//! authorities.
//!
//! Everything is read and built before anything is replaced, so that a bad file changes nothing. Flags of [`LIVE`] take
//! their new values; others need a restart, which is said, and keep the old ones. A self-signed certificate is kept: a new
//! one would break every pin.

use crate::{
    cli::{Cli, ServeArgs, Verb},
    config,
    early::AtGateway,
    failure::Failure,
    identity, serve,
    settings::{self, Setting},
    worker::GatewayConfig,
};
use anyhow::anyhow;
use rustls::pki_types::CertificateDer;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use tunnel::{Secrets, tls::Fingerprint};
use upstream::users::Users;

/// The keys whose values a running gateway takes over.
const LIVE: [&str; 15] = [
    "allow",
    "allow-listen",
    "cc",
    "client-ca",
    "deny",
    "drain-timeout",
    "max-connections",
    "memory-limit",
    "max-sleeping",
    "retry",
    "self-signed",
    "tls-cert",
    "tls-key",
    "udp-idle-timeout",
    "users",
];

/// `args` with the values that [`LIVE`] names from `new`.
fn adopted(args: &ServeArgs, new: ServeArgs) -> ServeArgs {
    ServeArgs {
        allow: new.allow,
        allow_listen: new.allow_listen,
        cc: new.cc,
        certificate: new.certificate,
        client_ca: new.client_ca,
        deny: new.deny,
        drain_timeout: new.drain_timeout,
        max_connections: new.max_connections,
        memory_limit: new.memory_limit,
        max_sleeping: new.max_sleeping,
        retry: new.retry,
        self_signed: new.self_signed,
        udp_idle_timeout: new.udp_idle_timeout,
        users: new.users,
        ..args.clone()
    }
}

/// The parts of a running gateway that can be built anew.
pub(crate) struct Reloader {
    secrets: Secrets,
    early: Arc<AtGateway>,
    /// Where it isn't from files.
    self_signed: Mutex<Option<identity::Credentials>>,
    current: Mutex<Loaded>,
}

/// One complete configuration.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) args: Arc<ServeArgs>,
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
        let self_signed = Mutex::new(args.certificate.tls_cert.is_none().then(|| credentials.clone()));
        let rules = serve::rules(&args)?;
        let server = serve::quic_server(&args, credentials, &secrets, &early, rules.users.as_ref())?;
        let config = Arc::new(serve::gateway_config(&args, rules)?);
        let current = Mutex::new(Loaded { args: Arc::new(args), config, server, fingerprint, leaf });
        Ok(Self { secrets, early, self_signed, current })
    }

    /// The configuration in use.
    pub(crate) fn current(&self) -> Loaded {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads everything again. With an error, nothing has changed. One reload runs at a time: `install` is called while
    /// no other can begin.
    pub(crate) fn reload<T>(&self, install: impl FnOnce(&Loaded) -> T) -> Result<(Difference, T), Failure> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Reread { cli, settings, changes } = reread()?;
        let Verb::Serve(args) = cli.verb else {
            return Err(Failure::Config(anyhow!("the command line is no gateway's")));
        };
        let args = adopted(&current.args, *args);
        let credentials = self.credentials(&args)?;
        let leaf = credentials.chain[0].clone();
        let fingerprint = Fingerprint::of(&leaf);
        let rules = serve::rules(&args)?;
        let server =
            serve::quic_server(&args, credentials, &self.secrets, &self.early, rules.users.as_ref())?;
        let config = Arc::new(current.config.renewed(rules));
        let new = Loaded { args: Arc::new(args), config, server, fingerprint, leaf };
        let difference = Difference::between(&current, &new, &changes);
        new.config.sleepers.set_max(new.args.max_sleeping);
        *current = new.clone();
        settings::remember(settings);
        Ok((difference, install(&new)))
    }

    /// Those of files are read again, a self-signed one stays what it was.
    fn credentials(&self, args: &ServeArgs) -> Result<identity::Credentials, Failure> {
        let mut self_signed = self.self_signed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*self_signed {
            Some(credentials) if args.certificate.tls_cert.is_none() && args.self_signed => {
                Ok(credentials.clone())
            }
            _ => {
                let credentials = identity::gateway(args)?;
                if args.certificate.tls_cert.is_none() {
                    *self_signed = Some(credentials.clone());
                }
                Ok(credentials)
            }
        }
    }
}

/// The configuration file, read again.
struct Reread {
    cli: Cli,
    /// What is in effect with it.
    settings: Vec<Setting>,
    changes: Changes,
}

/// Keys that read otherwise now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    taken: Vec<String>,
    /// They need a restart.
    kept: Vec<String>,
}

impl Changes {
    /// Of the flags of now and then. What is in effect: those of then, but for what needs a restart.
    fn between(old: &[Setting], new: Vec<Setting>, live: &[&str]) -> (Self, Vec<Setting>) {
        let mut changes = Self::default();
        let in_effect = |new: Setting| {
            let Some(old) = old.iter().find(|old| old.key == new.key && old.value != new.value) else {
                return new;
            };
            let is_live = live.contains(&new.key.as_str());
            let list = if is_live { &mut changes.taken } else { &mut changes.kept };
            list.push(new.key.clone());
            if is_live { new } else { old.clone() }
        };
        let in_effect = new.into_iter().map(in_effect).collect();
        (changes, in_effect)
    }

    /// In words; empty where nothing has changed.
    fn words(&self) -> String {
        let said = |what: &str, keys: &[String]| match keys {
            [] => String::new(),
            keys => format!("{what}: {}; ", keys.join(", ")),
        };
        said("changed", &self.taken) + &said("needs a restart, and is as before", &self.kept)
    }
}

fn reread() -> Result<Reread, Failure> {
    let line: Vec<_> = std::env::args_os().collect();
    let config::Loaded { cli, settings, .. } = config::load(&line)?;
    let (changes, settings) = Changes::between(&settings::raw(), settings, &LIVE);
    Ok(Reread { cli, settings, changes })
}

/// A client changes nothing while it runs: what would be otherwise after a restart.
pub(crate) fn of_client() -> Result<String, Failure> {
    let line: Vec<_> = std::env::args_os().collect();
    let config::Loaded { settings, .. } = config::load(&line)?;
    let (changes, _) = Changes::between(&settings::raw(), settings, &[]);
    Ok(match changes.words().trim_end_matches("; ") {
        "" => "the configuration is as before; a client takes no other without a restart".to_owned(),
        words => words.to_owned(),
    })
}

impl Difference {
    fn between(old: &Loaded, new: &Loaded, changes: &Changes) -> Self {
        let users = users_difference(old.config.users.as_ref(), new.config.users.as_ref());
        let certificate = if old.fingerprint == new.fingerprint {
            "the certificate is the same".to_owned()
        } else {
            format!("new certificate, fingerprint {}", new.fingerprint)
        };
        Self(format!("{}{users}; {certificate}", changes.words()))
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

#[cfg(test)]
mod tests {
    //! Goal: what changes while a gateway runs is told from what doesn't, and the settings that are shown are in effect.
    use super::*;
    use clap::CommandFactory as _;
    use std::collections::BTreeMap;

    fn settings(line: &str) -> Vec<Setting> {
        let command = Cli::command();
        let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
        settings::of_verb(&command, &matches, &BTreeMap::new())
    }

    #[test]
    fn live_keys_are_taken_and_others_kept() {
        let old = settings("beam serve --self-signed -l :1 --allow 10.0.0.0/8 --deny 10.1.0.0/16");
        let new = settings("beam serve --self-signed -l :2 --allow 10.0.0.0/9 --xdp off");
        let (changes, in_effect) = Changes::between(&old, new, &LIVE);
        assert_eq!(changes.taken, ["allow", "deny"]);
        assert_eq!(changes.kept, ["listen", "xdp"]);
        let value = |key: &str| &in_effect.iter().find(|setting| setting.key == key).unwrap().value;
        assert_eq!(
            [value("listen"), value("allow"), value("deny"), value("xdp")],
            [":1", "10.0.0.0/9", "", "auto"]
        );
        assert_eq!(changes.words(), "changed: allow, deny; needs a restart, and is as before: listen, xdp; ");
        assert_eq!(Changes::between(&old, old.clone(), &LIVE).0.words(), "");
    }

    /// Every name in [`LIVE`] is a key, and [`adopted`] takes exactly those over.
    #[test]
    fn live_keys_are_those_that_are_adopted() {
        let old = settings("beam serve --self-signed");
        for key in LIVE {
            assert!(old.iter().any(|setting| setting.key == key), "{key}");
        }
    }
}
