//! Which gateway, how it is trusted, and who we are to it: for `connect` and `ping`.

use super::{Congestion, GatewayUrl};
use clap::Args;
use std::path::PathBuf;

#[derive(Clone, Debug, Args)]
pub(crate) struct GatewayArgs {
    /// The gateway: `https://HOST[:PORT]`
    #[arg(value_name = "URL", env = "BEAM_URL")]
    pub(crate) url: GatewayUrl,
    /// File that holds the bearer token
    #[arg(long, value_name = "FILE", env = "BEAM_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file with the client certificate chain
    #[arg(long, value_name = "FILE", requires = "key", env = "BEAM_CERT")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file with the client certificate's key; without --cert, the key that the gateway knows this client by
    /// (see `beam key gen` and `beam user add --key`)
    #[arg(long, value_name = "FILE", env = "BEAM_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// Accept only the gateway certificate with this SHA-256 fingerprint
    #[arg(long, value_name = "sha256:HEX", conflicts_with_all = ["ca", "insecure"], env = "BEAM_PIN")]
    pub(crate) pin: Option<String>,
    /// PEM file with the authorities to verify the gateway against, instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure", env = "BEAM_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Do not verify the gateway's certificate
    #[arg(long, env = "BEAM_INSECURE")]
    pub(crate) insecure: bool,
    /// Congestion control
    #[arg(long, value_enum, default_value = "cubic", env = "BEAM_CC")]
    pub(crate) cc: Congestion,
}
