//! Where a figure was measured. No figure is printed without it.

use serde::{Deserialize, Serialize};
use std::{fmt, fs, process::Command};

/// The machine, as far as it bears on the figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// The CPU's name.
    pub cpu: String,
    /// Its family, model and stepping, for virtual machines whose CPU has no proper name.
    pub cpu_id: String,
    /// Logical CPUs.
    pub cores: usize,
    /// Load average of the last minute, at the start.
    pub load_average_1m: f64,
    /// The kernel's release.
    pub kernel: String,
    /// The frequency governor; `None` where the machine has none to show, as in a virtual machine.
    pub governor: Option<String>,
    /// Rate of the time-stamp counter.
    pub tsc_ghz: f64,
    /// Rate of the core while the calibrating chain ran.
    pub core_ghz: f64,
    /// The vector levels that this CPU has, worst first.
    pub simd_levels: Vec<String>,
    /// The commit that was built, with `+` behind it when the checkout differed from it.
    pub commit: Option<String>,
    /// Whether the program was built with optimisation; figures of one that wasn't mean nothing.
    pub optimised: bool,
}

impl Host {
    /// Looks around.
    #[must_use]
    pub fn seen() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
        };
        let number = |name: &str| field(name).unwrap_or_else(|| "?".into());
        let tsc_ghz = crate::clock::Rate::measured().ticks_per_ns;
        Self {
            cpu: field("model name").unwrap_or_else(|| "unknown".into()),
            cpu_id: format!("{}/{}/{}", number("cpu family"), number("model"), number("stepping")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average_1m: first_word("/proc/loadavg").and_then(|load| load.parse().ok()).unwrap_or(0.0),
            kernel: first_word("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            governor: first_word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            tsc_ghz: rounded(tsc_ghz),
            core_ghz: rounded(tsc_ghz * crate::clock::cycles_per_tick()),
            simd_levels: simd::Level::available().iter().map(ToString::to_string).collect(),
            commit: commit(),
            optimised: !cfg!(debug_assertions),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}), {} cores, load {}, Linux {}, governor {}, TSC {} GHz, core {} GHz, levels {}, commit {}",
            self.cpu,
            self.cpu_id,
            self.cores,
            self.load_average_1m,
            self.kernel,
            self.governor.as_deref().unwrap_or("none"),
            self.tsc_ghz,
            self.core_ghz,
            self.simd_levels.join(" "),
            self.commit.as_deref().unwrap_or("unknown"),
        )?;
        match self.optimised {
            true => Ok(()),
            false => write!(f, "; NOT OPTIMISED: these figures mean nothing"),
        }
    }
}

/// To three decimals, as the reports print.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn first_word(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()?.split_whitespace().next().map(str::to_owned)
}

/// The commit that was built, with `+` behind it when the checkout differs from it.
#[must_use]
pub fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let directory = env!("CARGO_MANIFEST_DIR");
        let output = Command::new("git").current_dir(directory).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // What `scripts/bench --save` keeps of one subject doesn't change what the next one measures.
    let kept = [":(top)", ":(top,exclude)benches/results", ":(top,exclude)README.md"];
    let status = [&["status", "--porcelain", "--untracked-files=no", "--"][..], &kept].concat();
    let changed = git(&status).is_some_and(|text| !text.is_empty());
    Some(if changed { commit + "+" } else { commit })
}
