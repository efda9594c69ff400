"""orchestrate.toml: settings for every command, or for one in a table of its name.

runs-dir = "/shared/runs"       # whichever command has the option

[extract]
model = "google/gemma-2-2b-it"

[worker.gpu]
device = "cuda:1"
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from orchestrator.errors import UsageError

CONFIG_FILE = "orchestrate.toml"


def read_config() -> dict[str, Any]:
    """The file of the working folder, or that of ORCHESTRATE_CONFIG; empty without one.

    Raises UsageError for a file that is missing where it was named, or is not TOML.
    """
    named = os.environ.get("ORCHESTRATE_CONFIG")
    file = Path(named or CONFIG_FILE)
    if not file.is_file():
        if named:
            raise UsageError(f"ORCHESTRATE_CONFIG names {file}, which is not a file")
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from error


def check_tables(config: Mapping[str, Any], commands: list[str]) -> None:
    """Raises UsageError for a table that is named after no command."""
    for name, table in config.items():
        if isinstance(table, dict) and name not in commands:
            raise UsageError(f"{CONFIG_FILE}: [{name}] is no command{_meant(name, commands)}")


def command_defaults(
    command: click.Command, name: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """click's default map of a command: what stands above its table and it knows, and its table.

    Raises UsageError for a setting in its table that it does not have.
    """
    above = {key: value for key, value in config.items() if not isinstance(value, dict)}
    table = config.get(name.rpartition(" ")[2], {})
    if isinstance(command, click.Group):
        inside = {**above, **table}
        return {
            sub: command_defaults(one, f"{name} {sub}", inside)
            for sub, one in command.commands.items()
        }
    names = {opt.lstrip("-"): p.name for p in command.params for opt in p.opts if "--" in opt}
    for key in table:
        if key not in names:
            raise UsageError(
                f"{CONFIG_FILE}: `orchestrate {name}` has no setting {key!r}"
                f"{_meant(key, list(names))}"
            )
    return {str(names[k]): value for k, value in {**above, **table}.items() if k in names}


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
