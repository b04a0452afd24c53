"""Blocks of text between two markers of a Markdown file. Pure: text in, text out."""

import re


class MissingBlock(Exception):
    """The file has no such pair of markers, or more than one."""


def fenced(command, output):
    """A command and its output as a block of Markdown."""
    lines = [line.rstrip() for line in output.strip("\n").split("\n")]
    return "\n".join(["```text", f"$ {command}", *lines, "```"])


def replaced(text, name, block):
    """`text` with `block` between the markers of that name."""
    begin, end = f"<!-- screens:{name} -->", f"<!-- /screens:{name} -->"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    found = pattern.findall(text)
    if len(found) != 1:
        raise MissingBlock(f"{len(found)} blocks from {begin} to {end}; there must be one")
    return pattern.sub(lambda _: f"{begin}\n{block}\n{end}", text)
