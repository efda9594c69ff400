"""What the working folder set, and that a key from elsewhere does not go where it says.

Somebody else may have written the folder: a cloned repository, an unpacked archive.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from domain.errors import UsageError
from domain.fleet.permissions import permissions
from domain.plan.spec import NO_JUDGE
from domain.redaction import JUDGE_KEYS

ENV_FILE = ".env"
# The endpoint of a judge that is named without one.
OPENAI_URL = "https://api.openai.com/v1"
_META = "orchestrate.from_folder"


def from_folder() -> set[str]:
    """Variables that the folder's .env set; ORCHESTRATE_CONFIG among them where a configuration
    is the folder's own."""
    context = click.get_current_context(silent=True)
    found: set[str] = set() if context is None else context.meta.setdefault(_META, set())
    return found


def is_from_folder(option: str) -> bool:
    """Whether the present command's value of an option, as click names it, is the folder's."""
    context = click.get_current_context(silent=True)
    if context is None:
        return False
    source = context.get_parameter_source(option)
    if source == ParameterSource.DEFAULT_MAP:
        return "ORCHESTRATE_CONFIG" in from_folder()
    names = [one.envvar for one in context.command.params if one.name == option]
    return source == ParameterSource.ENVIRONMENT and bool(from_folder() & set(map(str, names)))


def keep_key_from_folder(url: str, values: Mapping[str, Any]) -> None:
    """Raises UsageError where the folder names the judge and the key is from elsewhere.

    `url` is the judge's endpoint, `values` are the command's. What ORCHESTRATE_ONLY_JUDGES_AT names
    outside of the folder was asked for.
    """
    if not is_from_folder("judge_url") or url in ("embedded", NO_JUDGE, OPENAI_URL, *_asked_for()):
        return
    on_workers = bool(values.get("broker_url")) and not is_from_folder("broker_url")
    if on_workers or _own_key():
        key = _own_key() or "the key of the fleet"
        raise UsageError(
            f"the working folder, which may be anybody's, names the judge {url}, and {key} does "
            "not come from there: it is not sent unless you ask for it",
            advice="give --judge-url yourself, or name the endpoint in ORCHESTRATE_ONLY_JUDGES_AT",
        )


def keep_worker_from_folder() -> None:
    """Raises UsageError for a judge worker of a broker that the folder names, with a key from
    elsewhere: whoever holds the broker names the judges."""
    if is_from_folder("broker_url") and _own_key() and not _asked_for():
        raise UsageError(
            "the working folder, which may be anybody's, names the broker, and "
            f"{_own_key()} does not come from there: it is not lent to it",
            advice="set ORCHESTRATE_ONLY_JUDGES_AT to the endpoints that the key may go to, or "
            "give the broker yourself",
        )


def _asked_for() -> tuple[str, ...]:
    """The endpoints that were permitted from outside of the folder."""
    is_theirs = "ORCHESTRATE_ONLY_JUDGES_AT" in from_folder()
    return () if is_theirs else permissions(os.environ).only_judges_at


def _own_key() -> str:
    """The variable with a judge's key that does not come from the folder; empty without one."""
    used = next((name for name in JUDGE_KEYS if os.environ.get(name)), "")
    return "" if used in from_folder() else used
