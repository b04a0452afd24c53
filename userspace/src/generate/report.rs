//! What `beam pktgen` says at its end, in the words and keys of `scripts/pktgen`.

use super::plan::Ready;
use crate::cli::PktgenArgs;
use pktgen::{IMIX, Outcome, Sizes};
use serde_json::{Map, Value, json};

/// What came of one thread.
pub(super) struct Result {
    pub(super) cpu: u32,
    pub(super) outcome: Outcome,
    pub(super) by_size: Option<[(usize, u64); IMIX.len()]>,
}

/// All threads together: as long as the slowest of them.
struct Total {
    outcome: Outcome,
    sizes: Vec<(usize, u64)>,
}

pub(super) fn print(args: &PktgenArgs, ready: &Ready, results: &[Result]) {
    let total = total(results);
    if args.json {
        say!("{}", object(args, ready, results, &total));
        return;
    }
    for Result { cpu, outcome, .. } in results {
        say!("thread {cpu}: {}", line(outcome));
    }
    if !total.sizes.is_empty() {
        let sizes: Vec<String> = total.sizes.iter().map(|(size, count)| format!("{size}: {count}")).collect();
        say!("frames made, by size: {}", sizes.join(", "));
    }
    say!("total: {}", line(&total.outcome));
}

fn total(results: &[Result]) -> Total {
    let mut total = Total { outcome: Outcome::default(), sizes: Vec::new() };
    for Result { outcome, by_size, .. } in results {
        let all = &mut total.outcome;
        all.sent += outcome.sent;
        all.failed += outcome.failed;
        all.made_bytes += outcome.made_bytes;
        all.elapsed = all.elapsed.max(outcome.elapsed);
        all.stopped |= outcome.stopped;
        for (size, count) in by_size.iter().flatten() {
            match total.sizes.iter_mut().find(|(known, _)| known == size) {
                Some((_, sum)) => *sum += count,
                None => total.sizes.push((*size, *count)),
            }
        }
    }
    total
}

/// Bits a second of the frames that left, without check sequence, preamble and gap. Refused frames count by their share.
fn bits_per_s(outcome: &Outcome) -> f64 {
    let (all, seconds) = (outcome.sent + outcome.failed, outcome.elapsed.as_secs_f64());
    if all == 0 || seconds == 0.0 {
        return 0.0;
    }
    outcome.made_bytes as f64 * 8.0 * (outcome.sent as f64 / all as f64) / seconds
}

fn line(outcome: &Outcome) -> String {
    format!(
        "{} packets, {} errors, {:.6} s, {:.0} packets/s, {:.1} Mbit/s",
        outcome.sent,
        outcome.failed,
        outcome.elapsed.as_secs_f64(),
        outcome.frames_per_s(),
        bits_per_s(outcome) / 1e6
    )
}

fn object(args: &PktgenArgs, ready: &Ready, results: &[Result], total: &Total) -> Value {
    let each: Vec<Value> = results
        .iter()
        .map(|Result { cpu, outcome, .. }| {
            let seconds = outcome.elapsed.as_secs_f64();
            json!({"thread": cpu, "packets": outcome.sent, "errors": outcome.failed, "seconds": seconds})
        })
        .collect();
    let mut object = json!({
        "schema": "beam.pktgen.v1",
        "script": args.script,
        "interface": args.interface,
        "drives": "AF_XDP",
        "kernel": kernel(),
        "destination": args.destination.to_string(),
        "ports": args.ports.to_string(),
        "threads": args.threads,
        "packets": total.outcome.sent,
        "errors": total.outcome.failed,
        "seconds": total.outcome.elapsed.as_secs_f64(),
        "packets_per_second": total.outcome.frames_per_s().round() as u64,
        "bits_per_second": bits_per_s(&total.outcome).round() as u64,
        "interrupted": total.outcome.stopped,
        "per_thread": each,
    });
    match ready.spec.sizes {
        Sizes::Fixed(bytes) => object["frame_bytes"] = bytes.into(),
        Sizes::Imix(smallest) => {
            object["frame_bytes"] = smallest.into();
            let sizes = total.sizes.iter().map(|(size, count)| (size.to_string(), Value::from(*count)));
            object["sizes"] = sizes.collect::<Map<_, _>>().into();
        }
    }
    object
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: threads add up, and the slowest is the run's time; bits are of what left.
    use super::*;
    use std::time::Duration;

    #[test]
    fn totals() {
        let outcome = |sent, failed, seconds| Outcome {
            sent,
            failed,
            made_bytes: (sent + failed) * 125,
            elapsed: Duration::from_secs(seconds),
            stopped: false,
        };
        let sizes = [(60, 7), (590, 4), (1514, 1)];
        let results = [
            Result { cpu: 0, outcome: outcome(300, 100, 1), by_size: Some(sizes) },
            Result { cpu: 1, outcome: outcome(400, 0, 2), by_size: Some(sizes) },
        ];
        let total = total(&results);
        assert_eq!((total.outcome.sent, total.outcome.failed), (700, 100));
        assert_eq!(total.outcome.elapsed, Duration::from_secs(2));
        assert_eq!(total.sizes, [(60, 14), (590, 8), (1514, 2)]);
        assert_eq!(bits_per_s(&total.outcome), 700.0 * 125.0 * 8.0 / 2.0);
        assert_eq!(line(&results[1].outcome), "400 packets, 0 errors, 2.000000 s, 200 packets/s, 0.2 Mbit/s");
    }
}
