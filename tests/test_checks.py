"""Protects the tests of a vector: held-out questions, the search for a push, the dose-response."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from domain.plan.samples import ANY_POLARITY, CONFIRMATION, POLARITIES, Sample
from domain.plan.spec import NO_JUDGE, ChecksSpec, JudgeSpec
from domain.plan.steering_search import (
    Cell,
    Shown,
    best_confirmed_cell,
    confirmed_steering_cells,
    first_steering_cells,
    steering_layers,
    surviving_steering_cells,
)
from domain.verdict.gates import with_verdict
from domain.verdict.record import (
    PARTS,
    Bounds,
    CausalFigures,
    Estimate,
    Estimates,
    Gate,
    JudgingFacts,
    LikelihoodFigures,
    PolarityCounts,
    Quality,
    ReadingFigures,
    Severity,
    TraitMetrics,
    VerdictName,
)
from domain.verdict.steering import steering_findings
from storage.files.trait_files import load_trait
from storage.record.results import damaged_results, read_metrics
from storage.record.store import open_store
from tasks.stages.checks import Answered, causal_figures, evaluation_figures
from tasks.stages.steering_cells import Directions
from tests.quality_records import evaluated, read, separation, steered
from tests.quality_records import metrics as metrics_with
from tests.quality_records import quality as good_quality
from tests.stored_run import PLANTED_LAYER, stored_run
from tests.trait_texts import write
from traitlens.arrays import Labels
from traitlens.assess.dose_response import Answers, dose_response
from traitlens.assess.reading import FoldedDirections
from traitlens.stats.correlation import weighted_correlation
from traitlens.stats.crossed import crossed_interval, weighted_mean
from traitlens.stats.intervals import Interval
from traitlens.vectors.files import load_vectors

CHECKS = ChecksSpec(evaluation=2, causal=12)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checked") / "run"
    stored_run(folder, traits="evil", methods=("mean_diff", "probe"), checks=CHECKS)
    return folder


def quality(folder: Path) -> Quality:
    found = metrics(folder).quality
    assert found is not None
    return found


def metrics(folder: Path) -> TraitMetrics:
    return read_metrics(open_store(str(folder)), "evil")


def test_the_vectors_are_tested_on_questions_that_they_were_not_made_from(checked: Path) -> None:
    tested = quality(checked).evaluation

    assert tested is not None
    assert tested.n_questions == 6
    left_out = tested.left_out_instruction_auroc
    assert left_out is not None and (left_out.interval[PLANTED_LAYER][0] or 0) > 0.5
    assert set(tested.methods) == {"mean_diff", "probe"}
    for one in tested.methods.values():
        assert one.separation is not None and one.correlation is not None
        auroc = one.separation.auroc.at(PLANTED_LAYER)
        low, high = auroc.interval
        assert auroc.value is not None and low is not None and high is not None
        assert 0.5 < low < auroc.value <= high
        assert (one.correlation.at(PLANTED_LAYER).interval[0] or 0) > 0.5
    separation = tested.methods["mean_diff"].separation
    assert separation is not None and (separation.auroc.value[0] or 1) < 0.9
    table = pd.read_parquet(checked / "traits" / "evil" / "evaluation.parquet")
    assert set(table["polarity"]) == {"positive", "negative", "plain"}
    assert (
        tested.n.positive == ((table["polarity"] == "positive") & (table["status"] == "kept")).sum()
    )


def test_the_search_ends_at_the_planted_layer_and_its_best_push_is_confirmed(checked: Path) -> None:
    causal = quality(checked).causal

    assert causal is not None
    assert causal.layer == PLANTED_LAYER
    assert (causal.n_searched, causal.n_confirmed) == (9 * 2 + 6 * 4 + 3 * 8, 3 * 12)
    assert (causal.vector.rise.interval[0] or 0) > 20
    assert (causal.rise_over_random.interval[0] or 0) > 20
    low, high = causal.random.slope.interval
    assert low is not None and high is not None
    assert low < 5 and high > -5
    table = pd.read_parquet(checked / "traits" / "evil" / "steering.parquet")
    assert len(table) == causal.n_confirmed
    assert set(table["direction"]) == {"none", "vector", "random"}


def test_a_tested_vector_says_so_in_its_file_and_the_seal_holds(checked: Path) -> None:
    found = metrics(checked)

    noted = load_vectors(checked / "traits" / "evil").provenance.extra["tested"]

    assert found.quality is not None and found.quality.evaluation is not None
    separation = found.quality.evaluation.methods["mean_diff"].between_instructions
    assert separation is not None
    assert noted["held_out_auroc"]["value"] == separation.auroc.value[noted["layer"]]
    assert found.is_checked
    assert damaged_results(open_store(str(checked)), "traits/evil") == []


def test_the_parts_of_a_vector_lie_beside_it_sum_to_it_and_name_the_layers_of_its_uses(
    checked: Path,
) -> None:
    found, folder = metrics(checked), checked / "traits" / "evil"
    whole, text, context = (load_vectors(folder, method=m) for m in ("mean_diff", *PARTS))

    assert found.quality is not None and found.quality.reading is not None
    share = found.quality.reading.text_share
    assert share is not None and 0.4 < (share[PLANTED_LAYER] or 0) < 0.9
    together = text.tensor + context.tensor
    # of a part of the responses, so near the whole and not equal to it
    assert torch.cosine_similarity(together, whole.tensor, dim=1)[PLANTED_LAYER] > 0.9
    for vector in (whole, text, context):
        noted = vector.provenance.extra["tested"]
        assert noted["reading_layer"] == found.uses.reads.layer
        assert noted["steering_layer"] == found.uses.steers.layer


def test_a_vector_that_steers_nothing_is_weak_and_the_gate_says_so(tmp_path: Path) -> None:
    stored_run(tmp_path / "run", traits="evil", checks=CHECKS, effect=0.0)

    found = metrics(tmp_path / "run")

    assert found.verdict == "usable with a doubt"
    assert (found.uses.reads.state, found.uses.steers.state) == ("yes", "no")
    assert Gate.STEERING_UNSURE in [one.gate for one in found.findings]


def test_a_definition_without_evaluation_questions_is_noted(tmp_path: Path) -> None:
    stored_run(tmp_path / "run", traits="evil", checks=CHECKS, n_eval_questions=0, rollouts=8)

    found = metrics(tmp_path / "run")

    assert found.verdict == "usable"
    assert Gate.EVALUATION_NO_QUESTIONS in [one.gate for one in found.findings]


def test_shared_and_parted_questions_are_told_in_the_metrics(tmp_path: Path) -> None:
    body = load_trait("evil").to_json()
    questions: Any = body["questions"]
    shared = {**body, "eval_questions": [*questions[:3], *load_trait("evil").eval_questions]}
    parted = {"instruction": body["instruction"], "eval_prompt": body["eval_prompt"]}
    parted["questions"] = [*questions, *load_trait("evil").eval_questions]

    for number, data in enumerate((shared, parted)):
        file = write(tmp_path / str(number) / "evil.json", data)
        stored_run(tmp_path / f"run-{number}", traits=str(file), checks=CHECKS)

    first, second = metrics(tmp_path / "run-0"), metrics(tmp_path / "run-1")
    assert (Gate.EVALUATION_SHARED, 3) in [(one.gate, one.value) for one in first.findings]
    assert any("3 of the evaluation questions" in sentence for sentence in first.untested)
    assert (Gate.EVALUATION_PARTED, 20) in [(one.gate, one.value) for one in second.findings]
    assert second.quality is not None and second.quality.evaluation is not None


def test_what_cannot_be_used_is_not_steered_with(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", traits="evil", checks=CHECKS, judge_is_random=True)

    found = metrics(tmp_path / "run")

    assert found.verdict == "do not use"
    assert found.quality is not None and found.quality.causal is None
    assert not run.store.exists("traits/evil/steering.parquet")


NOTHING = {
    "nothing planted, judge at random": {"gap": 0.0, "judge_is_random": True},
    "judge at random": {"judge_is_random": True},
    "nothing planted": {"gap": 0.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTHING)
def test_what_means_nothing_is_not_to_be_used_in_38_of_40_cases(name: str, tmp_path: Path) -> None:
    changes: Any = NOTHING[name]

    verdicts = []
    for seed in range(40):
        folder = tmp_path / str(seed)
        stored_run(folder, traits="evil", checks=CHECKS, effect=0.0, seed=seed, **changes)
        verdicts.append(metrics(folder).verdict)

    assert verdicts.count(VerdictName.DO_NOT_USE) >= 38


def test_layers_to_try_are_the_best_and_the_middle_of_the_model() -> None:
    assert steering_layers(22, range(1, 26)) == [9, 13, 17, 22]
    assert steering_layers(13, range(1, 26)) == [6, 9, 13, 17]
    assert steering_layers(3, range(1, 6)) == [1, 2, 3, 4]
    assert steering_layers(1, range(1, 3)) == [1, 2]


def test_a_round_keeps_the_cells_worth_most_of_the_round_before() -> None:
    cells = first_steering_cells([1, 2])
    worth = {cells[0]: 10.0, cells[1]: 90.0, cells[2]: 50.0, cells[3]: 60.0}
    shown = [Shown(cell, value, 100.0) for cell, value in worth.items()]

    kept = surviving_steering_cells(shown, among=cells[:3], n=2)

    assert kept == [cells[1], cells[2]]


def test_an_unreadable_or_unscored_answer_is_worth_nothing() -> None:
    assert Shown(Cell(1, 1.0), 80.0, 0.0).worth == 0
    assert Shown(Cell(1, 1.0), None, 90.0).worth == 0
    assert Shown(Cell(1, 1.0), 80.0, 50.0).worth == 40


@pytest.mark.parametrize("doses", [1, 2, 3, 4])
def test_the_confirmed_cells_are_no_push_the_vector_and_as_many_random_ones(doses: int) -> None:
    cells = confirmed_steering_cells(Cell(5, 2.0), doses=doses)

    assert len(cells) == 1 + 2 * doses
    assert best_confirmed_cell(cells) == Cell(5, 2.0, "vector")
    pushes = [(c.strength, c.direction) for c in cells]
    assert pushes[0] == (0.0, "none")
    assert [s for s, d in pushes if d == "vector"] == [s for s, d in pushes if d == "random"]


def test_a_random_push_is_as_long_as_the_vectors_and_the_same_for_the_same_answer() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((40, 1, 8))
    drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
    unit, cell = np.eye(8, dtype=np.float32)[:1], Cell(3, 2.0)
    for random in (None, drawn.astype(np.float32)):
        directions = Directions("mean_diff", [3], unit, [1.5], random=random)

        pushes = [directions.random_push(cell, k, name=str(k)) for k in range(40)]

        assert np.linalg.norm(pushes, axis=1) == pytest.approx(3.0)
        assert np.array_equal(pushes[7], directions.random_push(cell, 7, name="7"))
        assert np.linalg.matrix_rank(np.stack(pushes)) == 8


def answers(
    seed: int, *, slope: float, n_questions: int = 20, spread: float = 8.0, drop: float = 5.0
) -> Answers:
    """Scores that rise by `slope` a strength, a level and a slope of its own for each question."""
    rng = np.random.default_rng(seed)
    strength = np.repeat([0.0, 0.5, 1.0, 2.0, 3.0], n_questions)
    question = np.tile(np.arange(n_questions), 5)
    level = rng.normal(20, spread, n_questions)[question]
    steep = slope + rng.normal(0, spread / 2, n_questions)[question]
    return Answers(
        strength=strength,
        trait=level + steep * strength + rng.normal(0, spread, len(strength)),
        coherence=90 - drop * strength + rng.normal(0, 5, len(strength)),
        question=question.tolist(),
    )


@pytest.mark.parametrize("n_questions", [4, 8, 12, 20])
def test_the_intervals_of_slope_and_rise_cover_the_truth_in_200_data_sets(n_questions: int) -> None:
    slopes, rises = [], []

    for seed in range(200):
        shown = answers(seed, slope=15.0, n_questions=n_questions)
        found = dose_response(shown, floor=50.0, best=2.0)
        slopes.append(float(found.slope.low) <= 15.0 <= float(found.slope.high))
        rises.append(float(found.rise.low) <= 30.0 <= float(found.rise.high))

    assert 0.9 <= np.mean(slopes) <= 0.99
    assert 0.9 <= np.mean(rises) <= 0.99


@pytest.mark.parametrize("n_questions", [6, 8, 12, 20])
def test_the_interval_of_a_correlation_covers_the_truth_in_200_data_sets(n_questions: int) -> None:
    covered = []

    for seed in range(200):
        x, noise = np.random.default_rng(seed).standard_normal((2, n_questions))
        found = crossed_interval(
            weighted_correlation(x[:, None], 0.6 * x + 0.8 * noise),
            np.zeros(n_questions),
            range(n_questions),
        )
        covered.append(bool(np.tanh(found.low[0]) <= 0.6 <= np.tanh(found.high[0])))

    assert 0.9 <= np.mean(covered) <= 0.99


def test_the_curve_ends_where_answers_are_no_longer_readable() -> None:
    found = dose_response(answers(0, slope=15.0, drop=25.0), floor=50.0, best=3.0)

    assert found.rise_at == 1.0
    assert found.slope.value == pytest.approx(
        np.polyfit([0.0, 0.5, 1.0], found.trait.value[:3], 1)[0]
    )


def test_a_push_that_no_answer_survives_has_no_rise() -> None:
    found = dose_response(answers(0, slope=15.0, drop=200.0), floor=50.0, best=3.0)

    assert found.rise_at is None
    assert np.isnan(found.rise.value) and np.isnan(found.slope.value)


def test_answers_to_one_question_count_as_one_observation() -> None:
    level = np.random.default_rng(0).normal(0, 10, 10)
    values = np.repeat(level, 20)

    def interval(questions: Labels) -> Interval:
        return crossed_interval(lambda w: weighted_mean(values, w), np.zeros(200), questions)

    shared, alone = interval(np.repeat(range(10), 20).tolist()), interval(range(200))

    assert shared.high - shared.low > 3 * (alone.high - alone.low)


def answered(seed: int) -> Answered:
    """Coordinate 0 reads the instruction, coordinate 1 what the judge scores, which the instruction
    changes too."""
    rng = np.random.default_rng(seed)
    asked = [(p, (q + k) % 5, q) for k in range(2) for q in range(20) for p in ANY_POLARITY]
    sign = np.array([{"positive": 1.0, "negative": -1.0, "plain": 0.0}[p] for p, *_ in asked])
    shown = 0.66 * sign + rng.standard_normal(len(asked))
    noise = rng.standard_normal((len(asked), 2))
    states = np.stack([3 * sign + noise[:, 0], shown + noise[:, 1]], axis=1)
    return Answered(
        activations=states[:, None].astype(np.float32),
        polarity=[p for p, *_ in asked],
        is_example=np.array(20 * shown * sign > 10),
        is_readable=np.ones(len(asked), bool),
        trait=50 + 20 * shown,
        prompts=[(i, q) for _, i, q in asked],
    )


def test_a_vector_that_reads_the_instruction_alone_does_not_follow_the_judge_within_it() -> None:
    vectors = {"instruction": np.array([[1.0, 0.0]]), "trait": np.array([[0.0, 1.0]])}
    reached: dict[str, list[float]] = {"pooled": [], "within": []}

    for seed in range(20):
        tested = evaluation_figures(vectors, answered(seed)).methods
        own, follows = tested["instruction"], tested["trait"].correlation_within
        assert own.correlation and own.correlation_within and follows
        reached["pooled"].append(own.correlation.value[0] or 0)
        reached["within"].append(own.correlation_within.interval[0][0] or 0)
        assert (own.correlation.interval[0][0] or 0) > 0
        assert (follows.interval[0][0] or 0) > 0

    assert np.mean(reached["pooled"]) == pytest.approx(0.44, abs=0.05)
    # one in forty by chance
    assert (np.array(reached["within"]) > 0).sum() <= 3


def test_a_direction_of_instructions_alone_does_not_hold_for_one_that_was_left_out() -> None:
    """Beside a trait that all pairs share each pair differs along an axis of its own."""
    rng = np.random.default_rng(0)
    asked = [(p, k % 5, k) for k in range(20) for p in POLARITIES for _ in range(3)]
    sign = np.array([1.0 if p == "positive" else -1.0 for p, *_ in asked])
    instruction = np.array([i for _, i, _ in asked])
    states = 0.3 * rng.standard_normal((len(asked), 2, 6))
    states[np.arange(len(asked)), :, 1 + instruction] += 3 * sign[:, None]
    states[:, 1, 0] += sign
    rows, labels = states.astype(np.float32), instruction.tolist()
    directions = FoldedDirections(range(5), 5)
    directions.add(rows, is_pos=sign > 0, labels=labels)
    answered = Answered(
        activations=rows,
        polarity=[p for p, *_ in asked],
        is_example=np.ones(len(asked), bool),
        is_readable=np.ones(len(asked), bool),
        trait=50 + 30 * sign,
        prompts=[(i, q) for _, i, q in asked],
    )
    vectors = {"mean_diff": rows[sign > 0].mean(0) - rows[sign < 0].mean(0)}

    found = evaluation_figures(vectors, answered, without_instruction=directions)

    own, left_out = found.methods["mean_diff"].readable, found.left_out_instruction_auroc
    assert own is not None and left_out is not None
    assert min(one or 0 for one in own.auroc.value) > 0.99
    # at layer 0 there is no trait
    assert abs((left_out.value[0] or 0) - 0.5) < 0.15
    assert (left_out.interval[1][0] or 0) > 0.85


def test_the_share_of_the_scores_that_lies_within_instructions_is_known() -> None:
    vectors = {"trait": np.array([[0.0, 1.0]])}
    found = [evaluation_figures(vectors, answered(seed)).score_within or 0 for seed in range(20)]

    # of conditions 0.66 apart beside a standard deviation of 1, less what 11 means take up
    assert np.mean(found) == pytest.approx((1 - 11 / 120) / (1 + 0.66**2 * 2 / 3), abs=0.03)


def test_all_readable_responses_count_and_not_those_alone_that_the_judge_called_extreme() -> None:
    vectors = {"trait": np.array([[0.0, 1.0]])}
    reached: dict[str, list[float]] = {"examples": [], "readable": []}

    for seed in range(20):
        own = evaluation_figures(vectors, answered(seed)).methods["trait"]
        assert own.separation and own.readable
        reached["examples"].append(own.separation.auroc.value[0] or 0)
        reached["readable"].append(own.readable.auroc.value[0] or 0)

    # the truth is that of normal projections 1.32 apart with a standard deviation of 1.41
    assert np.mean(reached["readable"]) == pytest.approx(0.745, abs=0.03)
    assert np.mean(reached["examples"]) > 0.85


DOUBT = "usable with a doubt"
FAILED = (Severity.FATAL, Severity.WEAK, Severity.DOUBT)
READ_NOT = [Gate.READING_NOT_SHOWN, Gate.NO_USE_SHOWN]


@pytest.mark.parametrize(
    ("tested", "causal", "name", "gate"),
    [
        ({}, steered(), "usable", None),
        # what is fatal for reading is a doubt of what surely steers, and fatal alone
        ({"held_out": (0.95, 0.45)}, steered(), DOUBT, Gate.EVALUATION_CHANCE),
        ({"held_out": (0.95, 0.45)}, None, "do not use", Gate.EVALUATION_CHANCE),
        ({"follows": (0.1, -0.2)}, steered(), DOUBT, Gate.JUDGE_NOT_FOLLOWED),
        ({"follows": (0.1, -0.2)}, None, "do not use", Gate.JUDGE_NOT_FOLLOWED),
        # scores that hardly differ within instructions cannot be followed there
        ({"follows": (0.1, -0.2), "score_within": 0.05}, None, "usable", None),
        ({"held_out": (0.69, 0.55)}, steered(), DOUBT, Gate.EVALUATION_LOW),
        # of before there were figures of all readable responses
        ({"held_out": (0.69, 0.55), "is_former": True}, None, "weak", Gate.EVALUATION_LOW),
        ({"held_out": (0.69, 0.55)}, None, "weak", Gate.EVALUATION_LOW),
        ({"held_out": (0.85, 0.7)}, steered(), "usable", None),
        # of all readable responses, whatever those reach that the vector is made from
        ({"instruction": (0.55, 0.4)}, steered(), DOUBT, Gate.INSTRUCTIONS_CHANCE),
        ({"instruction": (0.65, 0.55)}, None, "weak", Gate.INSTRUCTIONS_LOW),
        ({"too_few": True}, steered(), DOUBT, Gate.EVALUATION_FEW),
        ({}, steered(2.0, 5.0, -1.0, -2.0), DOUBT, Gate.STEERING_UNSURE),
        ({}, steered(2.0, 9.0, 3.0, -2.0), DOUBT, Gate.STEERING_RANDOM),
        ({}, steered(None, None, None, None), DOUBT, Gate.STEERING_UNREADABLE),
        ({}, steered(2.0, 50.0, None, None), DOUBT, Gate.STEERING_ONE_QUESTION),
        (None, None, "usable", None),
    ],
)
def test_each_gate_on_the_checks_decides_and_is_named(
    tested: dict[str, Any] | None, causal: CausalFigures | None, name: str, gate: Gate | None
) -> None:
    found = None if tested is None else evaluated(**tested)

    decided = with_verdict(metrics_with(quality=good_quality(evaluation=found, causal=causal)))

    failed = [one for one in decided.findings if one.severity in FAILED]
    assert decided.verdict == name
    assert [one.gate for one in failed] == [gate][: bool(gate)]
    assert len(decided.reasons) == len(failed)


IDLE = steered(2.0, 5.0, -1.0, -2.0)


@pytest.mark.parametrize(
    ("reading", "causal", "uses", "name", "gates"),
    [
        (read(), steered(), ("yes", "yes"), "usable", []),
        (read((0.65, 0.55)), None, ("doubt", "untested"), DOUBT, [Gate.READING_LOW]),
        (read((0.9, 0.45)), steered(), ("doubt", "yes"), DOUBT, [Gate.READING_LOW]),
        (read(p=0.2), steered(), ("no", "yes"), DOUBT, [Gate.READING_NOT_SHOWN]),
        (read(), IDLE, ("yes", "no"), DOUBT, [Gate.STEERING_UNSURE]),
        (None, steered(), ("untested", "yes"), "usable", []),
        (read(p=0.2), None, ("no", "untested"), "weak", READ_NOT),
        (None, IDLE, ("untested", "no"), "weak", [Gate.STEERING_UNSURE, Gate.NO_USE_SHOWN]),
        (None, None, ("untested", "untested"), "weak", [Gate.NO_USE_SHOWN]),
    ],
)
def test_a_vector_is_usable_for_what_is_shown_and_the_rest_is_named(
    reading: ReadingFigures | None,
    causal: CausalFigures | None,
    uses: tuple[str, str],
    name: str,
    gates: list[Gate],
) -> None:
    vectors = good_quality(evaluation=evaluated(), causal=causal, reading=reading)

    decided = with_verdict(metrics_with(quality=vectors))

    assert (decided.uses.reads.state, decided.uses.steers.state) == uses
    assert decided.verdict == name
    assert decided.is_usable == (name != "weak")
    assert [one.gate for one in decided.findings if one.severity in FAILED] == gates
    # the layer of a use is that of its test, else the best in context
    assert decided.uses.reads.layer == (reading.layer if reading else vectors.best.layer)


@pytest.mark.parametrize(
    ("changes", "vectors", "uses", "name"),
    [
        # its own test is passed, and yet the responses are not what they are taken for
        ({"contrast": 5.0}, {}, ("no", "no"), "do not use"),
        ({}, {"angle_upper": 90.0}, ("no", "no"), "do not use"),
        ({}, {"question": (0.55, 0.4)}, ("no", "yes"), DOUBT),
        ({}, {"question": (0.55, 0.4), "causal": IDLE}, ("no", "no"), "do not use"),
    ],
)
def test_no_use_is_shown_that_something_fatal_is_found_against(
    changes: dict[str, Any], vectors: dict[str, Any], uses: tuple[str, str], name: str
) -> None:
    found = good_quality(**{"causal": steered(), **vectors}, evaluation=evaluated())

    decided = with_verdict(metrics_with(quality=found, **changes))

    assert (decided.uses.reads.state, decided.uses.steers.state) == uses
    assert decided.verdict == name


def bounded(value: float, low: float) -> Bounds:
    """Between what a figure would be at worst, with the low end of its interval, and 100."""
    ends = (Estimate(value=v, interval=(v - low, 100.0)) for v in (value, 100.0))
    return Bounds(n=5, lowest=next(ends), highest=next(ends))


@pytest.mark.parametrize(
    ("contrast", "auroc", "rise", "of"),
    [
        (bounded(60.0, 10.0), (0.95, 0.9), bounded(30.0, 20.0), []),
        (bounded(35.0, 10.0), None, None, ["weak"]),
        (bounded(15.0, 10.0), None, None, ["do not use"]),
        (bounded(60.0, 70.0), None, None, ["do not use"]),
        (None, (0.65, 0.55), None, [DOUBT]),
        (None, None, bounded(10.0, 20.0), [DOUBT]),
        # the second makes the verdict no worse than the first does
        (bounded(35.0, 10.0), (0.65, 0.55), None, ["weak"]),
    ],
)
def test_a_verdict_that_hangs_on_unscored_responses_is_a_doubt_that_is_named(
    contrast: Bounds | None, auroc: tuple[float, float] | None, rise: Bounds | None, of: list[str]
) -> None:
    tested = evaluated()
    own = tested.methods["mean_diff"].model_copy(
        update={"with_unscored": auroc and separation(auroc)}
    )
    vectors = good_quality(
        evaluation=tested.model_copy(update={"methods": {"mean_diff": own}}),
        causal=steered().model_copy(update={"rise_bounds": rise}),
    )

    decided = with_verdict(metrics_with(quality=vectors, contrast_bounds=contrast))

    found = [one for one in decided.findings if one.gate == Gate.UNSCORED_DECIDE]
    assert [one.best for one in found] == of
    assert decided.verdict == (DOUBT if of else "usable")
    assert len(decided.reasons) == len(of)


def test_what_is_no_better_than_weak_hangs_on_nothing() -> None:
    decided = with_verdict(metrics_with(contrast=30.0, contrast_bounds=bounded(15.0, 10.0)))

    assert decided.verdict == "weak"
    assert Gate.UNSCORED_DECIDE not in {one.gate for one in decided.findings}


def test_an_unscored_answer_bounds_the_rise_from_both_sides() -> None:
    cells = [Cell(0, 0.0, "none"), Cell(1, 2.0, "vector"), Cell(1, 2.0, "random")]
    scored, missing = [], []
    for question in range(12):
        for k, (cell, trait) in enumerate(zip(cells, (20.0, 80.0, 20.0), strict=True)):
            sample = Sample("evil", "plain", 0, question, 0, "confirmation", k)
            missing.append(question == 0)
            scored.append((sample, cell, None if question == 0 else trait, 90.0))

    told = {"method": "mean_diff", "best": cells[1], "step": 1.0}
    found = causal_figures(scored, [], **told, is_missing=missing)  # type: ignore[arg-type]
    whole = causal_figures(scored, [], **told)  # type: ignore[arg-type]

    assert found.vector.rise.value == pytest.approx(60)
    bounds, over = found.rise_bounds, found.rise_over_random_bounds
    assert bounds is not None and over is not None and bounds.n == 3
    # 11 answers a side as they are, the twelfth at the ends
    ends = [80 * 11 / 12 - (20 * 11 + 100) / 12, (80 * 11 + 100) / 12 - 20 * 11 / 12]
    assert [bounds.lowest.value, bounds.highest.value] == pytest.approx(ends)
    assert [over.lowest.value, over.highest.value] == pytest.approx(ends)
    assert whole.rise_bounds is None


@pytest.mark.parametrize(
    ("reading", "name"), [(read(), DOUBT), (read(p=0.2), "weak"), (None, "weak")]
)
def test_what_nobody_judged_is_never_better_than_usable_with_a_doubt(
    reading: ReadingFigures | None, name: str
) -> None:
    nobody = JudgeSpec(model=NO_JUDGE, url=NO_JUDGE)
    judging = JudgingFacts(judgement="first", judge=nobody, mode=None)
    vectors = good_quality(evaluation=evaluated(follows=None), causal=None, reading=reading)

    decided = with_verdict(
        metrics_with(quality=vectors, judging=judging, contrast=None, contrast_interval=None)
    )

    assert decided.verdict == name
    lacks = {one.gate for one in decided.findings}
    assert Gate.NOT_JUDGED in lacks
    assert not lacks & {Gate.CONTRAST_UNKNOWN, Gate.CORRELATION_FEW}


def test_intervals_of_scores_stay_where_scores_can_be() -> None:
    cells = [Cell(0, 0.0, "none"), Cell(3, 1.0, "vector"), Cell(3, 1.0, "random")]
    scored = [
        (Sample("evil", "plain", 0, question, 0, CONFIRMATION, k), cell, 100.0 * question, 90.0)
        for k, cell in enumerate(cells)
        for question in (0, 1)
    ]

    found = causal_figures(scored, [], method="mean_diff", best=cells[1], step=1.0)

    assert found.vector.trait.interval == ((0.0, 100.0),) * 2
    for low, high in (found.vector.rise.interval, found.rise_over_random.interval):
        assert low is not None and high is not None
        assert -100.0 <= low <= high <= 100.0


def test_a_question_goes_backwards_where_its_own_answers_show_less_than_without_a_push() -> None:
    cells = [Cell(3, 0.0, "none"), Cell(3, 2.0, "vector"), Cell(3, 2.0, "random")]
    without = {0: (50.0, 70.0), 1: (10.0, 10.0), 2: (80.0, 80.0), 3: (30.0, 30.0)}
    pushed = {0: (50.0, 71.0), 1: (10.0, 30.0), 2: (90.0, 60.0), 3: (90.0, None)}
    scored = [
        (Sample("evil", "plain", 0, question, rollout, CONFIRMATION, k), cell, score, 90.0)
        for k, cell in enumerate(cells)
        for question, both in (pushed if k == 1 else without).items()
        for rollout, score in enumerate(both)
    ]

    found = causal_figures(scored, [], method="mean_diff", best=cells[1], step=1.0).backwards

    low, high = found.interval
    assert found.value == 0.25
    assert low is not None and high is not None and 0 < low < 0.1 and 0.6 < high < 0.8


@pytest.mark.parametrize(
    ("p", "rise", "gates"),
    [
        (0.01, (50.0, 30.0), {}),
        (0.2, (50.0, 30.0), {Gate.LIKELIHOOD_CHANCE: Severity.NOTE}),
        (
            0.2,
            (5.0, -1.0),
            {Gate.LIKELIHOOD_CHANCE: Severity.WEAK, Gate.STEERING_UNSURE: Severity.WEAK},
        ),
        (0.2, None, {Gate.LIKELIHOOD_CHANCE: Severity.WEAK}),
        (0.01, None, {}),
    ],
)
def test_a_vector_that_neither_the_judge_nor_the_likelihoods_see_steer_is_named(
    p: float, rise: tuple[float, float] | None, gates: dict[Gate, Severity]
) -> None:
    causal = None if rise is None else steered(2.0, *rise, 1.0)
    likelihood = LikelihoodFigures(
        method="mean_diff",
        layer=1,
        p=p,
        z=(None, 1.0),
        gain=Estimates(value=(0.1, 0.1), interval=((0.0, 0.2),) * 2),
        n_texts=PolarityCounts(positive=18, negative=18),
        n_questions=20,
        n_random=999,
        most_tokens=40,
    )

    found = steering_findings(good_quality(causal=causal, likelihood=likelihood))

    assert {one.gate: one.severity for one in found} == gates
