//! From the tables to programs that the kernel runs.
//!
//! A program of seccompiler has one answer for calls that match and one for others. A room has up to three: what is
//! allowed (others trap), what fails with EACCES, what fails with ENOSYS. The kernel takes the strictest answer, and a
//! trap is stricter than an errno, so that the first lets those through.

use crate::{
    Room,
    calls::{self, Row, When},
    names,
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// One set of programs for each room.
pub(crate) struct Programs {
    worker: Vec<BpfProgram>,
    control: Vec<BpfProgram>,
    device: Vec<BpfProgram>,
    hook: Vec<BpfProgram>,
}

/// Whether this kernel has filters.
pub(crate) fn is_supported() -> bool {
    rustix::thread::secure_computing_mode().is_ok() && target().is_some()
}

fn target() -> Option<TargetArch> {
    std::env::consts::ARCH.try_into().ok()
}

impl Programs {
    pub(crate) fn compile() -> Result<Self, BackendError> {
        let hook = calls::HOOK_REFUSED.iter().filter_map(|name| names::number(name));
        let hook: Rules = hook.map(|number| (number, Vec::new())).collect();
        Ok(Self {
            worker: allow(calls::WORKER.iter())?,
            control: allow(calls::control())?,
            device: allow(calls::device())?,
            hook: vec![program(hook, SeccompAction::Allow, refuse(libc::EPERM))?],
        })
    }

    /// Confines the calling thread.
    pub(crate) fn apply(&self, room: Room) -> Result<(), seccompiler::Error> {
        let programs = match room {
            Room::Worker => &self.worker,
            Room::Control | Room::Broker(_) => &self.control,
            Room::Device(_) => &self.device,
            Room::Hook => &self.hook,
        };
        programs.iter().try_for_each(|program| seccompiler::apply_filter(program))
    }
}

fn refuse(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno as u32)
}

fn allow<'a>(rows: impl Iterator<Item = &'a Row>) -> Result<Vec<BpfProgram>, BackendError> {
    let (mut allowed, mut refused, mut absent) = (Rules::new(), Rules::new(), Rules::new());
    for row in rows {
        let Some(number) = names::number(row.name) else { continue };
        // An empty list is a call without a condition.
        allowed.entry(number).or_default().extend(rules(row.when)?);
        match row.when {
            When::Refused => drop(refused.insert(number, Vec::new())),
            When::Absent => drop(absent.insert(number, Vec::new())),
            _ => {}
        }
    }
    // The last one is looked at by all before it: what installs a filter has to be allowed until then.
    let mut programs = Vec::new();
    for (rules, errno) in [(refused, libc::EACCES), (absent, libc::ENOSYS)] {
        if !rules.is_empty() {
            programs.push(program(rules, SeccompAction::Allow, refuse(errno))?);
        }
    }
    programs.push(program(allowed, SeccompAction::Trap, SeccompAction::Allow)?);
    Ok(programs)
}

fn program(rules: Rules, others: SeccompAction, these: SeccompAction) -> Result<BpfProgram, BackendError> {
    let target = target().ok_or(BackendError::InvalidTargetArch(std::env::consts::ARCH.to_owned()))?;
    SeccompFilter::new(rules, others, these, target)?.try_into()
}

/// One rule for each way to satisfy the condition; none for a call without.
fn rules(when: When) -> Result<Vec<SeccompRule>, BackendError> {
    let is = |argument: u8, value: u32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())
    };
    match when {
        When::Always | When::Refused | When::Absent => Ok(Vec::new()),
        When::Is(argument, values) => {
            values.iter().map(|&value| SeccompRule::new(vec![is(argument, value)?])).collect()
        }
        When::Bits { argument, set, clear } => {
            let looked_at = SeccompCmpOp::MaskedEq((set | clear).into());
            let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, looked_at, set.into())?;
            Ok(vec![SeccompRule::new(vec![condition])?])
        }
        When::Both((first, firsts), (second, seconds)) => {
            let pairs = firsts.iter().flat_map(|&a| seconds.iter().map(move |&b| (a, b)));
            pairs.map(|(a, b)| SeccompRule::new(vec![is(first, a)?, is(second, b)?])).collect()
        }
    }
}
