"""What of a run is done and what is to come: counts by trait and stage, and the time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from typing import Any

from domain.plan.jobs import Plan
from domain.plan.readiness import is_job_needed, is_job_ready
from domain.verdict.record import TraitMetrics

SAMPLED = ("generate", "judge")
"""The stages that are counted in samples; the others in jobs."""


@dataclass(frozen=True)
class StageCount:
    """Samples of one stage of a trait, or its jobs where they have none: done, of how many."""

    done: int = 0
    total: int = 0

    def __add__(self, other: StageCount) -> StageCount:
        return StageCount(self.done + other.done, self.total + other.total)


@dataclass(frozen=True)
class TraitCount:
    """Where a trait stands; `stages` are those of the plan but the reduce, in their order. While it
    is being read again, what it has left to generate waits."""

    trait: str
    stages: Mapping[str, StageCount]
    is_reduced: bool
    is_finished: bool
    is_read_again: bool = False


def trait_progress(plan: Plan, done: AbstractSet[str]) -> list[TraitCount]:
    """Where each trait of the plan stands."""
    found = []
    for trait in plan.spec.traits:
        stages: dict[str, StageCount] = {}
        for job in plan.trait_jobs(trait):
            if job.stage != "reduce" and is_job_needed(plan, job, done):
                n = plan.n_samples_of(job) if job.stage in SAMPLED else 1
                counted = StageCount(n if job.key in done else 0, n)
                stages[job.stage] = stages.get(job.stage, StageCount()) + counted
        is_reduced = plan.trait_job("reduce", trait.name).key in done
        is_finished = plan.last_job(trait).key in done
        is_read_again = any(is_job_ready(plan, job, done) for job in plan.contexts_jobs(trait))
        found.append(TraitCount(trait.name, stages, is_reduced, is_finished, is_read_again))
    return found


def trait_progress_row(count: TraitCount, metrics: TraitMetrics | None) -> dict[str, Any]:
    """Where a trait stands as JSON, with its verdict once there is one."""
    return {
        "trait": count.trait,
        **{stage: asdict(one) for stage, one in count.stages.items()},
        "is_reduced": count.is_reduced,
        "is_finished": count.is_finished,
        "verdict": metrics and metrics.verdict,
        "contrast": metrics and metrics.contrast,
        "reasons": list(metrics.reasons) if metrics else [],
        "notes": list(metrics.notes) if metrics else [],
    }


def stage_progress(counts: Sequence[TraitCount]) -> dict[str, StageCount]:
    """Each stage's count over all traits, in the order work goes through them."""
    found: dict[str, StageCount] = {}
    for count in counts:
        for stage, one in count.stages.items():
            found[stage] = found.get(stage, StageCount()) + one
    return found


def waiting_stages(counts: Sequence[TraitCount]) -> set[str]:
    """The stages that are not done and can do nothing until responses have been read again."""
    totals, left = stage_progress(counts), [one for one in counts if not _is_generated(one)]
    if not left or not all(one.is_read_again for one in left):
        return set()
    generated, judged = totals["generate"], totals.get("judge")
    return {"generate", *(["judge"] if judged and judged.done >= generated.done else [])}


def _is_generated(count: TraitCount) -> bool:
    return count.stages["generate"].done >= count.stages["generate"].total


def seconds_left(totals: Mapping[str, StageCount], rates: Mapping[str, float]) -> float | None:
    """The time of the slowest stage at its rate; None when nothing is known yet.

    What is counted in jobs follows the samples within seconds, and counts once these are done.
    """
    left = {stage: one.total - one.done for stage, one in totals.items() if one.done < one.total}
    if not left:
        return 0.0
    sampled = {stage: n for stage, n in left.items() if stage in SAMPLED}
    waits = [
        n / rates[stage] for stage, n in (sampled or left).items() if rates.get(stage, 0.0) > 0
    ]
    return max(waits, default=None)


# As long as rates of jobs that end all the time are taken over, and how many ends a rate of others
# is taken over however long ago they were.
PACE_S, FEWEST_ENDS = 60.0, 3


class Pace:
    """How fast a count grows that grows by whole shards, minutes apart or many a second.

    Taken from one end of a shard to another, so that it does not fall to nothing between them; once
    nothing has ended for twice as long as usual it falls, as a stall should show. Who asks brings
    the time.
    """

    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque()
        self._seen = self._waited = 0.0

    def note(self, now: float, done: int, *, waits: bool = False) -> float:
        """Add the count by now; returns its growth a second, 0 while nothing is known. The time in
        which it `waits` for something else is not counted."""
        ends = self._ends
        if waits and ends:
            self._waited += now - self._seen
        self._seen = now
        now -= self._waited
        if not ends or done != ends[-1][1]:
            ends.append((now, done))
        # the first is when the look began, which no shard did
        while len(ends) > FEWEST_ENDS and now - ends[1][0] >= PACE_S:
            ends.popleft()
        (began, before), (last, after) = ends[0], ends[-1]
        if last <= began:
            return 0.0
        usual = (last - began) / (len(ends) - 1)
        stalled = now - last - usual if now - last > 2 * usual else 0.0
        return (after - before) / (last - began + stalled)


def stage_rates(counted: Mapping[str, float], stages: Iterable[str]) -> dict[str, float]:
    """What each stage gets done a second, in the units of StageCount, by the broker's counts."""
    units = {stage: "samples" if stage in SAMPLED else "jobs" for stage in stages}
    return {stage: counted.get(f"{unit}.{stage}", 0.0) for stage, unit in units.items()}
