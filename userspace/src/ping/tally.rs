//! What a ping has come to: pure sums of its reports, as text and as JSON.

use crate::{
    cli::GatewayUrl,
    worker::{Early, Opening, PathFacts, Report},
};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// Name of the JSON object's shape.
const SCHEMA: &str = "beam.ping.v1";
/// The histogram's three digits are enough to tell percentiles by.
const DIGITS: u8 = 3;

/// See the module.
pub(super) struct Tally {
    gateway: String,
    remote: Option<SocketAddr>,
    /// The first tunnel's, and that of the last one that had a ticket to try.
    full: Option<Opening>,
    again: Option<Opening>,
    silent: u64,
    rtts_ns: Option<Histogram<u64>>,
    min_ms: f64,
    max_ms: f64,
    sum_ms: f64,
    sum_of_squares: f64,
    /// Of connections that are over, and of the present one.
    before: PathFacts,
    now: PathFacts,
}

impl Tally {
    pub(super) fn new(url: &GatewayUrl) -> Self {
        Self {
            gateway: format!("https://{}:{}", url.host, url.port),
            remote: None,
            full: None,
            again: None,
            silent: 0,
            rtts_ns: Histogram::new(DIGITS).ok(),
            min_ms: f64::INFINITY,
            max_ms: 0.0,
            sum_ms: 0.0,
            sum_of_squares: 0.0,
            before: PathFacts::default(),
            now: PathFacts::default(),
        }
    }

    pub(super) fn add(&mut self, report: &Report) {
        match *report {
            Report::Up { remote, opening, facts } => {
                self.remote = Some(remote);
                let which = if opening.early.is_some() { &mut self.again } else { &mut self.full };
                *which = Some(opening);
                self.before.sent_packets += self.now.sent_packets;
                self.before.lost_packets += self.now.lost_packets;
                self.now = facts;
            }
            Report::Answer { rtt, facts, .. } => {
                self.now = facts;
                if let Some(histogram) = &mut self.rtts_ns {
                    // It grows as it needs to; an hour in nanoseconds fits.
                    let _ = histogram.record(u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX));
                }
                let ms = rtt.as_secs_f64() * 1e3;
                self.min_ms = self.min_ms.min(ms);
                self.max_ms = self.max_ms.max(ms);
                self.sum_ms += ms;
                self.sum_of_squares += ms * ms;
            }
            Report::Silent { .. } => self.silent += 1,
        }
    }

    pub(super) fn gateway(&self) -> &str {
        &self.gateway
    }

    pub(super) fn answered(&self) -> u64 {
        self.rtts_ns.as_ref().map_or(0, Histogram::len)
    }

    fn sent_packets(&self) -> u64 {
        self.before.sent_packets + self.now.sent_packets
    }

    fn lost_packets(&self) -> u64 {
        self.before.lost_packets + self.now.lost_packets
    }

    fn loss_percent(&self) -> f64 {
        100.0 * self.lost_packets() as f64 / self.sent_packets().max(1) as f64
    }

    /// min, avg, p50, p95, max, mdev in milliseconds; mdev as ping has it.
    fn rtts(&self) -> Option<[f64; 6]> {
        let histogram = self.rtts_ns.as_ref().filter(|histogram| !histogram.is_empty())?;
        let count = histogram.len() as f64;
        let average = self.sum_ms / count;
        let deviation = (self.sum_of_squares / count - average * average).max(0.0).sqrt();
        // The histogram rounds up to its next step, at most to what was seen.
        let at = |quantile: f64| (histogram.value_at_quantile(quantile) as f64 / 1e6).min(self.max_ms);
        Some([self.min_ms, average, at(0.5), at(0.95), self.max_ms, deviation])
    }

    /// The last lines for a person.
    pub(super) fn summary(&self) -> String {
        let (answered, asked) = (self.answered(), self.answered() + self.silent);
        let mut text = format!("--- {} ---\n{asked} asked, {answered} answered", self.gateway);
        if self.remote.is_some() {
            text += &format!(
                "; {} packets sent, {} lost ({:.1} %); path MTU {} bytes of UDP payload",
                self.sent_packets(),
                self.lost_packets(),
                self.loss_percent(),
                self.now.mtu_bytes
            );
        }
        text.push('\n');
        if let Some([min, average, p50, p95, max, deviation]) = self.rtts() {
            text += &format!(
                "rtt min/avg/p50/p95/max/mdev = {min:.3}/{average:.3}/{p50:.3}/{p95:.3}/{max:.3}/{deviation:.3} ms\n"
            );
        }
        if let Some(early) = self.again.and_then(|opening| opening.early) {
            text += &format!("0-RTT: {}\n", super::words(early));
        }
        text
    }

    /// The one object of `-j`.
    pub(super) fn json(&self) -> String {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let opening = |opening: Option<Opening>| {
            opening.map(|opening| {
                json!({
                    "handshake_ms": ms(opening.handshake),
                    "first_answer_ms": ms(opening.first_answer),
                    "status": opening.status,
                })
            })
        };
        let early = self.again.and_then(|opening| opening.early).map(|early| match early {
            Early::Accepted => "accepted",
            Early::Refused => "refused",
            Early::NotOffered => "not_offered",
            Early::NoTicket => "no_ticket",
        });
        let rtt = self.rtts().map(|[min, average, p50, p95, max, deviation]| {
            json!({ "min": min, "avg": average, "p50": p50, "p95": p95, "max": max, "mdev": deviation })
        });
        let path = self.remote.map(|remote| {
            json!({
                "remote": remote.to_string(),
                "mtu_bytes": self.now.mtu_bytes,
                "quic_rtt_ms": ms(self.now.rtt),
                "sent_packets": self.sent_packets(),
                "lost_packets": self.lost_packets(),
                "loss_percent": self.loss_percent(),
            })
        });
        let object: Value = json!({
            "schema": SCHEMA,
            "gateway": self.gateway,
            "asked": self.answered() + self.silent,
            "answered": self.answered(),
            "rtt_ms": rtt,
            "path": path,
            "full": opening(self.full),
            "resumed": opening(self.again),
            "zero_rtt": early,
        });
        format!("{object}\n")
    }
}

/// For a person.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    //! Goal: the figures are those of the reports, over more connections than one. Method: told reports.
    use super::*;

    fn tally(reports: &[Report]) -> Tally {
        let mut tally = Tally::new(&"https://gw.example".parse().unwrap());
        reports.iter().for_each(|report| tally.add(report));
        tally
    }

    fn up(early: Option<Early>, sent_packets: u64) -> Report {
        let millisecond = Duration::from_millis(1);
        Report::Up {
            remote: "198.18.0.1:443".parse().unwrap(),
            opening: Opening { handshake: millisecond, first_answer: 2 * millisecond, status: 204, early },
            facts: PathFacts { mtu_bytes: 1200, rtt: millisecond, sent_packets, lost_packets: 0 },
        }
    }

    fn answer(number: u64, ms: u64, sent_packets: u64, lost_packets: u64) -> Report {
        let facts = PathFacts { mtu_bytes: 1452, rtt: Duration::ZERO, sent_packets, lost_packets };
        Report::Answer { number, rtt: Duration::from_millis(ms), status: 204, facts }
    }

    #[test]
    fn figures_add_up_over_connections() {
        let reports = [
            up(None, 10),
            up(Some(Early::Accepted), 5),
            answer(1, 2, 6, 0),
            answer(2, 4, 20, 3),
            Report::Silent { number: 3 },
        ];
        let text = tally(&reports).summary();
        assert_eq!(
            text,
            "--- https://gw.example:443 ---\n\
             3 asked, 2 answered; 30 packets sent, 3 lost (10.0 %); path MTU 1452 bytes of UDP payload\n\
             rtt min/avg/p50/p95/max/mdev = 2.000/3.000/2.001/4.000/4.000/1.000 ms\n\
             0-RTT: accepted\n"
        );
        let object: Value = serde_json::from_str(&tally(&reports).json()).unwrap();
        assert_eq!(object["schema"], SCHEMA);
        assert_eq!((&object["asked"], &object["answered"]), (&3.into(), &2.into()));
        assert_eq!(object["path"]["lost_packets"], 3);
        assert_eq!(object["zero_rtt"], "accepted");
        assert_eq!(object["resumed"]["first_answer_ms"], 2.0);
    }

    #[test]
    fn without_an_answer_there_are_no_figures() {
        let nothing = tally(&[]);
        assert_eq!(nothing.summary(), "--- https://gw.example:443 ---\n0 asked, 0 answered\n");
        let object: Value = serde_json::from_str(&nothing.json()).unwrap();
        assert!(object["rtt_ms"].is_null() && object["path"].is_null() && object["zero_rtt"].is_null());
    }
}
