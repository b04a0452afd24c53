//! Many real tunnels against one real gateway: `scripts/bench scale` runs it. See `beam_benches::scale`.

use anyhow::{Context, Result, ensure};
use beam_benches::{
    output::{kept, print_json},
    scale::{
        Asleep, Bound, Common, GatewayConfig, Hold, INTERRUPTED, Limit, Origin, Report, Row, Sources, Wanted,
        asleep, hold, limit,
    },
};
use clap::{Args, Parser, Subcommand};
use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// As in beam.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    about = "Many real tunnels against one real `beam serve`, which it starts: what each costs, what happens at the limit, \
    how those that sleep wake. Ends with 0 when everything was as it must be, with 1 when something wasn't (the row says what)"
)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Holds tunnels with light traffic in each; a row for each number of tunnels, each with a fresh gateway
    Hold {
        /// How many tunnels (several: one row each)
        #[arg(required = true, value_name = "N")]
        tunnels: Vec<u32>,
        /// Seconds between two requests of one tunnel; default: all tunnels together have 400 a second, none more than one
        #[arg(long, value_name = "SECS")]
        every: Option<f64>,
        /// For how many seconds they are held with that traffic
        #[arg(long, value_name = "SECS", default_value_t = 20.0)]
        hold: f64,
        /// For how many seconds before that they are held with keep-alives only
        #[arg(long, value_name = "SECS", default_value_t = 0.0)]
        idle: f64,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Opens more tunnels than the gateway may have
    Limit {
        /// How many tunnels
        #[arg(value_name = "N")]
        tunnels: u32,
        /// How many the gateway may have; given to it, with one worker
        #[arg(long, value_name = "M", required_unless_present = "memory_limit")]
        max_connections: Option<u32>,
        /// Instead: what the gateway may use of memory, given to it as it is
        #[arg(long, value_name = "SIZE", conflicts_with = "max_connections")]
        memory_limit: Option<String>,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Lets tunnels sleep beside some that live; wakes some one by one, and many within one second
    Asleep {
        /// How many sleep
        #[arg(value_name = "N")]
        tunnels: u32,
        /// How many live beside them
        #[arg(long, value_name = "N", default_value_t = 1000)]
        live: u32,
        /// Seconds of silence after which a tunnel lapses, as it announces; a handshake that takes longer is given up, too
        #[arg(long, value_name = "SECS", default_value_t = 15.0)]
        lapse: f64,
        /// For how many seconds they are held, with a request each five seconds in those that live
        #[arg(long, value_name = "SECS", default_value_t = 10.0)]
        hold: f64,
        /// Wakes one by one, each beside a request of a live tunnel
        #[arg(long, value_name = "N", default_value_t = 101)]
        wakes: u32,
        /// Wakes within one second
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        storm: u32,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Measures nothing: prints the table of an object that was kept
    Show {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Args)]
struct CommonArgs {
    /// The binary of the gateway
    #[arg(long, value_name = "FILE")]
    beam: PathBuf,
    /// One JSON object {schema, host, method, rows} on standard output instead of the table
    #[arg(long)]
    json: bool,
    /// Where the gateway listens; default: a free UDP port of 127.0.0.1
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The interface that the gateway attaches to by AF_XDP; without it, it runs with `--xdp off`
    #[arg(long, value_name = "IF", requires = "listen")]
    interface: Option<String>,
    /// Run the gateway in this network namespace (a name of `ip netns`)
    #[arg(long, value_name = "NAME", requires = "listen")]
    netns: Option<String>,
    /// Run the gateway under this command, such as "valgrind --tool=callgrind"
    #[arg(long, value_name = "COMMAND", default_value = "")]
    under: String,
    /// Source addresses of the tunnels, one each in turn: all of them must be this host's (127.0.0.0/8, or by
    /// `ip route add local PREFIX dev lo`) and the gateway must have a route to them
    #[arg(long, value_name = "PREFIX", default_value = "127.64.0.0/15")]
    sources: Sources,
    /// UDP sockets that the tunnels share
    #[arg(long, value_name = "N", default_value_t = 16)]
    sockets: u16,
    /// Users of the gateway, whose tunnels they are in turn
    #[arg(long, value_name = "N", default_value_t = 1000)]
    users: u32,
    /// Requests are flows to a listener at this address (port 0: a free one), which this program opens and the gateway must
    /// reach; without it they are `OPTIONS *`, which the gateway answers itself
    #[arg(long, value_name = "ADDRESS:PORT")]
    origin: Option<SocketAddr>,
    /// Keep-alives of each tunnel (0: none)
    #[arg(long, value_name = "SECS", default_value_t = 25.0)]
    keepalive: f64,
    /// Handshakes under way at once. A gateway asks for Retry above 256
    #[arg(long, value_name = "N", default_value_t = 64)]
    in_flight: u32,
    /// Further flags of `beam serve`, behind `--`
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

impl CommonArgs {
    fn common(self) -> Result<Common> {
        let origin = self.origin.map(Origin::start).transpose()?;
        let mut flags = self.flags;
        if let Some(origin) = &origin {
            flags.extend([
                "--allow".into(),
                format!("{}/32:{}", origin.address().ip(), origin.address().port()),
            ]);
        }
        ensure!(
            self.beam.is_file(),
            "--beam {}: no such file; build one: cargo build --release -p beam",
            self.beam.display()
        );
        let gateway = GatewayConfig {
            beam: self.beam,
            netns: self.netns,
            under: self.under.split_whitespace().map(str::to_owned).collect(),
            listen: self.listen,
            interface: self.interface,
            users: self.users.max(1),
            flags,
        };
        Ok(Common {
            gateway,
            sources: self.sources,
            sockets: self.sockets,
            wanted: origin.map_or(Wanted::Answer, |origin| Wanted::FirstByte(origin.address())),
            keep_alive: seconds(self.keepalive)?,
            in_flight: self.in_flight,
        })
    }
}

/// `None` for 0.
fn seconds(value: f64) -> Result<Option<Duration>> {
    let duration =
        Duration::try_from_secs_f64(value).with_context(|| format!("{value} is no time in seconds"))?;
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

fn main() -> Result<ExitCode> {
    let interrupted = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while !interrupted.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        INTERRUPTED.store(true, Relaxed);
    })?;
    let (rows, json) = match Arguments::parse().mode {
        Mode::Show { file } => {
            kept::<Report>(&file)?.print(std::io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
        Mode::Hold { tunnels, every, hold: time, idle, common } => {
            let json = common.json;
            let every = every.map(seconds).transpose()?.flatten();
            let (time, idle) = (seconds(time)?.unwrap_or_default(), seconds(idle)?.unwrap_or_default());
            let common = common.common()?;
            let runs = tunnels.into_iter().map(|tunnels| hold(&common, &Hold { tunnels, every, time, idle }));
            (runs.collect::<Result<Vec<Row>>>()?, json)
        }
        Mode::Limit { tunnels, max_connections, memory_limit, common } => {
            let json = common.json;
            let bound = max_connections.map(Bound::Connections).or(memory_limit.map(Bound::Memory));
            let bound = bound.context("--max-connections or --memory-limit is needed")?;
            let row = limit(&common.common()?, &Limit { tunnels, bound })?;
            (vec![row], json)
        }
        Mode::Asleep { tunnels, live, lapse, hold, wakes, storm, common } => {
            let json = common.json;
            let lapse = seconds(lapse)?.context("--lapse 0 would end every tunnel at once")?;
            let time = seconds(hold)?.unwrap_or_default();
            let row = asleep(&common.common()?, &Asleep { tunnels, live, lapse, time, wakes, storm })?;
            (vec![row], json)
        }
    };
    let report = Report::new(rows);
    let mut out = std::io::stdout().lock();
    match json {
        true => print_json(&mut out, &report)?,
        false => report.print(&mut out)?,
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
