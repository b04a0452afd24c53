//! Who has which listener, over all workers: a client that comes back on another connection, and so perhaps to another
//! worker, takes its listener over at once, socket and all, although its old connection lives until its idle timeout.

use super::doors::Door;
use crate::worker::{
    mail::{Command, Mailbox},
    udp::On,
};
use masque::listen::{ListenTarget, Transport};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Listeners of a gateway. A request looks through them all.
const CLAIMS_MAX: usize = 4096;

/// Whose listener it is, and which connection keeps it.
#[derive(Clone)]
pub(super) struct Owner {
    /// The name of the client.
    pub(super) client: Arc<str>,
    /// Which run of it; `None` if it doesn't say.
    pub(super) instance: Option<u64>,
    pub(super) worker: u8,
    pub(super) mailbox: Mailbox,
    pub(super) on: On,
}

struct Claim {
    /// With the port that it really has.
    target: ListenTarget,
    owner: Owner,
    doors: Vec<Door>,
}

/// See the module. Shared by the workers; touched when a listener comes or goes.
#[derive(Default)]
pub(crate) struct Claims(Mutex<Vec<Claim>>);

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Vec<Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a new listener. False if there are too many.
    pub(super) fn add(&self, target: ListenTarget, owner: Owner, doors: Vec<Door>) -> bool {
        let mut claims = self.lock();
        if claims.len() >= CLAIMS_MAX {
            return false;
        }
        claims.push(Claim { target, owner, doors });
        true
    }

    /// Gives `heir` the listener that the same run of the same client had on another connection, and says who had it.
    pub(super) fn take_over(&self, target: &ListenTarget, heir: &Owner) -> Option<(Vec<Door>, Owner)> {
        heir.instance?;
        let mut claims = self.lock();
        let same = |claim: &&mut Claim| {
            claim.target == *target
                && claim.owner.client == heir.client
                && claim.owner.instance == heir.instance
                && (claim.owner.worker, claim.owner.on) != (heir.worker, heir.on)
        };
        let claim = claims.iter_mut().find(same)?;
        let old = std::mem::replace(&mut claim.owner, heir.clone());
        Some((claim.doors.clone(), old))
    }

    /// The port is taken. If it is by another run of the same client, which may be dead, that connection's worker is to
    /// find out: the client gets the port at one of its next tries.
    pub(super) fn doubt(&self, transport: Transport, port: u16, by: &Owner) {
        let claims = self.lock();
        for claim in claims.iter().filter(|claim| {
            (claim.target.transport, claim.target.port) == (transport, port)
                && claim.owner.client == by.client
                && claim.owner.instance != by.instance
        }) {
            claim.owner.mailbox.command(Command::ListenerDoubted { conn: claim.owner.on.0 });
        }
    }

    /// Forgets a listener, unless somebody has taken it over.
    pub(super) fn release(&self, target: &ListenTarget, worker: u8, on: On) {
        self.lock()
            .retain(|claim| claim.target != *target || (claim.owner.worker, claim.owner.on) != (worker, on));
    }
}

#[cfg(test)]
mod tests {
    //! Goal: only the same run of the same client takes a listener over, and its old connection then can't release it.
    use super::*;
    use masque::listen::Bind;
    use tunnel::{ConnId, Dir, Side, StreamId};

    fn owner(client: &str, instance: u64, conn: u32) -> Owner {
        let conn = ConnId { index: conn, generation: 0 };
        Owner {
            client: client.into(),
            instance: Some(instance),
            worker: 0,
            mailbox: Mailbox::new().unwrap(),
            on: (conn, StreamId::new(Side::Client, Dir::Bi, 0)),
        }
    }

    #[test]
    fn a_listener_goes_to_its_heir_only() {
        let claims = Claims::default();
        let target = ListenTarget { transport: Transport::Tcp, bind: Bind::Loopback, port: 80 };
        let old = owner("alice", 1, 1);
        assert!(claims.add(target, old.clone(), Vec::new()));
        for stranger in [owner("bob", 1, 2), owner("alice", 2, 2), old.clone()] {
            assert!(claims.take_over(&target, &stranger).is_none());
        }
        let other_port = ListenTarget { port: 81, ..target };
        let heir = owner("alice", 1, 2);
        assert!(claims.take_over(&other_port, &heir).is_none());
        assert_eq!(claims.take_over(&target, &heir).map(|(_, old)| old.on), Some(old.on));
        claims.release(&target, 0, old.on);
        assert_eq!(claims.lock().len(), 1, "it is the heir's");
        claims.release(&target, 0, heir.on);
        assert!(claims.lock().is_empty());
    }

    #[test]
    fn another_run_of_the_client_is_doubted_and_nobody_else() {
        let claims = Claims::default();
        let target = ListenTarget { transport: Transport::Udp, bind: Bind::Any, port: 53 };
        let holder = owner("alice", 1, 7);
        assert!(claims.add(target, holder.clone(), Vec::new()));
        claims.doubt(Transport::Udp, 53, &owner("bob", 2, 8));
        claims.doubt(Transport::Tcp, 53, &owner("alice", 2, 8));
        assert!(holder.mailbox.next_command().is_none());
        claims.doubt(Transport::Udp, 53, &owner("alice", 2, 8));
        assert!(matches!(
            holder.mailbox.next_command(),
            Some(Command::ListenerDoubted { conn }) if conn == holder.on.0
        ));
    }
}
