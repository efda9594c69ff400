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

    `held_out` is the AUROC on the evaluation questions with the low end of its interval;
    `too_few` says that evaluation was asked for and one side has too few responses.
    """

    layer: int
    held_out: tuple[float, float] | None
    too_few: bool
    rise: Rise | None


def check_facts(quality: Mapping[str, Any]) -> CheckFacts:
    """The facts out of a quality dict."""
    best, tested = quality["best"], quality["evaluation"]
    separation = tested["methods"][best["method"]]["separation"] if tested else None
    held_out = None
    if separation is not None:
        auroc, layer = separation["auroc"], best["layer"]
        held_out = (auroc["value"][layer], auroc["interval"][layer][0])
    return CheckFacts(
        layer=best["layer"],
        held_out=held_out,
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
    return fatal, weak + _causal_gates(facts.rise)


def _causal_gates(rise: Rise | None) -> list[str]:
    if rise is None:
        return []
    if rise.strength is None or rise.value is None or rise.low is None:
        return ["steering with the vector leaves no readable answers at any strength tried"]
    at = f"steering with strength {rise.strength:.3g}"
    if rise.low <= 0:
        return [
            f"{at} does not surely show the trait: its score rises by {rise.value:.0f}, 95 % from "
            f"{rise.low:.0f}"
        ]
    if rise.over_random_low is not None and rise.over_random_low <= 0:
        return [f"{at} raises the trait no more than random vectors of the same length do"]
    return []


def _rise(causal: Mapping[str, Any] | None) -> Rise | None:
    if causal is None:
        return None
    curve, over = causal["vector"], causal["rise_over_random"]
    low = (curve["rise"]["interval"] or [None])[0]
    return Rise(curve["rise_at"], curve["rise"]["value"], low, over["interval"][0])
