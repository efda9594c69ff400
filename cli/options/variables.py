"""The ORCHESTRATE_* variables that something reads; one that nothing reads is said, once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import click

PREFIX = "ORCHESTRATE_"

# Read by the program, not as an option.
SETTINGS = {
    *("CONFIG", "DEBUG", "JUDGE_API_KEY", "JUDGE_SERVER_KEY", "FLOWER_AUTH"),
    *("ONLY_RUNS_BELOW", "ONLY_JUDGES_AT", "ALLOW_REMOTE_CODE"),
    *("VISIBILITY_TIMEOUT", "MAX_DEATHS", "RETRY_REFUSED", "LIFELINE"),
}
# Read by what starts the program: the images' entrypoint, compose, the scripts for Slurm.
STARTERS = {
    *("BROKER_HOST", "BROKER_PORT", "BROKER_USER"),
    *("BROKER_PASSWORD", "BROKER_PASSWORD_FILE", "BROKER_URL_FILE"),
    *("JUDGE_API_KEY_FILE", "JUDGE_SERVER_KEY_FILE", "FLOWER_AUTH_FILE"),
    *("UID", "GID", "HOME", "VENV"),
}
# Twins of options that most machines set and that are no setting of a run.
OFTEN_SET = {
    *("BROKER_URL", "RUNS_DIR", "MODELS", "DEVICE", "TRAITS", "QUESTIONS", "INSTRUCTIONS"),
    "BUDGET",
}


def often_set_variables() -> set[str]:
    """Twins that most machines set: with these alone no other command has to be loaded."""
    # not for --help
    from domain.plan.spec import spec_settings

    return OFTEN_SET | {one.name.replace("-", "_").upper() for one in spec_settings()}


def unread_variables(
    environment: Mapping[str, str], commands: Iterable[click.Command]
) -> dict[str, str]:
    """Variable -> what was probably meant, perhaps nothing, of those that no command reads.

    No more of `commands` are drawn than it takes, so importing them may wait.
    """
    names = {n.removeprefix(PREFIX) for n in environment if n.startswith(PREFIX)}
    if not names:
        return {}
    known = SETTINGS | STARTERS | often_set_variables()
    for command in commands:
        if names <= known:
            return {}
        known |= set(_twins(command))
    return {PREFIX + name: _twin_meant(name, known - STARTERS) for name in sorted(names - known)}


def warn_of_unread_variables(
    environment: Mapping[str, str], commands: Iterable[click.Command]
) -> None:
    """Say on stderr, in one line, which variables nothing reads."""
    found = unread_variables(environment, commands)
    if found:
        each = [f"{n} (did you mean {meant}?)" if meant else n for n, meant in found.items()]
        click.echo(f"Warning: nothing reads {', '.join(each)}", err=True)


def _twins(command: click.Command) -> Iterable[str]:
    if isinstance(command, click.Group):
        for one in command.commands.values():
            yield from _twins(one)
    for parameter in command.params:
        if isinstance(parameter.envvar, str):
            yield parameter.envvar.removeprefix(PREFIX)


def _twin_meant(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    # PORT: several commands have one of their own
    names = close or sorted(one for one in known if one.endswith(f"_{name}"))
    return " or ".join(PREFIX + one for one in names)
