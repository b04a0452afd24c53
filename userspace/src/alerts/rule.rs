//! A rule: `NAME OP VALUE for DURATION`, such as `latency_p95 > 1ms for 30s`.

use super::quantity::{self, Quantity};
use crate::cli;
use std::{fmt, str::FromStr, time::Duration};

/// Rules of one daemon: each is a series in Prometheus and a line in `beam status`.
pub(crate) const RULES_MAX: usize = 64;

/// What is watched for. Two rules are the same if they read the same.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) quantity: Quantity,
    pub(crate) comparison: Comparison,
    /// In the quantity's unit.
    pub(crate) threshold: f64,
    /// How long it holds before the alert fires, and doesn't hold before it is over.
    pub(crate) lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Comparison {
    const ALL: [(&'static str, Self); 4] =
        [(">", Self::Above), (">=", Self::AtLeast), ("<", Self::Below), ("<=", Self::AtMost)];

    fn sign(self) -> &'static str {
        Self::ALL.iter().find(|(_, comparison)| *comparison == self).map_or("?", |(sign, _)| sign)
    }
}

impl Rule {
    /// Whether this value is what the rule watches for.
    pub(crate) fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Above => value > self.threshold,
            Comparison::AtLeast => value >= self.threshold,
            Comparison::Below => value < self.threshold,
            Comparison::AtMost => value <= self.threshold,
        }
    }

    /// `> 1ms`
    pub(crate) fn condition(&self) -> String {
        format!("{} {}", self.comparison.sign(), self.quantity.unit().show(self.threshold))
    }
}

/// A text that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "alert rule `{text}`: {what}.\n  wanted: NAME OP VALUE for DURATION, such as \"latency_p95 > 1ms for 30s\" or \
     \"certificate < 14d\"; NAME is one of {names}", names = quantity::names()
)]
pub(crate) struct RuleError {
    text: String,
    what: String,
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        parse(text).map_err(|what| RuleError { text: text.to_owned(), what })
    }
}

fn parse(text: &str) -> Result<Rule, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (quantity, sign, threshold, lasts) = match words[..] {
        [quantity, sign, threshold] => (quantity, sign, threshold, None),
        [quantity, sign, threshold, "for", lasts] => (quantity, sign, threshold, Some(lasts)),
        _ => return Err("it isn't of three words, or five with `for`".to_owned()),
    };
    let quantity = Quantity::parse(quantity)?;
    let comparison = Comparison::ALL.into_iter().find(|(known, _)| *known == sign);
    let (_, comparison) = comparison.ok_or_else(|| format!("`{sign}` is none of > >= < <="))?;
    let threshold = quantity.unit().parse(threshold)?;
    let lasts = lasts.map(cli::duration).transpose()?.unwrap_or_default();
    Ok(Rule { quantity, comparison, threshold, lasts })
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.quantity, self.condition())?;
        match self.lasts.as_millis() {
            0 => Ok(()),
            ms if ms % 1000 != 0 => write!(f, " for {ms}ms"),
            ms if ms % 60_000 != 0 => write!(f, " for {}s", ms / 1000),
            ms if ms % 3_600_000 != 0 => write!(f, " for {}m", ms / 60_000),
            ms => write!(f, " for {}h", ms / 3_600_000),
        }
    }
}

/// What is watched unless told otherwise: what an operator wants to be woken for on any host. Latency has no default that
/// fits both a LAN and a satellite, so it is a quarter of a second.
fn defaults(memory_total_mebibytes: Option<u64>) -> Vec<Rule> {
    let mut rules: Vec<String> = [
        "latency_p95 > 250ms for 1m",
        "loop_lag_p99 > 10ms for 30s",
        "handshake_p95 > 2s for 1m",
        "drops > 100/s for 30s",
        "slow_path > 10% for 1m",
        "mode_degraded > 0 for 30s",
        "certificate < 14d",
        "not_ready > 0 for 30s",
    ]
    .map(String::from)
    .to_vec();
    rules.extend(memory_total_mebibytes.map(|total| format!("memory > {}MiB for 1m", total * 8 / 10)));
    rules.iter().filter_map(|rule| rule.parse().ok()).collect()
}

/// The rules of these flags: the defaults, without those whose quantity a flag names, and the flags'. The word `none`
/// leaves the defaults out.
pub(crate) fn of_flags(flags: &[String], memory_total_mebibytes: Option<u64>) -> Result<Vec<Rule>, String> {
    let own = flags.iter().filter(|flag| flag.trim() != "none").map(|flag| flag.parse());
    let own: Vec<Rule> = own.collect::<Result<_, RuleError>>().map_err(|error| error.to_string())?;
    let mut rules = Vec::new();
    if flags.iter().all(|flag| flag.trim() != "none") {
        let is_named = |rule: &Rule| own.iter().any(|own| own.quantity == rule.quantity);
        rules.extend(defaults(memory_total_mebibytes).into_iter().filter(|rule| !is_named(rule)));
    }
    for rule in own {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    match rules.len() {
        0..=RULES_MAX => Ok(rules),
        n => Err(format!("{n} alert rules, the defaults included; {RULES_MAX} at most")),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what is written as a rule is what is watched, and what is wrong with one is said with its value and the way out.
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn rules_read_back_as_they_are_written() {
        for text in [
            "latency_p95 > 1ms for 30s",
            "latency_p50 >= 250us for 1m",
            "loop_lag_p99 > 1.5s for 1500ms",
            "drops > 100/s for 2h",
            "drops{rx_checksum} > 0/s",
            "slow_path > 12.5% for 10s",
            "mode_degraded >= 1 for 10s",
            "memory > 2048MiB for 1m",
            "certificate <= 14d",
            "connections < 1 for 5m",
        ] {
            assert_eq!(rule(text).to_string(), text);
        }
        assert_eq!(rule("memory > 2GiB"), rule("  memory >  2048 "));
        assert_eq!(rule("latency_p99 > 1ms for 60"), rule("latency_p99 > 0.001s for 1m"));
        assert!(rule("drops >= 5").holds(5.0) && !rule("drops > 5").holds(5.0));
        assert!(rule("certificate <= 5").holds(5.0) && !rule("certificate < 5").holds(5.0));
    }

    #[test]
    fn a_wrong_rule_says_what_and_how_it_is_written() {
        for (text, what) in [
            ("", "three words"),
            ("latency_p95", "three words"),
            ("latency_p95 > 1ms during 3s", "three words"),
            ("latency_p96 > 1ms", "no quantity `latency_p96`"),
            ("drops{nonsense} > 1", "no counter `nonsense`"),
            ("latency_p95 = 1ms", "`=` is none of"),
            ("latency_p95 > 1", "`1` is no value in seconds; write it as 5s or 5ms or 5us"),
            ("memory > 1kB", "`1kB` is no value in mebibytes"),
            ("memory > -1", "`-1` is no value"),
            ("cpu > inf", "`inf` is no value"),
            ("cpu > 1e3", "`1e3` is no value"),
            ("slow_path > .%", "`.%` is no value"),
            ("latency_p95 > 1ms for ever", "`ever`"),
            ("latency_p95 > 1ms for 5y", "unit `y`"),
        ] {
            let error = text.parse::<Rule>().expect_err(text).to_string();
            assert!(error.contains(what), "{text}: {error}");
            assert!(
                error.contains(&format!("`{text}`")) && error.contains("latency_p95 > 1ms for 30s"),
                "{error}"
            );
            assert!(error.contains("not_ready"), "the known quantities: {error}");
        }
    }

    #[test]
    fn flags_add_to_the_defaults_replace_them_or_drop_them() {
        let of = |flags: &[&str]| {
            let flags: Vec<String> = flags.iter().map(|&flag| flag.into()).collect();
            of_flags(&flags, Some(1000)).map(|rules| rules.iter().map(Rule::to_string).collect::<Vec<_>>())
        };
        let defaults = of(&[]).unwrap();
        assert_eq!(defaults.len(), 9, "every default parses: {defaults:?}");
        assert!(defaults.contains(&"memory > 800MiB for 1m".to_owned()));
        let own = "drops > 7/s";
        let added = of(&[own, own]).unwrap();
        assert_eq!(added.len(), 9);
        assert!(added.contains(&own.to_owned()) && !added.iter().any(|rule| rule.starts_with("drops > 100")));
        // Another counter is another quantity.
        assert_eq!(of(&["drops{rx_checksum} > 7/s"]).unwrap().len(), 10);
        assert_eq!(of(&["none"]), Ok(vec![]));
        assert_eq!(of(&["none", own]), Ok(vec![own.to_owned()]));
        assert!(of(&["nonsense"]).is_err());
        let many: Vec<String> = (0..=RULES_MAX).map(|n| format!("memory > {n}")).collect();
        assert!(of_flags(&many, None).unwrap_err().contains("64 at most"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z0-9_{}><= %./]{0,40}") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert!(rule.threshold >= 0.0);
            }
        }
    }
}
