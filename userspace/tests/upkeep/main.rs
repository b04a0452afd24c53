//! Goal: what an operator keeps a host in order with leaves it as it was found: `beam doctor --fix` and `--undo`, killed
//! at any point; `beam detach`; `beam diag`.
//! Method: real settings of veth interfaces in namespaces, compared by what ethtool and ip say before and after; real
//! programs in the XDP hook; an archive that tar(1) reads and that is searched for every secret of the set-up.

mod detach;
mod diag;
mod fix;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;

use std::process::Output;

use rig::{Ns, Rig, binary};

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn of(out: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
    }

    /// Panics unless it ended so and said all of these.
    fn is(&self, code: i32, phrases: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for phrase in phrases {
            let there = self.stdout.contains(phrase) || self.stderr.contains(phrase);
            assert!(there, "does not say {phrase:?}: {self:#?}");
        }
    }
}

/// `beam ARGS` in the gateway's namespace.
fn beam(rig: &Rig, args: &str, env: &[(&str, &str)]) -> Said {
    let mut command = rig.command(Ns::Gateway, binary());
    command.args(args.split(' ')).envs(env.iter().copied());
    Said::of(command.output().expect("run beam"))
}

/// A shell script in the gateway's namespace; its standard output.
fn shell(rig: &Rig, script: &str) -> String {
    let said = Said::of(rig.command(Ns::Gateway, "sh").args(["-ec", script]).output().expect("run sh"));
    assert_eq!(said.code, Some(0), "{script}: {said:#?}");
    said.stdout
}
