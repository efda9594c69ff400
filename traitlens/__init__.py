"""Measure traits in language models: hooks, capture, extraction, projection, dynamics, steering.

Every array of layers is [L+1, d_model]: row 0 the embedding output, row l the output of block l-1,
the last row before the final norm. Names are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traitlens.capture.hooks import ActivationCapture, HookManager
    from traitlens.compute import (
        compute_derivative,
        compute_second_derivative,
        cosine,
        projection,
    )
    from traitlens.dynamics.trajectory import analyze, find_commitment_point
    from traitlens.layers import layer_label, parse_layer
    from traitlens.methods import (
        METHODS,
        GradientMethod,
        ICAMethod,
        MeanDifferenceMethod,
        ProbeMethod,
    )
    from traitlens.steering import steer
    from traitlens.vectors.files import load_vectors, save_vectors
    from traitlens.vectors.trait_vector import Provenance, TraitVector, model_hash

_HOMES = {
    "ActivationCapture": "capture.hooks",
    "GradientMethod": "methods",
    "HookManager": "capture.hooks",
    "ICAMethod": "methods",
    "METHODS": "methods",
    "MeanDifferenceMethod": "methods",
    "ProbeMethod": "methods",
    "Provenance": "vectors.trait_vector",
    "TraitVector": "vectors.trait_vector",
    "analyze": "dynamics.trajectory",
    "compute_derivative": "compute",
    "compute_second_derivative": "compute",
    "cosine": "compute",
    "find_commitment_point": "dynamics.trajectory",
    "layer_label": "layers",
    "load_vectors": "vectors.files",
    "model_hash": "vectors.trait_vector",
    "parse_layer": "layers",
    "projection": "compute",
    "save_vectors": "vectors.files",
    "steer": "steering",
}

__all__ = [
    "METHODS",
    "ActivationCapture",
    "GradientMethod",
    "HookManager",
    "ICAMethod",
    "MeanDifferenceMethod",
    "ProbeMethod",
    "Provenance",
    "TraitVector",
    "analyze",
    "compute_derivative",
    "compute_second_derivative",
    "cosine",
    "find_commitment_point",
    "layer_label",
    "load_vectors",
    "model_hash",
    "parse_layer",
    "projection",
    "save_vectors",
    "steer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'traitlens' has no attribute {name!r}")
    return getattr(import_module(f"traitlens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
