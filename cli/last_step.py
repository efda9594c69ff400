"""What a run that nobody watched to its end still lacks, and the command that adds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.run_record import Run


def last_step(run: Run, snapshot: Mapping[str, Any]) -> str:
    """What to do about a finished run without a report, as detached runs are; empty if nothing."""
    # it loads what reads tables: not for a status that is asked for every second
    from storage.report_files import REPORT

    finished = all(trait["is_finished"] for trait in snapshot["traits"])
    return last_step_of(run.name) if finished and not run.store.exists(REPORT) else ""


def last_step_of(name: str) -> str:
    """The command that ends a detached run, and what for."""
    return f"For the verdicts and report.html of the finished run: orchestrate resume {name}"
