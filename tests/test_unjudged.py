"""Protects runs made with `--judge none`: what needs scores says where they come from, all else
uses every response, and a judgement that is made later counts everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import orchestrate
from cli.pages.answers import trait_answers
from domain.errors import OrchestrateError, UsageError
from domain.plan.spec import ChecksSpec, JudgeSpec
from domain.scoring.scores import METRICS, Evidence, Score
from storage.record.artifacts import publish_artifact
from storage.record.judgements import Judgement, add_judgement, judgement_names
from storage.record.results import read_metrics
from storage.record.run import Run
from storage.record.scorings import SCORINGS, encode_scorings
from tasks.stages.reduce import reduce
from tasks.stages.verify import verify
from tests.stored_run import stored_run
from tests.trait_texts import trait_json, write

CHECKS = ChecksSpec(evaluation=2, causal=0, contexts=0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return stored_run(tmp_path / "run", traits="evil", checks=CHECKS, judge_url="none")


def command(run: Run, *words: str) -> Result:
    folder = run.store.url.removesuffix("/run")
    return CliRunner().invoke(orchestrate, [*words, "--runs-dir", folder])


def judged_later(run: Run) -> Run:
    """The run as `rejudge` leaves it: the sides far apart, positives of question 0 less so."""
    judgement = Judgement(name="second", number=2, judge=JudgeSpec(model="j", url="http://h/v1"))
    add_judgement(run, judgement)
    later = replace(run, judgement="second")
    publish_artifact(later.store, later.plan.negotiate_job, files={}, info={"mode": "text"})
    (trait,) = later.spec.traits
    for job in later.plan.part_jobs(trait, "judge"):
        scorings = []
        for sample in later.plan.samples(job):
            shown = {"positive": 95.0 if sample.question else 60.0, "negative": 5.0, "plain": 30.0}
            for metric, value in zip(METRICS, (shown[sample.polarity], 90.0), strict=True):
                score = Score(value=value, numeric_mass=1, refusal_mass=0, evidence=Evidence())
                scorings.append((sample.key, metric, score))
        files = {SCORINGS: encode_scorings(scorings)}
        publish_artifact(later.store, job, files=files, info={"n_verdicts": len(scorings)})
    reduce(later, later.plan.trait_job("reduce", "evil"))
    verify(later, later.plan.trait_job("verify", "evil"))
    return later


@pytest.mark.parametrize(
    "words",
    [
        ("agreement", "run"),
        ("agreement", "run", "--second", "first"),
        ("rejudge", "run", "--only", "unscored"),
        ("refilter", "run", "--threshold", "60"),
        ("plan", "--traits", "evil", "--pilot", "run"),
    ],
    ids=" ".join,
)
def test_what_needs_scores_is_refused_with_where_they_come_from(
    run: Run, words: tuple[str, ...]
) -> None:
    refused = command(run, *words)

    assert isinstance(refused.exception, UsageError)
    assert "judge" in str(refused.exception)
    assert judgement_names(run) == []


def test_a_pilot_without_a_judge_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    trait = write(tmp_path / "humor.json", trait_json())
    words = ["traits", "pilot", str(trait), "--judge", "none", "--runs-dir", str(tmp_path / "runs")]

    refused = CliRunner().invoke(orchestrate, words)

    assert isinstance(refused.exception, UsageError)
    assert "--judge-model" in str(refused.exception)
    assert not (tmp_path / "runs").exists()


def test_no_definition_is_drafted_by_nobody() -> None:
    refused = CliRunner().invoke(orchestrate, ["traits", "draft", "is kind", "--judge", "none"])

    assert isinstance(refused.exception, UsageError)


def test_a_plan_without_a_judge_expects_no_precision_of_scores(tmp_path: Path) -> None:
    judged = stored_run(tmp_path / "run", traits="evil")

    planned = command(
        judged, "plan", "--traits", "evil", "--judge", "none", "--pilot", "run", "--json"
    )

    (expected,) = json.loads(planned.stdout)["precision"]
    assert expected["contrast"] is None
    assert expected["degrees"] is not None


def test_its_report_and_refilter_use_the_answers_to_the_evaluation_questions(run: Run) -> None:
    answers = trait_answers(run, read_metrics(run.store, "evil"))
    again = command(run, "refilter", "run", "--methods", "mean_diff", "--json")

    assert {"extraction", "evaluation"} == {one.part for one in answers}
    (found,) = json.loads(again.stdout)["traits"]
    assert found["quality"]["evaluation"] is not None


def test_scores_that_were_made_later_are_shown_and_filter(run: Run) -> None:
    later = judged_later(run)

    answers = trait_answers(run, read_metrics(later.store, "evil"))
    again = command(run, "refilter", "run", "--threshold", "70", "--json")

    assert {one.trait_score for one in answers} == {95, 60, 5, 30}
    (found,) = json.loads(again.stdout)["traits"]
    # 3 instructions, 3 rollouts, and of 6 questions the five whose positives are over 70
    assert found["n_kept"] == {"positive": 45, "negative": 54}
    assert found["judging"]["judgement"] == "second"


def test_a_judge_without_a_key_is_refused_before_a_judgement_is_recorded(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ORCHESTRATE_JUDGE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    refused = command(run, "rejudge", "run", "--judge-model", "gpt-6-luna")

    assert isinstance(refused.exception, OrchestrateError)
    assert "ORCHESTRATE_JUDGE_API_KEY" in str(refused.exception)
    assert judgement_names(run) == []
