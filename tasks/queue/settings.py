"""How jobs are delivered and what a worker will open: read from the environment, once per process.

The names are documented in docs/reliability.md and SECURITY.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from domain.errors import UsageError

PREFIX = "ORCHESTRATE_"


@dataclass(frozen=True)
class DeliverySettings:
    """What decides when a job is delivered again, and when no more."""

    # How long a dead worker's job waits for another; leases are renewed four times as often.
    visibility_timeout_s: float = 30.0
    # A job that was begun this often and never ended kills its workers: it is given up.
    max_deaths: int = 5
    # How long a worker leaves a run to others that it could not serve.
    retry_declined_s: float = 300.0


@dataclass(frozen=True)
class Permissions:
    """What a worker does for whoever may write to the broker."""

    only_runs_below: str | None = None
    # endpoints that the judge's key may be sent to; empty for any that a run names
    only_judges_at: tuple[str, ...] = ()
    allow_remote_code: bool = False


def delivery_settings(environment: Mapping[str, str] | None = None) -> DeliverySettings:
    """The settings of this process; raises UsageError for a value that is no positive number."""
    found = os.environ if environment is None else environment
    default = DeliverySettings()
    return DeliverySettings(
        _number(found, "VISIBILITY_TIMEOUT", float, default.visibility_timeout_s),
        int(_number(found, "MAX_DEATHS", int, default.max_deaths)),
        _number(found, "RETRY_REFUSED", float, default.retry_declined_s),
    )


def permissions(environment: Mapping[str, str] | None = None) -> Permissions:
    """The permissions of this process."""
    found = os.environ if environment is None else environment
    return Permissions(
        only_runs_below=found.get(PREFIX + "ONLY_RUNS_BELOW") or None,
        only_judges_at=tuple(found.get(PREFIX + "ONLY_JUDGES_AT", "").replace(",", " ").split()),
        allow_remote_code=found.get(PREFIX + "ALLOW_REMOTE_CODE", "") in ("1", "true", "yes"),
    )


def _number(
    found: Mapping[str, str], name: str, kind: Callable[[str], float], default: float
) -> float:
    text = found.get(PREFIX + name)
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not value > 0 or value == float("inf"):
        raise UsageError(f"{PREFIX}{name} is {text!r}: give a number above 0")
    return value
