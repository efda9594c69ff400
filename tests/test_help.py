"""Protects how a person finds a command: listed by purpose, suggested, completed by the shell."""

from __future__ import annotations

import re

import click
import pytest

from cli.main import COMMANDS, GROUPS, orchestrate
from tests.fleet import run_command


def completions(*words: str) -> set[str]:
    """What a shell would offer in place of the last word."""
    shell = {
        "_ORCHESTRATE_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["orchestrate", *words]),
        "COMP_CWORD": str(len(words)),
    }
    ended = run_command(environment=shell)
    assert ended.returncode == 0, ended.stderr
    return {line.partition(",")[2] for line in ended.stdout.splitlines()}


def test_every_command_stands_in_one_group_of_the_help() -> None:
    shown = run_command("--help").stdout.splitlines()
    listed = [line.split()[0] for line in shown if line.startswith("  ") and line.split()]

    assert all(f"{purpose}:" in shown for purpose in GROUPS)
    assert all(listed.count(name) == 1 for name in COMMANDS)
    assert len(COMMANDS) == sum(map(len, GROUPS.values()))


@pytest.mark.parametrize("command", ["extract", "plan", "steer", "monitor", "rejudge"])
def test_a_long_help_lists_each_option_once_under_what_it_is_for(command: str) -> None:
    found = orchestrate.get_command(click.Context(orchestrate), command)
    assert found is not None
    under: dict[str, list[str]] = {}
    for line in run_command(command, "--help").stdout.splitlines():
        if re.fullmatch(r"\w.*:", line):
            under[line] = []
        elif under and line.startswith("  -"):
            under[list(under)[-1]] += re.findall(r"--[a-z-]+", line.split("  ")[1])

    options = [one.opts[0] for one in found.params if isinstance(one, click.Option)]
    listed = [name for names in under.values() for name in names]
    assert all(listed.count(name) == 1 for name in [*options, "--help"])
    assert len(under) >= 3 and max(map(len, under.values())) <= 11


@pytest.mark.parametrize(("typed", "meant"), [("extrct", "extract"), ("statsu", "status")])
def test_a_mistyped_command_is_answered_with_the_nearest(typed: str, meant: str) -> None:
    ended = run_command(typed)

    assert ended.returncode == 2
    assert meant in ended.stderr.splitlines()[-1]


def test_the_shell_completes_commands_and_options() -> None:
    assert completions("re") == {"report", "refilter", "rejudge", "resume", "retry"}
    assert "--threshold" in completions("extract", "--thr")
    assert (
        "_orchestrate_completion"
        in run_command(environment={"_ORCHESTRATE_COMPLETE": "bash_source"}).stdout
    )
