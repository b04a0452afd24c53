//! How `beam doctor` turns what it found amiss.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct FixArgs {
    /// Turn what the checks found amiss; what was there before is kept in an undo journal
    #[arg(long)]
    pub(crate) fix: bool,
    /// Turn back what --fix turned, the last first; only what nobody has turned since
    #[arg(long, conflicts_with_all = ["fix", "checks"])]
    pub(crate) undo: bool,
    /// With --fix or --undo: print the commands that do the same, and turn nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// With --undo: also what somebody else has turned since
    #[arg(long, requires = "undo")]
    pub(crate) force: bool,
    /// With --fix or --undo: also where a link that carries an ssh session or the default route may go down meanwhile
    #[arg(long)]
    pub(crate) allow_link_drop: bool,
    /// Where the undo journal is kept: a directory of root's own, not the daemon's
    #[arg(long, value_name = "DIR", default_value = crate::doctor::fix::STATE_DIRECTORY, env = "BEAM_DOCTOR_STATE_DIR")]
    pub(crate) state_dir: PathBuf,
}

impl FixArgs {
    /// As the journal's keeper takes it.
    pub(crate) fn how(&self, json: bool) -> crate::doctor::fix::How {
        crate::doctor::fix::How {
            dry_run: self.dry_run,
            force: self.force,
            allow_link_drop: self.allow_link_drop,
            json,
            state_dir: self.state_dir.clone(),
        }
    }
}
