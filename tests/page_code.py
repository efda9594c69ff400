"""Reads the code of a Markdown page, in its order: blocks and code within sentences.

A fence names its language; an indented block is lines of a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@dataclass(frozen=True)
class Code:
    """A block, or code within a sentence (language `inline`), with the line it begins on."""

    line: int
    language: str
    text: str


def code_of(markdown: str) -> Iterator[Code]:
    """All code of a page, from top to bottom."""
    lines = markdown.splitlines()
    at = 0
    while at < len(lines):
        begin, language = at, ""
        if lines[at].startswith("```"):
            language = lines[at].removeprefix("```")
            at = lines.index("```", at + 1)
            yield Code(begin + 2, language, "\n".join(lines[begin + 1 : at]))
            at += 1
        elif lines[at].startswith("    "):
            while at < len(lines) and lines[at].startswith("    "):
                at += 1
            yield Code(begin + 1, "sh", "\n".join(line[4:] for line in lines[begin:at]))
        else:
            while at < len(lines) and not lines[at].startswith(("    ", "```")):
                at += 1
            yield from _inline("\n".join(lines[begin:at]), begin + 1)


def shell_lines(code: Code) -> Iterator[Code]:
    """The commands of a shell block: continued lines joined, remarks left out."""
    line = code.line
    for text in re.sub(r"\\\n\s*", "\0", code.text).split("\n"):
        command = re.sub(r"(^|\s+)# .*$", "", text.replace("\0", "")).strip()
        if command:
            yield Code(line, code.language, command)
        line += 1 + text.count("\0")


def _inline(text: str, line: int) -> Iterator[Code]:
    for found in INLINE.finditer(text):
        at = line + text[: found.start()].count("\n")
        yield Code(at, "inline", " ".join(found[1].split()))
