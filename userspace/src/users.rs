//! `beam user`: the users file of a gateway.

use crate::{
    cli::{UserArgs, UserVerb},
    failure::Failure,
};
use anyhow::anyhow;
use serde_json::{Value, json};
use std::fmt::Write;
use upstream::users::{self, ClientPolicy, KeyHash, Listed, Proof};

/// Name of the JSON object's shape.
const SCHEMA: &str = "beam.users.v1";
/// How a running gateway hears of an edit.
const NOT_YET: &str = "a running gateway learns of it by `beam reload`, or by SIGHUP";

pub(crate) fn run(args: &UserArgs) -> Result<(), Failure> {
    match &args.verb {
        UserVerb::Add { name, users, cert, key, policy } => {
            let words = policy.words();
            let policy = ClientPolicy::parse(words.iter().map(String::as_str))
                .map_err(|error| Failure::Config(anyhow!("user {name}: {error}")))?;
            let file = users.display();
            if let Some(key) = key {
                let key: KeyHash = key.parse().map_err(|error| Failure::config(anyhow!("--key: {error}")))?;
                users::add_key(users, name, &key, &policy).map_err(Failure::config)?;
                eprintln!("added {name} to {file}, who comes with a key (connect --key FILE); {NOT_YET}");
            } else if *cert {
                users::add_certificate(users, name, &policy).map_err(Failure::config)?;
                eprintln!("added {name} to {file}, who comes with a certificate; {NOT_YET}");
            } else {
                let token = users::add(users, name, &policy).map_err(Failure::config)?;
                eprintln!(
                    "added {name} to {file}; the token is shown once, only its hash is kept; {NOT_YET}"
                );
                say!("{token}");
            }
        }
        UserVerb::Rm { name, users } => {
            users::remove(users, name).map_err(Failure::config)?;
            eprintln!("removed {name} from {}; {NOT_YET}", users.display());
        }
        UserVerb::List { users, json } => {
            let listed = users::list(users).map_err(Failure::config)?;
            match json {
                true => say!("{}", object(&listed)),
                false => say_text!("{}", table(&listed)),
            }
        }
    }
    Ok(())
}

/// A line each: the name first, so that a script can take it.
fn table(listed: &[Listed]) -> String {
    let width = listed.iter().map(|user| user.name.len()).max().unwrap_or_default();
    let mut out = String::new();
    for Listed { name, proof, policy } in listed {
        let line = format!("{name:width$}  {:11}  {policy}", word(proof));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn word(proof: &Proof) -> &'static str {
    match proof {
        Proof::Token(_) => "token",
        Proof::Certificate => "certificate",
        Proof::Key(_) => "key",
    }
}

/// The same for a script. A key is no secret; a token's hash is nobody's business.
fn object(listed: &[Listed]) -> Value {
    let user = |Listed { name, proof, policy }: &Listed| {
        let key = match proof {
            Proof::Key(key) => Some(key.to_string()),
            Proof::Token(_) | Proof::Certificate => None,
        };
        let options = policy.to_string();
        let options: Vec<&str> = options.split_ascii_whitespace().collect();
        json!({ "name": name, "proof": word(proof), "key": key, "options": options, "disabled": policy.disabled })
    };
    json!({ "schema": SCHEMA, "users": listed.iter().map(user).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    //! Goal: a list shows who may do what, and what is given as a flag reads back as an option.
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::Parser as _;

    #[test]
    fn flags_become_options() {
        let line = "beam user add alice --users /dev/null --max-flows 3 --max-rate 50M --max-connections 2 \
                    --allow 10.1.0.0/16:22 --allow *.example.com --listen 8080 --routes 10.7.0.0/16";
        let Verb::User(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().verb else { panic!() };
        let UserVerb::Add { policy, cert: false, .. } = args.verb else { panic!() };
        let words = policy.words();
        let policy = ClientPolicy::parse(words.iter().map(String::as_str)).unwrap();
        assert_eq!(
            policy.to_string(),
            "max-flows=3 max-rate=50M max-connections=2 allow=10.1.0.0/16:22 allow=*.example.com listen=8080 \
             routes=10.7.0.0/16"
        );
    }

    #[test]
    fn a_list_has_a_line_each() {
        let policy = |text: &str| ClientPolicy::parse(text.split_whitespace()).unwrap();
        let listed = [
            Listed {
                name: "alice".into(),
                proof: Proof::Key(KeyHash([0xab; 32])),
                policy: policy("max-flows=3"),
            },
            Listed { name: "site-seven".into(), proof: Proof::Certificate, policy: policy("disabled") },
        ];
        assert_eq!(
            table(&listed),
            "alice       key          max-flows=3\nsite-seven  certificate  disabled\n"
        );
        let object = object(&listed);
        assert_eq!(object["schema"], "beam.users.v1");
        let alice = &object["users"][0];
        assert_eq!(
            (&alice["name"], &alice["proof"], &alice["options"][0]),
            (&"alice".into(), &"key".into(), &"max-flows=3".into())
        );
        assert_eq!(alice["key"], format!("sha256:{}", "ab".repeat(32)));
        assert_eq!(
            (&object["users"][1]["key"], &object["users"][1]["disabled"]),
            (&Value::Null, &true.into())
        );
    }
}
