"""Which layer and method to take, by a rule that is written beside the choice.

Knows nothing of activations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

BEST_RULE = (
    "the largest lower end of Cohen's d on the half of the questions that the vector was not made "
    "from; the embedding and the last layer are not chosen"
)
BEST_RULE_FITTED = (
    "the largest lower end of Cohen's d on the responses that the vector was made from, because "
    "there are too few questions to halve; the embedding and the last layer are not chosen"
)


def best_layers(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The best layer of each method, the best method of all, and the rule that chose them."""
    is_held_out = all(one["held_out_half"] is not None for one in methods.values())
    rows = "held_out_half" if is_held_out else "fitted"
    by_method, reached = {}, {}
    for name, one in methods.items():
        ends = _lower_ends(one[rows]["cohens_d"])
        layer = max(candidate_layers(len(ends)), key=lambda i: _or_least(ends[i]))
        by_method[name], reached[name] = layer, _or_least(ends[layer])
    method = max(reached, key=lambda name: reached[name])
    rule = BEST_RULE if is_held_out else BEST_RULE_FITTED
    return {"method": method, "layer": by_method[method], "by_method": by_method, "rule": rule}


def candidate_layers(n_rows: int) -> range:
    """Layers of n_rows = L+1 that may be chosen: not the embedding, nor the last where avoidable.

    Row L is before the final norm and no later block reads it.
    """
    return range(1, n_rows - 1) if n_rows > 2 else range(n_rows - 1, n_rows)


def _lower_ends(found: Mapping[str, Any]) -> list[float | None]:
    """The intervals' lower ends; the values where one prompt a side leaves no interval."""
    lows: list[float | None] = [low for low, _ in found["interval"]]
    return list(found["value"]) if all(low is None for low in lows) else lows


def _or_least(value: float | None) -> float:
    return -math.inf if value is None else value
