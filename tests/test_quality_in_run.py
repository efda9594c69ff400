"""Protects the quality written beside vectors: the truth is found, nothing is called nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.pages.content import finished_metrics
from domain.verdict.gates import (
    LeftOut,
    VectorFacts,
    VerdictInputs,
    vector_facts,
    vector_gates,
    vector_notes,
    verdict,
)
from storage.record.metrics import read_metrics
from tests.stored_run import PLANTED_LAYER, stored_run
from traitlens.assess.cosines import trait_cosines
from traitlens.assess.kept_rows import KeptRows, begins_with_refusal, borrowed_share
from traitlens.assess.quality import (
    best_layers,
    candidate_layers,
    contrast_interval,
    vector_quality,
)
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


def quality_of(pos: np.ndarray, neg: np.ndarray, **changes: Any) -> dict[str, Any]:
    rows = (kept_rows(), kept_rows())
    given = {"vectors": {"mean_diff": mean_diff(pos, neg).vectors}, "rows": rows, **changes}
    return vector_quality(given.pop("vectors"), pos, neg, **given)


def test_the_planted_layer_is_chosen_and_every_gate_passes() -> None:
    quality = quality_of(*sides(gap=5.0))

    facts = vector_facts(quality, {})

    assert quality["best"]["layer"] == facts.layer == 2
    assert vector_gates(facts) == ([], [])
    difference = quality["mean_difference"]
    assert difference["angle_upper_degrees"][2] < 30
    assert difference["split_half_cosine"]["value"][2] > 0.7
    assert difference["leave_one_question_out_auroc"]["interval"][2][0] > 0.9
    assert difference["shuffled_labels_auroc"][2] < 0.75


def test_norms_are_those_of_a_naive_loop() -> None:
    pos, neg = sides(gap=5.0)

    quality = quality_of(pos, neg)

    for layer in range(5):
        rows = [*pos[:, layer].astype(float), *neg[:, layer].astype(float)]
        residual = np.mean([np.linalg.norm(row) for row in rows])
        norm = np.linalg.norm(pos[:, layer].mean(0) - neg[:, layer].mean(0))
        assert quality["residual_norm"][layer] == pytest.approx(residual, rel=1e-5)
        own = quality["methods"]["mean_diff"]
        assert own["norm"][layer] == pytest.approx(norm, rel=1e-4)
        assert own["norm_to_residual"][layer] == pytest.approx(norm / residual, rel=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_labels_at_random_are_not_to_be_used(seed: int) -> None:
    pos, neg = sides(gap=0.0, seed=seed)

    fatal, _ = vector_gates(vector_facts(quality_of(pos, neg), {}))

    assert fatal


def test_a_direction_that_knows_only_its_instructions_is_named_so() -> None:
    pos, neg = sides(gap=0.0, instruction_noise=3.0)

    fatal, weak = vector_gates(vector_facts(quality_of(pos, neg), {}))

    assert any("left-out instructions" in reason for reason in fatal)
    assert not any("left-out questions" in reason for reason in [*fatal, *weak])


def test_a_planted_confound_of_length_is_noted_and_a_harmless_one_is_not() -> None:
    pos, neg = sides(gap=5.0)
    rng = np.random.default_rng(1)
    lengths = [rng.normal(mean, 20, N) for mean in (120, 60)]
    for side, length in zip((pos, neg), lengths, strict=True):
        side[:, 2:, 1] += 0.2 * length[:, None]
    rows = (kept_rows(lengths[0]), kept_rows(lengths[1]))

    quality = quality_of(pos, neg, rows=rows)

    notes = " ".join(vector_notes(quality, vector_facts(quality, {}), trait="evil"))
    assert "positive responses are longer than negative ones" in notes
    assert "the vector may measure it" in notes
    assert "instruction's words" not in notes
    assert quality["confounds"]["response_length"]["correlation"][2] > 0.5
    assert abs(quality["confounds"]["response_length"]["correlation"][1]) < 0.3


def test_refusals_that_go_with_the_vector_are_noted_unless_the_trait_is_refusal() -> None:
    pos, neg = sides(gap=5.0)
    rows = []
    for side, share in ((pos, 0.9), (neg, 0.1)):
        refuses = (np.random.default_rng(2).random(N) < share).astype(float)
        side[:, 2:, 1] += 20 * refuses[:, None]
        rows.append(dataclasses.replace(kept_rows(), refusal_words=refuses))

    quality = quality_of(pos, neg, rows=(rows[0], rows[1]))

    facts = vector_facts(quality, {})
    notes = " ".join(vector_notes(quality, facts, trait="evil"))
    assert "positive responses begin with words of refusal more often than negative ones" in notes
    assert "the vector may measure it" in notes
    assert "words of refusal" not in " ".join(vector_notes(quality, facts, trait="refusal"))


def test_a_best_fit_that_did_not_converge_is_noted() -> None:
    pos, neg = sides(gap=5.0)
    quality = quality_of(pos, neg, vectors={"ica": mean_diff(pos, neg).vectors})

    def notes(converged: float) -> str:
        fits = {"ica": {"response_avg": {"converged": [1.0, 1.0, converged, 1.0, 1.0]}}}
        return " ".join(vector_notes(quality, vector_facts(quality, fits), trait="evil"))

    assert quality["best"]["layer"] == 2
    assert "the fit of ica at layer 2 did not converge" in notes(0.0)
    assert "converge" not in notes(1.0)


@pytest.mark.parametrize(
    ("interval", "correlation", "words"),
    [
        ([0.72, 0.85], 0.5, "are longer than negative ones: this alone tells the sides apart"),
        ([0.72, 0.85], 0.5, "the vector may measure it"),
        ([0.72, 0.85], -0.03, "does not go with it within the sides (correlation -0.03)"),
        ([0.1, 0.2], -0.5, "are shorter than negative ones"),
        ([0.1, 0.2], -0.5, "the vector may measure it"),
        ([0.1, 0.2], 0.5, "does not go with it"),
        ([0.6, 0.9], 0.9, ""),
        ([None, None], 0.9, ""),
    ],
)
def test_a_confound_is_noted_where_it_surely_tells_the_sides_apart(
    interval: list[float], correlation: float, words: str
) -> None:
    quality = quality_of(*sides(gap=5.0))
    layer = quality["best"]["layer"]
    length = quality["confounds"]["response_length"]
    length["auroc"] = {"value": 0.8, "interval": interval}
    length["correlation"][layer] = correlation

    notes = vector_notes(quality, vector_facts(quality, {}), trait="evil")

    named = [note for note in notes if "positive responses" in note]
    assert words in " ".join(named)
    assert len(named) == bool(words)


def test_the_difference_between_the_prompts_is_compared_with_the_vector() -> None:
    pos, neg = sides(gap=5.0)
    vectors = mean_diff(pos, neg).vectors

    same = quality_of(pos, neg, prompt_vectors=vectors)["confounds"]["prompt_difference"]

    assert same["cosine"] == pytest.approx([1.0] * 5)
    assert "prompt_difference" not in quality_of(pos, neg)["confounds"]


def test_one_instruction_and_one_question_leave_gaps_and_say_so() -> None:
    pos, neg = sides(gap=5.0)
    alone = KeptRows([0] * 4, [0] * 4, np.arange(4.0), np.zeros(4), np.zeros(4))

    quality = quality_of(pos[:4], neg[:4], rows=(alone, alone))

    facts = vector_facts(quality, {})
    assert "one prompt only" in vector_gates(facts)[1][0]
    assert quality["methods"]["mean_diff"]["held_out_half"] is None
    assert "too few questions" in quality["best"]["rule"]
    assert (facts.question, facts.instruction) == (None, None)
    assert (
        sum("was not possible" in note for note in vector_notes(quality, facts, trait="evil")) == 2
    )
    json.dumps(quality, allow_nan=False)


def test_the_embedding_and_the_last_layer_are_chosen_only_where_nothing_else_is() -> None:
    assert list(candidate_layers(7)) == [1, 2, 3, 4, 5]
    assert list(candidate_layers(3)) == [1]
    assert list(candidate_layers(2)) == [1]


def test_the_best_method_is_the_one_whose_worst_case_is_best() -> None:
    def method(*lows: float | None) -> dict[str, Any]:
        return {"held_out_half": {"cohens_d": {"interval": [[low, 99.0] for low in lows]}}}

    best = best_layers({"a": method(9, 1, 4, 9), "b": method(9, 5, None, 9)})

    assert (best["method"], best["layer"]) == ("b", 1)
    assert best["by_method"] == {"a": 2, "b": 1}


def test_where_one_prompt_leaves_no_interval_the_value_itself_chooses_the_layer() -> None:
    unknown = {"value": [1.0, 2.0, 3.0, 9.0], "interval": [[None, None]] * 4}

    best = best_layers({"a": {"held_out_half": None, "fitted": {"cohens_d": unknown}}})

    assert best["layer"] == 2


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

    shared = contrast_interval(positive, negative, groups=(prompts, prompts))
    alone = [(0, k) for k in range(200)]
    ignoring = contrast_interval(positive, negative, groups=(alone, alone))
    one_question = [(i, 0) for i, _ in prompts]
    by_prompt = contrast_interval(positive, negative, groups=(one_question, one_question))

    assert shared and ignoring and by_prompt
    assert shared[0] < 50 + by_question.mean() < shared[1]
    assert shared[1] - shared[0] > 5 * (ignoring[1] - ignoring[0])
    one = [(0, 0)]
    assert contrast_interval([1.0, 2.0], [0.0], groups=(one * 2, one)) is None


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
        found = contrast_interval(sides[0], sides[1], groups=(prompts, prompts))
        assert found
        covered.append(found[0] <= 50.0 <= found[1])

    assert 0.9 <= np.mean(covered) <= 0.99


def facts(**changes: object) -> VectorFacts:
    good = VectorFacts(
        layer=3,
        is_mean_difference=True,
        n_instructions=5,
        question=LeftOut(0.99, 0.95),
        instruction=LeftOut(0.95, 0.8),
        angle_upper=10.0,
        shuffled=0.6,
        probe_accuracy=0.97,
        has_converged=None,
    )
    return dataclasses.replace(good, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({}, "usable", ""),
        ({"angle_upper": 90.0}, "do not use", "no longer than its sampling noise"),
        ({"angle_upper": None}, "weak", "one prompt only"),
        ({"angle_upper": 60.0}, "weak", "may be 60 degrees off"),
        ({"question": LeftOut(0.7, 0.45)}, "do not use", "left-out questions"),
        ({"question": LeftOut(0.58, 0.52)}, "do not use", "hardly better than chance"),
        ({"question": LeftOut(0.8, 0.7), "shuffled": 0.85}, "do not use", "shuffled labels"),
        ({"question": LeftOut(0.85, 0.7)}, "weak", "AUROC 0.85 on left-out questions"),
        ({"question": LeftOut(1.0, 0.8), "shuffled": 1.0}, "usable", ""),
        ({"instruction": LeftOut(0.55, 0.2)}, "do not use", "instructions' words alone"),
        ({"instruction": LeftOut(0.8, 0.4)}, "weak", "instructions' words alone"),
        ({"instruction": LeftOut(0.8, 0.4), "n_instructions": 3}, "usable", ""),
        ({"angle_upper": 90.0, "is_mean_difference": False}, "weak", "sampling noise"),
        ({"instruction": LeftOut(0.65, 0.55)}, "weak", "on left-out instructions"),
        ({"probe_accuracy": 0.9}, "weak", "held-out accuracy 90%"),
        ({"question": None, "instruction": None, "probe_accuracy": None}, "usable", ""),
    ],
)
def test_each_gate_on_the_vector_decides_and_is_named(
    changes: dict[str, object], name: str, words: str
) -> None:
    inputs = VerdictInputs(100, 0, 40, 40, 70.0, 3.0, contrast_low=60.0, vector=facts(**changes))

    decided, reasons = verdict(inputs)

    assert decided == name
    assert words in " ".join(reasons)


def test_a_contrast_whose_interval_reaches_zero_is_chance() -> None:
    decided, reasons = verdict(VerdictInputs(100, 0, 40, 40, 45.0, 3.0, contrast_low=-1.0))

    assert decided == "do not use"
    assert "reaches 0" in reasons[0]


def test_cosines_between_traits_are_naive_ones_and_the_range_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((2, 3, 400))
    noise = rng.standard_normal((2, 3, 400))
    seen = truth + 0.2 * noise
    angles = {
        name: np.degrees(np.arccos(cosine(t, s))).tolist()
        for name, t, s in zip("ab", truth, seen, strict=True)
    }

    found = trait_cosines({"a": seen[0], "b": seen[1]}, angles)

    for layer in range(3):
        assert found["by_layer"][layer][0][1] == pytest.approx(cosine(seen[0], seen[1])[layer])
        low, high = found["interval"][layer][0][1]
        assert low <= cosine(truth[0], truth[1])[layer] <= high
    assert found["traits"] == ["a", "b"]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cosines: np.ndarray = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return cosines


def test_a_run_writes_its_quality_as_plain_finite_numbers(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", traits="evil", methods=("mean_diff", "probe"))

    metrics = read_metrics(run.store, "evil")

    assert metrics["verdict"] == "usable", metrics["reasons"]
    assert metrics["quality"]["best"]["by_method"]["mean_diff"] == PLANTED_LAYER
    low, high = metrics["contrast_interval"]
    assert low < metrics["contrast"] < high
    assert list(metrics["methods"]) == ["mean_diff", "probe"]
    probe = metrics["methods"]["probe"]["response_avg"]
    assert probe["held_out_acc"][PLANTED_LAYER] > 0.95
    assert len(probe["converged"]) == 5
    assert all(math.isfinite(number) for number in all_numbers(metrics))
    vector = load_vectors(tmp_path / "run" / "traits" / "evil")
    assert list(vector.provenance.residual_norms) == metrics["quality"]["residual_norm"]


def test_a_judge_that_answers_at_random_gives_do_not_use(tmp_path: Path) -> None:
    verdicts = []
    for seed in range(6):
        run = stored_run(tmp_path / str(seed), traits="evil", judge_is_random=True, seed=seed)
        verdicts += [metrics["verdict"] for metrics in finished_metrics(run)]

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
        inside.append(angle <= quality["mean_difference"]["angle_upper_degrees"][1])

    assert np.mean(inside) >= 0.9


def test_a_vector_of_another_method_is_judged_by_itself() -> None:
    left_out = {"value": [0.99], "interval": [[0.95, 1.0]]}
    difference = {
        "angle_upper_degrees": [20.0],
        "shuffled_labels_auroc": [0.6],
        "leave_one_question_out_auroc": left_out,
        "leave_one_instruction_out_auroc": left_out,
    }
    half = {"auroc": {"value": [0.55], "interval": [[0.4, 0.7]]}}
    quality = {
        "position": "response_avg",
        "best": {"method": "ica", "layer": 0, "by_method": {"ica": 0}},
        "mean_difference": difference,
        "methods": {"ica": {"held_out_half": half}},
        "n_instructions": 5,
    }

    fatal, _ = vector_gates(vector_facts(quality, {}))

    assert len(fatal) == 1
    assert "hardly better than chance (AUROC 0.55" in fatal[0]


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
        half = quality["methods"]["mean_diff"]["held_out_half"]
        ends = {name: half[name]["interval"][0] for name in truth}
        ends["length"] = quality["confounds"]["response_length"]["auroc"]["interval"]
        for name, (low, high) in ends.items():
            covered[name].append(low <= truth.get(name, truth["auroc"]) <= high)

    shares = {name: float(np.mean(one)) for name, one in covered.items()}
    assert all(0.9 <= share <= 0.99 for share in shares.values()), shares
