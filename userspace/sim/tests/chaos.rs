//! Chaos: each seed is a scenario of hosts, paths, attackers and accidents, run with all checks of `beam_sim::chaos`.

use beam_sim::chaos::{Report, run};
use beam_sim::trace::Fate;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

// Goal: whatever happens, each byte arrives once and in order or its flow is reported as failed with a cause; datagrams
// and frames are conserved; memory is bounded. Method: 1,000 seeds; the sums at the end show that each trouble did bite.
// BEAM_SIM_SEED=n runs one, BEAM_SIM_SEEDS=n so many.
#[test]
fn a_thousand_seeds_keep_every_promise() {
    let one = variable("BEAM_SIM_SEED");
    let seeds = one.map_or(0..variable("BEAM_SIM_SEEDS").unwrap_or(1000), |seed| seed..seed + 1);
    let (mut sum, mut fates) = (Report::default(), [0; Fate::COUNT]);
    for seed in seeds.clone() {
        let report = run(seed);
        Fate::ALL.iter().for_each(|&fate| fates[fate as usize] += report.trace.count(fate));
        println!(
            "seed {seed}: {} complete, {:?} failed, {:?}, trace {:x}",
            report.complete,
            report.failed,
            report.took,
            report.trace.hash()
        );
        sum.add(&report);
    }
    Fate::ALL.iter().for_each(|&fate| println!("{} {}", fate.name(), fates[fate as usize]));
    println!("{sum:?}");
}
