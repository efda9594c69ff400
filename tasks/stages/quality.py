"""The quality of a trait's vectors as its record holds it, made from arrays and from answers.

What cannot be measured is NaN in an array and None in the record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from domain.verdict.record import (
    Best,
    ConfoundFigures,
    DifferenceFigures,
    EffectiveSizes,
    Estimate,
    Estimates,
    HalfFigures,
    Layers,
    MethodCosines,
    MethodFigures,
    PolarityCounts,
    Quality,
    SeparationFigures,
    SpreadFigures,
)
from traitlens.arrays import Float64
from traitlens.assess.angles import direction_angles
from traitlens.assess.chance import chance_of_difference
from traitlens.assess.confounds import confound
from traitlens.assess.cosines import cosine_matrices
from traitlens.assess.directions import direction_quality, vector_separation
from traitlens.assess.kept_rows import Array, KeptRows
from traitlens.assess.matching import matched_separation
from traitlens.assess.quality import (
    HeldOutHalf,
    has_two,
    held_out_halves,
    residual_norms,
)
from traitlens.layers import candidate_layers
from traitlens.methods.mean_diff import mean_diff
from traitlens.stats.crossed import StandardDeviations, standard_deviations
from traitlens.stats.intervals import Interval
from traitlens.stats.separation import Separation

BEST_RULE = (
    "the largest lower end of Cohen's d on the half of the questions that the vector was not made "
    "from; the embedding and the last layer are not chosen"
)

BEST_RULE_FITTED = (
    "the largest lower end of Cohen's d on the responses that the vector was made from, because "
    "there are too few questions to halve; the embedding and the last layer are not chosen"
)


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
    residual = residual_norms(pos, neg)
    halves = held_out_halves(tuple(vectors), pos, neg, rows=rows, seed=seed)
    methods = {}
    for name, vector in vectors.items():
        half = halves.get(name)
        methods[name] = MethodFigures(
            **_norms(vector, residual),
            fitted=separation_figures(vector_separation(vector, pos, neg, prompts=groups)),
            held_out_half=None if half is None else _half(half),
        )
    best = best_layers(methods)
    return Quality(
        position=position,
        n_prompts=PolarityCounts(positive=len(set(groups[0])), negative=len(set(groups[1]))),
        n_instructions=min(len(set(side.instruction)) for side in rows),
        residual_norm=layer_numbers(residual),
        mean_difference=_difference(vectors, pos, neg, residual=residual, rows=rows, seed=seed),
        methods=methods,
        cosine_between_methods=MethodCosines(
            methods=tuple(vectors), by_layer=cosine_matrices(vectors).tolist()
        ),
        confounds=_confounds(
            vectors[best.method], pos, neg, rows=rows, prompt_vectors=prompt_vectors
        ),
        best=best,
        spread=_direction_spread(pos, neg, best.layer, rows),
    )


def _half(found: HeldOutHalf) -> HalfFigures:
    figures = dict(separation_figures(found.separation))
    return HalfFigures(
        **figures, n_questions=found.n_questions, random_p=layer_numbers(found.random_p)
    )


def _difference(
    vectors: Mapping[str, Array],
    pos: Array,
    neg: Array,
    *,
    residual: Float64,
    rows: tuple[KeptRows, KeptRows],
    seed: int,
) -> DifferenceFigures:
    """All unknown but the norms where a side has one prompt, which shows no spread."""
    difference = vectors["mean_diff"] if "mean_diff" in vectors else mean_diff(pos, neg).vectors
    norms = _norms(difference, residual)
    unknown: Layers = (None,) * pos.shape[1]
    no_interval = Estimates(value=unknown, interval=((None, None),) * len(unknown))
    prompts = rows[0].prompts, rows[1].prompts
    if not has_two(prompts):
        return DifferenceFigures(
            **norms,
            angle_degrees=unknown,
            angle_upper_degrees=unknown,
            split_half_cosine=no_interval,
            leave_one_instruction_out_auroc=no_interval,
            leave_one_question_out_auroc=no_interval,
            random_vector_auroc=unknown,
            shuffled_labels_auroc=unknown,
        )
    instructions = rows[0].instruction, rows[1].instruction
    folds = {"question": (rows[0].question, rows[1].question)}
    if has_two(instructions):
        folds["instruction"] = instructions
    angles = direction_angles(pos, neg, prompts=prompts)
    found = direction_quality(pos, neg, prompts=prompts, folds=folds, seed=seed)
    left_out = found.leave_one_out
    chance = chance_of_difference(pos, neg, prompts=prompts, questions=folds["question"])
    return DifferenceFigures(
        **norms,
        angle_degrees=layer_numbers([angle.degrees for angle in angles]),
        angle_upper_degrees=layer_numbers([angle.upper for angle in angles]),
        split_half_cosine=estimates_of(found.split_half),
        leave_one_instruction_out_auroc=estimates_of(left_out["instruction"])
        if "instruction" in left_out
        else no_interval,
        leave_one_question_out_auroc=estimates_of(left_out["question"]),
        random_vector_auroc=layer_numbers(chance.random_auroc),
        random_p=layer_numbers(chance.random_p),
        shuffled_labels_auroc=layer_numbers(chance.shuffled_auroc),
        shuffled_p=layer_numbers(chance.shuffled_p),
    )


def _confounds(
    vectors: Array,
    pos: Array,
    neg: Array,
    *,
    rows: tuple[KeptRows, KeptRows],
    prompt_vectors: Array | None,
) -> dict[str, ConfoundFigures]:
    found = {}
    prompts = rows[0].prompts, rows[1].prompts
    for name in ("response_length", "instruction_words", "refusal_words"):
        covariate = (getattr(rows[0], name), getattr(rows[1], name))
        one = confound(vectors, pos, neg, covariate=covariate, prompts=prompts)
        alike = matched_separation(vectors, pos, neg, covariate=covariate, prompts=prompts)
        found[name] = ConfoundFigures(
            matched_auroc=None if alike.auroc is None else estimates_of(alike.auroc),
            n_matched=alike.n_pairs,
            auroc=estimates_of(one.auroc).at(0),
            correlation=layer_numbers(one.correlation),
            cosine=layer_numbers(one.cosine),
        )
    if prompt_vectors is not None:
        both = cosine_matrices({"vector": vectors, "prompt": prompt_vectors})
        found["prompt_difference"] = ConfoundFigures(cosine=layer_numbers(both[:, 0, 1]))
    return found


def _norms(vectors: Array, residual: Float64) -> dict[str, Layers]:
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"norm": layer_numbers(norm), "norm_to_residual": layer_numbers(norm / residual)}


def spread_figures(found: StandardDeviations) -> SpreadFigures | None:
    """None where a side has no prompt that the other has too."""
    design, names = found.design, ("instruction", "question", "combination", "rollout")
    if not math.isfinite(design.rollouts):
        return None
    known = {name: layer_numbers([getattr(found, name)])[0] for name in names}
    if design.rollouts <= 1:
        # of one rollout each, what they differ by is part of the combination
        known["rollout"] = None
    return SpreadFigures(
        **known,
        n_instructions=int(design.instructions),
        n_questions=int(design.questions),
        n_rollouts=design.rollouts,
        narrows_most=found.narrows_most,
    )


def _direction_spread(
    pos: Array, neg: Array, layer: int, rows: tuple[KeptRows, KeptRows]
) -> SpreadFigures | None:
    """Of the mean difference at a layer, in shares of its length."""
    both = np.concatenate([pos[:, layer], neg[:, layer]]).astype(np.float64)
    is_pos = np.arange(len(both)) < len(pos)
    length = np.linalg.norm(both[is_pos].mean(axis=0) - both[~is_pos].mean(axis=0))
    if not length > 0:
        return None
    labels = (
        [*getattr(rows[0], one), *getattr(rows[1], one)] for one in ("instruction", "question")
    )
    return spread_figures(standard_deviations(both / length, is_pos, *labels))


def best_layers(methods: Mapping[str, MethodFigures]) -> Best:
    """The best layer of each method, the best method of all, and the rule that chose them."""
    by_method, reached = {}, {}
    is_halved = all(one.held_out_half is not None for one in methods.values())
    for name, one in methods.items():
        seen = one.held_out_half if is_halved and one.held_out_half is not None else one.fitted
        ends = _lower_ends(seen.cohens_d)
        by_method[name] = max(candidate_layers(len(ends)), key=ends.__getitem__)
        reached[name] = ends[by_method[name]]
    method = max(reached, key=lambda name: reached[name])
    rule = BEST_RULE if is_halved else BEST_RULE_FITTED
    return Best(method=method, layer=by_method[method], by_method=by_method, rule=rule)


def _lower_ends(found: Estimates) -> list[float]:
    """The intervals' lower ends; the values where one prompt a side leaves no interval."""
    lows = [low for low, _ in found.interval]
    known = found.value if all(low is None for low in lows) else lows
    return [-math.inf if one is None else one for one in known]


def layer_numbers(values: Float64 | NDArray[np.float32] | Sequence[float]) -> Layers:
    """Plain numbers; None where there is nothing finite to say."""
    return tuple(float(x) if math.isfinite(x) else None for x in np.atleast_1d(np.asarray(values)))


def estimates_of(found: Interval) -> Estimates:
    """Values with [low, high] pairs."""
    low, high = layer_numbers(found.low), layer_numbers(found.high)
    return Estimates(value=layer_numbers(found.value), interval=tuple(zip(low, high, strict=True)))


def estimate_of(found: Interval) -> Estimate:
    """A single number with its interval."""
    return estimates_of(found).at(0)


def separation_figures(found: Separation) -> SeparationFigures:
    """AUROC, Cohen's d and balanced accuracy with intervals, and the effective sample sizes."""
    return SeparationFigures(
        auroc=estimates_of(found.auroc),
        cohens_d=estimates_of(found.cohens_d),
        accuracy=estimates_of(found.accuracy),
        effective_n=EffectiveSizes(
            positive=layer_numbers(found.effective_n_pos),
            negative=layer_numbers(found.effective_n_neg),
        ),
    )
