//! What an enrolled client pastes: into a shell, or into its configuration file.

use super::Gateway;
use crate::{cli::Cli, cli::Endpoint, config};
use anyhow::{Context, anyhow, bail};
use clap::{CommandFactory as _, parser::ValueSource};
use std::fmt::Write as _;

/// What no shell has a use for: it needs no quotes.
const PLAIN: &str = "%+,-./:=@_";

/// Where the client finds the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    host: String,
    port: u16,
}

impl Place {
    /// As the operator says, else by the certificate's first name that is one, else where the gateway listens.
    pub(super) fn of(said: Option<&str>, gateway: &Gateway) -> anyhow::Result<Self> {
        let port = gateway.address.port();
        if let Some(said) = said {
            return Self::said(said, port).ok_or_else(|| {
                anyhow!("--host `{said}` is no HOST or HOST:PORT, such as gw.example or [2001:db8::1]:443")
            });
        }
        // What a self-signed certificate of ours is made for (RFC 2606 section 2).
        let named = gateway.names.iter().find(|name| !name.ends_with(".invalid") && !name.contains('*'));
        let listens = || {
            let ip = gateway.address.ip();
            (!ip.is_unspecified() && !ip.is_loopback()).then(|| ip.to_string())
        };
        let host = named.cloned().or_else(listens).with_context(|| {
            format!(
                "clients' name for this gateway isn't known: it listens on {}, and its certificate has no name of use; \
                 give --host HOST[:PORT]",
                gateway.address
            )
        })?;
        Ok(Self { host, port })
    }

    fn said(said: &str, port: u16) -> Option<Self> {
        // An IPv6 address without brackets has colons, too.
        if said.parse::<std::net::Ipv6Addr>().is_ok() {
            return Some(Self { host: said.to_owned(), port });
        }
        let bare = said.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(said);
        let (host, port) = match bare.contains(':') && bare.parse::<std::net::IpAddr>().is_err() {
            true => {
                let Endpoint { host, port } = said.parse().ok()?;
                (host?, port)
            }
            false => (bare.to_owned(), port),
        };
        let is_host =
            !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
        is_host.then_some(Self { host, port })
    }

    fn url(&self) -> String {
        match self.host.contains(':') {
            true => format!("https://[{}]:{}", self.host, self.port),
            false => format!("https://{}:{}", self.host, self.port),
        }
    }
}

/// What is handed to the client's user.
#[derive(Clone, Debug)]
pub(super) struct Invitation {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) pin: Option<String>,
    pub(super) token: String,
    /// Flags of `beam connect`.
    pub(super) carry: Vec<String>,
}

impl Invitation {
    /// Without the directory of the user's home.
    fn file_name(&self) -> String {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-._@".contains(c) { c } else { '_' };
        format!("{}@{}.token", self.name, self.place.host).chars().map(safe).collect()
    }

    /// Where a daemon's client keeps it.
    pub(super) fn token_file(&self) -> String {
        format!("/etc/beam/connect/{}", self.file_name())
    }

    /// Lines for a POSIX shell. The token goes into a file of the user's by a here-document: on a command line everybody
    /// on the host would see it.
    pub(super) fn shell(&self) -> String {
        let file = format!("~/.config/beam/{}", self.file_name());
        let mut out = format!(
            "mkdir -p ~/.config/beam && (umask 077 && cat >{file} <<'TOKEN'\n{}\nTOKEN\n",
            self.token
        );
        let _ = write!(out, ") && beam connect {}", quoted(&self.place.url()));
        if let Some(pin) = &self.pin {
            let _ = write!(out, " --pin {}", quoted(pin));
        }
        let _ = write!(out, " --token-file {file}");
        for word in &self.carry {
            let _ = write!(out, " {}", quoted(word));
        }
        out.push('\n');
        out
    }

    /// A table of the configuration file, or why `beam connect` wouldn't have those flags.
    pub(super) fn toml(&self) -> anyhow::Result<String> {
        let (url, file) = (self.place.url(), self.token_file());
        let mut words = vec!["beam", "connect", &url, "--token-file", &file];
        words.extend(self.pin.iter().flat_map(|pin| ["--pin", pin]));
        words.extend(self.carry.iter().map(String::as_str));
        let command = Cli::command();
        let matches = command.clone().try_get_matches_from(words).map_err(|error| {
            anyhow!("behind `--` there must be flags of beam connect: {}", error.to_string().trim_end())
        })?;
        let (Some(connect), Some(("connect", matches))) =
            (command.find_subcommand("connect"), matches.subcommand())
        else {
            bail!("behind `--` there must be flags of beam connect");
        };
        let mut out = "[connect]\n".to_owned();
        for arg in connect.get_arguments() {
            let id = arg.get_id().as_str();
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
            let values: Vec<String> = values.map(|value| value.to_string_lossy().into_owned()).collect();
            out.extend(config::line(arg, &values).map(|line| line + "\n"));
        }
        Ok(out)
    }
}

/// One word of a POSIX shell's.
fn quoted(word: &str) -> String {
    if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || PLAIN.contains(c)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    //! Goal: what is pasted names the gateway as clients reach it, and survives every shell and parser. That it opens a
    //! tunnel is in `tests/enroll`.
    use super::*;

    fn gateway(address: &str, names: &[&str]) -> Gateway {
        Gateway {
            address: address.parse().unwrap(),
            fingerprint: format!("sha256:{}", "ab".repeat(32)),
            names: names.iter().map(|&name| name.into()).collect(),
            is_self_signed: true,
            users: None,
        }
    }

    #[test]
    fn the_gateway_is_called_what_clients_can_call_it() {
        let url = |said: Option<&str>, gateway: &Gateway| Place::of(said, gateway).map(|place| place.url());
        let own = gateway("192.0.2.1:4433", &["beam.invalid"]);
        assert_eq!(url(None, &own).unwrap(), "https://192.0.2.1:4433");
        assert_eq!(
            url(None, &gateway("[::]:443", &["*.example", "gw.example"])).unwrap(),
            "https://gw.example:443"
        );
        assert_eq!(url(None, &gateway("[2001:db8::1]:443", &[])).unwrap(), "https://[2001:db8::1]:443");
        for hidden in ["[::]:443", "0.0.0.0:443", "127.0.0.1:443"] {
            let error = url(None, &gateway(hidden, &["beam.invalid"])).unwrap_err().to_string();
            assert!(error.contains(hidden) && error.contains("--host"), "{error}");
        }
        for (said, wanted) in [
            ("gw.example", "https://gw.example:4433"),
            ("gw.example:8443", "https://gw.example:8443"),
            ("2001:db8::7", "https://[2001:db8::7]:4433"),
            ("[2001:db8::7]", "https://[2001:db8::7]:4433"),
            ("[2001:db8::7]:8443", "https://[2001:db8::7]:8443"),
            ("192.0.2.9", "https://192.0.2.9:4433"),
        ] {
            assert_eq!(url(Some(said), &own).unwrap(), wanted);
        }
        for wrong in ["", ":443", "gw.example:port", "a b", "gw;reboot", "gw;reboot:1", "$(reboot)"] {
            let error = url(Some(wrong), &own).unwrap_err().to_string();
            assert!(error.contains("--host") && error.contains("gw.example"), "{wrong}: {error}");
        }
    }

    fn invitation(carry: &[&str]) -> Invitation {
        let own = gateway("[2001:db8::1]:443", &[]);
        Invitation {
            name: "alice".into(),
            place: Place::of(None, &own).unwrap(),
            pin: Some(own.fingerprint),
            token: "beam_token".into(),
            carry: carry.iter().map(|&word| word.into()).collect(),
        }
    }

    #[test]
    fn lines_for_a_shell() {
        let pin = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(
            invitation(&["-D", "1080", "-L", "8080:it's:80"]).shell(),
            format!(
                "mkdir -p ~/.config/beam && (umask 077 && cat >~/.config/beam/alice@2001_db8__1.token <<'TOKEN'\n\
                 beam_token\n\
                 TOKEN\n\
                 ) && beam connect 'https://[2001:db8::1]:443' --pin {pin} \
                 --token-file ~/.config/beam/alice@2001_db8__1.token -D 1080 -L '8080:it'\\''s:80'\n"
            )
        );
    }

    #[test]
    fn a_table_for_the_configuration_file() {
        let table = invitation(&["-D", "1080", "-L", "8080:h.example:80"]).toml().unwrap();
        let has = |line: &str| table.lines().any(|there| there == line);
        assert!(table.starts_with("[connect]\n") && has(r#"url = "https://[2001:db8::1]:443""#), "{table}");
        assert!(has(r#"token-file = "/etc/beam/connect/alice@2001_db8__1.token""#), "{table}");
        assert!(has(r#"socks = ["1080"]"#) && has(r#"local-forward = ["8080:h.example:80"]"#), "{table}");
        assert!(!table.contains("beam_token") && table.lines().count() == 6, "{table}");
        let error = invitation(&["--nonsense"]).toml().unwrap_err().to_string();
        assert!(error.contains("--nonsense") && error.contains("beam connect"), "{error}");
    }
}
