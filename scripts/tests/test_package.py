"""Goal: the Debian package does on a real system what it says: it installs, starts nothing by itself, runs beam under systemd
with the privileges of its unit and no more, reloads, drains, and goes without a trace.
Method: scripts/package builds it; systemd boots in a container (systemd-nspawn) whose root is an overlay over this
machine's, with a network of its own; this same file then runs inside as a unit. Every wait is systemctl's own: a unit
is started when it has said READY=1. Nothing of it stays on this machine.

Needs root; says SKIPPED without."""

import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
# Where the container finds what it is for.
STAGE = pathlib.Path("/beam-test")
INSIDE = "--inside"
BOOT_LIMIT_S = 150

GATEWAY = "198.18.0.1"
CLIENT = "198.18.0.2"
BODY = bytes(range(256)) * 4096


def run(*command, code=0, **options):
    """The output of a command that has to end with `code`; None for whatever it ends with."""
    options = {"capture_output": True, "text": True, "timeout": 60, **options}
    done = subprocess.run([str(word) for word in command], **options)
    if code is not None and done.returncode != code:
        raise AssertionError(
            f"{command} ended with {done.returncode}, wanted {code}\n{done.stdout}{done.stderr}"
        )
    return done.stdout + done.stderr


class OutOfDoors(unittest.TestCase):
    """On this machine: builds, boots, reads the verdict."""

    def test_package(self):
        if os.geteuid() != 0:
            print("SKIPPED: test_package: a container needs root", file=sys.stderr)
            return
        with tempfile.TemporaryDirectory(prefix="beam-package-") as folder:
            folder = pathlib.Path(folder)
            built = subprocess.run(
                [REPO / "scripts/package", "--out", folder], check=True, stdout=subprocess.PIPE, text=True
            )
            self.boot(folder, pathlib.Path(built.stdout.strip()))

    def boot(self, folder, package):
        layers = folder / "layers"
        root = folder / "root"
        for path in (layers, root):
            path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", layers]
        subprocess.run(mount, check=True)
        try:
            for name in ("upper", "work"):
                (layers / name).mkdir()
            of = f"lowerdir=/,upperdir={layers / 'upper'},workdir={layers / 'work'}"
            subprocess.run(["mount", "-t", "overlay", "-o", of, "overlay", root], check=True)
            try:
                self.furnish(root, package)
                self.enter(root)
            finally:
                subprocess.run(["umount", root], check=True)
        finally:
            subprocess.run(["umount", layers], check=True)

    @staticmethod
    def furnish(root, package):
        """A system that knows this test, and none of this machine's services."""
        units = root / "etc/systemd/system"
        shutil.rmtree(units, ignore_errors=True)
        units.mkdir()
        # Each installation would index all of this machine's pages.
        (root / "var/lib/man-db/auto-update").unlink(missing_ok=True)
        # A container has an identity of its own.
        (root / "etc/machine-id").write_text("")
        stage = root / STAGE.relative_to("/")
        stage.mkdir()
        shutil.copy(package, stage / "beam.deb")
        shutil.copy(__file__, stage / "test.py")
        (units / "beam-test.service").write_text(
            "[Unit]\nAfter=dbus.socket\nWants=dbus.socket\n"
            "[Service]\nType=oneshot\nTimeoutStartSec=140\n"
            f"ExecStart={sys.executable} -B {STAGE}/test.py {INSIDE}\n"
            f"StandardOutput=append:{STAGE}/log\nStandardError=append:{STAGE}/log\n"
            "ExecStopPost=-systemctl poweroff --no-block\n"
        )

    def enter(self, root):
        command = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={root}",
            "--private-network", "--console=pipe",
            "--capability=CAP_BPF,CAP_NET_ADMIN,CAP_NET_RAW,CAP_IPC_LOCK",
            # Which nspawn forbids, and a system permits.
            "--system-call-filter=bpf landlock_create_ruleset landlock_add_rule landlock_restrict_self",
            "--boot", "systemd.unit=beam-test.service",
        ]  # fmt: skip
        container = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            console = container.communicate(timeout=BOOT_LIMIT_S)[0]
        except subprocess.TimeoutExpired:
            # Halts the container, which takes its processes along.
            container.send_signal(signal.SIGTERM)
            console = container.communicate(timeout=30)[0]
        log = root / STAGE.relative_to("/") / "log"
        said = log.read_text() if log.exists() else ""
        print(said, file=sys.stderr)
        self.assertIn("\nOK\n", said, f"not everything passed inside; the container said:\n{console[-8000:]}")


class Inside(unittest.TestCase):
    """In the container, one act after the other: unittest sorts by name."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        # Whoever runs all tests of this folder isn't in there.
        if not STAGE.is_dir():
            raise unittest.SkipTest(f"there is no {STAGE}: this is no container of OutOfDoors")
        # A veth pair, and a client's namespace at its other end, whose program lets native XDP through.
        script = f"""
            mkdir -p /dev/net
            rm -f /dev/net/tun
            mknod -m 666 /dev/net/tun c 10 200
            ip link set lo up
            ip netns add client
            ip link add g0 type veth peer name c0
            ip link set c0 netns client
            ip addr add {GATEWAY}/24 dev g0
            ip link set g0 up
            ip -n client addr add {CLIENT}/24 dev c0
            ip -n client link set c0 up
            ip -n client link set lo up
            ethtool -K g0 gro on tx off
            ip netns exec client ethtool -K c0 gro on tx off
        """
        run("sh", "-ec", script)
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        (cls.folder / "body").write_bytes(BODY)
        cls.origin = subprocess.Popen(
            [sys.executable, "-m", "http.server", "--bind", GATEWAY, "--directory", cls.folder, "8000"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @classmethod
    def tearDownClass(cls):
        cls.origin.kill()
        cls.origin.wait()

    @staticmethod
    def unit(name, *properties):
        shown = run("systemctl", "show", name, f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in shown.splitlines())

    def mode(self, path):
        stat = os.stat(path)
        group = __import__("grp").getgrgid(stat.st_gid).gr_name
        return f"{stat.st_mode & 0o7777:04o} {pwd.getpwuid(stat.st_uid).pw_name}:{group}"

    def test_1_install(self):
        self.assertFalse(os.path.exists("/etc/beam") or os.path.exists("/usr/bin/beam"))
        said = run("dpkg", "-i", STAGE / "beam.deb")
        self.assertIn("edit /etc/beam/beam.toml", said)
        user = pwd.getpwnam("beam")
        self.assertEqual((user.pw_dir, user.pw_shell), ("/var/lib/beam", "/usr/sbin/nologin"))
        self.assertEqual(self.mode("/etc/beam"), "2755 root:beam")
        self.assertEqual(self.mode("/etc/beam/beam.toml"), "0644 root:root")
        self.assertIn("/etc/beam/beam.toml", run("dpkg-query", "-W", "-f", "${Conffiles}", "beam"))
        # Neither enabled nor started.
        unit = self.unit("beam", "ActiveState", "UnitFileState")
        self.assertEqual(unit, {"ActiveState": "inactive", "UnitFileState": "disabled"})
        # What is shipped is in its place, and is what the program says.
        self.assertEqual(
            pathlib.Path("/usr/share/bash-completion/completions/beam").read_text(),
            run("beam", "completions", "bash"),
        )
        script = "source /usr/share/bash-completion/completions/beam; complete -p beam; " \
            "COMP_WORDS=(beam dra) COMP_CWORD=1; _beam beam dra beam; echo ${COMPREPLY[@]}"
        self.assertIn("drain", run("bash", "-c", script).split())
        for page in ("beam", "beam-serve", "beam-connect", "beam-check", "beam-user-add"):
            self.assertGreater(os.path.getsize(f"/usr/share/man/man1/{page}.1.gz"), 100, page)
        copyright = pathlib.Path("/usr/share/doc/beam/copyright").read_text()
        for crate in ("quinn-proto", "libxdp-sys", "ring", "toml"):
            self.assertRegex(copyright, rf"(?m)^{crate} [0-9.]+")

    def test_2_units(self):
        for unit in ("beam.service", "beam-connect@office.service"):
            # Other units of this machine may have faults of their own.
            said = run("systemd-analyze", "verify", "--man=no", unit, code=None)
            self.assertNotIn("beam", said)
        for unit in ("beam.service", "beam-connect@.service"):
            run("systemd-analyze", "security", "--offline=yes", "--threshold=25", f"/usr/lib/systemd/system/{unit}")

    def test_3_a_start_without_a_configuration(self):
        """The file as it comes has no users: said by check, and by a start that isn't repeated."""
        said = run("beam", "check", code=3)
        self.assertIn("no certificate", said)
        self.assertIn("beam user add", said)
        run("systemctl", "start", "beam", code=1)
        unit = self.unit("beam", "ActiveState", "ExecMainStatus", "NRestarts")
        self.assertEqual(unit, {"ActiveState": "failed", "ExecMainStatus": "3", "NRestarts": "0"})
        run("systemctl", "reset-failed", "beam")

    def test_4_start(self):
        token = run("beam", "user", "add", "alice", "--users", "/etc/beam/users").splitlines()
        pathlib.Path("/etc/beam/connect/office.token").write_text(token[0] + "\n")
        os.chmod("/etc/beam/connect/office.token", 0o640)
        self.assertEqual(self.mode("/etc/beam/users"), "0640 root:beam")
        # The five lines that the file itself proposes, and this place's interface and rules.
        path = pathlib.Path("/etc/beam/beam.toml")
        text = path.read_text().replace("#:", "").replace("198.51.100.0/24:443", f"{GATEWAY}:8000")
        path.write_text(text + 'interface = ["g0"]\nxdp = "native"\nip-pool = ["198.18.64.0/24"]\n')
        as_beam = ("setpriv", "--reuid=beam", "--regid=beam", "--clear-groups")
        said = run(*as_beam, "beam", "check")
        self.assertRegex(said, r"(?m)^interface = \[\"g0\"\] +# /etc/beam/beam.toml:\d+$")
        self.assertIn("# ok;", said)
        run("systemctl", "start", "beam")
        unit = self.unit("beam", "ActiveState", "SubState", "MainPID", "StatusText")
        self.assertEqual((unit["ActiveState"], unit["SubState"]), ("active", "running"))
        pid = unit["MainPID"]
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        self.assertEqual(status["Uid"].split()[0], str(pwd.getpwnam("beam").pw_uid))
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        # No capability beyond the unit's five; by now beam has dropped them.
        allowed = sum(1 << bit for bit in (10, 12, 13, 14, 39))
        self.assertEqual(int(status["CapBnd"], 16) & ~allowed, 0)
        self.assertEqual(self.mode("/run/beam"), "0750 beam:beam")
        self.assertEqual(self.mode("/run/beam/beam.sock"), "0660 beam:beam")
        self.assertEqual(self.mode("/var/lib/beam"), "0700 beam:beam")
        status = json.loads(run(*as_beam, "beam", "status", "-j"))
        self.assertTrue(status["ready"])
        self.assertEqual({worker["xdp_mode"] for worker in status["workers"]}, {"native-copy"})
        self.assertIn("xdp", run("ip", "link", "show", "g0"))
        self.assertIn("198.18.64.1", run("ip", "addr", "show", "beam0"))
        self.assertEqual(pathlib.Path("/proc/sys/net/ipv4/conf/beam0/forwarding").read_text(), "1\n")

    def test_5_a_client(self):
        cert = json.loads(run("beam", "show", "cert", "-j"))
        pathlib.Path("/etc/beam/connect/office.toml").write_text(
            f'[connect]\nurl = "https://{GATEWAY}"\ntoken-file = "/etc/beam/connect/office.token"\n'
            f'pin = "{cert["rows"][0]["fingerprint"]}"\nsocks = [1080]\nxdp = "off"\n'
        )
        folder = pathlib.Path("/etc/systemd/system/beam-connect@office.service.d")
        folder.mkdir()
        (folder / "namespace.conf").write_text("[Service]\nNetworkNamespacePath=/run/netns/client\n")
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "beam-connect@office")
        fetch = ("ip", "netns", "exec", "client", "curl", "-qsS", "--fail", "--max-time", "20")
        fetched = subprocess.run(
            [*fetch, "--socks5-hostname", "127.0.0.1:1080", f"http://{GATEWAY}:8000/body"],
            capture_output=True,
        )
        self.assertEqual((fetched.returncode, fetched.stderr), (0, b""))
        self.assertTrue(fetched.stdout == BODY, f"{len(fetched.stdout)} bytes")
        status = json.loads(run("beam", "status", "-j"))
        # The body went out by AF_XDP, and what acknowledges it came in.
        self.assertGreater(status["xsk_tx_frames"], 500)
        self.assertGreater(status["xsk_rx_frames"], 10)
        # An upgrade leaves the file as it was edited, and both daemons at work.
        before = [self.unit(name, "MainPID") for name in ("beam", "beam-connect@office")]
        edited = pathlib.Path("/etc/beam/beam.toml").read_text()
        said = run("dpkg", "-i", "--force-confold", STAGE / "beam.deb")
        self.assertIn("what runs is still version", said)
        self.assertEqual([self.unit(name, "MainPID") for name in ("beam", "beam-connect@office")], before)
        self.assertEqual(pathlib.Path("/etc/beam/beam.toml").read_text(), edited)

    def test_6_reload(self):
        path = pathlib.Path("/etc/beam/beam.toml")
        text = path.read_text()
        path.write_text(text.replace('xdp = "native"', 'xdp = "skb"\ndeny = ["203.0.113.0/24"]'))
        run("systemctl", "reload", "beam")
        said = run("journalctl", "-u", "beam", "--no-pager")
        self.assertIn("changed: deny; needs a restart, and is as before: xdp;", said)
        path.write_text(text + "lisen = 1\n")
        # systemctl says that it failed, and the service goes on.
        run("systemctl", "reload", "beam", code=1)
        self.assertEqual(self.unit("beam", "ActiveState"), {"ActiveState": "active"})
        self.assertIn("did you mean listen?", run("journalctl", "-u", "beam", "--no-pager"))
        path.write_text(text)
        run("systemctl", "reload", "beam")

    def test_7_drain(self):
        self.assertIn("drained: every flow has finished", run("beam", "drain"))
        # Its end is known to systemd a moment later: a stop waits for that.
        run("systemctl", "stop", "beam")
        unit = self.unit("beam", "ActiveState", "Result", "NRestarts")
        self.assertEqual(unit, {"ActiveState": "inactive", "Result": "success", "NRestarts": "0"})
        self.assertNotIn("xdp", run("ip", "link", "show", "g0"))
        self.assertFalse(os.path.exists("/run/beam"))
        run("beam", "status", code=5)

    def test_8_remove(self):
        """Removal stops what runs; a purge leaves what the operator made, and nothing else."""
        run("systemctl", "start", "beam")
        run("systemctl", "enable", "beam", "beam-connect@office")
        run("dpkg", "-r", "beam")
        self.assertFalse(os.path.exists("/usr/bin/beam") or os.path.exists("/run/beam"))
        self.assertEqual(run("pgrep", "-x", "beam", code=1), "")
        self.assertTrue(os.path.exists("/etc/beam/beam.toml") and os.path.exists("/var/lib/beam"))
        shutil.rmtree("/etc/systemd/system/beam-connect@office.service.d")
        said = run("dpkg", "-P", "beam")
        self.assertIn("they stay", said)
        left = sorted(str(path) for path in pathlib.Path("/etc/beam").rglob("*") if path.is_file())
        self.assertEqual(left, ["/etc/beam/connect/office.token", "/etc/beam/connect/office.toml", "/etc/beam/users"])
        self.nothing_but_etc()
        shutil.rmtree("/etc/beam")
        # A package that was only looked at goes without a trace.
        run("dpkg", "-i", STAGE / "beam.deb")
        run("dpkg", "-P", "beam")
        self.assertFalse(os.path.exists("/etc/beam"))
        self.nothing_but_etc()

    def nothing_but_etc(self):
        places = ("/usr", "/var/lib", "/run", "/etc/systemd")
        named = (path for place in places for path in pathlib.Path(place).rglob("*beam*"))
        others = ("beam-test", "/journal", "python", "cargo", "site-packages")
        left = [str(path) for path in named if not any(other in str(path) for other in others)]
        self.assertEqual(left, [])
        self.assertRaises(KeyError, pwd.getpwnam, "beam")
        self.assertRaises(KeyError, __import__("grp").getgrnam, "beam")


if __name__ == "__main__":
    if sys.argv[1:] == [INSIDE]:
        program = unittest.main(argv=[sys.argv[0], "Inside"], verbosity=2, failfast=True, exit=False)
        if not program.result.wasSuccessful():
            subprocess.run(["journalctl", "-u", "beam*", "-n", "100", "--no-pager"], stdout=sys.stderr)
    else:
        unittest.main(argv=[sys.argv[0], "OutOfDoors", *sys.argv[1:]])
