"""How long a run still takes, by what each stage has left and how fast it goes.

`extract` and `status` both show it. Knows nothing of where counts and rates come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cli.counts import SAMPLED, StageCount


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


def stage_rates(counted: Mapping[str, float], stages: Iterable[str]) -> dict[str, float]:
    """What each stage gets done a second, in the units of StageCount, by the broker's counts."""
    return {stage: counted.get(f"{_unit(stage)}.{stage}", 0.0) for stage in stages}


def _unit(stage: str) -> str:
    return "samples" if stage in SAMPLED else "jobs"
