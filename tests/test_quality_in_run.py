"""Protects the quality that a run writes beside its vectors: plain finite numbers, and a judge at
random is found out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cli.pages.report_data import reported_metrics
from domain.plan.spec import ChecksSpec
from domain.scoring.thresholds import Fall, Outcome, outcomes
from domain.verdict.reading import reads_use
from domain.verdict.record import (
    TraitMetrics,
)
from storage.record.judged_samples import judged_samples, training_jobs
from storage.record.results import read_metrics
from tasks.stages.reading import FEWEST_TEXTS, reading_figures
from tasks.stages.reduce import assemble
from tests.planted_sides import (
    quality_of,
    sides,
)
from tests.stored_run import PLANTED_LAYER, stored_run
from traitlens.assess.reading import N_FOLDS
from traitlens.vectors.files import load_vectors


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


def test_noise_does_not_read_where_a_polarity_is_kept_of_one_fold_of_the_questions(
    tmp_path: Path,
) -> None:
    checks = ChecksSpec(evaluation=0, causal=0, contexts=120)
    run = stored_run(tmp_path / "run", traits="evil", rollouts=20, gap=0.0, checks=checks)
    trait, spec = run.spec.trait("evil"), run.spec.filter
    own = outcomes(judged_samples(run, training_jobs(run, trait, "generate")), spec)
    results = [
        (one, Outcome(Fall.TRAIT_LOW, spec.threshold))
        if one.sample.polarity == "positive" and one.sample.question % N_FOLDS
        else (one, outcome)
        for one, outcome in own
    ]
    made = assemble(run, trait, results, spec, methods=("mean_diff",), folder="results/one")
    assert made.quality is not None and made.n_kept.positive > FEWEST_TEXTS

    found = reading_figures(run, trait, made.quality, folder="results/one")

    assert found is not None and found.n.positive >= FEWEST_TEXTS
    assert reads_use(made.quality.model_copy(update={"reading": found})).state == "untested"


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
