"""Vectors of a trait: runs the extraction methods over kept activations and encodes the files.

Knows nothing of stores or queues: activations come in through a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.plan import Polarity
from traitlens.methods import METHODS
from traitlens.provenance import Provenance
from traitlens.trait_vector import TraitVector
from traitlens.vectors import to_persona_vectors_pt_bytes, to_safetensors_bytes

Array = NDArray[np.float32]
ReadKept = Callable[[str, Polarity], Iterator[Array]]
"""(position, polarity) -> shards of kept activations, each [n, L+1, d_model] float32."""


@dataclass(frozen=True)
class TraitVectors:
    """method -> position -> [L+1, d_model] float32, raw."""

    by_method: Mapping[str, Mapping[str, Array]]

    def magnitude(self) -> float:
        """Mean L2 norm over layers of the first method's response_avg vector."""
        first = next(iter(self.by_method.values()))
        return float(np.linalg.norm(first["response_avg"].astype(np.float64), axis=1).mean())


def build_vectors(
    read: ReadKept, *, methods: Sequence[str], positions: Sequence[str]
) -> TraitVectors:
    """Run each method at each position; one position's activations are in memory at a time."""
    found: dict[str, dict[str, Array]] = {method: {} for method in methods}
    for position in positions:
        positive, negative = _stack(read(position, "positive")), _stack(read(position, "negative"))
        for method in methods:
            found[method][position] = METHODS[method](positive, negative).vectors
    return TraitVectors(found)


def encode_vectors(vectors: TraitVectors, provenance: Provenance) -> dict[str, bytes]:
    """File name -> bytes: one safetensors per method, and persona_vectors' files of mean_diff."""
    files = {}
    for method, by_position in vectors.by_method.items():
        tensors = {position: torch.from_numpy(v) for position, v in by_position.items()}
        vector = TraitVector(vectors=tensors, provenance=replace(provenance, method=method))
        files[f"{method}.safetensors"] = to_safetensors_bytes(vector)
        if method == "mean_diff":
            for position, tensor in tensors.items():
                name = f"{provenance.trait}_{position}_diff.pt"
                files[name] = to_persona_vectors_pt_bytes(tensor)
    return files


def _stack(shards: Iterable[Array]) -> Array:
    return np.concatenate(list(shards))
