"""Which runs a worker takes jobs of: priorities, pauses, fairness, and one model at a time.

Pure: every worker sees the same cards and decides for itself, so nobody has to be in charge.
Messages of a run lie on queues of its own, and a worker takes from the queues it listens to in
turn; so choosing queues is all that scheduling needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from orchestrator.fleet import Demand
from orchestrator.spread import Server, spread


def in_turn(demands: Iterable[Demand]) -> list[Demand]:
    """The runs to take from side by side: none that is paused, and none below the highest
    priority that has work waiting."""
    active = [one for one in demands if not one.run.paused]
    top = max((one.run.priority for one in active if one.waiting), default=None)
    if top is None:
        return active
    return [one for one in active if one.run.priority >= top]


def wanted_models(demands: Iterable[Demand]) -> list[dict[str, int]]:
    """For each priority that has work waiting, highest first: model -> the jobs that wait for it
    there and above, in the order the runs came.

    A server takes the highest priority that it may serve and that has a place for it.
    """
    waiting = [one for one in demands if one.waiting and not one.run.paused]
    waiting.sort(key=lambda d: (-d.run.priority, d.run.since, d.run.run_id))
    levels: list[dict[str, int]] = []
    total: dict[str, int] = {}
    for _, level in groupby(waiting, key=lambda d: d.run.priority):
        wanted: dict[str, int] = {}
        for one in level:
            total[one.run.model] = total.get(one.run.model, 0) + one.waiting
            wanted[one.run.model] = total[one.run.model]
        levels.append(wanted)
    return levels


def model_to_serve(
    name: str, servers: Sequence[Server], wanted: Sequence[Mapping[str, int]]
) -> str:
    """The model that the worker of that name should serve now; empty for none yet.

    It keeps its own while that is wanted and nobody lacks a worker; and where nothing is left
    for it.
    """
    me = next(one for one in servers if one.name == name)
    return spread(servers, wanted).get(name, me.model)


def jobs_to_hold(most: int, waiting: int, *, n_workers: int) -> int:
    """How many jobs a GPU worker takes at a time: as many as keep its device full, but at the end
    of a run no more than its share, so that no device stands idle beside a full one."""
    n = max(1, n_workers)
    if waiting < n:
        return 1
    return min(most, -(-waiting // n) + 1)
