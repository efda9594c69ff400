"""How often intervals hold what they are for, in simulated runs of 5 x 20 x 10 responses a side.

    python benchmarks/coverage.py [--runs 300] [--seed 100000]

Scores: instructions differ by 0, 3, 8 or 15 points, questions by 8, rollouts by 15, the sides by
20. AUROC also of small designs of two rollouts. Correlation within instructions: 0.5, of 3 x 20
responses to evaluation questions of which each pair of instructions gets every fifth. Rise: of
2 x 12 answers to 12 questions, and of 2 x 40 to 40, of which a push has 8 points more, or turns a
share of 2 into 30 %. Directions: of 64 dimensions, with instructions that differ by a share of the
vector's length in 63 of them, in eight or in two. Cosines: of two such vectors of two responses a
prompt and side, of two traits or of one trait in two runs, where half of what instructions and
questions do is the same in both.
Nothing here was looked at while the intervals were made.
"""

from __future__ import annotations

import argparse
import math
from statistics import NormalDist

import numpy as np

from traitlens.assess.angles import direction_angles
from traitlens.assess.cosines import LeftOut, interval_of_two_runs, interval_of_two_traits
from traitlens.assess.dose_response import Answers, dose_response
from traitlens.assess.quality import contrast_interval
from traitlens.stats.correlation import partial_correlation
from traitlens.stats.separation import separation

INSTRUCTIONS, QUESTIONS, ROLLOUTS = 5, 20, 10
GAP = 20.0
SPREADS = (0.0, 3.0, 8.0, 15.0)
SHARES = (0.0, 0.2, 0.4, 0.8)
DIMENSIONS = 64
SMALL = ((2, 4), (3, 4), (3, 6), (5, 8))
AUROCS = (0.5, 0.8, 0.95, 0.995)
COSINES = (0.0, 0.5, 0.9)

_CELLS = np.indices((INSTRUCTIONS, QUESTIONS)).reshape(2, -1)
_LABELS = np.indices((INSTRUCTIONS, QUESTIONS, ROLLOUTS)).reshape(3, -1)[:2]
_PROMPTS = list(zip(*_LABELS.tolist(), strict=True))


def covered_scores(rng: np.random.Generator, spread: float) -> tuple[bool, bool, bool]:
    """Whether contrast, Cohen's d and AUROC of one run have their truth in their intervals."""
    instruction, question = _LABELS
    pos, neg = (
        gap
        + spread * rng.standard_normal(INSTRUCTIONS)[instruction]
        + 8.0 * rng.standard_normal(QUESTIONS)[question]
        + 15.0 * rng.standard_normal(len(question))
        for gap in (GAP, 0.0)
    )
    true_d = GAP / math.sqrt(spread**2 + 8.0**2 + 15.0**2)
    true_auroc = 0.5 * (1 + math.erf(true_d / 2))
    contrast = contrast_interval(pos.tolist(), neg.tolist(), prompts=(_PROMPTS, _PROMPTS))
    found = separation(pos[:, None], neg[:, None], prompts=(_PROMPTS, _PROMPTS))
    assert contrast is not None
    return (
        bool(contrast[0] <= GAP <= contrast[1]),
        bool(found.cohens_d.low[0] <= true_d <= found.cohens_d.high[0]),
        bool(found.auroc.low[0] <= true_auroc <= found.auroc.high[0]),
    )


def is_auroc_covered(rng: np.random.Generator, design: tuple[int, int], truth: float) -> bool:
    """Whether the AUROC of two answers a prompt and side, to few questions under few instructions
    that differ as much as answers do, lies in its interval."""
    instruction, question = np.indices((*design, 2)).reshape(3, -1)[:2]
    prompts = list(zip(instruction.tolist(), question.tolist(), strict=True))
    spread = math.sqrt(1 + 1 + 0.25)
    gap = spread * math.sqrt(2) * NormalDist().inv_cdf(truth)
    pos, neg = (
        side
        + rng.standard_normal(design[0])[instruction]
        + 0.5 * rng.standard_normal(design[1])[question]
        + rng.standard_normal(len(question))
        for side in (gap, 0.0)
    )
    found = separation(pos[:, None], neg[:, None], prompts=(prompts, prompts)).auroc
    return bool(found.low[0] <= truth <= found.high[0])


def is_correlation_covered(rng: np.random.Generator, spread: float) -> bool:
    """Whether a correlation of 0.5 within instructions lies in its interval."""
    question = np.tile(np.arange(QUESTIONS), 3)
    condition = np.repeat(np.arange(3), QUESTIONS) * INSTRUCTIONS + question % INSTRUCTIONS
    # half of what is shared is the question's
    shared = (rng.standard_normal(QUESTIONS)[question] + rng.standard_normal(len(question))) / 2
    scores, values = (
        spread * rng.standard_normal(3 * INSTRUCTIONS)[condition]
        + 15.0 * (shared + math.sqrt(0.5) * rng.standard_normal(len(question)))
        for _ in range(2)
    )
    found = partial_correlation(scores[:, None], values, condition=condition, question=question)
    return bool(found.low[0] <= 0.5 <= found.high[0])


def is_rise_covered(rng: np.random.Generator, questions: int, *, shares: bool) -> bool:
    """Whether what a push adds lies in its interval: of scores that follow a normal law, or that
    are 0 or 100."""
    question = np.tile(np.arange(questions), 2)
    is_pushed = np.arange(2 * questions) >= questions
    if shares:
        truth = 100 * (0.3 - 0.02)
        trait = np.where(rng.random(len(question)) < np.where(is_pushed, 0.3, 0.02), 100.0, 0.0)
    else:
        truth = 8.0
        trait = truth * is_pushed + 8.0 * rng.standard_normal(questions)[question]
        trait += 15.0 * rng.standard_normal(len(question))
    coherence = np.full(len(question), 90.0)
    answers = Answers(is_pushed.astype(np.float64), trait, coherence, question)
    rise = dose_response(answers, floor=50.0, best=1.0).rise
    return bool(rise.low <= truth <= rise.high)


def is_angle_covered(rng: np.random.Generator, share: float, dimensions: int) -> bool:
    """Whether the true direction lies within the bound of one run's mean difference."""
    instruction, question = _LABELS
    truth = np.zeros(DIMENSIONS)
    truth[0] = 1.0
    # each side brings half of the variance of the difference
    spread = np.zeros(DIMENSIONS)
    spread[1 : 1 + dimensions] = share / math.sqrt(2 * min(dimensions, DIMENSIONS - 1))
    pos, neg = (
        sign * truth / 2
        + spread * rng.standard_normal((INSTRUCTIONS, DIMENSIONS))[instruction]
        + 0.3 / math.sqrt(2 * DIMENSIONS) * rng.standard_normal((QUESTIONS, DIMENSIONS))[question]
        + 3.0 / math.sqrt(DIMENSIONS) * rng.standard_normal((len(question), DIMENSIONS))
        for sign in (1, -1)
    )
    difference = pos.mean(axis=0) - neg.mean(axis=0)
    angle = math.degrees(math.acos(float(difference @ truth / np.linalg.norm(difference))))
    rows = [side[:, None].astype(np.float32) for side in (pos, neg)]
    (found,) = direction_angles(*rows, prompts=(_PROMPTS, _PROMPTS))
    return angle <= found.upper


def is_cosine_covered(
    rng: np.random.Generator, cosine: float, share: float, *, two_runs: bool
) -> bool:
    """Whether the cosine of two true directions lies in its interval; what prompts do is half the
    same in two runs, and nothing of it in two traits."""
    instruction, question = (np.repeat(factor, 2) for factor in _CELLS)
    prompts = list(zip(instruction.tolist(), question.tolist(), strict=True))
    is_pos = np.arange(2 * len(prompts)) < len(prompts)
    basis = np.linalg.qr(rng.standard_normal((DIMENSIONS, 2)))[0].T
    truths = basis[0], cosine * basis[0] + math.sqrt(1 - cosine**2) * basis[1]
    # of each side, for both directions and for each alone
    spreads = share / math.sqrt(2 * DIMENSIONS), 0.3 / math.sqrt(2 * DIMENSIONS)
    effects = [
        spread * rng.standard_normal((3, 2, n, DIMENSIONS))
        for spread, n in zip(spreads, (INSTRUCTIONS, QUESTIONS), strict=True)
    ]
    both = []
    for k, truth in enumerate(truths):
        by_instruction, by_question = (
            (one[0] + one[1 + k]) / math.sqrt(2) if two_runs else one[1 + k] for one in effects
        )
        sides = [
            sign * truth / 2
            + by_instruction[side][instruction]
            + by_question[side][question]
            + 3.0 / math.sqrt(DIMENSIONS) * rng.standard_normal((len(prompts), DIMENSIONS))
            for side, sign in enumerate((1, -1))
        ]
        rows = np.concatenate(sides)[:, None].astype(np.float32)
        both.append(LeftOut.of([(rows, is_pos, prompts * 2)]))
    if two_runs:
        low, high = interval_of_two_runs(*both)[0]
    else:
        vectors = [one.vectors[0] for one in both]
        low, high = interval_of_two_traits([one.beside(vectors) for one in both], 0, 1)[0]
    return bool(low <= cosine <= high)


def main() -> None:
    """Print the tables as they stand in docs/report.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=100_000)
    arguments = parser.parse_args()
    numbers = range(arguments.seed, arguments.seed + arguments.runs)
    shares = {
        spread: np.mean([covered_scores(np.random.default_rng(n), spread) for n in numbers], axis=0)
        for spread in SPREADS
    }
    print("instructions differ by", *SPREADS, sep=" | ")
    for k, name in enumerate(("contrast", "Cohen's d", "AUROC")):
        print(name, *(f"{shares[spread][k]:.2f}" for spread in SPREADS), sep=" | ")
    within = [
        np.mean([is_correlation_covered(np.random.default_rng(n), one) for n in numbers])
        for one in SPREADS
    ]
    print("correlation within", *(f"{one:.2f}" for one in within), sep=" | ")
    print("\nAUROC of", *AUROCS, sep=" | ")
    for design in SMALL:
        found = [
            np.mean([is_auroc_covered(np.random.default_rng(n), design, one) for n in numbers])
            for one in AUROCS
        ]
        print(f"{design[0]} x {design[1]} x 2", *(f"{one:.2f}" for one in found), sep=" | ")
    print("\nquestions", 12, 40, sep=" | ")
    for name, shares_of in (("rise of 8 points", False), ("rise from 2 to 30 %", True)):
        found = [
            np.mean(
                [is_rise_covered(np.random.default_rng(k), n, shares=shares_of) for k in numbers]
            )
            for n in (12, 40)
        ]
        print(name, *(f"{one:.2f}" for one in found), sep=" | ")
    print("\ninstructions differ by the share", *SHARES, sep=" | ")
    for dimensions in (DIMENSIONS - 1, 8, 2):
        found = [
            np.mean([is_angle_covered(np.random.default_rng(n), one, dimensions) for n in numbers])
            for one in SHARES
        ]
        print(f"in {dimensions} dimensions", *(f"{one:.2f}" for one in found), sep=" | ")
    for name, two_runs in (("two traits", False), ("one trait in two runs", True)):
        print(f"\ncosine of {name}", *SHARES, sep=" | ")
        for cosine in COSINES:
            found = [
                np.mean(
                    [
                        is_cosine_covered(np.random.default_rng(n), cosine, one, two_runs=two_runs)
                        for n in numbers
                    ]
                )
                for one in SHARES
            ]
            print(cosine, *(f"{one:.2f}" for one in found), sep=" | ")


if __name__ == "__main__":
    main()
