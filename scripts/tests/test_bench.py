"""Goal: scripts/bench refuses what it doesn't know before it installs or builds anything.
Method: wrong command lines; each must end with 2, say what is known, and print nothing on standard output."""

import pathlib
import subprocess
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[1] / "bench"


def bench(*arguments):
    return subprocess.run([BENCH, *arguments], capture_output=True, text=True, timeout=10)


class Refusals(unittest.TestCase):
    def test_wrong_command_lines(self):
        for arguments, needed in (
            (("des",), "known: aead engine tunnel ablation scale targets, metrics, instructions, report, all"),
            (("--only", "none"), "of all subjects together: --json, --save, --quick"),
            (("all", "--save", "--quick"), "--save keeps whole runs"),
            (("report", "--json"), "report takes none"),
            (("aead", "--yaml"), "known: --json"),
            (("aead", "--only"), "--only wants a text"),
            (("aead", "--no-instructions"), "is for engine"),
            (("instructions", "--no-instructions"), "is for engine"),
            (("instructions", "--check"), "--check wants a number"),
            (("instructions", "--check", "-1"), "--check wants a number"),
            (("engine", "--check", "1"), "--check is for instructions"),
            (("engine", "--save", "--quick"), "--save keeps whole runs"),
            (("aead", "--save", "--only", "seal"), "--save keeps whole runs"),
            (("tunnel", "--yaml"), "unrecognized arguments: --yaml"),
            (("tunnel", "--runs", "0"), "'0' is not a number from 1 to 99"),
            (("tunnel", "--only", "sneakernet"), "there are: none, beam --tun"),
            (("tunnel", "--save", "--quick"), "--save keeps whole runs"),
            (("tunnel", "--save", "--offloads", "off"), "--save keeps whole runs"),
        ):
            with self.subTest(arguments=arguments):
                result = bench(*arguments)
                self.assertEqual(result.returncode, 2)
                self.assertEqual(result.stdout, "")
                self.assertIn(needed, result.stderr)

    def test_help(self):
        for arguments in (("--help",), ("engine", "-h"), ("tunnel", "--help")):
            result = bench(*arguments)
            self.assertEqual(result.returncode, 0)
            self.assertIn("scripts/bench engine", result.stdout)


if __name__ == "__main__":
    unittest.main()
