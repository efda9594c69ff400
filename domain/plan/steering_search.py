"""The search for the push that shows a trait best: successive halving over layers and strengths.

Strengths are in multiples of the distance between the mean of the positives and that of the
negatives at the layer, so that they mean the same for every method and model. A push is worth
the mean of trait x coherence / 100: what nobody can read shows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
class CellAnswer:
    """What one steered response was scored; None is unscored."""

    cell: Cell
    trait: float | None
    coherence: float | None

    @property
    def worth(self) -> float:
        """0 to 100; an unscored response counts for nothing."""
        return 0.0 if None in (self.trait, self.coherence) else _product(self)


def steering_layers_apart(ranked: Sequence[int], n: int) -> list[int]:
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


def surviving_steering_cells(
    shown: Iterable[CellAnswer], *, among: Sequence[Cell], n: int
) -> list[Cell]:
    """The n cells of the latest round that are worth most over all rounds; of equal ones the
    weaker push."""
    worth = mean_steering_worth(shown)
    ranked = sorted(among, key=lambda c: (-worth.get(c, 0.0), c.strength, c.layer))
    return ranked[:n]


def mean_steering_worth(shown: Iterable[CellAnswer]) -> Mapping[Cell, float]:
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


def _product(shown: CellAnswer) -> float:
    assert shown.trait is not None and shown.coherence is not None
    return shown.trait * shown.coherence / 100
