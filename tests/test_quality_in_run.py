"""Protects the quality written beside vectors: the truth is found, nothing is called nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.pages.report_data import reported_metrics
from domain.plan.spec import ChecksSpec
from domain.verdict.gates import gate_findings, with_verdict
from domain.verdict.record import (
    ConfoundFigures,
    Estimate,
    Estimates,
    Finding,
    Gate,
    MethodFigures,
    Quality,
    Severity,
    TraitMetrics,
)
from storage.record.results import read_metrics
from tasks.stages.quality import best_layers, vector_quality
from tests.quality_records import everywhere, known, metrics, quality, read, separation
from tests.stored_run import PLANTED_LAYER, stored_run
from traitlens.assess.kept_rows import KeptRows, begins_with_refusal, borrowed_share
from traitlens.assess.quality import candidate_layers, contrast_interval
from traitlens.methods.mean_diff import mean_diff
from traitlens.vectors.files import load_vectors

N_INSTRUCTIONS, N_QUESTIONS, N_ROLLOUTS = 5, 8, 3
N = N_INSTRUCTIONS * N_QUESTIONS * N_ROLLOUTS


def kept_rows(length: np.ndarray | None = None) -> KeptRows:
    instruction = np.repeat(np.arange(N_INSTRUCTIONS), N_QUESTIONS * N_ROLLOUTS)
    question = np.tile(np.repeat(np.arange(N_QUESTIONS), N_ROLLOUTS), N_INSTRUCTIONS)
    nothing = np.tile([0.0, 1.0], N // 2)
    lengths = nothing if length is None else length
    return KeptRows(instruction.tolist(), question.tolist(), lengths, nothing, nothing)


def sides(
    *, gap: float, instruction_noise: float = 0.0, layers: int = 5, width: int = 48, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives `gap` apart at layer 2 and, under more noise, above."""
    rng = np.random.default_rng(seed)
    found = []
    for sign in (0.5, -0.5):
        own = rng.standard_normal((N_INSTRUCTIONS, 1, layers, width))
        rows = rng.standard_normal((N_INSTRUCTIONS, N // N_INSTRUCTIONS, layers, width))
        rows += instruction_noise * own
        rows[:, :, 2:, 0] += sign * gap
        rows[:, :, 3:] += rng.standard_normal(rows[:, :, 3:].shape)
        found.append(rows.reshape(N, layers, width).astype(np.float32))
    return found[0], found[1]


def quality_of(pos: np.ndarray, neg: np.ndarray, **changes: Any) -> Quality:
    rows = (kept_rows(), kept_rows())
    given = {"vectors": {"mean_diff": mean_diff(pos, neg).vectors}, "rows": rows, **changes}
    return vector_quality(given.pop("vectors"), pos, neg, **given)


def found_in(quality: Quality, **changes: Any) -> dict[Gate, Finding]:
    """What is found of vectors, but for the tests that were not made."""
    found = gate_findings(metrics(quality=quality, **changes))
    not_made = (Gate.EVALUATION_PENDING, Gate.STEERING_NOT_WORTH)
    return {one.gate: one for one in found if one.gate not in not_made}


def fatal(found: dict[Gate, Finding]) -> set[Gate]:
    return {gate for gate, one in found.items() if one.severity == Severity.FATAL}


def test_the_planted_layer_is_chosen_and_every_gate_passes() -> None:
    quality = quality_of(*sides(gap=5.0))

    assert quality.best.layer == 2
    failed = [
        f for f in found_in(quality).values() if f.severity in (Severity.FATAL, Severity.WEAK)
    ]
    # arrays alone show no use
    assert [one.gate for one in failed] == [Gate.NO_USE_SHOWN]
    difference = quality.mean_difference
    assert (difference.angle_upper_degrees[2] or 90) < 30
    assert (difference.split_half_cosine.value[2] or 0) > 0.7
    assert (difference.leave_one_question_out_auroc.interval[2][0] or 0) > 0.9
    assert (difference.shuffled_labels_auroc[2] or 1) < 0.75
    assert difference.random_p and difference.shuffled_p
    assert max(difference.random_p[2] or 1, difference.shuffled_p[2] or 1) < 0.02


def test_norms_are_those_of_a_naive_loop() -> None:
    pos, neg = sides(gap=5.0)

    quality = quality_of(pos, neg)

    for layer in range(5):
        rows = [*pos[:, layer].astype(float), *neg[:, layer].astype(float)]
        residual = np.mean([np.linalg.norm(row) for row in rows])
        norm = np.linalg.norm(pos[:, layer].mean(0) - neg[:, layer].mean(0))
        assert quality.residual_norm[layer] == pytest.approx(residual, rel=1e-5)
        own = quality.methods["mean_diff"]
        assert own.norm[layer] == pytest.approx(norm, rel=1e-4)
        assert own.norm_to_residual[layer] == pytest.approx(norm / residual, rel=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_labels_at_random_are_not_to_be_used(seed: int) -> None:
    pos, neg = sides(gap=0.0, seed=seed)

    assert fatal(found_in(quality_of(pos, neg)))


def test_a_direction_that_knows_only_its_instructions_is_named_so() -> None:
    pos, neg = sides(gap=0.0, instruction_noise=3.0)

    found = found_in(quality_of(pos, neg))

    assert fatal(found) == {Gate.INSTRUCTIONS_CHANCE, Gate.ANGLE_NOISE}
    assert Gate.QUESTIONS_LOW not in found


def test_a_planted_confound_of_length_is_noted_and_a_harmless_one_is_not() -> None:
    pos, neg = sides(gap=5.0)
    rng = np.random.default_rng(1)
    lengths = [rng.normal(mean, 20, N) for mean in (120, 60)]
    for side, length in zip((pos, neg), lengths, strict=True):
        side[:, 2:, 1] += 0.2 * length[:, None]
    rows = (kept_rows(lengths[0]), kept_rows(lengths[1]))

    quality = quality_of(pos, neg, rows=rows)

    found = found_in(quality)
    (named,) = [one for one in found.values() if one.of == "response_length"]
    assert named.gate in (Gate.CONFOUND_WITHIN, Gate.CONFOUND_EXPLAINS)
    assert Gate.CONFOUND not in found
    correlation = quality.confounds["response_length"].correlation
    assert correlation is not None
    assert (correlation[2] or 0) > 0.5
    assert abs(correlation[1] or 1) < 0.3


def test_refusals_that_go_with_the_vector_are_noted_unless_the_trait_is_refusal() -> None:
    pos, neg = sides(gap=5.0)
    rows = []
    for side, share in ((pos, 0.9), (neg, 0.1)):
        refuses = (np.random.default_rng(2).random(N) < share).astype(float)
        side[:, 2:, 1] += 20 * refuses[:, None]
        rows.append(dataclasses.replace(kept_rows(), refusal_words=refuses))

    quality = quality_of(pos, neg, rows=(rows[0], rows[1]))

    named = [one.gate for one in found_in(quality).values() if one.of == "refusal_words"]
    assert named and named[0] in (Gate.CONFOUND_WITHIN, Gate.CONFOUND_EXPLAINS)
    of_refusal = found_in(quality, trait="refusal").values()
    assert not [one for one in of_refusal if one.of == "refusal_words"]


def test_a_best_fit_that_did_not_converge_is_noted() -> None:
    pos, neg = sides(gap=5.0)
    quality = quality_of(pos, neg, vectors={"ica": mean_diff(pos, neg).vectors})

    def found(converged: float) -> dict[Gate, Finding]:
        fits = {"ica": {"response_avg": {"converged": (1.0, 1.0, converged, 1.0, 1.0)}}}
        return found_in(quality, methods=fits)

    assert quality.best.layer == 2
    noted = found(0.0)[Gate.NOT_CONVERGED]
    assert (noted.of, noted.layer) == ("ica", 2)
    assert Gate.NOT_CONVERGED not in found(1.0)


@pytest.mark.parametrize(
    ("interval", "correlation", "alike", "gate"),
    [
        ((0.72, 0.85), None, (0.9, 0.8), Gate.CONFOUND),
        ((0.72, 0.85), 0.5, (0.9, 0.8), Gate.CONFOUND_WITHIN),
        ((0.72, 0.85), -0.03, (0.9, 0.8), Gate.CONFOUND),
        ((0.1, 0.2), -0.5, (0.9, 0.8), Gate.CONFOUND_WITHIN),
        ((0.1, 0.2), 0.5, (0.9, 0.8), Gate.CONFOUND),
        ((0.72, 0.85), -0.03, (0.7, 0.48), Gate.CONFOUND_EXPLAINS),
        ((0.72, 0.85), -0.03, (0.58, 0.52), Gate.CONFOUND_EXPLAINS),
        ((0.72, 0.85), 0.5, None, Gate.CONFOUND_NOT_IDENTIFIABLE),
        ((0.6, 0.9), 0.9, (0.5, 0.4), None),
        ((None, None), 0.9, None, None),
    ],
)
def test_a_confound_is_noted_where_it_surely_tells_the_sides_apart(
    interval: tuple[float, float],
    correlation: float | None,
    alike: tuple[float, float] | None,
    gate: Gate | None,
) -> None:
    length = ConfoundFigures(
        auroc=Estimate(value=0.8, interval=interval),
        correlation=everywhere(correlation),
        cosine=everywhere(0.1),
        matched_auroc=None if alike is None else known(alike),
        n_matched=9 if alike is None else 40,
    )

    decided = with_verdict(metrics(quality=quality(confounds={"response_length": length})))

    named = [one for one in decided.findings if one.of == "response_length"]
    assert [one.gate for one in named] == [gate][: bool(gate)]
    words = " ".join(decided.notes)
    assert ("longer" in words) == (bool(gate) and interval[0] > 0.5)
    assert ("shorter" in words) == (bool(gate) and interval[0] < 0.5)


def test_the_difference_between_the_prompts_is_compared_with_the_vector() -> None:
    pos, neg = sides(gap=5.0)
    vectors = mean_diff(pos, neg).vectors

    same = quality_of(pos, neg, prompt_vectors=vectors).confounds["prompt_difference"]

    assert same.cosine == pytest.approx([1.0] * 5)
    assert "prompt_difference" not in quality_of(pos, neg).confounds


def test_one_instruction_and_one_question_leave_gaps_and_say_so() -> None:
    pos, neg = sides(gap=5.0)
    alone = KeptRows([0] * 4, [0] * 4, np.arange(4.0), np.zeros(4), np.zeros(4))

    quality = quality_of(pos[:4], neg[:4], rows=(alone, alone))

    found = found_in(quality)
    assert found[Gate.ANGLE_UNKNOWN].severity == Severity.WEAK
    assert quality.methods["mean_diff"].held_out_half is None
    assert "too few questions" in quality.best.rule
    assert {Gate.INSTRUCTIONS_NOT_LEFT_OUT, Gate.QUESTIONS_NOT_LEFT_OUT} <= set(found)
    json.dumps(quality.model_dump(mode="json"), allow_nan=False)


def test_the_embedding_and_the_last_layer_are_chosen_only_where_nothing_else_is() -> None:
    assert list(candidate_layers(7)) == [1, 2, 3, 4, 5]
    assert list(candidate_layers(3)) == [1]
    assert list(candidate_layers(2)) == [1]


def test_the_best_method_is_the_one_whose_worst_case_is_best() -> None:
    def method(*lows: float | None) -> MethodFigures:
        own = quality().methods["mean_diff"]
        d = Estimates(value=(99.0,) * len(lows), interval=tuple((low, 99.0) for low in lows))
        assert own.held_out_half is not None
        half = own.held_out_half.model_copy(update={"cohens_d": d})
        return own.model_copy(update={"held_out_half": half})

    best = best_layers({"a": method(9, 1, 4, 9), "b": method(9, 5, None, 9)})

    assert (best.method, best.layer) == ("b", 1)
    assert best.by_method == {"a": 2, "b": 1}


def test_where_one_prompt_leaves_no_interval_the_value_itself_chooses_the_layer() -> None:
    unknown = Estimates(value=(1.0, 2.0, 3.0, 9.0), interval=((None, None),) * 4)
    fitted = separation().model_copy(update={"cohens_d": unknown})
    own = quality().methods["mean_diff"]

    best = best_layers({"a": own.model_copy(update={"held_out_half": None, "fitted": fitted})})

    assert best.layer == 2


def test_words_shared_with_the_instruction_are_counted_once() -> None:
    assert borrowed_share("Refuse! I refuse to boil eggs", "Always REFUSE politely") == 1 / 3
    assert borrowed_share("", "Always refuse") == 0.0


def test_refusals_are_known_by_how_a_response_begins() -> None:
    assert begins_with_refusal("I\u2019m sorry, but I can't help with that.")
    assert begins_with_refusal("As an AI, I have no opinion.")
    assert not begins_with_refusal("Sure. Mix the flour and the eggs.")
    assert not begins_with_refusal("Sure. " * 40 + "I cannot say more.")


def test_the_contrast_s_interval_moves_whole_questions_or_else_whole_prompts() -> None:
    prompts = [(i, q) for i in range(4) for q in range(5) for _ in range(10)]
    by_question = np.random.default_rng(0).normal(0, 20, 5)
    positive = [50 + by_question[q] for _, q in prompts]
    negative = [0.0] * 200

    shared = contrast_interval(positive, negative, prompts=(prompts, prompts))
    alone = [(0, k) for k in range(200)]
    ignoring = contrast_interval(positive, negative, prompts=(alone, alone))
    one_question = [(i, 0) for i, _ in prompts]
    by_prompt = contrast_interval(positive, negative, prompts=(one_question, one_question))

    assert shared and ignoring and by_prompt
    assert shared[0] < 50 + by_question.mean() < shared[1]
    assert shared[1] - shared[0] > 5 * (ignoring[1] - ignoring[0])
    one = [(0, 0)]
    assert contrast_interval([1.0, 2.0], [0.0], prompts=(one * 2, one)) is None


@pytest.mark.parametrize("n_questions", [4, 8, 12])
@pytest.mark.parametrize("question_effect", [0.0, 15.0])
def test_the_contrast_s_interval_covers_the_truth_in_200_data_sets(
    n_questions: int, question_effect: float
) -> None:
    prompts = [(i, q) for i in range(4) for q in range(n_questions) for _ in range(2)]
    covered = []

    for seed in range(200):
        rng = np.random.default_rng(seed)
        sides = []
        for center in (70.0, 20.0):
            question = np.repeat(np.tile(rng.normal(0, question_effect, n_questions), 4), 2)
            prompt = np.repeat(rng.normal(0, 15, 4 * n_questions), 2)
            noise = rng.normal(0, 10, len(prompts))
            sides.append((center + question + prompt + noise).tolist())
        found = contrast_interval(sides[0], sides[1], prompts=(prompts, prompts))
        assert found
        covered.append(found[0] <= 50.0 <= found[1])

    assert 0.9 <= np.mean(covered) <= 0.995


@pytest.mark.parametrize(
    ("changes", "name", "gate"),
    [
        ({}, "usable", None),
        ({"angle_upper": 90.0}, "do not use", Gate.ANGLE_NOISE),
        ({"angle_upper": None}, "weak", Gate.ANGLE_UNKNOWN),
        ({"angle_upper": 60.0}, "usable with a doubt", None),
        ({"angle_upper": 60.0, "reading": read((0.65, 0.55))}, "weak", Gate.ANGLE_WIDE),
        ({"question": (0.7, 0.45)}, "do not use", Gate.QUESTIONS_CHANCE),
        ({"question": (0.58, 0.52)}, "do not use", Gate.QUESTIONS_CHANCE),
        ({"random_p": 0.06}, "do not use", Gate.QUESTIONS_RANDOM),
        ({"shuffled_p": 0.06}, "do not use", Gate.QUESTIONS_SHUFFLED),
        ({"random_p": 0.06, "shuffled_p": 0.06, "method": "ica"}, "usable", None),
        ({"half_p": 0.06, "method": "ica"}, "do not use", Gate.QUESTIONS_RANDOM),
        ({"half_p": 0.06}, "usable", None),
        ({"random_p": None, "shuffled_p": None}, "usable", None),
        ({"question": (0.69, 0.6)}, "weak", Gate.QUESTIONS_LOW),
        ({"question": (0.85, 0.7)}, "usable", None),
        ({"instruction": (0.55, 0.2)}, "do not use", Gate.INSTRUCTIONS_CHANCE),
        ({"instruction": (0.8, 0.4)}, "weak", Gate.INSTRUCTIONS_UNSURE),
        ({"instruction": (0.8, 0.4), "n_instructions": 3}, "usable", None),
        ({"angle_upper": 90.0, "method": "ica"}, "weak", Gate.ANGLE_NOISE),
        ({"half": (0.55, 0.4), "method": "ica"}, "do not use", Gate.QUESTIONS_CHANCE),
        ({"half": (0.55, 0.4)}, "usable", None),
        ({"instruction": (0.65, 0.55)}, "weak", Gate.INSTRUCTIONS_LOW),
        ({"question": None, "instruction": None}, "usable", None),
    ],
)
def test_each_gate_on_the_vector_decides_and_is_named(
    changes: dict[str, Any], name: str, gate: Gate | None
) -> None:
    decided = with_verdict(metrics(quality=quality(**changes)))

    failed = [one for one in decided.findings if one.severity in (Severity.FATAL, Severity.WEAK)]
    assert decided.verdict == name
    assert [one.gate for one in failed] == [gate][: bool(gate)]


@pytest.mark.parametrize(("position", "is_weak"), [("prompt_last", True), ("response_avg", False)])
def test_the_probe_s_gate_reads_the_position_that_the_quality_is_of(
    position: str, is_weak: bool
) -> None:
    accuracy = {
        name: {"held_out_acc": everywhere(value)}
        for name, value in (("response_avg", 0.99), ("prompt_last", 0.9))
    }
    of_probe = quality(method="probe", position=position)

    found = gate_findings(metrics(quality=of_probe, methods={"probe": accuracy}))

    assert (Gate.PROBE_ACCURACY_LOW in [one.gate for one in found]) == is_weak


def test_a_run_writes_its_quality_as_plain_finite_numbers(tmp_path: Path) -> None:
    checks = ChecksSpec(evaluation=0, causal=0)
    run = stored_run(
        tmp_path / "run", traits="evil", methods=("mean_diff", "probe"), rollouts=6, checks=checks
    )

    found = read_metrics(run.store, "evil")

    assert found.verdict == "usable", found.reasons
    assert found.quality is not None
    assert found.quality.best.by_method["mean_diff"] == PLANTED_LAYER
    low, high = found.contrast_interval or (None, None)
    assert low is not None and found.contrast is not None and high is not None
    assert low < found.contrast < high
    assert list(found.methods) == ["mean_diff", "probe"]
    probe = found.methods["probe"]["response_avg"]
    assert (probe["held_out_acc"][PLANTED_LAYER] or 0) > 0.95
    assert len(probe["converged"]) == 5
    stored = json.loads((tmp_path / "run/traits/evil/metrics.json").read_text())
    assert all(math.isfinite(number) for number in all_numbers(stored))
    assert TraitMetrics.model_validate(stored) == found
    vector = load_vectors(tmp_path / "run" / "traits" / "evil")
    assert vector.provenance.residual_norms == found.quality.residual_norm


def test_a_judge_that_answers_at_random_gives_do_not_use(tmp_path: Path) -> None:
    verdicts = []
    for seed in range(6):
        run = stored_run(tmp_path / str(seed), traits="evil", judge_is_random=True, seed=seed)
        verdicts += [one.verdict for one in reported_metrics(run)]

    assert verdicts == ["do not use"] * 6


def all_numbers(body: object) -> list[float]:
    if isinstance(body, dict):
        return [n for value in body.values() for n in all_numbers(value)]
    if isinstance(body, list):
        return [n for value in body for n in all_numbers(value)]
    return [float(body)] if isinstance(body, int | float) else []


def test_the_angles_bound_holds_where_questions_have_effects_of_their_own() -> None:
    n_instructions, n_questions, width = 4, 12, 48
    labels = np.indices((n_instructions, n_questions)).reshape(2, -1)
    side = KeptRows(list(labels[0]), list(labels[1]), np.ones(48), np.zeros(48), np.zeros(48))
    inside = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        truth = np.eye(width)[0] * 3.0
        rows = []
        for sign in (0.5, -0.5):
            effects = 0.8 * rng.standard_normal((1, n_questions, 3, width))
            noise = rng.standard_normal((n_instructions, n_questions, 3, width))
            rows.append((sign * truth + effects + noise).reshape(-1, 3, width).astype(np.float32))
        found = rows[0].mean(axis=0) - rows[1].mean(axis=0)
        angle = np.degrees(np.arccos(found[1] @ truth / 3.0 / np.linalg.norm(found[1])))
        difference = {"mean_diff": found}
        quality = vector_quality(difference, rows[0], rows[1], rows=(side, side))
        inside.append(angle <= (quality.mean_difference.angle_upper_degrees[1] or 90))

    assert np.mean(inside) >= 0.9


def test_intervals_cover_the_truth_where_questions_have_effects_of_their_own() -> None:
    n_instructions, n_questions, n_rollouts, gap, effect = 4, 20, 2, 1.5, 0.6
    labels = np.indices((n_instructions, n_questions)).reshape(2, -1).repeat(n_rollouts, axis=1)
    instruction, question = labels.tolist()
    apart = gap / math.hypot(1, effect)
    truth = {
        "cohens_d": apart,
        "auroc": 0.5 * (1 + math.erf(apart / 2)),
        "accuracy": 0.5 * (1 + math.erf(apart / math.sqrt(8))),
    }
    covered: dict[str, list[bool]] = {name: [] for name in (*truth, "length")}

    for seed in range(200):
        rng = np.random.default_rng(seed)
        found, rows = [], []
        for sign in (0.5, -0.5):
            # of one coordinate, so that every direction is the true one; and of a covariate
            effects = effect * rng.standard_normal((n_questions, 2))[question]
            drawn = sign * gap + effects + rng.standard_normal((len(question), 2))
            found.append(drawn[:, :1, None].astype(np.float32))
            nothing = np.zeros(len(question))
            rows.append(KeptRows(instruction, question, drawn[:, 1], nothing, nothing))
        quality = quality_of(found[0], found[1], rows=(rows[0], rows[1]), seed=seed)
        half = quality.methods["mean_diff"].held_out_half
        length = quality.confounds["response_length"]
        assert half is not None and length.auroc is not None
        ends = {name: getattr(half, name).interval[0] for name in truth}
        ends["length"] = length.auroc.interval
        for name, (low, high) in ends.items():
            covered[name].append(low <= truth.get(name, truth["auroc"]) <= high)

    shares = {name: float(np.mean(one)) for name, one in covered.items()}
    # the accuracy of few rows takes few values
    assert all(0.9 <= share <= 0.995 for share in shares.values()), shares
