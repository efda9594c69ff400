"""Measure traits in language models: hooks, capture, extraction, projection, dynamics, steering.

Every array of layers is [L+1, d_model]: row 0 the embedding output, row l the output of block l-1,
the last row before the final norm. Names are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traitlens.capture.hooks import ActivationCapture as ActivationCapture
    from traitlens.capture.hooks import HookManager as HookManager
    from traitlens.compute import compute_derivative as compute_derivative
    from traitlens.compute import compute_second_derivative as compute_second_derivative
    from traitlens.compute import cosine as cosine
    from traitlens.compute import projection as projection
    from traitlens.dynamics.trajectory import analyze as analyze
    from traitlens.dynamics.trajectory import find_commitment_point as find_commitment_point
    from traitlens.layers import layer_label as layer_label
    from traitlens.layers import parse_layer as parse_layer
    from traitlens.methods import METHODS as METHODS
    from traitlens.methods import GradientMethod as GradientMethod
    from traitlens.methods import ICAMethod as ICAMethod
    from traitlens.methods import MeanDifferenceMethod as MeanDifferenceMethod
    from traitlens.methods import ProbeMethod as ProbeMethod
    from traitlens.steering import steer as steer
    from traitlens.vectors.files import load_vectors as load_vectors
    from traitlens.vectors.files import save_vectors as save_vectors
    from traitlens.vectors.trait_vector import Provenance as Provenance
    from traitlens.vectors.trait_vector import TraitVector as TraitVector
    from traitlens.vectors.trait_vector import model_hash as model_hash

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

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'traitlens' has no attribute {name!r}")
    return getattr(import_module(f"traitlens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
