"""The quality of a trait's vectors, layer by layer: arrays in, plain dict out.

What the dict holds is described in docs/report.md; every number is finite or None, and every
list runs over the layers 0 to L.

Every method made from one half of the questions and tested on the other.

Which layer and method to take, by a rule that is written beside the choice.

Estimates with intervals as plain lists: every number finite, or None where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from traitlens.arrays import Float64
from traitlens.assess.confounds import confound
from traitlens.assess.cosines import cosine_matrices
from traitlens.assess.directions import direction_quality, vector_separation
from traitlens.assess.kept_rows import (
    FEWEST_QUESTIONS,
    Array,
    Drawn,
    Group,
    KeptRows,
    independent_groups,
)
from traitlens.methods import METHODS
from traitlens.methods.mean_diff import mean_diff
from traitlens.stats.bootstrap import make_cells
from traitlens.stats.intervals import Interval, percentile_interval
from traitlens.stats.separation import Separation

Quality = dict[str, Any]


def vector_quality(
    vectors: Mapping[str, Array],
    pos: Array,
    neg: Array,
    *,
    rows: tuple[KeptRows, KeptRows],
    prompt_vectors: Array | None = None,
    position: str = "response_avg",
    seed: int = 0,
) -> Quality:
    """Quality of each method's vectors [L+1, d_model] on activations pos, neg [n, L+1, d_model].

    `position` names where they were captured; `prompt_vectors` [L+1, d_model] are the mean
    difference of the prompts, before any word of a response. Takes about three passes over the
    activations for the mean difference and half a fit of each method.
    """
    groups = (rows[0].prompts, rows[1].prompts)
    drawn = independent_groups(groups, fewest=FEWEST_QUESTIONS)
    residual = residual_norms(pos, neg)
    difference = vectors["mean_diff"] if "mean_diff" in vectors else mean_diff(pos, neg).vectors
    halves = held_out_halves(tuple(vectors), pos, neg, rows=rows, seed=seed)
    methods = {
        name: {
            **_norms(vector, residual),
            "fitted": separation_json(vector_separation(vector, pos, neg, groups=drawn)),
            "held_out_half": halves.get(name),
        }
        for name, vector in vectors.items()
    }
    best = best_layers(methods)
    return {
        "position": position,
        "n_prompts": {"positive": len(set(groups[0])), "negative": len(set(groups[1]))},
        "n_instructions": min(len(set(side.instruction)) for side in rows),
        "residual_norm": numbers(residual),
        "mean_difference": {
            **_norms(difference, residual),
            **_stability(pos, neg, rows=rows, drawn=drawn, seed=seed),
        },
        "methods": methods,
        "cosine_between_methods": {
            "methods": list(vectors),
            "by_layer": cosine_matrices(vectors).tolist(),
        },
        "confounds": _confounds(
            vectors[best["method"]], pos, neg, rows=rows, drawn=drawn, prompt_vectors=prompt_vectors
        ),
        "best": best,
        # filled by generations on the evaluation questions and by steering
        "evaluation": None,
        "causal": None,
    }


def contrast_interval(
    positive: Sequence[float],
    negative: Sequence[float],
    *,
    groups: tuple[Sequence[Group], Sequence[Group]],
) -> list[float] | None:
    """95 % interval [low, high] of mean(positive) - mean(negative); `groups` are the prompts.

    Draws whole questions, because what a question adds to one side it adds under every
    instruction; whole prompts where a side has one question. None when a side has fewer than two
    prompts: nothing tells then how much they differ.
    """
    if not _has_two(groups):
        return None
    drawn = independent_groups(groups, fewest=2)
    cells = make_cells(drawn, len(positive), len(negative))
    sums = cells.sums(np.array([*positive, *negative], dtype=np.float64))
    found = percentile_interval(
        cells.contrast(cells.draw()) @ sums, n_groups=min(cells.by_polarity)
    )
    # scores run from 0 to 100
    return [float(np.clip(end, -100.0, 100.0)) for end in (found.low, found.high)]


def _stability(
    pos: Array,
    neg: Array,
    *,
    rows: tuple[KeptRows, KeptRows],
    drawn: Drawn,
    seed: int,
) -> Quality:
    """Lists over the layers; all None where a side has one prompt, which shows no spread."""
    unknown: list[float | None] = [None] * pos.shape[1]
    no_interval = {"value": unknown, "interval": [[None, None]] * len(unknown)}
    if not _has_two(drawn):
        plain = ("angle_degrees", "angle_upper_degrees", "random_vector_auroc")
        found: Quality = dict.fromkeys((*plain, "shuffled_labels_auroc"), unknown)
        left_out = ("leave_one_instruction_out_auroc", "leave_one_question_out_auroc")
        return found | dict.fromkeys(("split_half_cosine", *left_out), no_interval)
    questions = {"question": (rows[0].question, rows[1].question)}
    by_question = direction_quality(pos, neg, groups=drawn, folds=questions, seed=seed)
    return {
        "angle_degrees": numbers(by_question.angle),
        "angle_upper_degrees": numbers(by_question.angle_upper),
        "split_half_cosine": interval_json(by_question.split_half),
        "leave_one_instruction_out_auroc": _left_out_instructions(pos, neg, rows) or no_interval,
        "leave_one_question_out_auroc": interval_json(by_question.leave_one_out["question"]),
        "random_vector_auroc": numbers(by_question.random_auroc),
        "shuffled_labels_auroc": numbers(by_question.shuffled_auroc),
    }


def _left_out_instructions(
    pos: Array, neg: Array, rows: tuple[KeptRows, KeptRows]
) -> Quality | None:
    """AUROC on left-out instructions; None where a side has only one.

    Five instructions a side are five observations of what another instruction would do, however
    many prompts they make, so the interval moves whole instructions.
    """
    labels = (rows[0].instruction, rows[1].instruction)
    if not _has_two(labels):
        return None
    folds = {"instruction": labels}
    # the draws of the bootstrap are for the angle, which is measured over questions
    found = direction_quality(
        pos, neg, groups=labels, folds=folds, n_bootstrap=1, is_group_one_observation=True
    )
    return interval_json(found.leave_one_out["instruction"])


def _has_two(labels: tuple[Sequence[object], Sequence[object]]) -> bool:
    return all(len(set(side)) > 1 for side in labels)


def _confounds(
    vectors: Array,
    pos: Array,
    neg: Array,
    *,
    rows: tuple[KeptRows, KeptRows],
    drawn: Drawn,
    prompt_vectors: Array | None,
) -> Quality:
    covariates = {
        "response_length": (rows[0].response_length, rows[1].response_length),
        "instruction_words": (rows[0].instruction_words, rows[1].instruction_words),
        "refusal_words": (rows[0].refusal_words, rows[1].refusal_words),
    }
    found: Quality = {}
    for name, covariate in covariates.items():
        one = confound(vectors, pos, neg, covariate=covariate, groups=drawn)
        ends = interval_json(one.auroc)
        found[name] = {
            "auroc": {"value": ends["value"][0], "interval": ends["interval"][0]},
            "correlation": numbers(one.correlation),
            "cosine": numbers(one.cosine),
        }
    if prompt_vectors is not None:
        both = cosine_matrices({"vector": vectors, "prompt": prompt_vectors})
        found["prompt_difference"] = {"cosine": numbers(both[:, 0, 1])}
    return found


def _norms(vectors: Array, residual: Float64) -> Quality:
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"norm": numbers(norm), "norm_to_residual": numbers(norm / residual)}


def residual_norms(pos: Array, neg: Array) -> Float64:
    """Mean norm of the kept activations at each layer, both sides: [L+1]."""
    total = sum(
        np.sqrt(np.einsum("nld,nld->nl", side, side)).sum(axis=0, dtype=np.float64)
        for side in (pos, neg)
    )
    return np.asarray(total / (len(pos) + len(neg)))


# With fewer questions each half is a question or none, and says nothing.
QUESTIONS_TO_HALVE = 4

# One prompt on a side shows no spread, so no interval.
FEWEST_PROMPTS = 2


def held_out_halves(
    methods: tuple[str, ...],
    pos: Array,
    neg: Array,
    *,
    rows: tuple[KeptRows, KeptRows],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Each method made from half of the questions and tested on the other half; {} if too few."""
    questions = sorted(set(rows[0].question) & set(rows[1].question))
    if len(questions) < QUESTIONS_TO_HALVE:
        return {}
    first = np.random.default_rng(seed).permutation(questions)[: len(questions) // 2]
    made = [np.isin(side.question, first) for side in rows]
    prompts = [np.array(side.prompts) for side in rows]
    fit_prompts, test_prompts = (
        tuple(
            [(int(i), int(q)) for i, q in p[m == half]] for p, m in zip(prompts, made, strict=True)
        )
        for half in (True, False)
    )
    if min(len(set(side)) for side in (*fit_prompts, *test_prompts)) < FEWEST_PROMPTS:
        return {}
    fit_groups, test_groups = (
        independent_groups((half[0], half[1]), fewest=FEWEST_QUESTIONS)
        for half in (fit_prompts, test_prompts)
    )
    held_out = (pos[~made[0]], neg[~made[1]])
    made_from = (pos[made[0]], neg[made[1]])
    found = {}
    for name in methods:
        vectors = METHODS[name](*made_from, groups=fit_groups).vectors
        separated = vector_separation(vectors, *held_out, groups=test_groups)
        found[name] = {**separation_json(separated), "n_questions": len(questions) - len(first)}
    return found


BEST_RULE = (
    "the largest lower end of Cohen's d on the half of the questions that the vector was not made "
    "from; the embedding and the last layer are not chosen"
)

BEST_RULE_FITTED = (
    "the largest lower end of Cohen's d on the responses that the vector was made from, because "
    "there are too few questions to halve; the embedding and the last layer are not chosen"
)


def best_layers(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The best layer of each method, the best method of all, and the rule that chose them."""
    is_held_out = all(one["held_out_half"] is not None for one in methods.values())
    rows = "held_out_half" if is_held_out else "fitted"
    by_method, reached = {}, {}
    for name, one in methods.items():
        ends = _lower_ends(one[rows]["cohens_d"])
        layer = max(candidate_layers(len(ends)), key=lambda i: _or_least(ends[i]))
        by_method[name], reached[name] = layer, _or_least(ends[layer])
    method = max(reached, key=lambda name: reached[name])
    rule = BEST_RULE if is_held_out else BEST_RULE_FITTED
    return {"method": method, "layer": by_method[method], "by_method": by_method, "rule": rule}


def candidate_layers(n_rows: int) -> range:
    """Layers of n_rows = L+1 that may be chosen: not the embedding, nor the last where avoidable.

    Row L is before the final norm and no later block reads it.
    """
    return range(1, n_rows - 1) if n_rows > 2 else range(n_rows - 1, n_rows)


def _lower_ends(found: Mapping[str, Any]) -> list[float | None]:
    """The intervals' lower ends; the values where one prompt a side leaves no interval."""
    lows: list[float | None] = [low for low, _ in found["interval"]]
    return list(found["value"]) if all(low is None for low in lows) else lows


def _or_least(value: float | None) -> float:
    return -math.inf if value is None else value


def interval_json(found: Interval) -> dict[str, Any]:
    """Values and [low, high] pairs over the layers."""
    ends = zip(np.atleast_1d(found.low), np.atleast_1d(found.high), strict=True)
    return {"value": numbers(found.value), "interval": [numbers(pair) for pair in ends]}


def numbers(values: Float64 | Sequence[float]) -> list[float | None]:
    """Plain numbers; None where there is nothing finite to say, JSON's null."""
    return [float(x) if math.isfinite(x) else None for x in np.atleast_1d(np.asarray(values))]


def separation_json(found: Separation) -> dict[str, Any]:
    """AUROC, Cohen's d and balanced accuracy with intervals, and the effective sample sizes."""
    return {
        "auroc": interval_json(found.auroc),
        "cohens_d": interval_json(found.cohens_d),
        "accuracy": interval_json(found.accuracy),
        "effective_n": {
            "positive": numbers(found.effective_n_pos),
            "negative": numbers(found.effective_n_neg),
        },
    }
