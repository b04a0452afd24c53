//! What a running daemon says of itself: status, tables, the last lines of its log, its metrics.

use crate::{
    control::{self, Answer, Request},
    show::{Noun, Question, ROWS_DEFAULT},
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::Path,
    time::Duration,
};

/// Of the metrics' text.
const METRICS_BYTES_MAX: u64 = 2 << 20;
const PATIENCE: Duration = Duration::from_secs(3);

/// `beam status -j`.
pub(super) fn status(control: &Path) -> Result<Value, String> {
    match ask(control, &Request::Status)? {
        Answer::Status(status) => serde_json::to_value(status).map_err(|error| error.to_string()),
        other => Err(no(other)),
    }
}

/// `beam show NOUN -j`.
pub(super) fn show(control: &Path, noun: Noun) -> Result<Value, String> {
    let question = Question { noun, filters: Vec::new(), limit: ROWS_DEFAULT };
    match ask(control, &Request::Show(question))? {
        Answer::Show(shown) => serde_json::to_value(shown).map_err(|error| error.to_string()),
        other => Err(no(other)),
    }
}

/// The last lines of its log.
pub(super) fn log(control: &Path) -> Result<String, String> {
    match ask(control, &Request::Log)? {
        Answer::Log(recent) => {
            let mut text = match recent.forgotten {
                0 => String::new(),
                count => format!("({count} older lines are not kept)\n"),
            };
            for line in recent.lines {
                text.push_str(&line);
                text.push('\n');
            }
            Ok(text)
        }
        other => Err(no(other)),
    }
}

fn ask(control: &Path, request: &Request) -> Result<Answer, String> {
    control::ask(control, request).map_err(|failure| failure.to_string())
}

fn no(answer: Answer) -> String {
    match answer {
        Answer::Error(error) => error,
        _ => "the daemon answers another question".to_owned(),
    }
}

/// The value of a flag in what `show config` told.
pub(super) fn flag<'a>(config: &'a Value, flag: &str) -> Option<&'a str> {
    let row = config["rows"].as_array()?.iter().find(|row| row["flag"] == flag)?;
    row["value"].as_str().filter(|value| !value.is_empty())
}

/// What `--metrics ADDR` serves.
pub(super) fn metrics(address: &str) -> Result<String, String> {
    let reached = reachable(address).ok_or_else(|| format!("--metrics {address} is no address"))?;
    let fetched = fetch(reached).map_err(|error| format!("http://{reached}/metrics: {error}"))?;
    match fetched.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        Some((head, _)) => {
            Err(format!("http://{reached}/metrics: {}", head.lines().next().unwrap_or_default()))
        }
        None => Err(format!("http://{reached}/metrics: the answer is no HTTP")),
    }
}

/// `:9100` and a wildcard are this host.
fn reachable(address: &str) -> Option<SocketAddr> {
    let address = address.strip_prefix('*').unwrap_or(address);
    let address = if address.starts_with(':') { format!("127.0.0.1{address}") } else { address.to_owned() };
    let mut found = address.to_socket_addrs().ok()?.next()?;
    if found.ip().is_unspecified() {
        let loopback = if found.is_ipv4() { "127.0.0.1".parse() } else { "::1".parse() };
        found.set_ip(loopback.ok()?);
    }
    Some(found)
}

fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the body ends with the connection, without chunks.
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(METRICS_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    //! Goal: where metrics are is understood as `--metrics` has it.
    use super::*;

    #[test]
    fn a_wildcard_is_this_host() {
        for (flag, address) in [
            (":9100", "127.0.0.1:9100"),
            ("*:9100", "127.0.0.1:9100"),
            ("0.0.0.0:9100", "127.0.0.1:9100"),
            ("[::]:9100", "[::1]:9100"),
            ("127.0.0.2:9100", "127.0.0.2:9100"),
        ] {
            assert_eq!(reachable(flag), Some(address.parse().unwrap()), "{flag}");
        }
        assert_eq!(reachable("9100"), None);
    }
}
