"""Protects people who misspell a variable, and commands from one another's variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.main import COMMANDS, orchestrate
from cli.options.variables import PREFIX, SETTINGS, STARTERS, often_set_variables, unread_variables
from tests.fleet import run_command

ROOT = Path(__file__).parent.parent
CODE = ("domain", "cli", "orchestrator", "tasks", "workers", "storage")


def commands() -> Iterator[click.Command]:
    group = orchestrate
    assert isinstance(group, click.Group)
    for name in COMMANDS:
        found = group.get_command(click.Context(group), name)
        assert found is not None
        yield found


def twins(*among: click.Command) -> list[str]:
    """The variables of options, those of a group's commands too."""
    found = []
    for one in among:
        inside = list(one.commands.values()) if isinstance(one, click.Group) else []
        found += [p.envvar for p in one.params if isinstance(p.envvar, str)] + twins(*inside)
    return found


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ROLLOTS", "ORCHESTRATE_ROLLOUTS"),
        ("RUN_DIR", "ORCHESTRATE_RUNS_DIR"),
        ("JUDGE_KEY", "ORCHESTRATE_JUDGE_API_KEY"),
        ("ADDRESS", "ORCHESTRATE_FLOWER_ADDRESS or ORCHESTRATE_METRICS_ADDRESS"),
        ("NOTHING_LIKE_IT", ""),
    ],
)
def test_a_variable_that_nothing_reads_is_named_with_what_was_meant(name: str, meant: str) -> None:
    assert unread_variables({PREFIX + name: "1", "PATH": "/"}, commands()) == {PREFIX + name: meant}


def test_every_variable_that_something_reads_passes() -> None:
    read = {PREFIX + name for name in SETTINGS | STARTERS} | set(twins(*commands()))

    assert unread_variables(dict.fromkeys(read, "1"), commands()) == {}


def test_what_is_often_set_has_no_command_loaded() -> None:
    drawn: list[click.Command] = []

    def drawing() -> Iterator[click.Command]:
        for one in commands():
            drawn.append(one)
            yield one

    found = unread_variables({PREFIX + name: "1" for name in often_set_variables()}, drawing())

    assert found == {}
    assert len(drawn) <= 1
    assert {PREFIX + name for name in often_set_variables()} <= set(twins(*commands()))


def test_the_settings_are_those_that_the_code_reads() -> None:
    files = [f for p in CODE for f in ROOT.glob(f"{p}/**/*.py")]
    code = "".join(f.read_text() for f in files if f.name != "sources.py")

    for name in SETTINGS:
        assert re.search(rf'"(?:{PREFIX})?{name}"', code), name


def test_no_two_commands_that_serve_share_a_place_or_a_model() -> None:
    serving = [
        one for one in commands() if one.name in ("flower", "metrics", "judge-server", "view")
    ]

    places = [name for name in twins(*serving) if re.search("PORT|ADDRESS|HOST|MODEL", name)]

    assert len(places) == len(set(places)) == 8
    others = [one for one in commands() if one not in serving]
    assert set(places).isdisjoint(twins(*others))


def test_a_misspelt_variable_costs_one_line_on_stderr_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ORCHESTRATE_ROLLOTS=3\n")

    ended = run_command("traits", "list", "--json", cwd=tmp_path)
    quiet = run_command("traits", "list", "--json", cwd=ROOT / "tests")

    said = "Warning: nothing reads ORCHESTRATE_ROLLOTS (did you mean ORCHESTRATE_ROLLOUTS?)\n"
    assert (ended.returncode, ended.stderr) == (0, said)
    assert (quiet.stdout, quiet.stderr) == (ended.stdout, "")


def test_no_variable_that_the_code_reads_is_called_unread() -> None:
    files = [f for p in CODE for f in ROOT.glob(f"{p}/**/*.py")]
    code = "".join(f.read_text() for f in files if f.name != "sources.py")

    names = re.findall(rf'(?:"{PREFIX}|PREFIX \+ "|_number\(found, ")([A-Z_]+)"', code)

    assert "RETRY_REFUSED" in names
    assert unread_variables({PREFIX + name: "1" for name in names}, commands()) == {}
