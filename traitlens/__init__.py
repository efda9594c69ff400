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
    from traitlens.steering.activation_steerer import ActivationSteerer as ActivationSteerer
    from traitlens.vectors.files import load_vectors as load_vectors
    from traitlens.vectors.files import save_vectors as save_vectors
    from traitlens.vectors.trait_vector import Provenance as Provenance
    from traitlens.vectors.trait_vector import TraitVector as TraitVector
    from traitlens.vectors.trait_vector import model_hash as model_hash

_NAMES = {
    "capture.hooks": ("ActivationCapture", "HookManager"),
    "compute": ("compute_derivative", "compute_second_derivative", "cosine", "projection"),
    "dynamics.trajectory": ("analyze", "find_commitment_point"),
    "layers": ("layer_label", "parse_layer"),
    "methods": ("METHODS", "GradientMethod", "ICAMethod", "MeanDifferenceMethod", "ProbeMethod"),
    "steering": ("steer",),
    "steering.activation_steerer": ("ActivationSteerer",),
    "vectors.files": ("load_vectors", "save_vectors"),
    "vectors.trait_vector": ("Provenance", "TraitVector", "model_hash"),
}

_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'traitlens' has no attribute {name!r}")
    return getattr(import_module(f"traitlens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
