"""Options with their environment twins, what they accept, and those that several commands take."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import reduce, wraps
from typing import Any

import click

from domain.errors import UsageError
from orchestrator.runs import run_store
from storage.record.run import open_run

UNITS = {"d": "days", "h": "hours", "m": "minutes"}


class Command(click.Command):
    """A command whose help lists its options by what they are for."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section a heading; what has none stands in the last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for one in self.get_params(ctx):
            line = one.get_help_record(ctx)
            if isinstance(one, click.Option) and line is not None:
                sections.setdefault(getattr(one, "heading", ""), []).append(line)
        for heading in sorted(sections, key=lambda heading: not heading):
            with formatter.section(heading or "Other options"):
                formatter.write_dl(sections[heading])


def option(name: str, *declarations: str, of: str = "", **attributes: Any) -> Callable[[Any], Any]:
    """A click option `--name` that also reads ORCHESTRATE_NAME.

    Where the name means another thing for each command, `of` is the command: ORCHESTRATE_OF_NAME.
    """
    words = f"{of}-{name.removeprefix('--')}" if of else name.removeprefix("--")
    twin = "ORCHESTRATE_" + words.replace("-", "_").upper()
    attributes.setdefault("show_default", True)
    attributes.setdefault("callback", finite)
    return click.option(name, *declarations, envvar=twin, show_envvar=True, **attributes)


def finite(_context: click.Context, _option: click.Parameter, value: object) -> object:
    """A value as it is; raises BadParameter for a number without end, which floats may be."""
    if isinstance(value, float) and not math.isfinite(value):
        raise click.BadParameter("give a finite number")
    return value


class Moment(click.ParamType[datetime]):
    """A date or time in UTC (`2026-11-20`, `2026-11-20T12:00`), or how long ago (`3d`, `12h`)."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """To a time in UTC; fails in words for anything else."""
        if isinstance(value, datetime):
            return value
        ago = re.fullmatch(r"([0-9]{1,4})([dhm])", value)
        if ago:
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: give 2026-11-20, 3d or 12h", param, ctx)
        return when if when.tzinfo else when.replace(tzinfo=UTC)


def together(*options: Callable[[Any], Any], heading: str = "") -> Callable[[Any], Any]:
    """Several options as one decorator, in the order in which help shows them; under a heading
    where the command is a `Command`."""

    def decorate(command: Any) -> Any:
        before = len(getattr(command, "__click_params__", []))
        command = reduce(lambda inner, one: one(inner), reversed(options), command)
        if heading:
            for one in command.__click_params__[before:]:
                vars(one).setdefault("heading", heading)
        return command

    return decorate


# the same wherever they are taken
broker_option = option(
    "--broker-url",
    metavar="URL",
    # the one of the file or the environment may hold a password
    show_default=False,
    help="Redis broker, e.g. redis://:password@host:6379/0 (better in the environment: "
    "arguments are visible to other users).",
)

runs_dir_option = option(
    "--runs-dir", default="runs", metavar="URL", help="Folder or fsspec URL that holds the runs."
)


def run_argument(command: Callable[..., None]) -> Any:
    """Argument RUN and --runs-dir, given to the command as the open run; put it above the rest."""

    @click.argument("run")
    @runs_dir_option
    @wraps(command)
    def opened(run: str, runs_dir: str, **values: Any) -> None:
        command(open_run(run_store(runs_dir, run)), **values)

    return opened


wait_option = option(
    "--wait-for-workers", default=60.0, metavar="S", help="How long to wait for workers to join."
)

json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Machine-readable results on stdout, all else on stderr.",
)


def required_broker(url: str | None) -> str:
    """The broker URL; raises UsageError where a command cannot do without one."""
    if not url:
        raise UsageError(
            "this command needs the fleet's broker: set ORCHESTRATE_BROKER_URL or --broker-url"
        )
    return url
