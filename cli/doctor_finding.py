"""What a check of `orchestrate doctor` found, and running the checks side by side.

Knows nothing of what is checked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import OrchestrateError

State = Literal["ok", "warn", "fail"]
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it stands, what was found, and what to do."""

    check: str
    state: State
    found: str
    advice: str = ""


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Mapping[str, Check], *, timeout_s: float) -> list[Finding]:
    """The findings of all checks in their order; one that hangs or breaks is a finding itself."""
    results: dict[str, list[Finding]] = {}

    def run(name: str, check: Check) -> None:
        results[name] = _findings(name, check)

    # daemon threads: a dead file server must not keep the command from ending
    threads = [threading.Thread(target=run, args=one, daemon=True) for one in checks.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silent = f"no answer within {timeout_s:.0f} s"
    hint = "something it needs hangs: a file server, a network name, a firewall that drops"
    return [
        finding
        for name in checks
        for finding in results.get(name, [Finding(name, "fail", silent, hint)])
    ]


def _findings(name: str, check: Check) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check())
    except OrchestrateError as error:
        what, _, advice = str(error).rpartition(": ")
        found.append(Finding(name, "fail", what or str(error), advice if what else ""))
    # an edge: one broken check must not hide what the others found
    except Exception as error:
        found.append(Finding(name, "fail", f"{type(error).__name__}: {error}"))
    return found
