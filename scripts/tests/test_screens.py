"""The blocks of scripts/screens. Goal: what beam prints gets between the README's markers whole, and nothing else of the
file changes; a README without them is an error. Method: made-up text; the real run is scripts/screens itself."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from screenslib.blocks import MissingBlock, fenced, replaced  # noqa: E402

README = """# beam
<!-- screens:top -->
old
lines
<!-- /screens:top -->
between
<!-- screens:status -->
<!-- /screens:status -->
"""


class Blocks(unittest.TestCase):
    def test_a_command_and_its_output(self):
        block = fenced("beam top --once", "\nworker  cpu   \n     0    1\n\n")
        self.assertEqual(block, "```text\n$ beam top --once\nworker  cpu\n     0    1\n```")

    def test_only_what_is_between_the_markers_changes(self):
        # A backslash of the output is no escape of a pattern.
        made = replaced(README, "top", "a\\1b")
        self.assertEqual(made, README.replace("old\nlines", "a\\1b"))
        made = replaced(README, "status", "new")
        self.assertIn("<!-- screens:status -->\nnew\n<!-- /screens:status -->", made)
        self.assertIn("old\nlines", made)
        self.assertEqual(replaced(made, "status", "new"), made)

    def test_markers_must_be_there_once(self):
        for text in ("", README.replace("<!-- /screens:top -->", ""), README + README):
            with self.assertRaises(MissingBlock):
                replaced(text, "top", "new")


if __name__ == "__main__":
    unittest.main()
