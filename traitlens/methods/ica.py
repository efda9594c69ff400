"""Independent components: the one that separates the polarities best.

Formula: the pooled, centered rows X [n, d] are whitened by their k leading singular vectors, X ~
U S V^T, and FastICA finds a rotation W of sqrt(n) U into independent sources Z of unit variance,
so that X ~ Z A^T with the mixing columns A = V S W^T / sqrt(n), which live in activation space.
The component with the largest |mean Z_pos - mean Z_neg| is chosen; its column is multiplied by
that difference, which fixes sign and size: it is the part of the mean difference that the
component carries. Sources: Hyvarinen & Oja 2000 (FastICA), Halko, Martinsson & Tropp 2011 (arXiv
0909.4061, randomized SVD).

On purely Gaussian data components are not identified, only their subspace is.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from traitlens.arrays import Activations, Bools, Float32, Float64, Labels
from traitlens.methods.fitting import Extracted, MethodResult, extract_with
from traitlens.stats.polarities import Polarities

N_COMPONENTS = 10

# With these the subspace agrees with an exact SVD to a cosine of 0.9999 and better.
OVERSAMPLES = 20
POWER_ITERATIONS = 8
MAX_ITERATIONS = 200

# Singular values below this share of the first are rounding, not data.
RANK_TOLERANCE = 1e-5


def ica(
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    seed: int = 0,
    n_components: int = N_COMPONENTS,
) -> MethodResult:
    """The best-separating independent component at every layer, in activation space.

    Details per layer: `all_components` [L+1, k, d_model] (mixing columns, zero where the data has
    fewer than k dimensions), `separation_scores` [L+1, k], `component_idx`, `converged`. Where
    all rows are equal the vector is zero. `groups` changes nothing. Raises ShapeError and
    NonFiniteError.
    """
    both = Polarities.of(pos, neg)
    layers = [_components(*both.stacked_layer(i), n_components, seed) for i in range(both.n_layers)]
    columns, gaps = (np.stack([layer[k] for layer in layers]) for k in (0, 1))
    every, chosen = np.arange(both.n_layers), np.abs(gaps).argmax(axis=1)
    return MethodResult(
        (columns[every, chosen] * gaps[every, chosen, None]).astype(np.float32),
        {
            "all_components": columns.astype(np.float32),
            "separation_scores": np.abs(gaps),
            "component_idx": chosen,
            "converged": np.array([converged for *_, converged in layers]),
        },
    )


@dataclass(frozen=True)
class ICAMethod:
    """Independent components, the one that separates best; see `ica`."""

    n_components: int = N_COMPONENTS
    seed: int = 0

    def extract(self, pos_acts: Activations, neg_acts: Activations) -> Extracted:
        """`vector`, `all_components`, `separation_scores`, `component_idx`, `converged`."""
        method = partial(ica, n_components=self.n_components)
        return extract_with(method, pos_acts, neg_acts, seed=self.seed)


def _components(
    rows: Float32, is_pos: Bools, n_components: int, seed: int
) -> tuple[Float64, Float64, bool]:
    """Columns [k, d_model] of one layer, gaps between the polarities' sources [k], and whether
    they settled."""
    columns = np.zeros((n_components, rows.shape[1]))
    gaps = np.zeros(n_components)
    white, unwhiten = _whitened(rows - rows.mean(axis=0), n_components, seed)
    if white.shape[1] == 0:
        return columns, gaps, True
    sources, rotation, converged = _rotated(white, seed)
    found = len(rotation)
    columns[:found] = rotation @ unwhiten
    gaps[:found] = sources[is_pos].mean(axis=0) - sources[~is_pos].mean(axis=0)
    return columns, gaps, converged


def _whitened(centered: Float32, n_components: int, seed: int) -> tuple[Float64, Float64]:
    """Rows of unit variance [n, k], and the matrix [k, d_model] that takes them back."""
    from sklearn.utils.extmath import randomized_svd

    n = len(centered)
    rank = min(n_components, n - 1, centered.shape[1])
    if rank == 0 or not centered.any():
        return np.zeros((n, 0)), np.zeros((0, centered.shape[1]))
    left, values, right = randomized_svd(
        centered, rank, n_oversamples=OVERSAMPLES, n_iter=POWER_ITERATIONS, random_state=seed
    )
    kept = values > RANK_TOLERANCE * values[0]
    white = left[:, kept].astype(np.float64) * np.sqrt(n)
    return white, (values[kept, None] * right[kept]).astype(np.float64) / np.sqrt(n)


def _rotated(white: Float64, seed: int) -> tuple[Float64, Float64, bool]:
    """Sources [n, k], the rotation [k, k] that made them (orthogonal), and whether it settled."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    if white.shape[1] == 1:
        return white, np.ones((1, 1)), True
    model: Any = FastICA(whiten=False, max_iter=MAX_ITERATIONS, random_state=seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        sources = model.fit_transform(white)
    rotation = np.asarray(model.components_, dtype=np.float64)
    return np.asarray(sources), rotation, not caught
