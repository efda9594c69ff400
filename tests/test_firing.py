"""Protects the matrix of which vector fires on which trait's answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cli.pages.firing import fired
from cli.pages.report_data import report_snippet, reported_metrics
from domain.plan.samples import EVALUATION
from domain.plan.spec import ChecksSpec
from domain.verdict.record import Best
from domain.verdict.uses import use_layers
from storage.record.responses import load_activations
from storage.record.results import read_response_vectors
from tasks.stages.vectors import stored_vectors, vector_key
from tests.quality_records import LAYER, quality, read, steered
from tests.stored_run import stored_run
from traitlens.vectors.files import to_safetensors_bytes


def test_a_vector_fires_on_its_own_traits_answers_and_as_promised_on_neutral_ones(
    tmp_path: Path,
) -> None:
    run = stored_run(
        tmp_path, gap=10.0, checks=ChecksSpec(evaluation=1, causal=4), n_eval_questions=20
    )
    metrics = reported_metrics(run)

    found = fired(run, metrics)

    assert found is not None and found["traits"] == ["evil", "refusal"]
    own = [found["share"][k][k] for k in range(2)]
    other = [found["share"][k][1 - k] for k in range(2)]
    assert min(own) > 0.7 and max(other) < 0.4
    assert (found["n_neutral"], max(found["neutral"]) < 0.2) == (40, True)


def test_a_cell_is_the_share_over_what_one_neutral_answer_in_twenty_exceeds(tmp_path: Path) -> None:
    run = stored_run(
        tmp_path, gap=1.0, checks=ChecksSpec(evaluation=1, causal=4), n_eval_questions=20
    )
    metrics = reported_metrics(run)

    found = fired(run, metrics)

    assert found is not None
    evil = metrics[0].quality
    assert evil is not None
    layer = use_layers(evil, evil.best.method)[0]
    vector = read_response_vectors(run.store, "evil", evil.best.method)[layer]
    projected: dict[str, list[float]] = {"plain": [], "positive": []}
    for trait in run.spec.traits:
        for job in run.plan.part_jobs(trait, "generate", EVALUATION):
            rows = load_activations(run.store, job).response_avg[:, layer] @ vector
            for sample, value in zip(run.plan.samples(job), rows, strict=True):
                is_own = sample.polarity != "positive" or trait.name == "evil"
                if is_own and sample.polarity in projected:
                    projected[sample.polarity].append(float(value))
    limit = sorted(projected["plain"])[int(np.ceil(41 * 0.95)) - 1]
    expected = np.mean(np.array(projected["positive"]) > limit)
    assert abs(found["share"][0][0] - expected) < 0.11


def test_a_vector_of_no_length_never_fires_and_the_others_do(tmp_path: Path) -> None:
    run = stored_run(
        tmp_path, gap=10.0, checks=ChecksSpec(evaluation=1, causal=0), n_eval_questions=20
    )
    metrics = reported_metrics(run)
    evil = metrics[0].quality
    assert evil is not None
    (own,) = stored_vectors(run, evil, "traits/evil").values()
    nothing = replace(own, vectors={name: one * 0 for name, one in own.vectors.items()})
    run.store.write(vector_key("traits/evil", evil.best.method), to_safetensors_bytes(nothing))

    found = fired(run, metrics)

    assert found is not None
    assert [share[0] for share in found["share"]] == [0.0, 0.0]
    assert found["share"][1][1] > 0.7


def test_too_few_neutral_questions_give_no_matrix(tmp_path: Path) -> None:
    few = stored_run(tmp_path, checks=ChecksSpec(evaluation=1, causal=4), n_eval_questions=6)

    assert fired(few, reported_metrics(few)) is None


def test_what_loads_a_vector_reads_and_steers_at_the_layer_of_each_use() -> None:
    best = Best(method="mean_diff", layer=4, by_method={"mean_diff": 4}, rule="a rule")
    both = quality(reading=read(layer=2), causal=steered(), best=best)

    snippet = report_snippet("runs/r", "evil", both)

    assert "v.at(2)" in snippet
    assert f"layer={LAYER}, " in snippet
