"""The verdict on a trait's vectors, from written gates, each failed gate named in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.check_gates import CheckFacts, check_gates
from orchestrator.vector_gates import VectorFacts, vector_gates

VerdictName = Literal["usable", "weak", "do not use"]

# The seeds' rule for a good vector, on the judge's 0-100 scale.
CONTRAST_USABLE = 40.0
# Seed 003 calls a contrast under 20 too low to repair by anything but better instructions.
CONTRAST_WEAK = 20.0
# Fewer kept responses leave the mean of a side to a handful of prompts.
KEPT_USABLE = 10
KEPT_WEAK = 2
# Beyond this the kept responses are those the judge happened to answer for.
UNSCORED_USABLE = 0.1


@dataclass(frozen=True)
class VerdictInputs:
    """What the gates look at; contrast is None when a side has no scores.

    `contrast_low` is the low end of its 95 % interval; `vector` is None when no vector was made,
    and `checks` where it is not tested on responses of its own.
    """

    n_generated: int
    n_unscored: int
    n_kept_positive: int
    n_kept_negative: int
    contrast: float | None
    magnitude: float | None
    contrast_low: float | None = None
    vector: VectorFacts | None = None
    checks: CheckFacts | None = None


def verdict(found: VerdictInputs) -> tuple[VerdictName, list[str]]:
    """The verdict and a sentence for each failed gate."""
    fatal, weak = _kept_gates(found)
    if found.contrast is None:
        fatal.append("one side has no scored response, so the contrast is unknown")
    elif found.contrast <= CONTRAST_WEAK:
        fatal.append(f"contrast {found.contrast:.1f} is not over {CONTRAST_WEAK:g}")
    elif found.contrast <= CONTRAST_USABLE:
        weak.append(f"contrast {found.contrast:.1f} is not over {CONTRAST_USABLE:g}")
    if found.contrast_low is not None and found.contrast_low <= 0:
        fatal.append("chance alone may explain the contrast: its 95 % interval reaches 0")
    if found.magnitude is not None and not found.magnitude > 0:
        fatal.append("the mean difference is zero at every layer")
    elif found.vector is not None:
        more_fatal, more_weak = vector_gates(found.vector)
        fatal, weak = fatal + more_fatal, weak + more_weak
    if found.checks is not None:
        check_fatal, check_weak = check_gates(found.checks)
        fatal, weak = fatal + check_fatal, weak + check_weak
    share = found.n_unscored / max(found.n_generated, 1)
    if share > UNSCORED_USABLE:
        weak.append(f"{share:.0%} of the responses are unscored, over {UNSCORED_USABLE:.0%}")
    name: VerdictName = "do not use" if fatal else "weak" if weak else "usable"
    return name, fatal + weak


def _kept_gates(found: VerdictInputs) -> tuple[list[str], list[str]]:
    fatal: list[str] = []
    weak: list[str] = []
    sides = (("positive", found.n_kept_positive), ("negative", found.n_kept_negative))
    for side, n_kept in sides:
        if n_kept < KEPT_WEAK:
            fatal.append(f"{n_kept} {side} responses passed the thresholds, {KEPT_WEAK} are needed")
        elif n_kept < KEPT_USABLE:
            weak.append(f"only {n_kept} {side} responses passed the thresholds")
    return fatal, weak


def contrast(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Mean positive minus mean negative trait score over all scored responses, kept or not.

    Over the kept alone it would be large by construction: the thresholds push the sides apart.
    """
    if not positive or not negative:
        return None
    return sum(positive) / len(positive) - sum(negative) / len(negative)
