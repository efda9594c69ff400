"""Drains workers by name or host, and waits until they are gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fnmatch import fnmatchcase

import click

from orchestrator.errors import UsageError
from orchestrator.fleet import WorkerCard
from storage.connection import connect
from storage.fleet import read_workers
from tasks.app import make_app
from tasks.drain import drain_workers

ANSWER_WITHIN_S = 3.0
POLL_S = 0.5


def drain_and_wait(broker_url: str, who: Sequence[str], *, wait_s: float) -> None:
    """Ask the workers meant to drain; returns when they left.

    Raises UsageError when nobody is meant, or somebody is still there after wait_s seconds.
    """
    with connect(broker_url) as client:
        cards = read_workers(client)
        meant = [card for card in cards if any(_is_meant(card, one) for one in who)]
        if not meant:
            there = ", ".join(card.name for card in cards) or "none"
            raise UsageError(f"no worker fits {' '.join(who)}; there are: {there}")
        names = [card.name for card in meant]
        for name, holds in drain_workers(
            make_app(broker_url), names, wait_s=ANSWER_WITHIN_S
        ).items():
            click.echo(f"{name} finishes {holds} job{'' if holds == 1 else 's'} and leaves")
        deadline = time.monotonic() + wait_s
        while still := sorted({card.name for card in read_workers(client)} & set(names)):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"{', '.join(still)} still there after {wait_s:.0f} s: wait longer with "
                    "--wait, or stop the process; what it holds then goes to others"
                )
            time.sleep(POLL_S)
    click.echo(f"Gone: {', '.join(names)}")


def _is_meant(card: WorkerCard, who: str) -> bool:
    return fnmatchcase(card.name, who) or fnmatchcase(card.host, who)
