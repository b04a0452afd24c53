//! `beam user`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    pub(crate) verb: UserVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Add a user: writes the token's hash to the users file and prints the token once
    Add {
        name: String,
        /// The users file
        #[arg(long, value_name = "FILE", env = "BEAM_USERS")]
        users: PathBuf,
        /// The client comes with a certificate of this name; no token is made
        #[arg(long)]
        cert: bool,
        /// The client comes with this key (`connect --key`), as `beam key pub` prints it; no token is made
        #[arg(long, value_name = "sha256:HEX", conflicts_with = "cert")]
        key: Option<String>,
        #[command(flatten)]
        policy: UserPolicyArgs,
    },
    /// Remove a user
    Rm {
        name: String,
        /// The users file
        #[arg(long, value_name = "FILE", env = "BEAM_USERS")]
        users: PathBuf,
    },
    /// List the users and what they may do
    List {
        /// The users file
        #[arg(long, value_name = "FILE", env = "BEAM_USERS")]
        users: PathBuf,
        /// One JSON object instead of text
        #[arg(short = 'j', long)]
        json: bool,
    },
}

/// What a user may do, as it is kept in the users file.
#[derive(Debug, Args)]
pub(crate) struct UserPolicyArgs {
    /// Flows at once; more are refused
    #[arg(long, value_name = "N")]
    pub(crate) max_flows: Option<String>,
    /// Bits a second of payload, in each direction, such as 50M
    #[arg(long, value_name = "RATE")]
    pub(crate) max_rate: Option<String>,
    /// QUIC connections at once; more are refused
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<String>,
    /// Narrows the gateway's --allow for this user: both must match. Of IP packets (CONNECT-IP) it narrows --ip-route,
    /// by its CIDRs without ports: what names a name or ports opens nothing there
    #[arg(long, value_name = "CIDR[:PORTS]|NAME[:PORTS]")]
    pub(crate) allow: Vec<String>,
    /// Ports that the user may publish on the gateway (-R); without an address, of loopback
    #[arg(long, value_name = "[ADDR:]PORTS")]
    pub(crate) listen: Vec<String>,
    /// Prefixes that the user may announce by CONNECT-IP
    #[arg(long, value_name = "CIDR")]
    pub(crate) routes: Vec<String>,
}

impl UserPolicyArgs {
    /// The options of the users file.
    pub(crate) fn words(&self) -> Vec<String> {
        let Self { max_flows, max_rate, max_connections, allow, listen, routes } = self;
        let keyed: [(&str, &mut dyn Iterator<Item = &String>); 6] = [
            ("max-flows", &mut max_flows.iter()),
            ("max-rate", &mut max_rate.iter()),
            ("max-connections", &mut max_connections.iter()),
            ("allow", &mut allow.iter()),
            ("listen", &mut listen.iter()),
            ("routes", &mut routes.iter()),
        ];
        keyed
            .into_iter()
            .flat_map(|(key, values)| values.map(move |value| format!("{key}={value}")))
            .collect()
    }
}
