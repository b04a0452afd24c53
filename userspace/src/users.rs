//! `beam user`: the users file of a gateway.

use crate::{
    cli::{UserArgs, UserVerb},
    failure::Failure,
};
use anyhow::anyhow;
use std::fmt::Write;
use upstream::users::{self, ClientPolicy, Listed};

/// How a running gateway hears of an edit.
const NOT_YET: &str = "a running gateway learns of it by `beam reload`, or by SIGHUP";

pub(crate) fn run(args: &UserArgs) -> Result<(), Failure> {
    match &args.verb {
        UserVerb::Add { name, users, cert, policy } => {
            let words = policy.words();
            let policy = ClientPolicy::parse(words.iter().map(String::as_str))
                .map_err(|error| Failure::Config(anyhow!("user {name}: {error}")))?;
            let file = users.display();
            if *cert {
                users::add_certificate(users, name, &policy).map_err(Failure::config)?;
                eprintln!("added {name} to {file}, who comes with a certificate; {NOT_YET}");
            } else {
                let token = users::add(users, name, &policy).map_err(Failure::config)?;
                eprintln!(
                    "added {name} to {file}; the token is shown once, only its hash is kept; {NOT_YET}"
                );
                println!("{token}");
            }
        }
        UserVerb::Rm { name, users } => {
            users::remove(users, name).map_err(Failure::config)?;
            eprintln!("removed {name} from {}; {NOT_YET}", users.display());
        }
        UserVerb::List { users } => print!("{}", table(&users::list(users).map_err(Failure::config)?)),
    }
    Ok(())
}

/// A line each: the name first, so that a script can take it.
fn table(listed: &[Listed]) -> String {
    let width = listed.iter().map(|user| user.name.len()).max().unwrap_or_default();
    let mut out = String::new();
    for Listed { name, by_certificate, policy } in listed {
        let proof = if *by_certificate { "certificate" } else { "token" };
        let line = format!("{name:width$}  {proof:11}  {policy}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
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
            Listed { name: "alice".into(), by_certificate: false, policy: policy("max-flows=3") },
            Listed { name: "site-seven".into(), by_certificate: true, policy: policy("") },
        ];
        assert_eq!(table(&listed), "alice       token        max-flows=3\nsite-seven  certificate\n");
    }
}
