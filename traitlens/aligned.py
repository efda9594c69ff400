"""Event-aligned averages: many responses, lined up at the token where something happened.

Knows nothing about what the event is: a commitment point, a first refusal word, a steered token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traitlens.errors import ShapeError

Float64 = npt.NDArray[np.float64]

N_BOOTSTRAP = 1000


@dataclass(frozen=True, eq=False)
class AlignedAverage:
    """Mean score at each offset from the event, with a 95 % interval over responses.

    All arrays are [before + 1 + after]; `count` says how many responses reach an offset, and mean
    and interval are NaN where none does. `without_event` responses were left out.
    """

    offsets: npt.NDArray[np.int64]
    mean: Float64
    low: Float64
    high: Float64
    count: npt.NDArray[np.int64]
    without_event: int


def event_aligned_average(
    trajectories: Sequence[Sequence[float] | npt.NDArray[np.floating]],
    events: Sequence[int | None],
    *,
    before: int = 5,
    after: int = 20,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> AlignedAverage:
    """Average trajectories [n_tokens] around their events; None means the event never came.

    The interval is a bootstrap over responses (percentile). Raises ShapeError when events and
    trajectories differ in number, ValueError for an event outside its trajectory.
    """
    if len(trajectories) != len(events):
        raise ShapeError(f"{len(events)} events for {len(trajectories)} trajectories: one each")
    happened = [(np.asarray(x, float), e) for x, e in zip(trajectories, events, strict=True)
                if e is not None]  # fmt: skip
    lined_up = np.full((len(happened), before + 1 + after), np.nan)
    for row, (scores, event) in zip(lined_up, happened, strict=True):
        if not 0 <= event < len(scores):
            raise ValueError(f"event at token {event} of {len(scores)}: count from 0")
        first, last = max(0, event - before), min(len(scores), event + after + 1)
        row[first - event + before : last - event + before] = scores[first:last]
    mean, low, high = _mean_with_interval(lined_up, n_bootstrap, seed)
    return AlignedAverage(
        offsets=np.arange(-before, after + 1),
        mean=mean,
        low=low,
        high=high,
        count=np.isfinite(lined_up).sum(axis=0),
        without_event=len(events) - len(happened),
    )


def _mean_with_interval(
    lined_up: Float64, n_bootstrap: int, seed: int
) -> tuple[Float64, Float64, Float64]:
    n, width = lined_up.shape
    if n == 0:
        return np.full(width, np.nan), np.full(width, np.nan), np.full(width, np.nan)
    present = np.isfinite(lined_up)
    values = np.where(present, lined_up, 0.0)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    weights = np.vstack([np.ones(n), draws])  # the first "draw" is the sample itself
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ values) / (weights @ present)
    low, high = np.full(width, np.nan), np.full(width, np.nan)
    reached = present.any(axis=0)
    low[reached], high[reached] = np.nanquantile(means[1:, reached], [0.025, 0.975], axis=0)
    return means[0], low, high
