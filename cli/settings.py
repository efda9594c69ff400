"""Where settings come from: flags > ORCHESTRATE_* environment > .env > config file > defaults.

Every option made here has its environment twin. Knows nothing of what the settings do.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from orchestrator.errors import UsageError

CONFIG_FILE = "orchestrate.toml"
# named here so that reading settings imports no command
WORKER_COMMANDS = ("gpu", "judge", "reduce", "list", "drain")


def load_environment_files(context: click.Context) -> None:
    """Read .env and orchestrate.toml of the working folder; neither overrides what is set."""
    env_file = Path(".env")
    if env_file.is_file():
        from dotenv import dotenv_values

        for name, value in dotenv_values(env_file).items():
            if value is not None:
                os.environ.setdefault(name, value)
    config = Path(os.environ.get("ORCHESTRATE_CONFIG", CONFIG_FILE))
    if config.is_file():
        assert isinstance(context.command, click.Group)
        names = context.command.list_commands(context)
        context.default_map = {**_default_map(config, names), **(context.default_map or {})}


def option(name: str, *declarations: str, **attributes: Any) -> Callable[[Any], Any]:
    """A click option `--name` that also reads ORCHESTRATE_NAME."""
    twin = "ORCHESTRATE_" + name.removeprefix("--").replace("-", "_").upper()
    attributes.setdefault("show_default", True)
    return click.option(name, *declarations, envvar=twin, show_envvar=True, **attributes)


def broker_option(command: Any) -> Any:
    """--broker-url, the same wherever it is taken."""
    return option(
        "--broker-url",
        metavar="URL",
        help="Redis broker, e.g. redis://:password@host:6379/0 (better in the environment: "
        "arguments are visible to other users).",
    )(command)


def runs_dir_option(command: Any) -> Any:
    """--runs-dir, the same wherever it is taken."""
    return option(
        "--runs-dir",
        default="runs",
        metavar="URL",
        help="Folder or fsspec URL that holds the runs.",
    )(command)


def json_option(command: Any) -> Any:
    """--json, the same wherever it is taken."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Machine-readable results on stdout, all else on stderr.",
    )(command)


def required_broker(url: str | None) -> str:
    """The broker URL; raises UsageError where a command cannot do without one."""
    if not url:
        raise UsageError(
            "this command needs the fleet's broker: set ORCHESTRATE_BROKER_URL or --broker-url"
        )
    return url


def _default_map(config: Path, commands: list[str]) -> dict[str, Any]:
    """click's defaults: what stands above all tables is for every command that takes it."""
    try:
        body = tomllib.loads(config.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{config} is not valid TOML: {error}") from error
    tables = {k: v for k, v in body.items() if isinstance(v, dict)}
    shared = _as_parameters({k: v for k, v in body.items() if not isinstance(v, dict)})
    merged: dict[str, Any] = {}
    for name in commands:
        own = _as_parameters(tables.get(name, tables.get(name.replace("-", "_"), {})))
        merged[name] = {**shared, **own}
    for kind in WORKER_COMMANDS:
        own = _as_parameters(merged["worker"].get(kind, {}))
        merged["worker"][kind] = {**merged["worker"], **own}
    return merged


def _as_parameters(table: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in table.items()}
