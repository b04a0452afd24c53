//! Flags, and the read verbs without a daemon.

use crate::pair::Place;
use crate::rig::{self, Ns};
use crate::{NOBODY, ROW, Row, check};

/// What clap refuses is said with the usage, and is told apart from what the files or the host lack.
#[test]
fn flags() {
    if !rig::root_or_skip("preflight: flags") {
        return;
    }
    let rows = [
        Row { name: "no verb", args: "--none", exit: 2, says: &["--none", "Usage"], ..ROW },
        Row {
            name: "unknown mode",
            args: "{serve} --xdp fast",
            exit: 2,
            says: &["fast", "auto, native, skb, off"],
            ..ROW
        },
        Row {
            name: "from the environment too",
            env: &[("BEAM_XDP", "fast")],
            args: "{serve}",
            exit: 2,
            says: &["fast", "auto, native, skb, off"],
            ..ROW
        },
        Row {
            name: "queues backwards",
            args: "{serve} --queues 3-1",
            exit: 2,
            says: &["3-1", "runs backwards"],
            ..ROW
        },
        Row {
            name: "CPUs that are no numbers",
            args: "{serve} --cpus a",
            exit: 2,
            says: &["`a` is not a list such as 0-3 or 0,2"],
            ..ROW
        },
        Row { name: "port", args: "serve -l :99999", exit: 2, says: &["`99999` is not a port"], ..ROW },
        Row {
            name: "time",
            args: "{serve} --drain-timeout 5parsecs",
            exit: 2,
            says: &["parsecs", "ms, s, m or h"],
            ..ROW
        },
        Row { name: "no URL", args: "connect", exit: 2, says: &["<URL>", "Usage"], ..ROW },
        Row {
            name: "URL without TLS",
            args: "connect http://gw.example -D 1080",
            exit: 2,
            says: &["https://HOST[:PORT]"],
            ..ROW
        },
        Row {
            name: "forward without a destination",
            args: "connect https://gw.example -L 8080:web",
            exit: 2,
            says: &["8080:web", "[BIND:]PORT:HOST:HOSTPORT"],
            ..ROW
        },
        Row {
            name: "stdio beside a forward",
            args: "connect https://gw.example -W h:1 -D 1080",
            exit: 2,
            says: &["--stdio", "cannot be used with"],
            ..ROW
        },
        Row {
            name: "nothing to carry",
            voice: ["nothing to carry", "nothing", "give -L or -R", "-D [BIND:]PORT"],
            args: "connect https://gw.example",
            exit: 3,
            says: &["-W"],
            ..ROW
        },
        Row {
            name: "status without a daemon",
            voice: [
                "no daemon at {dir}/none.sock",
                "there is no such socket",
                "is `beam serve`",
                "--control PATH",
            ],
            args: "status --control {dir}/none.sock",
            exit: 5,
            ..ROW
        },
        Row {
            name: "status of a dead daemon",
            voice: ["no daemon at {dir}/dead.sock", "nobody listens", "--control PATH", "--control PATH"],
            before: "python3 -c \"import socket;socket.socket(socket.AF_UNIX).bind('{dir}/dead.sock')\"",
            args: "status --control {dir}/dead.sock",
            exit: 5,
            ..ROW
        },
        Row {
            name: "status without permission",
            voice: ["no daemon at {dir}/shut.sock", "permission denied", "run as root", "--control PATH"],
            before: "python3 -c \"import socket;socket.socket(socket.AF_UNIX).bind('{dir}/shut.sock')\"; \
                     chmod 0600 {dir}/shut.sock",
            by: NOBODY,
            args: "status --control {dir}/shut.sock",
            exit: 5,
            ..ROW
        },
    ];
    check(&Place::new(), Ns::Client, &rows);
}
