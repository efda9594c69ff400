"""How often texts are read as well when their polarities are exchanged.

The directions that score a text are made of the others, so each text's polarity has a part in the
scores of the rest: exchanging polarities behind fixed scores takes the spread of chance for too
small. Here the directions are made anew with every exchange. A text that changes its polarity is
measured under the instruction of the other one: what would have been measured, had it been dealt
the other way. Everything follows from inner products of the texts, so it costs no pass over the
activations for an exchange.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Bools, Float64, Ints, Labels
from traitlens.stats.separation import mid_ranks

MOST_EXCHANGES, FEWEST_EXCHANGES = 999, 199

# Of exchanges times the square of the texts, at a layer: a second of one core.
WORTH = 60_000_000

# Scores that differ by less, as a share of the largest, are equal but for rounding.
DIGITS = 9


@dataclass(frozen=True, eq=False)
class Exchanged:
    """Of one layer: texts [n, d_model] as they are scored, and under the positive and the negative
    instruction of their pair; the sums [2, folds, d_model] and counts [2, folds] of what else the
    directions are made of, positives first."""

    plain: Float64
    positive: Float64
    negative: Float64
    rest: Float64
    n_rest: Float64


def n_exchanges(n: int) -> int:
    """How many are worth their time for n texts."""
    return int(np.clip(WORTH // max(n, 1) ** 2, FEWEST_EXCHANGES, MOST_EXCHANGES))


def exchanged_labels(is_pos: Bools, strata: Labels, n: int, *, seed: int) -> Bools:
    """The labels [rows] as they are and n times exchanged within strata: [1 + n, rows]."""
    of_row = np.unique(np.asarray(strata), return_inverse=True)[1]
    drawn = np.random.default_rng(seed).random((n, len(is_pos)))
    # both orders go stratum by stratum: that of the rows as they stand and a random one
    order, sorted_labels = np.argsort(of_row + drawn, axis=1), is_pos[np.argsort(of_row)]
    found = np.zeros(drawn.shape, dtype=bool)
    np.put_along_axis(found, order, np.broadcast_to(sorted_labels, drawn.shape), axis=1)
    return np.concatenate([is_pos[None], found])


def exchanged_scores(layer: Exchanged, labels: Bools, folds: Ints) -> Float64:
    """The scores [k, n] of the texts, each by the unit direction of the other folds from the middle
    between the polarities there, for labels [k, n] that have as many positives in every fold; NaN
    where the others lack a polarity."""
    middle = layer.plain.mean(axis=0)
    plain, positive, negative = (
        rows - middle for rows in (layer.plain, layer.positive, layer.negative)
    )
    rest = layer.rest - layer.n_rest[:, :, None] * middle
    products = [a @ b.T for a, b in ((positive,) * 2, (negative,) * 2, (positive, negative))]
    to_plain = positive @ plain.T, negative @ plain.T
    found = np.empty(labels.shape)
    for fold in np.unique(folds):
        others, scored = folds != fold, folds == fold
        is_other = np.arange(layer.rest.shape[1]) != fold
        dealt = labels & others, ~labels & others
        counts = layer.n_rest[:, is_other].sum(axis=1) + [side[0].sum() for side in dealt]
        with np.errstate(invalid="ignore", divide="ignore"):
            weights = [side / count for side, count in zip(dealt, counts, strict=True)]
            base = rest[:, is_other].sum(axis=1) / counts[:, None]
        # of both means the squares of their lengths, and their inner product
        along = [(positive @ base.T), (negative @ base.T)]
        squares = [
            np.einsum("kn,kn->k", w @ products[s], w) + 2 * w @ along[s][:, s] + base[s] @ base[s]
            for s, w in enumerate(weights)
        ]
        inner = np.einsum("kn,kn->k", weights[0] @ products[2], weights[1])
        inner += weights[0] @ along[0][:, 1] + weights[1] @ along[1][:, 0] + base[0] @ base[1]
        length = np.sqrt(np.maximum(squares[0] + squares[1] - 2 * inner, 0.0))
        onto = weights[0] @ to_plain[0][:, scored] - weights[1] @ to_plain[1][:, scored]
        onto += (base[0] - base[1]) @ plain[scored].T
        onto -= ((squares[0] - squares[1]) / 2)[:, None]
        found[:, scored] = onto / np.where(length > 0, length, 1.0)[:, None]
    return found


def rank_sums(scores: Float64, labels: Bools) -> Float64:
    """The sum of the positives' ranks in each of scores [k, n]: [k]. It grows with the AUROC, which
    needs only the numbers of both sides beside it."""
    largest = np.abs(scores).max(axis=1, keepdims=True)
    equal = np.round(scores / np.where(largest > 0, largest, 1.0), DIGITS)
    return np.asarray((mid_ranks(equal.T).T * labels).sum(axis=1))
