"""The vectors of several traits, each at the layer where it is used, as the engine applies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domain.errors import ModelError, UsageError
from domain.plan.steering_term import SteeringTerm
from traitlens.errors import LayerError, MissingVectorError, VectorFileError, VectorMismatchError
from traitlens.layers import layer_label
from traitlens.steering import Positions
from traitlens.vectors.files import from_safetensors_bytes
from traitlens.vectors.trait_vector import TraitVector, Unit
from workers.engine.generation import Intervention, Steering, UnitVectors
from workers.models.model import LoadedModel


@dataclass(frozen=True, eq=False)
class LayerVector:
    """One trait's vector at one layer, [d_model] raw, with the file it comes from."""

    trait: str
    layer: int
    vector: TraitVector

    @property
    def about(self) -> dict[str, object]:
        """What a result says of it."""
        return {
            "layer": self.layer,
            "layer_label": layer_label(self.layer),
            "method": self.vector.provenance.method,
            "position": self.vector.position,
        }


def load_layer_vectors(
    files: Mapping[str, bytes], layers: Mapping[str, int | str], *, position: str = "response_avg"
) -> list[LayerVector]:
    """Trait -> bytes of its .safetensors, and trait -> layer as people write it.

    Raises UsageError for a layer or position that a file lacks, or a direction of no length.
    """
    found = []
    for trait, data in files.items():
        try:
            vector = from_safetensors_bytes(data).at_position(position)
        except (MissingVectorError, VectorFileError) as error:
            raise UsageError(f"{trait}: {error}") from error
        found.append(layer_vector(trait, vector, layers[trait]))
    return found


def check_layer_vectors(
    vectors: Sequence[LayerVector], model: LoadedModel, *, allow_other_model: bool
) -> None:
    """Raise ModelError unless the vectors were made for this model, or fit it where that is
    allowed."""
    for one in vectors:
        try:
            one.vector.check_model(model.model, allow_other_model=allow_other_model)
        except VectorMismatchError as error:
            hint = "" if allow_other_model else " (a fine-tune of it is named with --model)"
            raise ModelError(f"{one.trait}: {error}{hint}") from error


def layer_vectors_directions(vectors: Sequence[LayerVector]) -> UnitVectors:
    """What the engine projects every token on, in the order of the vectors."""
    rows = np.stack([one.vector.at(one.layer).double().numpy() for one in vectors])
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return UnitVectors(tuple(one.layer for one in vectors), units.astype(np.float32))


def layer_vectors_digest(vectors: Sequence[LayerVector]) -> str:
    """A short name for these directions: another vector, layer or order has another."""
    directions = layer_vectors_directions(vectors)
    body = repr([(one.trait, one.layer) for one in vectors]).encode() + directions.units.tobytes()
    return hashlib.sha256(body).hexdigest()[:12]


def layer_vector(trait: str, vector: TraitVector, layer: int | str) -> LayerVector:
    """The vector at a layer; raises UsageError where there is none or it has no length."""
    try:
        index = vector.layer(layer)
    except LayerError as error:
        raise UsageError(f"{trait}: {error}") from error
    if not float(vector.norms[index]) > 0:
        raise UsageError(
            f"{trait}: the vector has no length at {layer_label(index)}: choose another --layer"
        )
    return LayerVector(trait, index, vector)


def layer_vectors_steering(
    terms: Sequence[tuple[SteeringTerm, LayerVector]], *, positions: Positions, unit: Unit
) -> Steering:
    """All terms as one steering, in their order.

    `unit` "raw" counts stored vectors (projections, to cap), "residual" the mean norm of the
    residual stream at the layer. Raises UsageError where a vector records no such norm.
    """
    return Steering(tuple(_intervention(term, one, unit) for term, one in terms), positions)


def _intervention(term: SteeringTerm, one: LayerVector, unit: Unit) -> Intervention:
    try:
        size = one.vector.unit_size(one.layer, unit=unit, mode=term.mode)
    except MissingVectorError as error:
        raise UsageError(f"{term.trait}: {error}") from error
    vector = one.vector.at(one.layer).numpy()
    return Intervention(one.layer, vector, term.strength * size, term.mode)
