"""What people write to steer: a trait, how strongly, and at which layer.

"evil=2@16" is twice the vector of evil at layer 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from domain.errors import UsageError

Mode = Literal["add", "ablate", "cap"]

# What a strength is when none is written: the vector once, the whole direction removed; a cap has
# no size of its own.
DEFAULTS: dict[Mode, float | None] = {"add": 1.0, "ablate": 1.0, "cap": None}


@dataclass(frozen=True)
class SteeringTerm:
    """One change: `strength` is a coefficient to add, a share to ablate, or a limit to cap at.

    `layer` is as written; None takes the trait's best layer.
    """

    trait: str
    mode: Mode
    strength: float
    layer: str | None = None

    def times(self, factor: float) -> SteeringTerm:
        """The same change, so many times as strong."""
        return replace(self, strength=self.strength * factor)

    def __str__(self) -> str:
        sign = {"add": f"{self.strength:+g}", "ablate": "ablated", "cap": f"≤ {self.strength:g}"}
        share = f" by {self.strength:g}" if self.mode == "ablate" and self.strength != 1 else ""
        return f"{self.trait} {sign[self.mode]}{share}" + (f" @{self.layer}" if self.layer else "")


def parse_steering_term(text: str, mode: Mode) -> SteeringTerm:
    """TRAIT[=STRENGTH][@LAYER]; raises UsageError for anything else."""
    rest, _, layer = text.partition("@")
    trait, equals, number = rest.partition("=")
    strength = _strength(number) if equals else DEFAULTS[mode]
    if not trait.strip() or strength is None or ("@" in text and not layer.strip()):
        example = {"add": "evil=2", "ablate": "refusal", "cap": "evil=10"}[mode]
        raise UsageError(f"--{mode} {text!r} is not TRAIT=NUMBER[@LAYER]: write {example}@16")
    return SteeringTerm(trait.strip(), mode, strength, layer.strip() or None)


def _strength(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
