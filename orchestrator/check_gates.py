"""The gates on what a vector does on responses of its own: held-out questions, and steering. Pure.

A vector that reads the trait and does not cause it is good for watching and not for steering, so
nothing in the causal check makes a vector useless by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHANCE = 0.5
# As for questions left out of training.
HELD_OUT_USABLE = 0.9
HELD_OUT_WEAK = 0.6


@dataclass(frozen=True)
class Rise:
    """What steering adds to the trait score, at a strength that keeps answers readable; `strength`
    is None when none does."""

    strength: float | None
    value: float | None
    low: float | None
    over_random_low: float | None


@dataclass(frozen=True)
class CheckFacts:
    """What the gates look at, at the best layer; None where not measured.

    `held_out` is the AUROC on the evaluation questions, `follows` the correlation of the projection
    with the judge's trait score there, both with the low end of their interval; `too_few` says that
    evaluation was asked for and one side has too few responses.
    """

    layer: int
    held_out: tuple[float, float] | None
    follows: tuple[float, float] | None
    too_few: bool
    rise: Rise | None


def check_facts(quality: Mapping[str, Any]) -> CheckFacts:
    """The facts out of a quality dict."""
    layer, tested = quality["best"]["layer"], quality["evaluation"]
    own = tested["methods"][quality["best"]["method"]] if tested else None
    separation = own["separation"] if own else None
    return CheckFacts(
        layer=layer,
        held_out=_with_low(separation["auroc"], layer) if separation else None,
        follows=_with_low(own["correlation"], layer) if own and own["correlation"] else None,
        too_few=tested is not None and separation is None,
        rise=_rise(quality["causal"]),
    )


def check_gates(facts: CheckFacts) -> tuple[list[str], list[str]]:
    """Sentences of the failed gates: those that make a vector useless, those that weaken it."""
    fatal: list[str] = []
    weak: list[str] = []
    if facts.too_few:
        weak.append(
            "too few responses to the evaluation questions show the trait or its opposite to test "
            "the vector on them"
        )
    if facts.held_out is not None:
        value, low = facts.held_out
        where = f"on the evaluation questions at layer {facts.layer}"
        if low <= CHANCE or value <= HELD_OUT_WEAK:
            fatal.append(
                f"{where} the vector separates hardly better than chance (AUROC {value:.2f}, 95 % "
                f"from {low:.2f})"
            )
        elif value <= HELD_OUT_USABLE:
            weak.append(f"AUROC {value:.2f} {where} is not over {HELD_OUT_USABLE:g}")
    if facts.follows is not None and facts.follows[1] <= 0:
        # the sides differ by their instructions whatever the judge says; this asks the judge
        fatal.append(
            f"on the evaluation questions the projection at layer {facts.layer} does not surely "
            f"go with the judge's trait score (correlation {facts.follows[0]:.2f}, 95 % from "
            f"{facts.follows[1]:.2f})"
        )
    return fatal, weak + _causal_gates(facts.rise)


def _causal_gates(rise: Rise | None) -> list[str]:
    if rise is None:
        return []
    if rise.strength is None or rise.value is None:
        return ["steering with the vector leaves no readable answers at any strength tried"]
    at = f"steering with strength {rise.strength:.3g}"
    if rise.low is None:
        return [f"{at} was tried on one question only, which shows no spread"]
    if rise.low <= 0:
        return [
            f"{at} does not surely show the trait: its score rises by {rise.value:.0f}, 95 % from "
            f"{rise.low:.0f}"
        ]
    if rise.over_random_low is not None and rise.over_random_low <= 0:
        return [f"{at} raises the trait no more than random vectors of the same length do"]
    return []


def _with_low(found: Mapping[str, Any], layer: int) -> tuple[float, float] | None:
    value, low = found["value"][layer], found["interval"][layer][0]
    return None if value is None or low is None else (value, low)


def _rise(causal: Mapping[str, Any] | None) -> Rise | None:
    if causal is None:
        return None
    curve, over = causal["vector"], causal["rise_over_random"]
    low = (curve["rise"]["interval"] or [None])[0]
    return Rise(curve["rise_at"], curve["rise"]["value"], low, over["interval"][0])
