"""Protects the tests of a vector in a run: held-out questions, the search, and what they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from domain.plan.spec import ChecksSpec
from domain.verdict.record import (
    PARTS,
    Gate,
    Quality,
    TraitMetrics,
    VerdictName,
)
from storage.files.trait_files import load_trait
from storage.record.results import damaged_results, read_metrics
from storage.record.store import open_store
from tests.stored_run import PLANTED_LAYER, stored_run
from tests.trait_texts import write
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


@pytest.mark.parametrize("n_instructions", [1, 3])
def test_one_instruction_pair_is_told_as_why_none_was_left_out(
    n_instructions: int, tmp_path: Path
) -> None:
    stored_run(
        tmp_path / "run", traits="evil", checks=CHECKS, rollouts=8, n_instructions=n_instructions
    )

    found = metrics(tmp_path / "run")

    gates = {one.gate for one in found.findings}
    assert found.n_instructions == n_instructions
    assert (Gate.INSTRUCTIONS_ONE in gates) == (n_instructions == 1)
    assert Gate.INSTRUCTIONS_NOT_LEFT_OUT not in gates
    assert any("one instruction pair" in one for one in found.untested) == (n_instructions == 1)


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
