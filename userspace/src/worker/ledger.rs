//! One worker's view of its clients: what they moved here, and the tokens of their rates that this worker has taken.
//!
//! Plain numbers, one writer. [`Ledger::fold`] adds them to the shared [`Account`]s; it is called when somebody looks,
//! not for each byte. A flow that is over its client's rate is *starved* in one way or both: it stops reading its stream
//! or its socket, and waits here, oldest first, until the bucket grants another quantum. Then only as many flows wake as
//! the tokens are worth.
//!
//! For whoever carries datagrams or packets there is [`Ledger::take`]: it says whether one may go.

use super::{
    account::{Account, Accounts, Way},
    bucket::Grant,
    poll::FlowKey,
};
use slab::Slab;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};
use upstream::users::ClientPolicy;

/// Whose flow it is: an index into one worker's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Owner(u32);

impl Owner {
    /// A flow of this process itself: all flows of a client's worker.
    pub(super) const NOBODY: Self = Self(0);

    #[cfg(test)]
    pub(super) const fn at(index: u32) -> Self {
        Self(index)
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A client on one worker. Whatever belongs to the client holds it, and its entry in the ledger lives as long.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) account: Arc<Account>,
    pub(super) owner: Owner,
}

/// Counts a flow among its client's for as long as it lives.
#[derive(Debug)]
pub(super) struct FlowPermit(Arc<Member>);

impl FlowPermit {
    /// `None`: the client has as many flows as it may.
    pub(super) fn take(member: &Arc<Member>) -> Option<Self> {
        member.account.open_flow().then(|| Self(member.clone()))
    }

    pub(super) fn owner(&self) -> Owner {
        self.0.owner
    }

    pub(super) fn client(&self) -> &Arc<str> {
        &self.0.account.name
    }
}

impl Drop for FlowPermit {
    fn drop(&mut self) {
        self.0.account.close_flow();
    }
}

/// Counts a connection among its client's for as long as it lives.
#[derive(Debug)]
pub(super) struct Membership(Arc<Member>);

impl Membership {
    /// `None`: the client has as many connections as it may.
    pub(super) fn take(member: &Arc<Member>) -> Option<Self> {
        member.account.join().then(|| Self(member.clone()))
    }

    pub(super) fn member(&self) -> &Arc<Member> {
        &self.0
    }

    pub(super) fn client(&self) -> &Arc<str> {
        &self.0.account.name
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.account.leave();
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The first is nobody's, and stays empty.
    locals: Slab<Option<Local>>,
    by_name: HashMap<Arc<str>, Owner>,
    /// When starved flows may go on. Invariant: an entry for each client and way that has some.
    timers: BTreeSet<(Instant, Owner, Way)>,
    /// Forget clients that are gone once there are so many.
    sweep_at: usize,
}

/// One client's numbers.
#[derive(Debug)]
struct Local {
    member: Arc<Member>,
    moved_bytes: [u64; 2],
    waits: u64,
    dropped: u64,
    /// Bytes that may go at once. A datagram may overdraw it once, and is paid for before the next.
    tokens: [i64; 2],
    starved: [VecDeque<FlowKey>; 2],
    /// The time in `timers`.
    until: [Option<Instant>; 2],
}

const SWEEP_AT_MIN: usize = 1024;
/// One flow wakes for so many tokens.
const WAKE_BYTES: i64 = 64 * 1024;
const WAKE_MAX: i64 = 64;

impl Default for Ledger {
    fn default() -> Self {
        let mut locals = Slab::new();
        locals.insert(None);
        Self { locals, by_name: HashMap::new(), timers: BTreeSet::new(), sweep_at: SWEEP_AT_MIN }
    }
}

impl Ledger {
    /// The client of that name, found in `accounts` when it is new to this worker.
    pub(super) fn member(
        &mut self,
        accounts: &Accounts,
        name: &Arc<str>,
        policy: &ClientPolicy,
    ) -> Arc<Member> {
        let known = self.by_name.get(name).copied();
        if let Some(local) = known.and_then(|owner| self.local(owner)) {
            return local.member.clone();
        }
        if self.locals.len() >= self.sweep_at {
            self.sweep();
        }
        let account = accounts.of(name);
        account.limit(policy);
        let entry = self.locals.vacant_entry();
        let member = Arc::new(Member { account, owner: Owner(entry.key() as u32) });
        entry.insert(Some(Local {
            member: member.clone(),
            moved_bytes: [0; 2],
            waits: 0,
            dropped: 0,
            tokens: [0; 2],
            starved: Default::default(),
            until: [None; 2],
        }));
        self.by_name.insert(name.clone(), member.owner);
        member
    }

    /// Clients that this worker has numbers of.
    pub(super) fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.locals.iter().filter_map(|(_, local)| local.as_ref()).map(|local| &local.member)
    }

    fn local(&mut self, owner: Owner) -> Option<&mut Local> {
        self.locals.get_mut(owner.index())?.as_mut()
    }

    /// Of `most` bytes, how many a flow of this client may move now. 0: it is over its rate.
    pub(super) fn quota(&mut self, owner: Owner, way: Way, now: Instant, most: usize) -> usize {
        self.local(owner).map_or(most, |local| local.quota(way, now, most).unwrap_or(0))
    }

    /// A flow has moved so many bytes, within its [`Self::quota`].
    pub(super) fn moved(&mut self, owner: Owner, way: Way, bytes: u64) {
        if let Some(local) = self.local(owner) {
            local.spend(way, bytes);
        }
    }

    /// May a datagram or packet of so many bytes go? Counts it as moved, or as dropped.
    pub(super) fn take(&mut self, owner: Owner, way: Way, bytes: usize, now: Instant) -> bool {
        let Some(local) = self.local(owner) else { return true };
        let may = local.quota(way, now, usize::MAX).is_ok();
        if may {
            local.spend(way, bytes as u64);
        } else {
            local.dropped += 1;
        }
        may
    }

    /// Lets a flow wait for tokens. The caller sees to it that it waits once in each way; `lives` tells of others.
    pub(super) fn starve(
        &mut self,
        owner: Owner,
        way: Way,
        now: Instant,
        key: FlowKey,
        lives: impl Fn(FlowKey) -> bool,
    ) {
        let Some(local) = self.locals.get_mut(owner.index()).and_then(Option::as_mut) else { return };
        local.waits += 1;
        let starved = &mut local.starved[way.index()];
        // Flows that ended while they waited are left in it; not for ever.
        if starved.len() == starved.capacity() {
            starved.retain(|&key| lives(key));
        }
        starved.push_back(key);
        if local.until[way.index()].is_none() {
            let until = local.quota(way, now, 1).err().unwrap_or(now);
            local.until[way.index()] = Some(until);
            self.timers.insert((until, owner, way));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, ..)| at)
    }

    /// Wakes starved flows whose time has come. `wake` says whether that flow still lives.
    pub(super) fn wake(&mut self, now: Instant, mut wake: impl FnMut(FlowKey, Way) -> bool) {
        // An entry that comes anew sorts behind those that are overdue.
        for _ in 0..self.timers.len() {
            let Some(&(at, owner, way)) = self.timers.first() else { return };
            if at > now {
                return;
            }
            self.timers.pop_first();
            let Some(local) = self.local(owner) else { continue };
            local.until[way.index()] = None;
            let mut until = now;
            match local.quota(way, now, usize::MAX) {
                Ok(tokens) => {
                    let mut left = (tokens.min(i64::MAX as usize) as i64 / WAKE_BYTES + 1).min(WAKE_MAX);
                    while left > 0
                        && let Some(key) = local.starved[way.index()].pop_front()
                    {
                        left -= i64::from(wake(key, way));
                    }
                }
                Err(not_before) => until = not_before,
            }
            if !local.starved[way.index()].is_empty() {
                // If tokens are left, the next turn goes on.
                local.until[way.index()] = Some(until);
                self.timers.insert((until, owner, way));
            }
        }
    }

    /// Adds everything to the shared accounts.
    pub(super) fn fold(&mut self) {
        for (_, local) in &mut self.locals {
            local.iter_mut().for_each(Local::fold);
        }
    }

    /// Forgets clients of whom nothing is left on this worker.
    fn sweep(&mut self) {
        self.fold();
        let (locals, timers) = (&mut self.locals, &mut self.timers);
        self.by_name.retain(|_, &mut owner| {
            let entry = locals.get(owner.index()).and_then(Option::as_ref);
            let gone = entry.is_none_or(|local| Arc::strong_count(&local.member) == 1);
            if gone && let Some(Some(local)) = locals.try_remove(owner.index()) {
                for way in Way::BOTH {
                    local.until[way.index()].map(|until| timers.remove(&(until, owner, way)));
                }
            }
            !gone
        });
        self.sweep_at = (2 * self.locals.len()).max(SWEEP_AT_MIN);
    }
}

impl Local {
    /// Of `most` bytes, those that may go at `now`; else when to ask again.
    fn quota(&mut self, way: Way, now: Instant, most: usize) -> Result<usize, Instant> {
        let bucket = self.member.account.bucket(way);
        let tokens = &mut self.tokens[way.index()];
        if !bucket.is_limited() {
            *tokens = 0;
            return Ok(most);
        }
        while *tokens <= 0 {
            match bucket.take(now) {
                Grant::Bytes(bytes) => *tokens += bytes as i64,
                Grant::Not(until) => return Err(until),
                Grant::Unlimited => return Ok(most),
            }
        }
        Ok(most.min(*tokens as usize))
    }

    fn spend(&mut self, way: Way, bytes: u64) {
        self.moved_bytes[way.index()] += bytes;
        if self.member.account.bucket(way).is_limited() {
            self.tokens[way.index()] -= bytes as i64;
        }
    }

    fn fold(&mut self) {
        let moved_bytes = std::mem::take(&mut self.moved_bytes);
        let (waits, dropped) = (std::mem::take(&mut self.waits), std::mem::take(&mut self.dropped));
        if moved_bytes != [0; 2] || waits + dropped > 0 {
            self.member.account.fold(moved_bytes, waits, dropped);
        }
    }
}

#[cfg(test)]
mod tests;
