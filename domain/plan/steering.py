"""The search for the push that shows a trait best: successive halving over layers and strengths.

Strengths are in multiples of the distance between the mean of the positives and that of the
negatives at the layer, so that they mean the same for every method and model. A push is worth
the mean of trait x coherence / 100: what nobody can read shows nothing. Pure;

What people write to steer: a trait, how strongly, and at which layer.

"evil=2@16" is twice the vector of evil at layer 16.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from domain.errors import UsageError
from domain.plan.samples import ROUND_CELLS

STRENGTHS = (1.0, 2.0, 3.0)

# A layer in the middle is where most published steering works; separation is often best later.
DEPTHS = (1 / 3, 1 / 2, 2 / 3, 1 / 4, 3 / 4)

N_LAYERS = ROUND_CELLS[0] // len(STRENGTHS)

# The confirmed strengths, in multiples of the best, in the order in which they are taken up: below
# it, and beyond to see where it breaks.
DOSES = (1.0, 0.5, 1.5, 0.25)

Direction = Literal["none", "vector", "random"]


@dataclass(frozen=True)
class Cell:
    """A push: a direction added at a layer with a strength; direction `none` adds nothing."""

    layer: int
    strength: float
    direction: Direction = "vector"


@dataclass(frozen=True)
class Shown:
    """What one steered response was scored; None is unscored."""

    cell: Cell
    trait: float | None
    coherence: float | None

    @property
    def worth(self) -> float:
        """0 to 100; an unscored response counts for nothing."""
        return 0.0 if None in (self.trait, self.coherence) else _product(self)


def layers_apart(ranked: Sequence[int], n: int) -> list[int]:
    """The first n of layers that are ranked by worth, leaving out those within a tenth of the
    model's depth of a better one, which do much the same."""
    found: list[int] = []
    for layer in ranked:
        if len(found) < n and all(abs(layer - one) > len(ranked) // 10 for one in found):
            found.append(layer)
    return found


def steering_layers(best: int, candidates: Sequence[int]) -> list[int]:
    """At most four layers to try where nothing says which steer: where the vector separates best,
    and the middle of the model."""
    depth = max(candidates) + 1
    spread = [min(candidates, key=lambda layer: abs(layer - share * depth)) for share in DEPTHS]
    return sorted(list(dict.fromkeys([best, *spread]))[:N_LAYERS])


def first_steering_cells(layers: Sequence[int]) -> list[Cell]:
    """Where the search begins."""
    return [Cell(layer, strength) for layer in layers for strength in STRENGTHS]


def surviving_cells(shown: Iterable[Shown], *, among: Sequence[Cell], n: int) -> list[Cell]:
    """The n cells of the latest round that are worth most over all rounds; of equal ones the
    weaker push."""
    worth = mean_steering_worth(shown)
    ranked = sorted(among, key=lambda c: (-worth.get(c, 0.0), c.strength, c.layer))
    return ranked[:n]


def mean_steering_worth(shown: Iterable[Shown]) -> Mapping[Cell, float]:
    """Mean worth of each cell's responses."""
    by_cell: dict[Cell, list[float]] = {}
    for one in shown:
        by_cell.setdefault(one.cell, []).append(one.worth)
    return {cell: sum(values) / len(values) for cell, values in by_cell.items()}


def confirmed_steering_cells(best: Cell, *, doses: int) -> list[Cell]:
    """So many strengths at the best layer: nothing, the vector, and random vectors as long."""
    strengths = [dose * best.strength for dose in sorted(DOSES[:doses])]
    return [
        Cell(best.layer, 0.0, "none"),
        *(Cell(best.layer, strength, "vector") for strength in strengths),
        *(Cell(best.layer, strength, "random") for strength in strengths),
    ]


def best_confirmed_cell(cells: Sequence[Cell]) -> Cell:
    """The cell that the search ended with, out of `confirmed_steering_cells`."""
    return cells[1 + sorted(DOSES[: len(cells) // 2]).index(1.0)]


def steering_cell_from_json(body: Mapping[str, Any]) -> Cell:
    """A cell as a record holds it."""
    return Cell(int(body["layer"]), float(body["strength"]), body["direction"])


def _product(shown: Shown) -> float:
    assert shown.trait is not None and shown.coherence is not None
    return shown.trait * shown.coherence / 100


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
