"""Estimates with intervals as plain lists: every number finite, or None where there is none.

Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from traitlens.intervals import Interval
from traitlens.separation import Separation
from workers.kept_rows import Float64


def interval_json(found: Interval) -> dict[str, Any]:
    """Values and [low, high] pairs over the layers."""
    ends = zip(np.atleast_1d(found.low), np.atleast_1d(found.high), strict=True)
    return {"value": numbers(found.value), "interval": [numbers(pair) for pair in ends]}


def numbers(values: Float64 | Sequence[float]) -> list[float | None]:
    """Plain numbers; None where there is nothing finite to say, JSON's null."""
    return [float(x) if math.isfinite(x) else None for x in np.atleast_1d(np.asarray(values))]


def separation_json(found: Separation) -> dict[str, Any]:
    """AUROC, Cohen's d and balanced accuracy with intervals, and the effective sample sizes."""
    return {
        "auroc": interval_json(found.auroc),
        "cohens_d": interval_json(found.cohens_d),
        "accuracy": interval_json(found.accuracy),
        "effective_n": {
            "positive": numbers(found.effective_n_pos),
            "negative": numbers(found.effective_n_neg),
        },
    }
