"""The four extraction methods by name, and the classes that seed notebooks use.

`METHODS["mean_diff"](pos, neg)` works on all layers at once;
`MeanDifferenceMethod().extract(pos, neg)["vector"]` on one layer or all, and gives tensors back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from traitlens.arrays import Labels
from traitlens.methods.fitting import Method
from traitlens.methods.gradient import LEARNING_RATE, NUM_STEPS, gradient
from traitlens.methods.ica import N_COMPONENTS, ica
from traitlens.methods.mean_diff import mean_diff
from traitlens.methods.probe import probe
from traitlens.stats.polarities import Activations

METHODS: Mapping[str, Method] = {
    "mean_diff": mean_diff,
    "probe": probe,
    "ica": ica,
    "gradient": gradient,
}

Extracted = dict[str, Any]


class MeanDifferenceMethod:
    """`vector = mean(pos) - mean(neg)`; see `methods.mean_diff`."""

    def extract(self, pos_acts: Activations, neg_acts: Activations) -> Extracted:
        """`vector`, `pos_mean`, `neg_mean`, each [d_model] or [L+1, d_model] as the input was."""
        return _extract(mean_diff, pos_acts, neg_acts)


@dataclass(frozen=True)
class ProbeMethod:
    """Logistic regression; see `methods.probe`. `c` fixes C, None chooses it by validation."""

    c: float | None = None
    seed: int = 0

    def extract(
        self,
        pos_acts: Activations,
        neg_acts: Activations,
        *,
        groups: tuple[Labels, Labels] | None = None,
    ) -> Extracted:
        """`vector`, `train_acc`, `held_out_acc`, `c`, `bias` and `converged`."""
        method = partial(probe, c=self.c)
        return _extract(method, pos_acts, neg_acts, groups=groups, seed=self.seed)


@dataclass(frozen=True)
class ICAMethod:
    """Independent components, the one that separates best; see `methods.ica`."""

    n_components: int = N_COMPONENTS
    seed: int = 0

    def extract(self, pos_acts: Activations, neg_acts: Activations) -> Extracted:
        """`vector`, `all_components`, `separation_scores`, `component_idx`, `converged`."""
        method = partial(ica, n_components=self.n_components)
        return _extract(method, pos_acts, neg_acts, seed=self.seed)


@dataclass(frozen=True)
class GradientMethod:
    """Margin loss by gradient descent; see `methods.gradient`."""

    num_steps: int = NUM_STEPS
    lr: float = LEARNING_RATE
    seed: int = 0

    def extract(self, pos_acts: Activations, neg_acts: Activations) -> Extracted:
        """`vector`, `loss`, `steps`, `converged`, `final_separation`."""
        method = partial(gradient, num_steps=self.num_steps, lr=self.lr)
        return _extract(method, pos_acts, neg_acts, seed=self.seed)


def _extract(
    method: Method,
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    seed: int = 0,
) -> Extracted:
    result = method(pos, neg, groups=groups, seed=seed)
    one_layer = pos.ndim == 2
    named = {"vector": result.vectors} | dict(result.details)
    return {name: _as_given(values, one_layer=one_layer) for name, values in named.items()}


def _as_given(values: np.ndarray[Any, Any], *, one_layer: bool) -> torch.Tensor | float:
    """Tensors; for single-layer input without the layer axis, and scalars as Python numbers."""
    if not one_layer:
        return torch.from_numpy(np.ascontiguousarray(values))
    row = values[0]
    return row.item() if row.ndim == 0 else torch.from_numpy(np.ascontiguousarray(row))
