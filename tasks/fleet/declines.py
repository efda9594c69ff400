"""The runs that this worker cannot serve: said once to all, left to others, tried again later.

A folder that is not mounted, a model that is not there or a missing key is a fault of one
machine. The run fails of it only where no other worker is left.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import redis

from domain.errors import LocalError
from domain.fleet.heartbeats import Decline, Demand
from domain.fleet.placement import workers_left
from domain.redaction import Redactor
from storage.broker.fleet import (
    forget_decline,
    put_decline,
    read_declines,
    read_listed_run,
    read_workers,
)
from storage.broker.state import BrokerState
from tasks.fleet.app import DeliverySettings

log = logging.getLogger(__name__)

# A decline younger than this may be on its way to the broker.
SETTLES_S = 2.0


@dataclass
class Declines:
    """What one worker process declines; shared by its job threads and its main loop."""

    kind: str = ""
    worker: str = field(default_factory=lambda: f"@{socket.gethostname()}")
    retry_s: float = DeliverySettings.retry_declined_s
    # run id -> since when, by this process's monotonic clock
    _since: dict[str, float] = field(default_factory=dict)

    def holds(self, run_id: str) -> bool:
        """Whether a run is declined now."""
        return run_id in self._since

    def decline(self, state: BrokerState, error: LocalError) -> str:
        """Decline a run and leave it to others; where nobody is left, it is not declined: what is
        returned then says on which hosts it failed, and why."""
        client, run_id = state.client, state.run_id
        redact = Redactor.from_environment(os.environ)
        mine = Decline(self.worker, redact(str(error) or repr(error)))
        is_new = not self.holds(run_id)
        self._since.setdefault(run_id, time.monotonic())
        # noted before it is looked who is left: of two that decline at once, one sees both
        put_decline(client, run_id, mine)
        listed, workers = read_listed_run(client, run_id), read_workers(client)
        of_kind = {one.name for one in workers if one.kind == self.kind} | {self.worker}
        said = [one for one in read_declines(client, run_id) if one.worker in of_kind]
        declined = {one.worker for one in said}
        model = listed.model if listed else ""
        left = workers_left(self.kind, model, workers=workers, declined=declined)
        if not left:
            self._since.pop(run_id, None)
            forget_decline(client, run_id, self.worker)
            return decline_reasons(said)
        if is_new:
            self._warn(mine, n_left=len(left))
        return ""

    def without_declined(self, client: redis.Redis, demands: Sequence[Demand]) -> list[Demand]:
        """The demands that this worker does not decline, after those whose time has come, or whose
        declines somebody took off the broker, are open again."""
        now = time.monotonic()
        noted = {one.run.run_id for one in demands if self.worker in one.declined_by}
        for run_id, since in list(self._since.items()):
            is_lost = run_id not in noted and now - since >= SETTLES_S
            if is_lost or now - since >= self.retry_s:
                self._since.pop(run_id, None)
                noted.add(run_id)
        for run_id in noted:
            # also what a worker of the same name left that died
            if not self.holds(run_id):
                forget_decline(client, run_id, self.worker)
        return [one for one in demands if not self.holds(one.run.run_id)]

    def forget(self, client: redis.Redis) -> None:
        """Take all back: the worker leaves, or begins afresh on a new connection."""
        for run_id in list(self._since):
            self._since.pop(run_id, None)
            forget_decline(client, run_id, self.worker)

    def _warn(self, decline: Decline, *, n_left: int) -> None:
        log.warning(
            "%s cannot serve this run: %s. It is left to others (%d), and tried again in %.0f s.",
            decline.host,
            decline.reason.rstrip("."),
            n_left,
            self.retry_s,
            extra={"event": "run_declined"},
        )


def decline_reasons(declines: Iterable[Decline]) -> str:
    """Why nobody serves a run, with the hosts that said so: `on gpu1, gpu2: no such folder`."""
    hosts: dict[str, list[str]] = {}
    for one in declines:
        said_by = hosts.setdefault(one.reason, [])
        if one.host not in said_by:
            said_by.append(one.host)
    return "; ".join(f"on {', '.join(sorted(names))}: {reason}" for reason, names in hosts.items())
