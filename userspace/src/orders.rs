//! The verbs that change a running daemon: `beam reload`, `beam kick` and `beam clear`; both ends of the control socket.

use crate::{
    cli::{ClearArgs, Clearable, ControlArgs, KickArgs},
    control::{self, Answer, Request},
    failure::Failure,
    notify, privileges,
    supervisor::Supervisor,
    worker::{
        Revoked,
        mail::{Command, Who},
    },
};
use anyhow::anyhow;
use std::sync::Arc;
use tunnel::ConnId;

/// Names that are listed when none of them was meant.
const NAMES_SAID_MAX: usize = 20;

/// `beam reload`.
pub(crate) fn reload(args: &ControlArgs) -> Result<(), Failure> {
    said(control::ask(&args.control, &Request::Reload)?)
}

/// `beam kick`.
pub(crate) fn kick(args: &KickArgs) -> Result<(), Failure> {
    said(control::ask(&args.control.control, &Request::Kick { client: args.client.clone() })?)
}

/// `beam clear counters`.
pub(crate) fn clear(args: &ClearArgs) -> Result<(), Failure> {
    let request = match args.what {
        Clearable::Counters => Request::Clear,
    };
    said(control::ask(&args.control.control, &request)?)
}

fn said(answer: Answer) -> Result<(), Failure> {
    match answer {
        Answer::Done(what) => {
            say!("{what}");
            Ok(())
        }
        Answer::Error(error) => Err(Failure::Runtime(anyhow!(error))),
        _ => Err(Failure::Runtime(anyhow!("the daemon answers another question"))),
    }
}

/// The name of a tunnel, as `beam show tunnels` prints it: `WORKER/INDEX/GENERATION`. No client's name has a slash.
pub(crate) fn tunnel_id(worker: u8, conn: ConnId) -> String {
    format!("{worker}/{}/{}", conn.index, conn.generation)
}

pub(crate) fn parse_tunnel_id(text: &str) -> Option<(u8, ConnId)> {
    let mut parts = text.split('/');
    let worker = parts.next()?.parse().ok()?;
    let (index, generation) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((worker, ConnId { index, generation }))
}

impl Supervisor {
    /// Reads the files again; what was changed, or why nothing was. Both are in the log, too.
    pub(crate) fn reload(&self) -> Result<String, String> {
        notify::reload(|| self.read_again())
    }

    fn read_again(&self) -> Result<String, String> {
        let Some(gateway) = &self.identity.gateway else {
            let outcome = crate::reload::of_client().map_err(|error| format!("reload failed: {error}"));
            match &outcome {
                Ok(said) => tracing::info!("reloaded: {said}"),
                Err(error) => tracing::error!("{error}"),
            }
            return outcome;
        };
        let install = |loaded: &crate::reload::Loaded| -> Vec<Revoked> {
            if let Some(memory) = &self.identity.memory {
                memory.set(loaded.args.memory_limit);
            }
            self.ask_all(|reply| Command::Configure {
                config: loaded.config.clone(),
                server: loaded.server.clone(),
                limits: crate::serve::limits(&loaded.args),
                reply,
            })
        };
        match gateway.reload(install) {
            Ok((difference, revoked)) => {
                self.drain.grant(gateway.current().args.drain_timeout);
                let (connections, flows) = revoked.iter().fold((0, 0), |(connections, flows), revoked| {
                    (connections + revoked.connections, flows + revoked.flows)
                });
                let mut outcome =
                    format!("{difference}; {connections} connection(s) closed, {flows} flow(s) cut");
                let late = self.seats.len() - revoked.len();
                if late > 0 {
                    outcome.push_str(&format!("; {late} worker(s) have not answered yet"));
                }
                tracing::info!("reloaded: {outcome}");
                Ok(format!("reloaded: {outcome}"))
            }
            Err(error) => {
                let error = error.to_string();
                let error =
                    format!("reload failed, nothing has changed: {error}{}", privileges::hint(&error));
                tracing::error!("{error}");
                Err(error)
            }
        }
    }

    /// Closes a client's connections; how many, or who there is.
    pub(crate) fn kick(&self, client: &str) -> Result<String, String> {
        let Some(gateway) = &self.identity.gateway else {
            return Err("a client has no clients; ask its gateway".to_owned());
        };
        let accounts = gateway.current().config.accounts.all();
        let present =
            accounts.iter().filter(|account| account.usage().connections > 0 || account.asleep.count() > 0);
        let names: Vec<&str> = present.map(|account| &*account.name).collect();
        let (sleepers, mut forgotten) = (gateway.current().config.sleepers.clone(), 0);
        let closed: u64 = if names.contains(&client) {
            let name: Arc<str> = client.into();
            let who = Who::Client(name);
            let closed = self.ask_all(|reply| Command::Kick { who: who.clone(), reply }).into_iter().sum();
            let asleep = accounts.iter().filter(|account| &*account.name == client);
            forgotten = asleep.map(|account| sleepers.forget(account)).sum();
            closed
        } else if let Some((worker, conn)) = parse_tunnel_id(client)
            && let Some(seat) = self.seats.get(usize::from(worker))
        {
            let who = Who::Connection(conn);
            self.ask_each([seat], |reply| Command::Kick { who: who.clone(), reply }).into_iter().sum()
        } else {
            return Err(unknown(client, &names));
        };
        if closed + forgotten == 0 {
            return Err(unknown(client, &names));
        }
        let asleep =
            if forgotten > 0 { format!(", {forgotten} sleeping tunnel(s) forgotten") } else { String::new() };
        let done = format!("{client}: {closed} connection(s) closed{asleep}");
        tracing::info!("kicked {done}");
        Ok(done)
    }
}

fn unknown(client: &str, names: &[&str]) -> String {
    let listed = names.iter().take(NAMES_SAID_MAX).copied().collect::<Vec<_>>().join(", ");
    let there = match names.len() {
        0 => "nobody has".to_owned(),
        n if n > NAMES_SAID_MAX => format!("these have: {listed} and {} more", n - NAMES_SAID_MAX),
        _ => format!("these have: {listed}"),
    };
    format!("no client {client:?} has a tunnel; {there}; see: beam show tunnels")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_ids_read_back_and_nothing_else_does() {
        let conn = ConnId { index: 17, generation: 3 };
        assert_eq!(tunnel_id(2, conn), "2/17/3");
        assert_eq!(parse_tunnel_id("2/17/3"), Some((2, conn)));
        for other in ["", "2", "2/17", "2/17/3/4", "256/1/1", "a/b/c", "alice"] {
            assert_eq!(parse_tunnel_id(other), None, "{other}");
        }
    }

    #[test]
    fn an_unknown_client_is_told_who_there_is() {
        assert!(unknown("eve", &[]).contains("nobody has"));
        assert!(unknown("eve", &["alice", "bob"]).contains("these have: alice, bob;"));
        let many = vec!["n"; NAMES_SAID_MAX + 5];
        assert!(unknown("eve", &many).contains("and 5 more"));
    }
}
