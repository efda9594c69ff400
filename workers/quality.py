"""The quality of a trait's vectors, layer by layer: arrays in, plain dict out.

What the dict holds is described in docs/report.md; every number is finite or None, and every list
runs over the layers 0 to L. Knows nothing of stores, verdicts or pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from traitlens.cells import make_cells
from traitlens.confounds import confound, cosine_matrices
from traitlens.intervals import percentile_interval
from traitlens.mean_diff import mean_diff
from traitlens.quality import direction_quality, vector_separation
from workers.best_layer import best_layers
from workers.held_out_half import held_out_halves
from workers.kept_rows import (
    FEWEST_QUESTIONS,
    Array,
    Drawn,
    Float64,
    Group,
    KeptRows,
    independent_groups,
)
from workers.plain_numbers import interval_json, numbers, separation_json

Quality = dict[str, Any]

N_BOOTSTRAP = 1000


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
    value = cells.contrast(np.ones((1, len(cells.counts)))) @ sums
    draws = cells.contrast(cells.bootstrap(N_BOOTSTRAP, seed=0)) @ sums
    clusters = min(cells.side_counts())
    found = percentile_interval(value, draws[:, None], n_clusters=clusters)
    # scores run from 0 to 100
    return [float(np.clip(end[0], -100.0, 100.0)) for end in (found.low, found.high)]


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
