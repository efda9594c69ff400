"""Parses `orchestrate ...` command lines against the real commands, without running them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click

from cli.main import orchestrate
from tests.page_code import code_of, shell_lines

# what stands before the command itself: settings, wrappers of containers, a prompt
BEFORE = re.compile(
    r"^(?:\$ |[A-Z_]+=\S+ |docker compose run --rm (?=orchestrate)"
    r"|kubectl exec [^|]*? -- entrypoint |\S*/(?=orchestrate ))*"
)
PLACEHOLDERS = ("...", "|", "[", "`", "──")
# RUN, NAME, USD: what readers put in fits whatever is wanted there
BLANK = re.compile(r"[A-Z][A-Z-]*")


def commands_in(markdown: str) -> Iterator[str]:
    """Every command line of code blocks and of code within sentences; those with `...` left out."""
    for line in (line for code in code_of(markdown) for line in shell_lines(code)):
        command = BEFORE.sub("", line.text)
        # two commands on a line of a shell
        for words in re.split(r"\s*(?:&&|;)\s*", command):
            part = re.split(r" (?:\||>) ", words)[0]
            if part.startswith("orchestrate ") and not any(p in part for p in PLACEHOLDERS):
                yield part


def parse(command: str) -> None:
    """Parse a command line as the program would; raises click's error when it would refuse."""
    words = ["1" if BLANK.fullmatch(word) else word for word in shlex.split(command, comments=True)]
    assert words.pop(0) == "orchestrate"
    group: click.Command = orchestrate
    context = click.Context(orchestrate)
    while isinstance(group, click.Group):
        name = words.pop(0) if words else "--help"
        if name.startswith("-"):
            with_exit(group, [name])
            return
        found = group.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command {name!r}")
        group = found
    with_exit(group, words)


def with_exit(command: click.Command, words: list[str]) -> None:
    """Parse without running; --help and --version end parsing early, which is fine."""
    try:
        command.make_context(command.name or "", list(words))
    except click.exceptions.Exit as stop:
        assert stop.exit_code == 0
