"""Which runs a worker takes jobs of: priorities, pauses, fairness, and one model at a time.

Pure: every worker sees the same cards and decides for itself, so nobody has to be in charge.
Messages of a run lie on queues of its own, and a worker takes from the queues it listens to in
turn; so choosing queues is all that scheduling needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orchestrator.fleet import Demand

# Loading takes from seconds to minutes: nobody leaves a model that is wanted sooner than this.
SERVE_AT_LEAST_S = 60.0
# With fewer workers than models, one that waits for nobody's attention gets a turn after this.
TURN_S = 600.0


@dataclass(frozen=True)
class Server:
    """A GPU worker, the model it serves or means to, for how long, and what it may serve."""

    name: str
    model: str = ""
    serving_s: float = 0.0
    models: tuple[str, ...] = ()

    def may_serve(self, model: str) -> bool:
        """Whether the model fits one of its patterns; no pattern fits all."""
        return not self.models or any(fnmatchcase(model, one) for one in self.models)


def in_turn(demands: Iterable[Demand]) -> list[Demand]:
    """The runs to take from side by side: none that is paused, and none below the highest
    priority that has work waiting."""
    active = [one for one in demands if not one.run.paused]
    top = max((one.run.priority for one in active if one.waiting), default=None)
    if top is None:
        return active
    return [one for one in active if one.run.priority >= top]


def wanted_models(demands: Iterable[Demand]) -> dict[str, int]:
    """Model -> jobs that wait for it, among the runs whose turn it is, in the order they came."""
    wanted: dict[str, int] = {}
    for one in sorted(in_turn(demands), key=lambda d: (d.run.since, d.run.run_id)):
        if one.waiting:
            wanted[one.run.model] = wanted.get(one.run.model, 0) + one.waiting
    return wanted


def model_to_serve(name: str, servers: Sequence[Server], wanted: Mapping[str, int]) -> str:
    """The model that the worker of that name should serve now; empty for none yet.

    It keeps its own while that is wanted and nobody lacks a worker; idle workers take the models
    that lack most, each another one.
    """
    me = next(one for one in servers if one.name == name)
    serving = Counter(one.model for one in servers if one.model in wanted)
    shares = _shares(servers, wanted, serving)
    lacking = [m for m in wanted for _ in range(shares[m] - serving[m]) if me.may_serve(m)]
    if me.model in wanted:
        return _stay_or_leave(me, servers, serving[me.model] - shares[me.model], lacking)
    idle = sorted(one.name for one in servers if one.model not in wanted)
    place = idle.index(me.name)
    return lacking[place] if place < len(lacking) else me.model


def _stay_or_leave(me: Server, servers: Sequence[Server], surplus: int, lacking: list[str]) -> str:
    beside = sorted(
        (one for one in servers if one.model == me.model), key=lambda s: (-s.serving_s, s.name)
    )
    leaves = beside.index(me) < surplus and me.serving_s >= SERVE_AT_LEAST_S
    return lacking[0] if leaves and lacking else me.model


def _shares(
    servers: Sequence[Server], wanted: Mapping[str, int], serving: Counter[str]
) -> Counter[str]:
    """How many workers each model should have: equal, but never more than jobs wait for it."""
    longest = {m: max((s.serving_s for s in servers if s.model == m), default=0.0) for m in wanted}
    takes_turns = len(servers) < len(wanted)
    had_its_turn = {m for m in wanted if takes_turns and serving[m] and longest[m] >= TURN_S}
    order = sorted(wanted, key=lambda m: (m in had_its_turn, not serving[m]))
    shares: Counter[str] = Counter()
    left = len(servers)
    while left and any(shares[m] < wanted[m] for m in order):
        for model in order:
            if left and shares[model] < wanted[model]:
                shares[model] += 1
                left -= 1
    return shares


def jobs_to_hold(most: int, waiting: int, *, n_workers: int) -> int:
    """How many jobs a GPU worker takes at a time: as many as keep its device full, but at the end
    of a run no more than its share, so that no device stands idle beside a full one."""
    n = max(1, n_workers)
    if waiting < n:
        return 1
    return min(most, -(-waiting // n) + 1)
