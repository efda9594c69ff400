"""Draining: a worker finishes what it holds, takes nothing more, and leaves.

A control command of its own, sent to workers by name. Knows nothing of what workers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.worker.control import control_command

from tasks.fleet_step import Member


def register(member: Member) -> None:
    """Make `drain` known to the worker of this process."""

    def drain(state: Any) -> dict[str, int]:
        member.draining = True
        return {"holds": len(member.work.in_hand())}

    control_command(name="drain")(drain)


def drain_workers(app: Celery, names: Sequence[str], *, wait_s: float) -> dict[str, int]:
    """Ask workers by name to drain; those that answered, with how many jobs they finish first."""
    replies = app.control.broadcast(
        "drain", destination=list(names), reply=True, timeout=wait_s, limit=len(names)
    )
    return {name: int(answer["holds"]) for one in replies or [] for name, answer in one.items()}
