"""Does a vector make texts of its trait likelier? The causal test that needs no judge.

D is the mean log p per token of positive texts less that of negative ones, read without an
instruction; the effect of a vector is what D gains per push of its own length. Each text is tested
with the vector that was made from the other fold of the questions, so none helped to make what it
is tested with. What a direction does at strength 0 is its scalar product with the derivative of
log p, so a thousand random directions with the covariance of the responses cost nothing more than
the vector, and the largest of many layers is held against the largest that each of them reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Bools, Float32, Float64, Ints, Labels
from traitlens.assess.random_directions import covariance_matched
from traitlens.layers import candidate_layers
from traitlens.stats.crossed import crossed_interval, weighted_difference
from traitlens.stats.intervals import Interval

N_FOLDS = 2

# The smallest p is one in a thousand.
N_RANDOM = 999

# Random directions held at once, of every layer.
AT_ONCE = 111


@dataclass(frozen=True, eq=False)
class HeldOutTexts:
    """Texts that vectors are tested on, arrays [n]: their polarity, instruction (the pair's number)
    and question, and the fold of the question."""

    is_positive: Bools
    instruction: Ints
    question: Ints
    fold: Ints

    @property
    def weights(self) -> Float64:
        """Coefficients [n] that turn values of the texts into mean(positive) - mean(negative)."""
        sides = self.is_positive.astype(np.float64), (~self.is_positive).astype(np.float64)
        return np.asarray(sides[0] / sides[0].sum() - sides[1] / sides[1].sum())


def question_folds(question: Labels, *, seed: int = 0) -> Ints:
    """The fold 0 or 1 of each row: half of the questions, drawn at random, in each."""
    numbers, of_row = np.unique(np.asarray(question), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(numbers))
    return np.asarray((order % N_FOLDS)[of_row.reshape(-1)])


@dataclass(frozen=True, eq=False)
class LikelihoodTest:
    """What D gains, in nats per token, by a small push of a vector, per push of the vector's
    length.

    `effect` [L+1] with intervals over questions and instructions; `z` [L+1]: the effect in standard
    deviations of those of random directions; `p` is that of the largest z over the layers that may
    be chosen, `layer` where it is, and `best` the layers from the largest z down.
    """

    effect: Interval
    z: Float64
    p: float
    layer: int
    best: list[int]


def likelihood_test(
    gradients: Float32,
    texts: HeldOutTexts,
    vectors: Float32,
    within: tuple[Float32, Float32],
    *,
    n_random: int = N_RANDOM,
    seed: int = 0,
) -> LikelihoodTest:
    """Test vectors [2, L+1, d_model], that of a fold being for its texts, by the derivatives
    [n, L+1, d_model] of the texts' mean log p.

    `within` are for each fold the responses that its vector was made of, centered in their class:
    random directions are drawn with their covariance and are as long as the vector.
    """
    by_text = np.einsum("nld,nld->nl", gradients, vectors[texts.fold]).astype(np.float64)
    difference = weighted_difference(by_text, texts.is_positive)
    effect = crossed_interval(difference, texts.instruction, texts.question)
    random = _random_effects(gradients, texts, vectors, within, n_random, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle, spread = random.mean(axis=0), random.std(axis=0, ddof=1)
        z, random_z = (effect.value - middle) / spread, (random - middle) / spread
    usable = list(candidate_layers(len(z)))
    best = sorted(usable, key=lambda layer: -np.nan_to_num(z[layer], nan=-np.inf))
    reached = np.nanmax(np.nan_to_num(random_z[:, usable], nan=-np.inf), axis=1)
    # what moves nothing at any layer, and no random direction either, is reached by all of them
    own = np.nan_to_num(z[best[0]], nan=-np.inf)
    p = (1 + int((reached >= own).sum())) / (1 + n_random)
    return LikelihoodTest(effect, z, p, best[0], best)


def _random_effects(
    gradients: Float32,
    texts: HeldOutTexts,
    vectors: Float32,
    within: tuple[Float32, Float32],
    n_random: int,
    seed: int,
) -> Float64:
    """The effects of random directions in place of the vectors: [n_random, L+1]."""
    weights = texts.weights.astype(np.float32)
    found = np.zeros((n_random, gradients.shape[1]))
    for fold, rows in enumerate(within):
        own = texts.fold == fold
        norms = np.linalg.norm(vectors[fold], axis=1)
        # [L+1, d_model]: what D gains along each direction, as far as it is of this fold's texts
        slope = np.einsum("n,nld->ld", weights[own], gradients[own]) * norms[:, None]
        for first in range(0, n_random, AT_ONCE):
            n = min(AT_ONCE, n_random - first)
            drawn = covariance_matched(rows, n, seed=(seed * N_FOLDS + fold) * n_random + first)
            found[first : first + n] += np.einsum("rld,ld->rl", drawn, slope)
    return found


def likelihood_gain(log_p: Float64, texts: HeldOutTexts) -> Float64:
    """What D gains by each push, from mean log p [1 + pushes, n] whose row 0 is without one:
    [pushes]."""
    return np.asarray((log_p[1:] - log_p[0]) @ texts.weights)
