//! What is told of an alert that fires or is over: to the log, a webhook, a program.

use super::rule::Rule;
use serde_json::json;
use std::{fmt, time::SystemTime};
use x509_parser::time::ASN1Time;

/// Name of the JSON object's shape.
const SCHEMA: &str = "beam.alert.v1";

/// A time of the calendar, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    unix_s: i64,
}

impl Moment {
    pub(crate) const EPOCH: Self = Self { unix_s: 0 };

    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { unix_s: since.as_secs() as i64 }
    }

    #[cfg(test)]
    pub(super) fn from_unix_s(unix_s: i64) -> Self {
        Self { unix_s }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ASN1Time::from_timestamp(self.unix_s) {
            Ok(time) => f.write_str(&crate::identity::written(time)),
            Err(_) => write!(f, "{} s after 1970", self.unix_s),
        }
    }
}

/// One alert that began to fire, or is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Notice {
    pub(crate) rule: Rule,
    pub(crate) is_firing: bool,
    /// At the look that brought it about.
    pub(crate) value: Option<f64>,
    /// When it began to fire.
    pub(crate) since: Moment,
    pub(crate) at: Moment,
}

/// Who says it.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) role: &'static str,
    pub(crate) address: String,
    pub(crate) host: String,
}

impl Sender {
    pub(crate) fn new(role: &'static str, address: &str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { role, address: address.to_owned(), host: host.trim().to_owned() }
    }
}

impl Notice {
    fn state(&self) -> &'static str {
        if self.is_firing { "firing" } else { "resolved" }
    }

    fn value_text(&self) -> String {
        self.value.map_or("not measured".to_owned(), |value| self.rule.quantity.unit().show(value))
    }

    /// One event, its facts as fields.
    pub(crate) fn log(&self) {
        let (alert, quantity, state) = (self.rule.to_string(), self.rule.quantity.to_string(), self.state());
        let (value, threshold) = (self.value, self.rule.threshold);
        let unit = self.rule.quantity.unit().name();
        let said = self.value_text();
        if self.is_firing {
            tracing::warn!(alert, quantity, state, value, threshold, unit, "alert: {quantity} is {said}");
        } else {
            tracing::info!(
                alert,
                quantity,
                state,
                value,
                threshold,
                unit,
                "alert over: {quantity} is {said}"
            );
        }
    }

    /// The body of a webhook.
    pub(crate) fn json(&self, sender: &Sender) -> String {
        let unit = self.rule.quantity.unit().name();
        let object = json!({
            "schema": SCHEMA,
            "alert": self.rule.to_string(),
            "state": self.state(),
            "quantity": self.rule.quantity.to_string(),
            "value": self.value,
            "threshold": self.rule.threshold,
            "unit": unit,
            "for_s": self.rule.lasts.as_secs_f64(),
            "since_unix_s": self.since.unix_s,
            "at_unix_s": self.at.unix_s,
            // For chat rooms that show the field `text` of whatever is posted.
            "text": self.text(sender),
            "role": sender.role,
            "address": sender.address,
            "host": sender.host,
            "version": env!("CARGO_PKG_VERSION"),
        });
        object.to_string()
    }

    /// The environment of a program.
    pub(crate) fn variables(&self, sender: &Sender) -> [(&'static str, String); 12] {
        [
            ("BEAM_ALERT_NAME", self.rule.to_string()),
            ("BEAM_ALERT_STATE", self.state().to_owned()),
            ("BEAM_ALERT_QUANTITY", self.rule.quantity.to_string()),
            ("BEAM_ALERT_VALUE", self.value.map(|value| value.to_string()).unwrap_or_default()),
            ("BEAM_ALERT_THRESHOLD", self.rule.threshold.to_string()),
            ("BEAM_ALERT_UNIT", self.rule.quantity.unit().name().to_owned()),
            ("BEAM_ALERT_SINCE_UNIX_S", self.since.unix_s.to_string()),
            ("BEAM_ALERT_AT_UNIX_S", self.at.unix_s.to_string()),
            ("BEAM_ALERT_TEXT", self.text(sender)),
            ("BEAM_ALERT_ROLE", sender.role.to_owned()),
            ("BEAM_ALERT_ADDRESS", sender.address.clone()),
            ("BEAM_ALERT_HOST", sender.host.clone()),
        ]
    }

    fn text(&self, sender: &Sender) -> String {
        let Sender { role, address, host } = sender;
        let (state, rule, value) = (self.state(), &self.rule, self.value_text());
        format!("beam {role} {address} on {host}: {state}: {rule}: {value}")
    }
}
