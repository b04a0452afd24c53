//! The table of cases.

mod frames;
mod ladder;
mod lifecycle;
mod pktgen;
mod queues;
mod transfer;
mod wan;

use crate::{Verdict, bench::Bench};

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) when: When,
    pub(crate) run: fn(&mut Bench) -> Verdict,
}

/// In which modes a case makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    EveryMode,
    /// Where an XDP program runs.
    Xdp,
    /// In the first mode alone: it goes through all of them by itself.
    Once,
}

/// All of them, in the order in which they run.
pub(crate) const ALL: &[Case] = &[
    Case { name: "ladder", when: When::Once, run: ladder::ladder },
    Case { name: "mtu", when: When::Once, run: ladder::mtu },
    Case { name: "fetch-v4", when: When::EveryMode, run: transfer::fetch_v4 },
    Case { name: "fetch-v6", when: When::EveryMode, run: transfer::fetch_v6 },
    Case { name: "vlan", when: When::EveryMode, run: transfer::vlan },
    Case { name: "frames", when: When::Xdp, run: frames::crafted },
    Case { name: "fragments", when: When::EveryMode, run: frames::fragments },
    Case { name: "pktgen", when: When::Once, run: pktgen::pktgen },
    Case { name: "hand-over", when: When::EveryMode, run: queues::hand_over },
    Case { name: "queue-growth", when: When::EveryMode, run: queues::growth },
    Case { name: "link-flap", when: When::EveryMode, run: lifecycle::link_flap },
    Case { name: "kill", when: When::EveryMode, run: lifecycle::kill },
    Case { name: "term", when: When::EveryMode, run: lifecycle::term },
    Case { name: "wide-area", when: When::Once, run: wan::wide_area },
    Case { name: "wireguard", when: When::Once, run: wan::wireguard },
];
