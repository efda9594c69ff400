"""Whether a direction reads a text or the instruction that stands before it.

A response is measured in the context that it was written in, under the opposite instruction, and
under none. With h(text, context), text p or n of the polarities, context P or N of their
instructions, the mean difference v = h(p,P) - h(n,N) is the sum of two parts, exactly:

    context = 1/2 [h(p,P) - h(p,N) + h(n,P) - h(n,N)]  what instructions do to the same text
    text    = 1/2 [h(p,P) + h(p,N) - h(n,P) - h(n,N)]  what texts do under the same instruction

A part's share is its projection on v over the length of v: the two shares sum to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Bools, Float32, Float64, Ints
from traitlens.assess.exchange import (
    Exchanged,
    exchanged_labels,
    exchanged_scores,
    n_exchanges,
    rank_sums,
)
from traitlens.layers import candidate_layers
from traitlens.stats.intervals import Interval
from traitlens.stats.separation import auroc_over_prompts, cohens_d_over_prompts

# The vector that scores a text is made of the other folds' questions.
N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Texts:
    """n responses: `own`, `opposite` and `plain` [n, L+1, d_model] are their mean activations in
    their own context, under the opposite instruction of their pair, and under none."""

    own: Float32
    opposite: Float32
    plain: Float32
    is_pos: Bools
    instruction: Sequence[int]
    question: Sequence[int]


@dataclass(frozen=True, eq=False)
class Parts:
    """What of a mean difference is in the texts and what in the instructions: [L+1, d_model] each,
    and their shares [L+1], which sum to 1; NaN where the difference is zero."""

    text: Float64
    context: Float64
    text_share: Float64
    context_share: Float64


@dataclass(frozen=True, eq=False)
class Reading:
    """Per layer, of directions that saw neither the text nor its question: how well they tell the
    polarities of texts apart under no instruction (`auroc`, `cohens_d`) and in their own contexts,
    and the two instructions of a pair apart before the very same texts (`instruction_auroc`).

    `p` is the chance of so large an AUROC under no instruction at the best of the candidate layers
    where polarities mean nothing; `layer` the one with the best lower end of Cohen's d there.
    """

    auroc: Interval
    cohens_d: Interval
    in_context_auroc: Interval
    instruction_auroc: Interval
    p: float
    layer: int


def context_and_text_parts(texts: Texts) -> Parts:
    """The two parts of the texts' mean difference, and their shares."""
    means = {}
    for side, rows in (("p", texts.is_pos), ("n", ~texts.is_pos)):
        own, other = (a[rows].mean(axis=0, dtype=np.float64) for a in (texts.own, texts.opposite))
        means[side] = {"P": own, "N": other} if side == "p" else {"P": other, "N": own}
    p, n = means["p"], means["n"]
    context = (p["P"] - p["N"] + n["P"] - n["N"]) / 2
    text = (p["P"] + p["N"] - n["P"] - n["N"]) / 2
    whole = context + text
    length = (whole**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [(part * whole).sum(axis=1) / length for part in (text, context)]
    return Parts(text, context, shares[0], shares[1])


class FoldedDirections:
    """Mean differences that leave out a fold of the questions, or of the instruction pairs, from
    rows that come in batches."""

    def __init__(self, labels: Iterable[int], n_folds: int = N_FOLDS) -> None:
        """`labels` are all that occur, of questions or of pairs; their folds are dealt in their
        order."""
        self._fold_of = {label: k % n_folds for k, label in enumerate(sorted(set(labels)))}
        self._sums: Float64 | None = None
        self._counts = np.zeros((2, n_folds))

    def add(self, rows: Float32, *, is_pos: Bools, labels: Sequence[int]) -> None:
        """Take up rows [n, L+1, d_model]."""
        if self._sums is None:
            self._sums = np.zeros((*self._counts.shape, *rows.shape[1:]))
        folds = self.folds(labels)
        for side, chosen in enumerate((is_pos, ~is_pos)):
            for fold in np.unique(folds[chosen]):
                of_fold = chosen & (folds == fold)
                self._sums[side, fold] += rows[of_fold].sum(axis=0, dtype=np.float64)
                self._counts[side, fold] += of_fold.sum()

    def folds(self, labels: Sequence[int]) -> Ints:
        """The fold of each row."""
        return np.array([self._fold_of[label] for label in labels], dtype=np.int64)

    def scores(self, rows: Float32, labels: Sequence[int]) -> Float64:
        """Projections [n, L+1] of rows on the unit direction of the other folds, from the middle
        between the polarities there; NaN where the others lack a polarity."""
        found = np.full(rows.shape[:2], np.nan)
        folds = self.folds(labels)
        for fold in np.unique(folds):
            unit, middle = self._without(fold)
            of_fold = folds == fold
            found[of_fold] = np.einsum("nld,ld->nl", rows[of_fold] - middle, unit)
        return found

    def without_rows(
        self, rows: Float64, layer: int, *, is_pos: Bools, folds: Ints
    ) -> tuple[Float64, Float64]:
        """Sums [2, folds, d_model] of a layer and counts [2, folds], positives first, of all that
        was taken up but these rows [n, d_model]."""
        assert self._sums is not None
        sums, counts = self._sums[:, :, layer].copy(), self._counts.copy()
        for side, chosen in enumerate((is_pos, ~is_pos)):
            np.subtract.at(sums[side], folds[chosen], rows[chosen])
            np.subtract.at(counts[side], folds[chosen], 1)
        return sums, counts

    def _without(self, fold: int) -> tuple[Float64, Float64]:
        assert self._sums is not None
        others = np.arange(self._counts.shape[1]) != fold
        with np.errstate(invalid="ignore", divide="ignore"):
            counts = self._counts[:, others].sum(axis=1)[:, None, None]
            positive, negative = self._sums[:, others].sum(axis=1) / counts
            difference = positive - negative
            length = np.linalg.norm(difference, axis=1, keepdims=True)
            return difference / np.where(length > 0, length, 1), (positive + negative) / 2


def reading(texts: Texts, directions: FoldedDirections, *, seed: int = 0) -> Reading:
    """How directions read the texts; intervals are over instruction pairs and questions. AUROC, and
    p, are NaN where all texts of a polarity are of one fold, so that none has a direction."""
    own, opposite, plain = (
        directions.scores(rows, texts.question) for rows in (texts.own, texts.opposite, texts.plain)
    )
    labels = texts.instruction, texts.question
    cohens_d = cohens_d_over_prompts(plain, texts.is_pos, *labels)
    twice = np.concatenate([texts.is_pos, ~texts.is_pos])
    both = [[*one, *one] for one in labels]
    candidates = candidate_layers(plain.shape[1])
    low = np.where(np.isfinite(cohens_d.low), cohens_d.low, -np.inf)
    return Reading(
        auroc=auroc_over_prompts(plain, texts.is_pos, *labels),
        cohens_d=cohens_d,
        in_context_auroc=auroc_over_prompts(own, texts.is_pos, *labels),
        instruction_auroc=auroc_over_prompts(np.concatenate([own, opposite]), twice, *both),
        p=exchange_p(texts, directions, seed=seed),
        layer=max(candidates, key=low.__getitem__),
    )


def strata(texts: Texts) -> Ints:
    """Within which polarities may be exchanged, [n]: a prompt's texts where both polarities have
    some of that instruction pair and question, and what is left of a question."""
    cells = list(zip(texts.question, texts.instruction, strict=True))
    has_both = _cells_of(cells, texts.is_pos) & _cells_of(cells, ~texts.is_pos)
    labels = [cell if cell in has_both else (cell[0], -1) for cell in cells]
    numbers = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def _cells_of(cells: Sequence[tuple[int, int]], rows: Bools) -> set[tuple[int, int]]:
    return {cell for cell, is_one in zip(cells, rows, strict=True) if is_one}


def exchange_p(texts: Texts, directions: FoldedDirections, *, seed: int = 0) -> float:
    """How often exchanging polarities within strata has the largest AUROC under no instruction, of
    directions that are made anew, reach that of the polarities as they are; never 0, since they
    are one of the exchanges. NaN without a finite score. Any best of many layers is compared with
    the best of as many. The texts' own rows are among those that `directions` took up."""
    is_pos, folds = texts.is_pos, directions.folds(texts.question)
    if is_pos.all() or not is_pos.any():
        return float("nan")
    labels = exchanged_labels(is_pos, strata(texts), n_exchanges(len(is_pos)), seed=seed)
    best = np.full(len(labels), -np.inf)
    for layer in candidate_layers(texts.plain.shape[1]):
        own, opposite, plain = (
            rows[:, layer].astype(np.float64) for rows in (texts.own, texts.opposite, texts.plain)
        )
        rest, n_rest = directions.without_rows(own, layer, is_pos=is_pos, folds=folds)
        side = is_pos[:, None]
        positive, negative = np.where(side, own, opposite), np.where(side, opposite, own)
        scores = exchanged_scores(Exchanged(plain, positive, negative, rest, n_rest), labels, folds)
        if np.isfinite(scores).all():
            best = np.maximum(best, rank_sums(scores, labels))
    return float((best >= best[0] - 1e-9).mean()) if np.isfinite(best[0]) else float("nan")
