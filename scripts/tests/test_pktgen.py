"""Goal: the scripts of scripts/pktgen refuse what pktgen can't do, say exactly the right things to it, and believe it.
Method: the scripts run against a directory that looks like /proc/net/pktgen; each of its files holds what the kernel
would answer and collects what was written. The `modprobe`, `id` and `ip` on the PATH are the tests' own. The lock is the
real one, of a network namespace; scripts/tests/test_kernels_boot.py holds two scripts against the real pktgen."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / "pktgen"
NAMES = ["single-flow", "many-flows", "imix", "vlan", "version-flood", "quic-flood"]
MAC = "02:00:00:00:00:01"
WHERE = ["-i", "eth9", "-d", "198.18.0.1", "-m", MAC]

DONE = """Params: count 1000  min_pkt_size: 60  max_pkt_size: 60
Current:
     pkts-sofar: {packets}  errors: {errors}
     imix_size_counts: {sizes}
     started: 1000000us  stopped: 3500000us idle: 7us
Result: {result}
"""
OK = "OK: 2500000(c2499993+d7) usec, 1000 (60byte,0frags)"


ROOT = tempfile.TemporaryDirectory()


def of_its_own():
    """What gives a command a network namespace, so that two runs of these tests don't lock each other out."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if not subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            return command
    return []


ALONE = of_its_own()


def tearDownModule():
    ROOT.cleanup()


class Fake:
    """A pktgen with `threads` threads that is done with everything at once."""

    def __init__(self, threads=1, present=True, root=True, packets=100000, errors=0, sizes="", result=OK):
        top = pathlib.Path(tempfile.mkdtemp(dir=ROOT.name))
        self.proc, self.tools = top / "proc", top / "tools"
        self.tools.mkdir()
        if present:
            self.proc.mkdir()
            self.write("pgctrl", "Packet Generator for packet performance testing.\n")
            for thread in range(threads):
                self.write(f"kpktgend_{thread}", "Running: \nStopped: \nResult: OK: add_device\n")
                self.write(
                    f"eth9@{thread}", DONE.format(packets=packets, errors=errors, sizes=sizes, result=result)
                )
        self.beam = str(top / "no-beam")
        self.start = {path.name: path.read_text() for path in self.proc.glob("*")}
        for tool, text in (
            ("modprobe", "echo 'modprobe: FATAL: Module pktgen not found' >&2; exit 1"),
            ("id", f"echo {0 if root else 1000}"),
            ("ip", "exit 1"),
        ):
            self.tool(tool, text)

    def with_beam(self, code=0):
        """A beam that prints its words, one a line."""
        self.tool("beam-of-ours", f"""printf '%s\\n' "$@"; exit {code}""")
        self.beam = str(self.tools / "beam-of-ours")
        return self

    def tool(self, name, text):
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def write(self, name, text):
        (self.proc / name).write_text(text)

    def environment(self):
        path = f"{self.tools}:{os.environ['PATH']}"
        return {**os.environ, "BEAM_PKTGEN_PROC": str(self.proc), "PATH": path, "BEAM_BIN": self.beam}

    def run(self, script, *arguments):
        command = [*ALONE, SCRIPTS / script, *arguments]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=20)

    def written(self, name):
        """The commands that a file got."""
        text = (self.proc / name).read_text()
        assert text.startswith(self.start[name]), text
        return text[len(self.start[name]) :].splitlines()


class Refusals(unittest.TestCase):
    def test_wrong_command_lines_end_with_2_before_anything_is_touched(self):
        for script, arguments, needed in (
            ("single-flow", [], "-i is needed"),
            ("single-flow", ["-i", "eth9"], "-d is needed"),
            ("single-flow", ["-i", "../x", "-d", "198.18.0.1"], "names no interface"),
            ("single-flow", ["-i", "a b", "-d", "198.18.0.1"], "names no interface"),
            ("single-flow", [*WHERE, "-d", "198.18.0.256"], "IPv4 address"),
            ("single-flow", [*WHERE, "-d", "198.18.0"], "IPv4 address"),
            ("single-flow", [*WHERE, "-d", "2001:db8::1"], "or -6"),
            ("single-flow", [*WHERE, "-d", "198.18.0.0/33"], "prefix length from 8 to 32"),
            ("single-flow", [*WHERE, "-6"], "IPv6 address"),
            ("single-flow", [*WHERE, "-6", "-d", "2001:db8:::1"], "IPv6 address"),
            ("single-flow", [*WHERE, "-6", "-d", "1:2:3:4:5:6:7:8:9"], "IPv6 address"),
            ("single-flow", [*WHERE, "-6", "-d", "2001:db8::/129"], "from 8 to 128"),
            ("single-flow", [*WHERE, "-m", "02:00"], "MAC address"),
            ("single-flow", [*WHERE, "-n", "many"], "-n wants a number"),
            ("single-flow", [*WHERE, "-t", "0"], "-t wants a number from 1"),
            ("single-flow", [*WHERE, "-p", "0"], "-p wants a number"),
            ("single-flow", [*WHERE, "-p", "9-8"], "-p wants a number from 10"),
            ("single-flow", [*WHERE, "-p", "9-65535"], "to 65534"),
            ("single-flow", [*WHERE, "-s", "59"], "from 60"),
            ("single-flow", [*WHERE, "-6", "-d", "2001:db8::1", "-s", "77"], "from 78"),
            ("single-flow", [*WHERE, "-w", "2147483647"], "-w wants a number"),
            ("single-flow", [*WHERE, "-w"], "-w wants a value"),
            ("single-flow", [*WHERE, "-V", "5"], "unknown option -V"),
            ("single-flow", [*WHERE, "word"], "one word too many"),
            ("imix", [*WHERE, "-s", "64"], "mix of sizes"),
            ("imix", [*WHERE, "-c", "1"], "mix of sizes"),
            ("vlan", WHERE, "-V is needed"),
            ("vlan", [*WHERE, "-V", "4095"], "-V wants a number"),
            ("vlan", [*WHERE, "-V", "5", "-Q", "0"], "-Q wants a number"),
            ("vlan", [*WHERE, "-V", "5", "-s", "61"], "from 62"),
        ):
            with self.subTest(script=script, arguments=arguments):
                fake = Fake()
                result = fake.run(script, *arguments)
                self.assertEqual((result.returncode, result.stdout), (2, ""), result.stderr)
                self.assertIn(needed, result.stderr)
                self.assertEqual(fake.written("pgctrl"), [])

    def test_help_names_every_letter(self):
        for name in NAMES:
            result = Fake(present=False).run(name, "-h")
            self.assertEqual(result.returncode, 0, result.stderr)
            for letter in "idmpsntfcbw6vxj":
                self.assertRegex(result.stdout, rf"(?m)^  (-v, )?-{letter}[ ,]")

    def test_without_the_module(self):
        result = Fake(present=False).run("single-flow", *WHERE)
        self.assertEqual((result.returncode, result.stdout), (4, ""))
        for needed in ("modprobe: FATAL: Module pktgen not found", "CONFIG_NET_PKTGEN", os.uname().release, "beam pktgen"):
            self.assertIn(needed, result.stderr)

    def test_unfit_hosts_end_with_4(self):
        busy = Fake()
        busy.write("kpktgend_0", "Running: eth1@0 \nStopped: \nResult: OK\n")
        for fake, arguments, needed in (
            (Fake(root=False), WHERE, "needs root"),
            (busy, WHERE, "busy in this network namespace, sending from eth1@0;"),
            (Fake(), ["-i", "eth9", "-d", "198.18.0.1"], "no MAC address for 198.18.0.1 on eth9"),
            (Fake(threads=2), [*WHERE, "-t", "3"], "no CPU 2"),
        ):
            with self.subTest(needed=needed):
                result = fake.run("single-flow", *arguments)
                self.assertEqual(result.returncode, 4, result.stderr)
                self.assertIn(needed, result.stderr)

    def test_two_at_once(self):
        # Each has files of its own, as each process of a real pktgen does: only their network namespace is one.
        fakes = [Fake(result="OK: Starting"), Fake()]
        # The second runs beside the first, in its namespace, and once more when that is killed.
        both = """ "$0" "$@" & first=$!
            until grep -q start "$FIRST/pgctrl"; do sleep 0.02; done
            code=0; BEAM_PKTGEN_PROC=$SECOND "$0" "$@" || code=$?; echo "beside it: $code"
            kill -KILL $first; wait $first
            # A sleep that the first left holds the lock, too, for its 0.1 s.
            sleep 0.5
            code=0; BEAM_PKTGEN_PROC=$SECOND "$0" "$@" >&2 || code=$?; echo "after it: $code"
        """
        command = [*ALONE, "bash", "-c", both, SCRIPTS / "single-flow", *WHERE]
        environment = {**fakes[0].environment(), "FIRST": str(fakes[0].proc), "SECOND": str(fakes[1].proc)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
        self.assertEqual(done.stdout.splitlines(), ["beside it: 4", "after it: 0"], done.stderr)
        self.assertIn("another script drives pktgen in this network namespace", done.stderr)
        self.assertEqual(fakes[0].written("pgctrl"), ["start"])

    @unittest.skipUnless(ALONE, "needs network namespaces of its own")
    def test_two_at_once_in_two_namespaces_are_not_in_each_others_way(self):
        first, second = Fake(result="OK: Starting"), Fake()
        held = subprocess.Popen([*ALONE, SCRIPTS / "single-flow", *WHERE], env=first.environment(), stderr=subprocess.PIPE)
        try:
            until = time.monotonic() + 10
            while "start" not in first.written("pgctrl") and time.monotonic() < until:
                time.sleep(0.02)
            self.assertEqual(second.run("single-flow", *WHERE).returncode, 0)
        finally:
            held.kill()
            held.communicate()

    def test_frames_that_the_interface_does_not_take(self):
        fake = Fake()
        fake.tool("ip", "echo '2: eth9: <BROADCAST,UP> mtu 1400 qdisc mq state UP'")
        for script, arguments, needed in (
            ("single-flow", ["-s", "1415"], "frames of 1415 bytes don't pass eth9: its MTU is 1400, so a frame may have 1414"),
            ("single-flow", ["-s", "1415"], "lower -s, or: ip link set dev eth9 mtu 1401"),
            ("vlan", ["-V", "5", "-s", "1419"], "may have 1418 (14 of Ethernet, 4 of VLAN tags)"),
            ("vlan", ["-V", "5", "-Q", "6", "-s", "1423"], "may have 1422 (14 of Ethernet, 8 of VLAN tags)"),
            ("imix", [], "frames of 1514 bytes don't pass eth9"),
        ):
            with self.subTest(script=script, arguments=arguments):
                result = fake.run(script, *WHERE, *arguments)
                self.assertEqual((result.returncode, result.stdout), (4, ""), result.stderr)
                self.assertIn(needed, result.stderr)
        self.assertEqual(fake.written("pgctrl"), [])
        for script, arguments in (("single-flow", ["-s", "1414"]), ("vlan", ["-V", "5", "-s", "1418"]), ("version-flood", [])):
            self.assertEqual(fake.run(script, *WHERE, *arguments).returncode, 0)

    def test_what_pktgen_refuses_by_its_result_line(self):
        """Unknown flags, say: the write succeeds, and only `Result:` tells."""
        fake = Fake(result="Flag -:QUEUE_MAP_CPU:- unknown")
        result = fake.run("single-flow", *WHERE)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn("refused 'count 100000' for eth9@0", result.stderr)
        self.assertIn("unknown", result.stderr)
        self.assertEqual(fake.written("pgctrl"), ["stop", "reset"])

    def test_what_pktgen_refuses_by_errno(self):
        """/dev/full refuses every write, whatever the file's `Result:` says."""
        fake = Fake()
        (fake.proc / "kpktgend_0").unlink()
        (fake.proc / "kpktgend_0").symlink_to("/dev/full")
        fake.tool("cat", "exit 0")  # /dev/full never ends
        fake.tool("awk", 'for last; do :; done; case $last in *kpktgend*) ;; *) exec /usr/bin/awk "$@" ;; esac')
        result = fake.run("single-flow", *WHERE)
        self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
        self.assertIn("refused 'add_device eth9@0' for kpktgend_0: No space left on device", result.stderr)
        self.assertIn("ip link set dev eth9 up", result.stderr)


class Choice(unittest.TestCase):
    """Which generator sends: the kernel's where it is there, else beam's with the same letters; and which is said."""

    COMMON = "pktgen -i eth9 -d 198.18.0.1 -p 443 -n 100000 -t 1 -f 0 -w 0 --script".split()

    def words(self, script, *arguments):
        result = Fake(present=False).with_beam().run(script, *WHERE, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("drives 'beam pktgen'", result.stderr)
        said = result.stdout.splitlines()
        head = [*self.COMMON, script, "-m", MAC]
        self.assertEqual(said[: len(head)], head)
        return said[len(head) :]

    def test_what_each_script_asks_beam_for(self):
        ports = ["--source-ports", "1024-65534"]
        self.assertEqual(self.words("single-flow"), [])
        self.assertEqual(self.words("many-flows"), [*ports, "--sources", "198.18.0.0/15"])
        self.assertEqual(self.words("imix"), ["--imix"])
        self.assertEqual(self.words("vlan", "-V", "5"), ["--vlan", "5"])
        self.assertEqual(self.words("vlan", "-V", "5", "-Q", "7"), ["--vlan", "5", "--outer-vlan", "7"])
        self.assertEqual(self.words("version-flood"), ["-s", "1242", *ports])
        self.assertEqual(self.words("quic-flood"), ["--quic", "mixed", *ports])
        self.assertEqual(self.words("quic-flood", "-k", "short", "-s", "100"), ["-s", "100", "--quic", "short", *ports])

    def test_each_letter_goes_to_beam(self):
        letters = ["-p", "080-99", "-n", "5", "-t", "2", "-f", "1", "-w", "1000"]
        letters += ["-s", "128", "-c", "7", "-b", "16", "-v", "-j"]
        result = Fake(present=False).with_beam().run("single-flow", "-i", "eth9", "-d", "2001:db8::/64", "-6", *letters)
        expected = "pktgen -i eth9 -d 2001:db8::/64 -p 80-99 -n 5 -t 2 -f 1 -w 1000 --script single-flow"
        expected += " -s 128 -c 7 -b 16 -6 -v -j"
        self.assertEqual(result.stdout.splitlines(), expected.split())

    def test_why_is_said(self):
        result = Fake(present=False).with_beam().run("single-flow", *WHERE)
        self.assertIn("loading the module failed: modprobe: FATAL: Module pktgen not found", result.stderr)
        fake = Fake().with_beam()
        result = fake.run("quic-flood", *WHERE)
        self.assertIn("because the kernel's pktgen can't make payloads that look like QUIC", result.stderr)
        self.assertEqual(fake.written("pgctrl"), [])

    def test_the_kernels_comes_first(self):
        fake = Fake().with_beam()
        result = fake.run("single-flow", *WHERE)
        self.assertIn("drives the kernel's pktgen through /proc/net/pktgen", result.stderr)
        self.assertEqual(fake.written("pgctrl"), ["start", "stop", "reset"])

    def test_beams_exit_code_is_the_scripts(self):
        self.assertEqual(Fake(present=False).with_beam(code=4).run("single-flow", *WHERE).returncode, 4)

    def test_no_beam_either(self):
        fake = Fake()
        for script in ("single-flow", "quic-flood"):
            fake = Fake(present=False)
            result = fake.run(script, *WHERE)
            self.assertEqual((result.returncode, result.stdout), (4, ""))
            self.assertIn(f"BEAM_BIN={fake.beam} can't be run", result.stderr)

    def test_kinds(self):
        result = Fake().with_beam().run("quic-flood", *WHERE, "-k", "long")
        self.assertEqual(result.returncode, 2)
        self.assertIn("not 'long'", result.stderr)


class Commands(unittest.TestCase):
    def common(self, **change):
        values = {"count": "100000", "size": "60", "delay": "0", "prefix": ["dst_min 198.18.0.1"], "ports": (443, 443)}
        values.update(change)
        low, high = values["ports"]
        return [
            f"count {values['count']}",
            f"pkt_size {values['size']}",
            f"delay {values['delay']}",
            f"dst_mac {MAC}",
            "flag QUEUE_MAP_CPU",
            *values["prefix"],
            f"udp_dst_min {low}",
            f"udp_dst_max {high}",
        ]

    def commands(self, script, *arguments, fake=None):
        fake = fake or Fake()
        result = fake.run(script, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("/proc/net/pktgen", result.stderr)
        self.assertEqual(fake.written("pgctrl"), ["start", "stop", "reset"])
        return fake.written("eth9@0")

    def test_each_letter(self):
        self.assertEqual(self.commands("single-flow", *WHERE), self.common())
        arguments = ["-n", "5", "-s", "128", "-w", "1000", "-p", "4000-4999", "-c", "7", "-b", "16"]
        expected = self.common(count=5, size=128, delay=1000, ports=(4000, 5000))
        expected += ["flag UDPDST_RND", "clone_skb 7", "burst 16"]
        self.assertEqual(self.commands("single-flow", *WHERE, *arguments), expected)

    def test_leading_zeroes_are_no_octal(self):
        arguments = ["-n", "0100", "-s", "0100", "-w", "010", "-p", "080-099", "-c", "08", "-b", "010", "-t", "01", "-f", "00"]
        expected = self.common(count=100, size=100, delay=10, ports=(80, 100))
        expected += ["flag UDPDST_RND", "clone_skb 8", "burst 10"]
        self.assertEqual(self.commands("single-flow", *WHERE, *arguments), expected)
        self.assertEqual(self.commands("single-flow", *WHERE, "-n", "09", "-p", "080-80"), self.common(count=9, ports=(80, 80)))
        self.assertEqual(self.commands("vlan", *WHERE, "-V", "010")[-1], "vlan_id 10")
        fake = Fake(threads=10, packets=9)
        result = fake.run("single-flow", *WHERE, "-n", "09", "-t", "010", "-j")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(json.loads(result.stdout)["packets"], 90)
        # Eleven would be one too many, and nine in octal is none.
        self.assertIn("no CPU 10", fake.run("single-flow", *WHERE, "-t", "011").stderr)

    def test_prefixes(self):
        for destination, prefix in (
            ("198.18.0.9/24", ["dst_min 198.18.0.1", "dst_max 198.18.0.255", "flag IPDST_RND"]),
            ("198.18.0.6/31", ["dst_min 198.18.0.6", "dst_max 198.18.0.8", "flag IPDST_RND"]),
            ("198.18.0.9/32", ["dst_min 198.18.0.9"]),
            ("198.18.0.9/15", ["dst_min 198.18.0.1", "dst_max 198.19.255.255", "flag IPDST_RND"]),
        ):
            got = self.commands("single-flow", *WHERE, "-d", destination)
            self.assertEqual(got, self.common(prefix=prefix))
        for destination, prefix in (
            ("2001:db8::1", ["dst6 2001:db8::1"]),
            ("2001:db8::/32", ["dst6_min 2001:db8:0:0:0:0:0:0", "dst6_max 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"]),
            ("2001:db8::99/124", ["dst6_min 2001:db8:0:0:0:0:0:90", "dst6_max 2001:db8:0:0:0:0:0:9f"]),
            ("1:2:3:4:5:6:7:8/20", ["dst6_min 1:0:0:0:0:0:0:0", "dst6_max 1:fff:ffff:ffff:ffff:ffff:ffff:ffff"]),
        ):
            got = self.commands("single-flow", *WHERE, "-6", "-d", destination)
            self.assertEqual(got, [*self.common(prefix=prefix, size=78), "flag UDPCSUM"])

    def test_what_the_interface_and_the_neighbour_table_say(self):
        fake = Fake()
        fake.tool(
            "ip",
            f'case "$*" in *neigh*) echo "2001:db8::1 lladdr {MAC} REACHABLE" ;;'
            ' *addr*) echo "2: eth9    inet6 2001:db8::2/64 scope global" ;; esac',
        )
        got = self.commands("single-flow", "-i", "eth9", "-6", "-d", "2001:db8::1", fake=fake)
        self.assertEqual(
            got, [*self.common(prefix=["dst6 2001:db8::1"], size=78), "flag UDPCSUM", "src6 2001:db8::2"]
        )

    def test_what_each_script_adds(self):
        ports = ["udp_src_min 1024", "udp_src_max 65535", "flag UDPSRC_RND"]
        sources = ["src_min 198.18.0.1", "src_max 198.19.255.255", "flag IPSRC_RND"]
        self.assertEqual(self.commands("many-flows", *WHERE), [*self.common(), *ports, *sources])
        self.assertEqual(self.commands("imix", *WHERE), [*self.common(), "imix_weights 60,7 590,4 1514,1"])
        self.assertEqual(self.commands("vlan", *WHERE, "-V", "5"), [*self.common(size=62), "vlan_id 5"])
        self.assertEqual(
            self.commands("vlan", *WHERE, "-V", "5", "-Q", "7"), [*self.common(size=66), "vlan_id 5", "svlan_id 7"]
        )
        self.assertEqual(
            self.commands("version-flood", *WHERE), [*self.common(size=1242), "flag NO_TIMESTAMP", *ports]
        )

    def test_what_another_run_left_is_removed_first(self):
        fake = Fake()
        fake.write("kpktgend_0", "Running: \nStopped: eth1@0 \nResult: OK\n")
        fake.tool("sleep", f"sed -i 's/^Stopped:.*/Stopped: /' {fake.proc}/kpktgend_0")
        result = fake.run("single-flow", *WHERE)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(fake.written("pgctrl"), ["reset", "start", "stop", "reset"])

    def test_threads(self):
        fake = Fake(threads=3, packets=10)
        result = fake.run("single-flow", *WHERE, "-t", "2", "-f", "1", "-n", "10")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(fake.written("kpktgend_0"), [])
        self.assertEqual(fake.written("kpktgend_1"), ["add_device eth9@1"])
        self.assertEqual(fake.written("kpktgend_2"), ["add_device eth9@2"])
        self.assertEqual(fake.written("eth9@1"), fake.written("eth9@2"))


class Results(unittest.TestCase):
    def test_json_is_one_object_of_exact_counts(self):
        # Beyond 32 bits, as long runs are.
        fake = Fake(threads=2, packets=5000000000, errors=3, sizes="60,4000000000 590,7")
        result = fake.run("imix", *WHERE, "-t", "2", "-n", "5000000000", "-j")
        self.assertEqual(result.returncode, 0, result.stderr)
        said = json.loads(result.stdout)
        each = [{"thread": thread, "packets": 5000000000, "errors": 3, "seconds": 2.5} for thread in (0, 1)]
        expected = {
            "script": "imix",
            "interface": "eth9",
            "drives": "/proc/net/pktgen",
            "packets": 10000000000,
            "errors": 6,
            "seconds": 2.5,
            "packets_per_second": 4000000000,
            "sizes": {"60": 8000000000, "590": 14},
            "interrupted": False,
            "per_thread": each,
        }
        self.assertEqual({key: said[key] for key in expected}, expected)

    def test_text(self):
        result = Fake(packets=10, errors=1).run("single-flow", *WHERE, "-n", "10")
        self.assertEqual(
            result.stdout.splitlines(),
            ["thread 0: 10 packets, 1 errors, 2.500000 s, 4 packets/s", "total: 10 packets, 1 errors, 2.500000 s, 4 packets/s"],
        )

    def test_fewer_packets_than_asked_for_is_a_failure(self):
        result = Fake(packets=99).run("single-flow", *WHERE, "-n", "100", "-j")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(json.loads(result.stdout)["packets"], 99)
        self.assertIn("99 packets were sent and 100 were asked for", result.stderr)

    def test_a_device_that_does_not_start(self):
        # Every set-up command is accepted, and what `start` leaves is an error.
        fake = Fake(packets=0, result="OK: Starting")
        fake.tool("sleep", f"sed -i 's/^Result: OK.*/Result: Error starting/' {fake.proc}/eth9@0")
        result = fake.run("single-flow", *WHERE)
        self.assertEqual(result.returncode, 1)
        self.assertIn("could not start on eth9@0", result.stderr)

    def test_signals_stop_the_run_and_its_counts_are_told(self):
        for number, count, code in ((signal.SIGINT, "0", 0), (signal.SIGTERM, "100", 143)):
            fake = Fake(packets=42, result="OK: Starting")
            command = [*ALONE, SCRIPTS / "single-flow", *WHERE, "-n", count, "-j"]
            process = subprocess.Popen(
                command, env=fake.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                # A job in the background ignores SIGINT, and so would its children: no shell can trap that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
            until = time.monotonic() + 10
            while "start" not in fake.written("pgctrl") and time.monotonic() < until:
                time.sleep(0.02)
            process.send_signal(number)
            while "stop" not in fake.written("pgctrl") and time.monotonic() < until:
                time.sleep(0.02)
            text = (fake.proc / "eth9@0").read_text()
            fake.write("eth9@0", text.replace("Result: OK: Starting", f"Result: {OK}"))
            out, err = process.communicate(timeout=10)
            self.assertEqual(process.returncode, code, err)
            self.assertEqual((json.loads(out)["packets"], json.loads(out)["interrupted"]), (42, True))
            self.assertEqual(fake.written("pgctrl")[-1], "reset")


if __name__ == "__main__":
    unittest.main()
