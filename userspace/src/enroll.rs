//! `beam enroll NAME`: a new user of the gateway on this host, and exactly what its client pastes. Both ends of the
//! control socket.

mod paste;

use crate::{
    cli::{EnrolArgs, EnrolFormat},
    control::{self, Answer, Request},
    failure::Failure,
    identity,
    supervisor::Supervisor,
};
use anyhow::{Context, anyhow};
use paste::{Invitation, Place};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};
use upstream::users::{self, ClientPolicy};

/// What a gateway tells of itself to whoever enrols its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gateway {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Of its certificate.
    pub(crate) fingerprint: String,
    /// The names in its certificate.
    pub(crate) names: Vec<String>,
    pub(crate) is_self_signed: bool,
    /// Its users file.
    pub(crate) users: Option<PathBuf>,
}

impl Supervisor {
    /// For `beam enroll`.
    pub(crate) fn enrolment(&self) -> Result<Gateway, String> {
        let Some(reloader) = &self.identity.gateway else {
            return Err("a client enrols nobody; ask its gateway".to_owned());
        };
        let loaded = reloader.current();
        let facts = identity::facts(&loaded.leaf).map_err(|error| error.to_string())?;
        let address = self.identity.address.parse().map_err(|_| "it has no address".to_owned())?;
        // The daemon's directory isn't the caller's.
        let users = loaded.args.users.as_ref().and_then(|path| std::path::absolute(path).ok());
        Ok(Gateway {
            address,
            fingerprint: loaded.fingerprint.to_string(),
            is_self_signed: facts.issuer == facts.subject,
            names: facts.names,
            users,
        })
    }
}

pub(crate) fn run(args: &EnrolArgs) -> Result<(), Failure> {
    let socket = &args.control.control;
    let gateway = match control::ask(socket, &Request::Enrolment)? {
        Answer::Enrolment(gateway) => gateway,
        Answer::Error(error) => return Err(Failure::Runtime(anyhow!("the daemon says: {error}"))),
        _ => return Err(Failure::Runtime(anyhow!("the daemon answers another question"))),
    };
    let words = args.policy.words();
    let policy = ClientPolicy::parse(words.iter().map(String::as_str))
        .map_err(|error| Failure::Config(anyhow!("user {}: {error}", args.name)))?;
    let file = users_file(args, &gateway)?;
    let place = Place::of(args.host.as_deref(), &gateway).map_err(Failure::Config)?;
    let pin = (!args.no_pin).then(|| gateway.fingerprint.clone());
    // Judged before anybody is added: what is printed has to work.
    let mut invitation =
        Invitation { name: args.name.clone(), place, pin, token: String::new(), carry: args.carry.clone() };
    let table = invitation.toml().map_err(Failure::Config)?;
    invitation.token = users::add(&file, &args.name, &policy).map_err(Failure::config)?;
    if let Err(error) = reload(socket) {
        // Nobody has seen the token, so nobody misses it.
        let undone = users::remove(&file, &args.name);
        let state = if undone.is_ok() { "nothing has changed" } else { "the user is in the users file" };
        return Err(Failure::Runtime(anyhow!("the gateway doesn't take the new user in: {error}; {state}")));
    }
    eprintln!("beam: added {} to {}; the gateway knows it already", args.name, file.display());
    if !gateway.is_self_signed && invitation.pin.is_some() {
        eprintln!(
            "beam: the client trusts this one certificate: after its renewal give the new --pin, or enrol with --no-pin \
             where an authority that clients trust has signed it"
        );
    }
    match args.format {
        EnrolFormat::Shell => say_text!("{}", invitation.shell()),
        EnrolFormat::Toml => {
            eprintln!(
                "beam: the token, for {} on the client (chmod 0600): {}",
                invitation.token_file(),
                invitation.token
            );
            say_text!("{table}");
        }
    }
    Ok(())
}

fn users_file(args: &EnrolArgs, gateway: &Gateway) -> Result<PathBuf, Failure> {
    let file = args.users.clone().or_else(|| gateway.users.clone());
    let file = file.context(
        "the gateway has no users file, so nobody can come with a token; restart it with --users FILE (make one with \
         `beam user add NAME --users FILE`)",
    );
    file.map_err(Failure::Config)
}

fn reload(socket: &std::path::Path) -> Result<(), String> {
    match control::ask(socket, &Request::Reload) {
        Ok(Answer::Done(_)) => Ok(()),
        Ok(Answer::Error(error)) => Err(error),
        Ok(_) => Err("it answers another question".to_owned()),
        Err(failure) => Err(failure.to_string()),
    }
}
