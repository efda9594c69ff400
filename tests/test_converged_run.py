"""Protects `--until converged`: it stops early, pays for nothing more, and what counts follows from
the record alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from domain.plan.readiness import WaveEnd
from domain.plan.samples import POLARITIES
from storage.record.artifacts import jobs_with_artifacts
from storage.record.judged_samples import training_jobs
from storage.record.results import read_metrics
from storage.record.run import Run, open_run
from storage.record.store import open_store
from tests.fleet import run_command
from traitlens.vectors.files import load_vectors

SIZE = ["--traits", "evil", "--questions", "10", "--rollouts", "2"]
WAVE = 10
FULL = 2 * 5 * 10 * 2


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs: Path) -> Run:
    where = ["--runs-dir", str(runs), "--run", "enough"]
    ended = run_command("extract", *SIZE, *where, "--until", "converged")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return open_run(open_store(str(runs / "enough")))


def last_look(run: Run) -> dict[str, Any]:
    marks = [key for key in run.store.list("traits/evil/converge") if "/stop-" in key]
    assert len(marks) == 1
    info: dict[str, Any] = json.loads(run.store.read(marks[0]))["info"]
    return info


def test_it_stops_when_the_angle_is_small_and_says_so(run: Run) -> None:
    look = last_look(run)

    assert look["converged"]
    assert max(look["degrees"]) <= 10
    assert min(look["n_kept"].values()) >= 30
    # in the metrics too, and so in the report
    stopping = read_metrics(run.store, "evil").stopping
    assert stopping is not None
    assert stopping.model_dump(mode="json") == {**look, "n_planned": FULL}
    assert stopping.end == WaveEnd.ENOUGH


def test_no_score_is_paid_after_the_last_wave_and_one_wave_was_ahead_at_most(run: Run) -> None:
    trait, done = run.spec.trait("evil"), jobs_with_artifacts(run.store, ["evil"])
    last = last_look(run)["wave"]

    shards = {
        stage: {
            job.shard for job in run.plan.part_jobs(trait, stage, *POLARITIES) if job.key in done
        }
        for stage in ("generate", "judge")
    }

    assert shards["judge"] == set(range(last + 1))
    assert shards["generate"] <= set(range(last + 2))
    assert (last + 1) * 2 * WAVE < 0.6 * FULL


def test_only_the_waves_up_to_the_last_count(run: Run) -> None:
    last = last_look(run)["wave"]
    jobs = training_jobs(run, run.spec.trait("evil"), "generate")

    table = pd.read_parquet(Path(run.store.url) / "traits/evil/responses.parquet")

    expected = {sample.key for job in jobs for sample in run.plan.samples(job)}
    assert set(table["key"]) == expected
    assert len(table) == (last + 1) * 2 * WAVE


def test_running_it_again_generates_nothing_and_gives_the_same(run: Run, runs: Path) -> None:
    before = jobs_with_artifacts(run.store, ["evil"])
    vector = load_vectors(runs / "enough" / "traits" / "evil").tensor

    ended = run_command("resume", "enough", "--runs-dir", str(runs))

    assert ended.returncode == 0, ended.stderr
    assert jobs_with_artifacts(run.store, ["evil"]) == before
    assert torch.equal(load_vectors(runs / "enough" / "traits" / "evil").tensor, vector)


@pytest.mark.slow
def test_its_direction_is_that_of_the_whole_run(run: Run, runs: Path) -> None:
    ended = run_command("extract", *SIZE, "--runs-dir", str(runs), "--run", "whole")
    assert ended.returncode == 0, ended.stderr

    enough, whole = (load_vectors(runs / name / "traits" / "evil") for name in ("enough", "whole"))

    metrics = json.loads((runs / "whole/traits/evil/metrics.json").read_text())
    assert enough.cosine(whole)[metrics["quality"]["best"]["layer"]] > 0.99
