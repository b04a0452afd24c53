//! `beam user`: the users file of a gateway.

use crate::{
    cli::{UserArgs, UserVerb},
    failure::Failure,
};
use upstream::users;

pub(crate) fn run(args: &UserArgs) -> Result<(), Failure> {
    match &args.verb {
        UserVerb::Add { name, users } => {
            let token = users::add(users, name, &users::ClientPolicy::default()).map_err(Failure::config)?;
            eprintln!(
                "added {name} to {}; the token is shown once, only its hash is kept; \
                 a running gateway learns of it at its next start",
                users.display()
            );
            println!("{token}");
        }
        UserVerb::Rm { name, users } => {
            users::remove(users, name).map_err(Failure::config)?;
            eprintln!(
                "removed {name} from {}; a running gateway learns of it at its next start",
                users.display()
            );
        }
        UserVerb::List { users } => {
            for name in users::list(users).map_err(Failure::config)? {
                println!("{}", name.name);
            }
        }
    }
    Ok(())
}
