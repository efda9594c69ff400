"""Turns what people ask for into pushes that the engine applies. Knows nothing about text."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import UsageError
from orchestrator.steering_terms import SteeringTerm
from traitlens.errors import MissingVectorError
from traitlens.steering import Unit, coefficient_unit
from workers.generation import Positions, Push, Steering
from workers.layer_vectors import LayerVector


def steering_of(
    terms: Sequence[tuple[SteeringTerm, LayerVector]], *, positions: Positions, unit: Unit
) -> Steering:
    """All terms as one steering, in their order.

    `unit` "raw" counts stored vectors (projections, to cap), "residual" the mean norm of the
    residual stream at the layer. Raises UsageError where a vector records no such norm.
    """
    return Steering(tuple(_push(term, one, unit) for term, one in terms), positions)


def _push(term: SteeringTerm, one: LayerVector, unit: Unit) -> Push:
    norms = one.vector.provenance.residual_norms
    try:
        size = coefficient_unit(
            unit,
            mode=term.mode,
            vector_norm=float(one.vector.norms[one.layer]),
            residual_norm=norms[one.layer] if norms else None,
        )
    except MissingVectorError as error:
        raise UsageError(f"{term.trait}: {error}") from error
    vector = one.vector.at(one.layer).numpy()
    return Push(one.layer, vector, term.strength * size, term.mode)
