"""Where settings come from: flags > ORCHESTRATE_* environment > .env > orchestrate.toml > defaults.

orchestrate.toml holds settings for every command, or for one in a table of its name:

runs-dir = "/shared/runs"       # whichever command has the option

[extract]                       # plan and doctor go by it too
model = "google/gemma-2-2b-it"

[worker.gpu]
device = "cuda:1"

A mistake in it is refused. ORCHESTRATE_* variables that nothing reads are only named, once: what
stands in the environment may be meant for another version of this program.

The working folder may be anybody's: its `.env` sets our own variables and the named keys and
nothing else, and neither file gives a permission. What came from there is noted, so that a key
from elsewhere is not sent where the folder says (see cli/options/working_folder.py).
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from cli.options.variables import PREFIX
from cli.options.working_folder import ENV_FILE, from_folder
from domain.errors import UsageError
from domain.redaction import KEY_VARIABLES

CONFIG_FILE = "orchestrate.toml"
# What the working folder may not say: whose code runs here.
PERMISSIONS = {PREFIX + "ALLOW_REMOTE_CODE", PREFIX + "TRUST_REMOTE_CODE"}


def load_env_file() -> None:
    """Read .env of the working folder; it does not override what is set.

    A process that another of ours started reads none. Raises UsageError for what is not text.
    """
    env_file = Path(ENV_FILE)
    if os.environ.get("ORCHESTRATE_CONFIG") == "" or not env_file.is_file():
        return
    from dotenv import dotenv_values

    try:
        # what the rest of the environment holds is none of the file's business
        values = dotenv_values(env_file, encoding="utf-8-sig", interpolate=False)
    except OSError as error:
        raise UsageError(f"{env_file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{env_file} is not text in UTF-8: save it as UTF-8") from error
    left_aside = []
    for name, value in values.items():
        ours = name.startswith(PREFIX) or name in KEY_VARIABLES
        if not ours or name in PERMISSIONS:
            left_aside.append(name)
        elif value is not None and "\0" not in value and name not in os.environ:
            os.environ[name] = value
            from_folder().add(name)
    if left_aside:
        click.echo(
            f"Warning: {', '.join(sorted(left_aside))} in {env_file} left aside: of it only "
            f"ORCHESTRATE_*, without permissions, and {', '.join(KEY_VARIABLES)} are read; set "
            "others where this command is started",
            err=True,
        )


def read_config() -> dict[str, Any]:
    """The file of the working folder, or that of ORCHESTRATE_CONFIG; empty without one, or where
    ORCHESTRATE_CONFIG is set to nothing. Keys are given with hyphens, as options are.

    Raises UsageError for a file that is missing where it was named, or is not TOML.
    """
    named = os.environ.get("ORCHESTRATE_CONFIG")
    if named == "":
        return {}
    file = config_file()
    if not named:
        from_folder().add("ORCHESTRATE_CONFIG")
    if not file.is_file():
        if named:
            raise UsageError(f"ORCHESTRATE_CONFIG names {file}, which is not a file")
        return {}
    try:
        return _hyphenated(tomllib.loads(file.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from error


def config_file() -> Path:
    """Where settings stand, if anywhere."""
    return Path(os.environ.get("ORCHESTRATE_CONFIG") or CONFIG_FILE)


def is_from_config(error: click.ClickException) -> bool:
    """Whether the value that click objects to stands in the file of settings."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return False
    source = error.ctx.get_parameter_source(str(error.param.name))
    return source == click.core.ParameterSource.DEFAULT_MAP


def check_config_tables(config: Mapping[str, Any], commands: list[str]) -> None:
    """Raises UsageError for a table that is named after no command."""
    for name, table in config.items():
        if isinstance(table, dict) and name not in commands:
            raise UsageError(f"{CONFIG_FILE}: [{name}] is no command{_meant(name, commands)}")


def check_config_above_tables(config: Mapping[str, Any], commands: Iterable[click.Command]) -> None:
    """Raises UsageError for a setting above the tables that no command has.

    No more of `commands` are drawn than it takes to know every setting, so importing them may wait.
    """
    known: set[str] = set()
    names: list[str] = []
    above = _settings(config)
    for command in commands:
        known |= _options(command).keys()
        names.append(str(command.name))
        if above.keys() <= known:
            return
    for key in above:
        _check_setting(key, known, names, where="no command has a setting")


def command_defaults(
    command: click.Command,
    name: str,
    config: Mapping[str, Any],
    *,
    beside: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """click's default map of a command: what stands above its table and it knows, and its table.

    What stands `beside` it, in another command's table, goes between the two. Raises UsageError for
    a setting in its table that it does not have.
    """
    table = config.get(name)
    above = {**_settings(config), **(beside or {})}
    return _defaults(command, name, above, table if isinstance(table, dict) else {})


def command_config(command: click.Command, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a command's table; raises UsageError for one that it does not have."""
    settings, known = _settings(table), set(_options(command))
    inside = list(command.commands) if isinstance(command, click.Group) else []
    for key in settings:
        _check_setting(key, known, inside, where=f"`orchestrate {name}` has no setting")
    return settings


def _defaults(
    command: click.Command, name: str, above: Mapping[str, Any], table: Mapping[str, Any]
) -> dict[str, Any]:
    inside = command.commands if isinstance(command, click.Group) else {}
    for key, value in table.items():
        if isinstance(value, dict) and key not in inside:
            path = f"{name.replace(' ', '.')}.{key}"
            raise UsageError(f"{CONFIG_FILE}: [{path}] is no command{_meant(key, list(inside))}")
    options, settings = _options(command), {**above, **command_config(command, name, table)}
    if isinstance(command, click.Group):
        return {
            sub: _defaults(one, f"{name} {sub}", settings, table.get(sub, {}))
            for sub, one in inside.items()
        }
    for key in settings.keys() & options.keys():
        twin = str(options[key].envvar)
        if twin in PERMISSIONS and "ORCHESTRATE_CONFIG" in from_folder():
            raise UsageError(
                f"{CONFIG_FILE}: {key} is not taken from the working folder, which may be "
                f"anybody's: give --{key}, or set {twin}=1 where this command is started"
            )
    return {
        str(options[key].name): _value(options[key], key, value)
        for key, value in settings.items()
        if key in options
    }


def _check_setting(key: str, known: set[str], commands: list[str], *, where: str) -> None:
    if key in known:
        return
    if key in commands:
        raise UsageError(
            f"{CONFIG_FILE}: {key} is a command: write its settings in a table of that name"
        )
    raise UsageError(f"{CONFIG_FILE}: {where} {key!r}{_meant(key, sorted(known))}")


def _options(command: click.Command) -> dict[str, click.Option]:
    """Its options by their names without dashes; those of the commands in it for a group."""
    if isinstance(command, click.Group):
        return {k: v for one in command.commands.values() for k, v in _options(one).items()}
    return {
        opt.lstrip("-"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for opt in parameter.opts
        if opt.startswith("--")
    }


def _value(option: click.Option, key: str, value: Any) -> Any:
    """The value as click takes it; numbers as text, or 2.5 would pass for the whole number 2."""
    if isinstance(value, list):
        if any(isinstance(one, list | dict) for one in value):
            raise UsageError(f"{CONFIG_FILE}: {key} holds a list in a list: give texts or numbers")
        return list(map(str, value)) if option.multiple else ",".join(map(str, value))
    if option.multiple:
        return [str(value)]
    return value if option.is_flag else str(value)


def _settings(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if not isinstance(value, dict)}


def _hyphenated(table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name in found:
            raise UsageError(f"{CONFIG_FILE}: {name} and {key} are one setting: keep one of them")
        found[name] = _hyphenated(value) if isinstance(value, dict) else value
    return found


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
