"""Probe: the direction of a logistic regression, back in activation space.

Formula, per layer: z = (h - mean) / std by coordinate, std being that within the polarities (that
over all rows would shrink the very coordinates that separate them; constant ones are left out,
see `_center_and_spread` for those that are constant within each polarity); minimize

    C sum_i c_i log(1 + exp(-y_i (w.z_i + b))) + 1/2 ||w||^2,    y = +-1,

where the weights c_i make each polarity count one half and sum to n (with as many of each this is
scikit-learn's objective); the direction is w / std. C is the one of `C_GRID` whose held-out
scores are farthest apart in standard deviations (Cohen's d; the held-out loss would also pay for
the size of w, which a direction does not have), over 5 folds dealt by group when groups are
given. Sources: Alain & Bengio 2016 (arXiv 1610.01644) for linear probes; Liu & Nocedal 1989 for
L-BFGS. Fits are in float64, over float32 rows when there are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from traitlens.arrays import Activations, Bools, Float32, Float64, Floats, Ints, Labels
from traitlens.methods.fitting import (
    Extracted,
    MethodResult,
    extract_with,
    gap_scaled,
    minimize,
    working_copy,
)
from traitlens.stats.cells import Cells, make_cells
from traitlens.stats.polarities import Polarities

C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

# Used when nothing can be held out; a middle value of the grid.
FALLBACK_C = 1e-3
N_FOLDS = 5

# On the largest component of the mean loss's gradient. At scikit-learn's default of 1e-4 the
# direction is still up to 0.01 in cosine from its optimum.
TOLERANCE = 1e-6

# Choosing C needs losses to a few per cent only.
CHOOSING_TOLERANCE = 1e-4
MAX_STEPS = 5000

# A spread below this share of the mean is float32 rounding of a constant coordinate.
ROUNDING = 1e-6


def probe(
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    seed: int = 0,
    c: float | None = None,
) -> MethodResult:
    """The probe's direction at every layer, with the length of the gap along it.

    Details per layer: `held_out_acc` (balanced accuracy over the folds at the chosen C, NaN when a
    polarity has a single group), `train_acc`, `c`, `converged`, and `bias`: h.vector + bias > 0 is
    the probe's "positive". `c` fixes C; `seed` deals the folds. Raises ShapeError and
    NonFiniteError.
    """
    both = Polarities.of(pos, neg)
    folds = _folds(make_cells(groups, *both.counts), seed)
    grid = C_GRID if c is None else (c,)
    layers = [_layer_probe(*both.stacked_layer(i), folds, grid) for i in range(both.n_layers)]
    return MethodResult(
        np.stack([vector for vector, _ in layers]).astype(np.float32),
        {name: np.array([details[name] for _, details in layers]) for name in layers[0][1]},
    )


@dataclass(frozen=True)
class ProbeMethod:
    """Logistic regression; see `probe`. `c` fixes C, None chooses it by validation."""

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
        return extract_with(method, pos_acts, neg_acts, groups=groups, seed=self.seed)


def _folds(cells: Cells, seed: int) -> Ints:
    """Deal whole groups into at most N_FOLDS folds with both polarities in each: [n].

    All 0, so nothing can be held out, when a polarity has a single group.
    """
    n_folds = min(N_FOLDS, *cells.by_polarity)
    fold_of_group = np.zeros(cells.n_groups, dtype=np.int64)
    rng = np.random.default_rng(seed)
    paired, positive, negative = cells.strata()
    # a polarity's groups follow one another, so that they are in every fold
    dealt = np.concatenate([rng.permutation(one) for one in (positive, paired, negative)])
    fold_of_group[dealt] = np.arange(len(dealt)) % n_folds
    return fold_of_group[cells.group][cells.of_row]


def _layer_probe(
    rows: Float32, is_pos: Bools, folds: Ints, grid: Sequence[float]
) -> tuple[Float64, dict[str, float]]:
    """One layer's vector [d_model], and its details by name."""
    center, spread = _center_and_spread(rows[is_pos], rows[~is_pos])
    c, held_out_acc = _choose_c(rows, is_pos, folds, grid)
    standard = _standardized(rows, center, spread)
    fit = fit_logistic(standard, is_pos, c=c)
    weights = fit.weights / spread
    vector = gap_scaled(weights, rows[is_pos], rows[~is_pos])
    norm = float(np.linalg.norm(weights))
    stretch = float(np.linalg.norm(vector)) / norm if norm else 1.0
    return vector, {
        "held_out_acc": held_out_acc,
        "train_acc": _balanced_accuracy(fit.scores(standard), is_pos),
        "c": c,
        "converged": fit.converged,
        "bias": stretch * (fit.offset - float(weights @ center)),
    }


def _center_and_spread(pos: Float32, neg: Float32) -> tuple[Float64, Float64]:
    """Midpoint and standard deviation within the polarities, by coordinate; infinite for constants.

    Coordinates that differ between the polarities and not within them share half their widest gap,
    so that among themselves they weigh as in the mean difference.
    """
    means = [rows.mean(axis=0, dtype=np.float64) for rows in (pos, neg)]
    center, gap = 0.5 * (means[0] + means[1]), np.abs(means[0] - means[1])
    squares = sum(len(rows) * rows.var(axis=0, dtype=np.float64) for rows in (pos, neg))
    spread = np.sqrt(squares / max(len(pos) + len(neg) - 2, 1))
    rounding = ROUNDING * np.abs(center)
    still = spread <= rounding
    apart = still & (gap > rounding)
    spread[still] = np.inf
    spread[apart] = 0.5 * gap[apart].max(initial=0.0)
    return center, spread


def _standardized(rows: Float32, center: Float64, spread: Float64) -> Floats:
    standard = rows - center.astype(np.float32)
    standard /= spread.astype(np.float32)
    return working_copy(standard)


def _choose_c(
    rows: Float32, is_pos: Bools, folds: Ints, grid: Sequence[float]
) -> tuple[float, float]:
    """The C that separates held-out rows best, and its held-out accuracy.

    Rows are standardized by the training folds alone: a spread within the polarities that knows the
    held-out labels lets pure noise be told apart.
    """
    if not folds.any():
        return (grid[0] if len(grid) == 1 else FALLBACK_C), float("nan")
    scores = np.zeros((len(grid), len(rows)))
    for fold in range(folds.max() + 1):
        held = folds == fold
        kept_rows, kept_labels = rows[~held], is_pos[~held]
        scale = _center_and_spread(kept_rows[kept_labels], kept_rows[~kept_labels])
        kept_rows, held_rows = (_standardized(one, *scale) for one in (kept_rows, rows[held]))
        start: LogisticFit | None = None
        # From strong to weak penalty, each from the last one's optimum.
        for i, c in enumerate(grid):
            start = fit_logistic(
                kept_rows, kept_labels, c=c, start=start, tolerance=CHOOSING_TOLERANCE
            )
            scores[i, held] = start.scores(held_rows)
    best = int(np.argmax([_cohens_d(row, is_pos) for row in scores]))
    return grid[best], _balanced_accuracy(scores[best], is_pos)


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """A fitted logistic regression on standardised rows: weights [d], offset."""

    weights: Float64
    offset: float
    converged: bool

    def scores(self, rows: Floats) -> Float64:
        """Log-odds of positive for rows [n, d]."""
        return np.asarray(rows @ self.weights.astype(rows.dtype) + self.offset, dtype=np.float64)


def fit_logistic(
    rows: Floats,
    is_pos: Bools,
    *,
    c: float,
    start: LogisticFit | None = None,
    tolerance: float = TOLERANCE,
) -> LogisticFit:
    """Minimise the module's objective on rows [n, d] as they are, from `start` or from zero."""
    from scipy.special import expit

    signs = np.where(is_pos, 1.0, -1.0)
    share = np.where(is_pos, 0.5 / is_pos.sum(), 0.5 / (~is_pos).sum())
    penalty = 1.0 / (c * len(rows))

    def loss_and_slope(packed: Float64) -> tuple[float, Float64]:
        w, b = packed[:-1], packed[-1]
        margins = (signs * (rows @ w.astype(rows.dtype) + b)).astype(np.float64)
        loss = share @ np.logaddexp(0, -margins) + 0.5 * penalty * (w @ w)
        pull = -share * signs * expit(-margins)
        slope = np.append(pull.astype(rows.dtype) @ rows + penalty * w, pull.sum())
        return float(loss), slope

    first = np.zeros(rows.shape[1] + 1)
    if start is not None:
        first = np.append(start.weights, start.offset)
    found = minimize(
        loss_and_slope, first, penalty=penalty, tolerance=tolerance, max_steps=MAX_STEPS
    )
    return LogisticFit(found.at[:-1], float(found.at[-1]), found.converged)


def _balanced_accuracy(scores: Float64, is_pos: Bools) -> float:
    return float(0.5 * ((scores[is_pos] > 0).mean() + (scores[~is_pos] <= 0).mean()))


def _cohens_d(scores: Float64, is_pos: Bools) -> float:
    pos, neg = scores[is_pos], scores[~is_pos]
    spread = np.sqrt(0.5 * (pos.var() + neg.var()))
    return float((pos.mean() - neg.mean()) / spread) if spread > 0 else 0.0
