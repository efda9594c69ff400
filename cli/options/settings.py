"""Where settings come from: flags > ORCHESTRATE_* environment > .env > orchestrate.toml > defaults.

Every option made here has its environment twin.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from domain.errors import UsageError


def load_env_file() -> None:
    """Read .env of the working folder; it does not override what is set.

    Raises UsageError for a file that is not text.
    """
    env_file = Path(".env")
    if env_file.is_file():
        from dotenv import dotenv_values

        try:
            values = dotenv_values(env_file, encoding="utf-8-sig")
        except OSError as error:
            raise UsageError(f"{env_file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{env_file} is not text in UTF-8: save it as UTF-8") from error
        for name, value in values.items():
            if value is not None:
                os.environ.setdefault(name, value)


def option(name: str, *declarations: str, of: str = "", **attributes: Any) -> Callable[[Any], Any]:
    """A click option `--name` that also reads ORCHESTRATE_NAME.

    Where the name means another thing for each command, `of` is the command: ORCHESTRATE_OF_NAME.
    """
    words = f"{of}-{name.removeprefix('--')}" if of else name.removeprefix("--")
    twin = "ORCHESTRATE_" + words.replace("-", "_").upper()
    attributes.setdefault("show_default", True)
    return click.option(name, *declarations, envvar=twin, show_envvar=True, **attributes)


def broker_option(command: Any) -> Any:
    """--broker-url, the same wherever it is taken."""
    return option(
        "--broker-url",
        metavar="URL",
        # the one of the file or the environment may hold a password
        show_default=False,
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


def wait_option(command: Any) -> Any:
    """--wait-for-workers, the same wherever it is taken."""
    return option(
        "--wait-for-workers",
        default=60.0,
        metavar="S",
        help="How long to wait for workers to join.",
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
