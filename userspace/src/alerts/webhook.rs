//! `--alert-webhook URL`: each notice as a JSON object by POST.
//!
//! A thread of its own, `beam-webhook`, so that an endpoint that is slow or away delays nothing but later notices.
//! What a sandbox must leave it: sockets to anywhere, resolving names (which reads files under /etc and starts a thread
//! for each look-up, to be able to give up on it).

use super::{
    notice::{Notice, Sender},
    tally::{Fate, Tally},
};
use std::{fmt, sync::Arc, time::Duration};
use ureq::{
    Agent,
    http::Uri,
    tls::{Certificate, RootCerts, TlsConfig},
};

/// One try, from the look-up of the name to the end of the answer.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// Pauses between tries; with the tries themselves a notice is given up after half a minute.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];

/// Where notices go. Shown without what may be secret in it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url(Uri);

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wanted = "needed: http://HOST[:PORT]/PATH or https://..., such as https://alerts.example/beam";
        let uri: Uri = text.parse().map_err(|error| format!("--alert-webhook: no URL: {error}; {wanted}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(Self(uri)),
            (Some(scheme), Some(_)) => Err(format!("--alert-webhook: its scheme is `{scheme}`; {wanted}")),
            _ => Err(format!("--alert-webhook: it names no scheme or no host; {wanted}")),
        }
    }
}

/// Paths of webhooks are often their passwords.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host) = (self.0.scheme_str().unwrap_or("?"), self.0.host().unwrap_or("?"));
        write!(f, "{scheme}://{host}")?;
        self.0.port_u16().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What posts. Made before privileges are dropped: it reads the system's certificates.
pub(super) struct Webhook {
    url: Url,
    agent: Agent,
    sender: Sender,
    tally: Arc<Tally>,
    pauses: [Duration; PAUSES.len()],
}

/// Why a try failed.
enum Trouble {
    /// Worth another try.
    Passing(String),
    Final(String),
}

impl Webhook {
    pub(super) fn new(url: Url, sender: Sender, tally: Arc<Tally>) -> Self {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(roots(&url))
            .build();
        let config = Agent::config_builder()
            .timeout_global(Some(TRY_LIMIT))
            .tls_config(tls)
            .http_status_as_error(false)
            // A POST that is sent elsewhere is no POST any more.
            .max_redirects(0)
            .user_agent(concat!("beam/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { url, agent: Agent::new_with_config(config), sender, tally, pauses: PAUSES }
    }

    /// Posts it, as often as it takes within bounds.
    pub(super) fn post(&self, notice: &Notice) {
        let body = notice.json(&self.sender);
        let mut pauses = self.pauses.iter();
        let why = loop {
            match (self.try_once(&body), pauses.next()) {
                (Ok(()), _) => return self.tally.count(Fate::WebhookSent),
                (Err(Trouble::Passing(why)), Some(pause)) => {
                    tracing::debug!("alert webhook {}: {why}; next try in {} s", self.url, pause.as_secs());
                    std::thread::sleep(*pause);
                }
                (Err(Trouble::Passing(why) | Trouble::Final(why)), _) => break why,
            }
        };
        self.tally.count(Fate::WebhookFailed);
        tracing::warn!("alert webhook {}: {why}; the notice is lost", self.url);
    }

    fn try_once(&self, body: &str) -> Result<(), Trouble> {
        let request = self.agent.post(&self.url.0).header("content-type", "application/json");
        let status = match request.send(body) {
            Ok(response) => response.status(),
            Err(error) => return Err(Trouble::Passing(error.to_string())),
        };
        match status.as_u16() {
            200..=299 => Ok(()),
            code @ (408 | 429 | 500..=599) => Err(Trouble::Passing(format!("it answers {code}"))),
            code => Err(Trouble::Final(format!("it answers {code}, needed is 200 to 299"))),
        }
    }
}

/// The system's authorities, where TLS is spoken.
fn roots(url: &Url) -> RootCerts {
    let mut roots = Vec::new();
    if url.0.scheme_str() == Some("https") {
        let loaded = rustls_native_certs::load_native_certs();
        roots.extend(loaded.certs.iter().map(|der| Certificate::from_der(der).to_owned()));
        if roots.is_empty() {
            tracing::warn!(
                "--alert-webhook {url}: this host has no certificates of authorities, so it will fail; install ca-certificates"
            );
        }
    }
    RootCerts::Specific(Arc::new(roots))
}

#[cfg(test)]
mod tests {
    //! Goal: a notice is posted until it is taken, given up when that is hopeless, and no secret of the URL is shown.
    //! Method: a real server on loopback with a list of answers. Over TLS it is met in `tests/alerts`.
    use super::*;
    use crate::alerts::notice::Moment;
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
    };

    fn notice() -> Notice {
        let since = Moment::from_unix_s(1_000);
        let rule = "latency_p95 > 1ms for 30s".parse().unwrap();
        Notice { rule, is_firing: true, value: Some(0.0025), since, at: since }
    }

    /// Answers one request with each; empty: hangs up. The bodies.
    fn serve(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<serde_json::Value>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://user:secret@{}/hook/secret?key=secret", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut bodies = Vec::new();
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(&stream);
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let line = line.trim().to_ascii_lowercase();
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                bodies.push(serde_json::from_slice(&body).unwrap());
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
            bodies
        });
        (url, server)
    }

    fn hook(url: &str) -> (Webhook, Arc<Tally>) {
        let (tally, sender) = (Arc::new(Tally::default()), Sender::new("gateway", "192.0.2.1:443"));
        let mut hook = Webhook::new(Url::parse(url).unwrap(), sender, tally.clone());
        hook.pauses = [Duration::from_millis(1); 3];
        (hook, tally)
    }

    const GOOD: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    #[test]
    fn it_is_posted_until_it_is_taken() {
        let (url, server) = serve(&[BUSY, "", GOOD]);
        let (hook, tally) = hook(&url);
        hook.post(&notice());
        let bodies = server.join().unwrap();
        assert_eq!(bodies.len(), 3);
        let body = &bodies[2];
        assert_eq!(body["schema"], "beam.alert.v1");
        assert_eq!((&body["state"], &body["alert"]), (&"firing".into(), &"latency_p95 > 1ms for 30s".into()));
        assert_eq!((&body["value"], &body["threshold"]), (&0.0025.into(), &0.001.into()));
        assert_eq!(body["since_unix_s"], 1_000);
        assert!(
            body["text"].as_str().unwrap().contains("firing: latency_p95 > 1ms for 30s: 2.5ms"),
            "{body}"
        );
        assert_eq!(tally.counters(), [("webhook_sent".to_owned(), 1)].into());
    }

    #[test]
    fn it_is_given_up_after_four_tries_or_a_plain_no() {
        for (answers, name) in [
            (&[BUSY; 4][..], "four times busy"),
            (&["HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"], "not there"),
            (&["HTTP/1.1 302 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"], "moved"),
        ] {
            let (url, server) = serve(answers);
            let (hook, tally) = hook(&url);
            hook.post(&notice());
            assert_eq!(server.join().unwrap().len(), answers.len(), "{name}");
            assert_eq!(tally.counters(), [("webhook_failed".to_owned(), 1)].into(), "{name}");
        }
    }

    #[test]
    fn urls_are_checked_and_shown_without_their_secrets() {
        let url = Url::parse("https://user:secret@alerts.example:8443/hook/secret?key=secret").unwrap();
        assert_eq!((url.to_string(), format!("{url:?}")).0, "https://alerts.example:8443");
        assert!(!format!("{url:?}").contains("secret"));
        for wrong in ["", "alerts.example", "/hook", "ftp://alerts.example/", "https://", "http://a b/"] {
            let error = Url::parse(wrong).unwrap_err();
            assert!(error.contains("--alert-webhook") && error.contains("https://alerts.example"), "{error}");
        }
    }
}
