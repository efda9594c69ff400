"""Runs `orchestrate doctor` for tests and reads its lines."""

from __future__ import annotations

import json
from typing import Any

from tests.fleet import run_command


def doctor(*arguments: str, broker_url: str | None = None) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and each check's line; no private text may reach the output."""
    ended = run_command("doctor", "--json", *arguments, broker_url=broker_url)
    found = json.loads(ended.stdout)
    assert found["ok"] == (ended.returncode == 0)
    return ended.returncode, {one["check"]: one for one in found["findings"]}


def states(findings: Any) -> dict[str, str]:
    return {finding.check: finding.state for finding in findings}
