//! The certificate, and the clock that it is judged by.

use super::{finding::Finding, host::Host};
use crate::identity;
use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use xsk::look;

/// A renewal that fails is noticed in time.
const DAYS_LEFT_MIN: i64 = 14;
/// beam is younger than any clock that is right: 2026-01-01.
const BEAM_SINCE: Duration = Duration::from_secs(1_767_225_600);

pub(super) fn certificate(host: &Host) -> Finding {
    let Some(path) = &host.plan.tls_cert else {
        return Finding::not_asked("--tls-cert FILE");
    };
    let needed = "a certificate that is valid now, and for two weeks to come";
    let file = path.display();
    if let Err(error) = std::fs::File::open(path)
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return Finding::not_seen(format!("{file}: {error}; run it as root"), needed);
    }
    let facts = identity::certificates(path).and_then(|chain| {
        let leaf = chain.first().ok_or_else(|| anyhow::anyhow!("{file} holds no certificate"))?;
        identity::facts(leaf)
    });
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            return Finding::fail(format!("{error:#}"), needed)
                .command(format!("openssl x509 -in {file} -noout -text"));
        }
    };
    let renew = format!("certbot renew && beam reload   # or whatever writes {file}");
    let names = facts.names.join(", ");
    match (facts.has_begun, facts.days_left) {
        (false, _) => Finding::fail(format!("{names}: not valid before {}", facts.not_before), needed)
            .command("timedatectl status"),
        (_, left) if left < 0 => {
            Finding::fail(format!("{names}: expired on {}", facts.not_after), needed).command(renew)
        }
        (_, left) if left < DAYS_LEFT_MIN => {
            Finding::warn(format!("{names}: {left} day(s) left, until {}", facts.not_after), needed)
                .command(renew)
        }
        (_, left) => Finding::pass(format!("{names}: {left} days left, until {}", facts.not_after), needed),
    }
}

pub(super) fn clock(_: &Host) -> Finding {
    let needed = "a clock that something keeps right: certificates, tickets and logs go by it";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if now < BEAM_SINCE {
        let seen = format!("{} s since 1970: before this program was written", now.as_secs());
        return Finding::fail(seen, needed).command("timedatectl set-ntp true");
    }
    match look::clock_is_synchronised() {
        Ok(true) => Finding::pass("kept by NTP or PTP", needed),
        Ok(false) => {
            Finding::warn("the kernel says that nothing keeps it", needed).command("timedatectl set-ntp true")
        }
        Err(error) => Finding::not_seen(format!("adjtimex: {error}"), needed),
    }
}
