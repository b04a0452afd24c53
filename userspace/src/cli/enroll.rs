//! `beam enroll`.

use super::{ControlArgs, user::UserPolicyArgs};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnrolFormat {
    /// Lines for the client's shell
    Shell,
    /// A table for the client's configuration file; the token goes to standard error
    Toml,
}

#[derive(Debug, Args)]
pub(crate) struct EnrolArgs {
    /// The new user
    pub(crate) name: String,
    /// The users file, if it isn't the running gateway's
    #[arg(long, value_name = "FILE", env = "BEAM_USERS")]
    pub(crate) users: Option<PathBuf>,
    /// What the client is to call the gateway; default: the name in its certificate, else the address that it listens on
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) host: Option<String>,
    /// Have the client trust its system's authorities, instead of this one certificate
    #[arg(long)]
    pub(crate) no_pin: bool,
    #[arg(long, value_enum, default_value = "shell")]
    pub(crate) format: EnrolFormat,
    #[command(flatten)]
    pub(crate) policy: UserPolicyArgs,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    /// What the client is to carry, as flags of `beam connect`, behind `--` (default: -D 127.0.0.1:1080)
    #[arg(last = true, value_name = "FLAGS", default_values = ["-D", "127.0.0.1:1080"])]
    pub(crate) carry: Vec<String>,
}
