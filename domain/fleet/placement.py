"""Which runs a worker takes jobs of: priorities, pauses, fairness, and one model at a time.

Pure: every worker sees the same heartbeats and decides for itself, so nobody has to be in charge.
Messages of a run lie on queues of its own, and a worker takes from the queues it listens to in
turn; so choosing queues is all that scheduling needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from itertools import groupby

from domain.fleet.heartbeats import Demand, Heartbeat


def runs_in_turn(demands: Iterable[Demand]) -> list[Demand]:
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

    A worker takes the highest priority that it may serve and that has a place for it.
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
    name: str, workers: Sequence[GpuWorker], wanted: Sequence[Mapping[str, int]]
) -> str:
    """The model that the worker of that name should serve now; empty for none yet.

    It keeps its own while that is wanted and nobody lacks a worker; and where nothing is left
    for it.
    """
    me = next(one for one in workers if one.name == name)
    return spread_workers(workers, wanted).get(name, me.model)


# A judge job takes seconds; one that takes longer waits for its judge, as after a day of failures.
WAITS_AFTER_S = 10.0

# What a worker keeps of those that wait: of one run, and of all runs at one endpoint.
MOST_OF_A_RUN, MOST_AT_AN_ENDPOINT = 4, 16


def beside_those_that_wait(
    demands: Iterable[Demand],
    in_hand: Mapping[str, Sequence[float]],
    endpoint_of: Callable[[str], str],
) -> tuple[list[Demand], int]:
    """The runs that a judge worker takes from, and how many of its jobs wait for their judge and
    leave their places to others.

    `in_hand` maps run ids to how long each of their jobs has been under way, in seconds;
    `endpoint_of` says where a run's judge is, empty where that is not known.
    """
    waiting = {run: sum(s >= WAITS_AFTER_S for s in jobs) for run, jobs in in_hand.items()}
    at = Counter[str]()
    for run, n in waiting.items():
        at[endpoint_of(run)] += n
    at[""] = 0

    def has_room(run: str) -> bool:
        is_one_too_many = len(in_hand.get(run, ())) >= MOST_OF_A_RUN and waiting[run] > 0
        return not is_one_too_many and at[endpoint_of(run)] < MOST_AT_AN_ENDPOINT

    return [one for one in demands if has_room(one.run.run_id)], sum(waiting.values())


def jobs_to_hold(most: int, waiting: int, *, n_workers: int) -> int:
    """How many jobs a GPU worker takes at a time: as many as keep its device full, but at the end
    of a run no more than its share, so that no device stands idle beside a full one."""
    n = max(1, n_workers)
    if waiting < n:
        return 1
    return min(most, -(-waiting // n) + 1)


def workers_left(
    kind: str, model: str, *, workers: Iterable[Heartbeat], declined: Collection[str]
) -> list[str]:
    """The workers of a kind that may still serve a run of that model; without any, a decline is
    the run's failure. An empty model stands for one that is not known."""
    return [
        worker.name
        for worker in workers
        if worker.kind == kind
        and not worker.draining
        and worker.name not in declined
        and (not model or _fits(model, worker.models))
    ]


def models_left(worker: Heartbeat, demands: Sequence[Demand]) -> tuple[str, ...] | None:
    """The patterns of the models that a worker may serve, without those of which it declined every
    run; None when nothing that is wanted is left for it."""
    open_models = {one.run.model for one in demands if worker.name not in one.declined_by}
    if all(one.run.model in open_models for one in demands):
        return worker.models
    return tuple(escape(m) for m in sorted(open_models) if _fits(m, worker.models)) or None


def _fits(model: str, patterns: Collection[str]) -> bool:
    return not patterns or any(fnmatchcase(model, one) for one in patterns)


# Loading takes from seconds to minutes: nobody leaves a model that is wanted sooner than this.
SERVE_AT_LEAST_S = 60.0

# With fewer workers than models, one that waits for nobody's attention gets a turn after this.
TURN_S = 600.0


@dataclass(frozen=True)
class GpuWorker:
    """A GPU worker as placement sees it: the model it serves or means to, for how long, and what it
    may serve."""

    name: str
    model: str = ""
    serving_s: float = 0.0
    models: tuple[str, ...] = ()

    def may_serve(self, model: str) -> bool:
        """Whether the model fits one of its patterns; no pattern fits all."""
        return _fits(model, self.models)


def spread_workers(
    workers: Sequence[GpuWorker], levels: Sequence[Mapping[str, int]]
) -> dict[str, str]:
    """Worker name -> the model it should serve; one for which there is no work is left out.

    Levels come with the highest priority first; each maps its models to the jobs that wait for
    them there and above. What a level gives a model no later level takes away. Within a level
    nobody is idle who could work, models get equal shares of those who may serve them, and a
    worker keeps its model unless another lacks it.
    """
    found = _Spread({one.name: one for one in workers}, levels)
    for level in levels:
        found.open(level)
        found.place_the_free()
        found.even_out()
        found.give_turns()
        found.floor = found.counts()
    return found.chosen


@dataclass
class _Spread:
    workers: Mapping[str, GpuWorker]
    levels: Sequence[Mapping[str, int]]
    jobs: dict[str, int] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    # what the levels above gave each model
    floor: Counter[str] = field(default_factory=Counter)
    may: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = list(dict.fromkeys(model for level in self.levels for model in level))
        self.may = {
            name: [m for m in wanted if one.may_serve(m)] for name, one in self.workers.items()
        }

    def counts(self) -> Counter[str]:
        return Counter(self.chosen.values())

    def open(self, level: Mapping[str, int]) -> None:
        """Add a level's models; whoever serves one of them already goes on with it."""
        self.jobs.update(level)
        for name, one in self.workers.items():
            if name not in self.chosen and one.model in level and one.model in self.may[name]:
                self.chosen[name] = one.model

    def place_the_free(self) -> None:
        """Give each worker without a model one that has jobs left, moving others if need be."""
        free = self.workers.keys() - self.chosen.keys()
        for name in sorted(free, key=self._fewest_choices_first):
            self._move(self._path([name], self._has_room))

    def even_out(self) -> None:
        """Move workers from models that have too many to those that have too few."""
        while any(self._relieve(model) for model in self.jobs):
            pass

    def give_turns(self) -> None:
        """Let models that nobody serves have a worker whose turn at another has been long."""
        counts, order = self.counts(), list(self.jobs)
        for name in sorted(self.chosen, key=self._longest_first):
            mine = self.chosen[name]
            ended = self._stays(name) and self.workers[name].serving_s >= TURN_S
            if ended and counts[mine] > self.floor[mine]:
                # the next one in order, or two models would pass a worker to and fro for ever
                after = order.index(mine)
                others = [m for m in [*order[after:], *order[:after]] if m in self.may[name]]
                lacking = next((m for m in others if not counts[m] and self.jobs[m]), mine)
                self.chosen[name] = lacking
                counts[lacking] += 1

    def _has_room(self, model: str) -> bool:
        return self.counts()[model] < self.jobs[model]

    def _relieve(self, model: str) -> bool:
        counts = self.counts()
        if counts[model] <= self.floor[model]:
            return False
        surplus = counts[model] > self.jobs[model]

        def takes(other: str) -> bool:
            too_few = surplus or counts[other] + 2 <= counts[model]
            return counts[other] < self.jobs[other] and too_few

        return self._move(self._path(self._movable(model), takes, leaving=model))

    def _path(
        self, starts: Iterable[str], takes: Callable[[str], bool], *, leaving: str = ""
    ) -> list[tuple[str, str]]:
        """The fewest moves (worker, model), the last one first, by which a start gets a place.

        Each but the last goes where it drives out another; empty when there is no such way.
        """
        counts, order = self.counts(), list(self.jobs)
        came: dict[str, tuple[str, str]] = {}  # model -> who goes there, and the model it leaves
        frontier = [(name, leaving) for name in starts]
        while frontier:
            reached: list[str] = []
            for name, before in frontier:
                for model in self.may[name]:
                    if model in self.jobs and model not in came and model != leaving:
                        came[model] = (name, before)
                        reached.append(model)
            ends = [model for model in reached if takes(model)]
            if ends:
                end = min(ends, key=lambda m: (counts[m], order.index(m)))
                return _backwards(end, came, leaving)
            frontier = [(name, model) for model in reached for name in self._movable(model)]
        return []

    def _move(self, moves: list[tuple[str, str]]) -> bool:
        self.chosen.update(moves)
        return bool(moves)

    def _movable(self, model: str) -> list[str]:
        """Who may leave a model, those first for whom it costs least."""
        there = [name for name, one in self.chosen.items() if one == model]
        free = [
            name
            for name in there
            if not self._stays(name) or self.workers[name].serving_s >= SERVE_AT_LEAST_S
        ]
        return sorted(free, key=lambda name: (self._stays(name), *self._longest_first(name)))

    def _stays(self, name: str) -> bool:
        return self.chosen[name] == self.workers[name].model

    def _fewest_choices_first(self, name: str) -> tuple[bool, int, str]:
        # whoever could go on with work of a lower level comes last
        return self.workers[name].model in self.may[name], len(self.may[name]), name

    def _longest_first(self, name: str) -> tuple[float, str]:
        return -self.workers[name].serving_s, name


def _backwards(
    model: str, came: Mapping[str, tuple[str, str]], start: str
) -> list[tuple[str, str]]:
    moves = []
    while model != start:
        name, before = came[model]
        moves.append((name, model))
        model = before
    return moves
