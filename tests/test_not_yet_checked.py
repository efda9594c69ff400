"""Protects the verdict of a run that ended before its tests: nowhere is it told as a final one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import orchestrate
from domain.plan.spec import ChecksSpec
from domain.verdict.gates import with_verdict
from domain.verdict.record import TraitMetrics, VerdictName
from storage.record.artifacts import load_record
from storage.record.results import read_metrics
from tests.chromium import chromium_or_skip, running_chromium
from tests.quality_records import metrics, quality
from tests.stored_run import stored_run

CHECKS = ChecksSpec(evaluation=2, causal=6)
TOLD = "usable, not yet checked"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended before `verify`, and the same one to its end."""
    folder = tmp_path_factory.mktemp("runs")
    half = stored_run(folder / "half", traits="evil", checks=CHECKS, is_verified=False)
    stored_run(folder / "whole", traits="evil", checks=CHECKS)
    assert read_metrics(half.store, "evil").verdict == VerdictName.USABLE
    summary = load_record(half.store, half.plan.trait_job("reduce", "evil")).info["summary"]
    assert summary == TOLD
    return folder


def invoke(runs: Path, *words: str | Path) -> Result:
    arguments = [*map(str, words), "--runs-dir", str(runs)]
    ended = CliRunner().invoke(orchestrate, arguments, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended


def test_refilter_says_it_of_new_vectors_and_in_their_record(runs: Path) -> None:
    shown = invoke(runs, "refilter", "half", "--threshold", "60").stdout

    assert TOLD in shown
    (file,) = (runs / "half/traits/evil/refiltered").glob("t60-*/metrics.json")
    assert json.loads(file.read_text())["is_to_be_checked"]


def test_of_a_finished_run_no_refiltered_vector_waits_for_tests(runs: Path) -> None:
    """What nothing was steered with never will be: its verdict is the last one."""
    for threshold in ("60", "82", "99.9"):
        ended = invoke(runs, "refilter", "whole", "--threshold", threshold, "--json")

        assert not json.loads(ended.stdout)["traits"][0]["is_to_be_checked"]


def test_a_published_folder_says_it_on_its_front_page_and_on_the_model_card(
    runs: Path, tmp_path: Path
) -> None:
    ended = invoke(runs, "publish", "half", "--to", tmp_path / "site")

    assert TOLD in (tmp_path / "site/index.html").read_text()
    assert f"| evil | {TOLD} |" in (tmp_path / "site/hub/README.md").read_text()
    assert f"Note: the verdict on evil is `{TOLD}`" in ended.stderr


@pytest.mark.parametrize("form", ["safetensors", "pt", "hub-folder"])
def test_whoever_takes_the_vectors_is_told(runs: Path, tmp_path: Path, form: str) -> None:
    """`monitor`, `steer`, `screen` and `dynamics` load vectors in the same way."""
    words = ["export", "half", "--format", form, "--output", str(tmp_path)]

    said = invoke(runs, *words).stderr

    assert f"Note: the verdict on evil is `{TOLD}`: tests of it are still to come" in said
    assert "orchestrate status half" in said
    words[1] = "whole"
    assert "still to come" not in invoke(runs, *words).stderr


def test_compare_says_it_beside_the_run_that_it_is_of(runs: Path) -> None:
    shown = invoke(runs, "compare", "half", "whole").stdout

    # a narrow table goes on in the next line
    assert "usable, not" in shown and shown.count("yet checked") == 1


@pytest.mark.parametrize("words", [("report", "half"), ("compare", "half", "whole")])
def test_the_pages_say_it(runs: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    browser = chromium_or_skip()
    found = json.loads(invoke(runs, *words, "--json").stdout)

    with running_chromium(browser, tmp_path / "profile") as tab:
        tab.open(Path(found[words[0]]).as_uri())
        text = str(tab.evaluate("document.body.textContent"))

    assert TOLD in text


def decided(**changes: Any) -> TraitMetrics:
    return with_verdict(metrics(quality=quality(reading=None), **changes))


@pytest.mark.parametrize(
    ("changes", "is_to_be_checked"),
    [
        ({"is_checked": False}, True),
        ({"is_checked": True}, False),
        ({"is_checked": False, "checks": ChecksSpec(evaluation=0, causal=0, contexts=0)}, False),
        # neither is done without evaluation questions
        ({"is_checked": False, "n_eval_questions": 0, "checks": ChecksSpec(contexts=0)}, False),
        ({"is_checked": False, "n_eval_questions": 0}, True),
    ],
)
def test_only_tests_that_are_planned_are_waited_for(
    changes: dict[str, object], is_to_be_checked: bool
) -> None:
    found = decided(**changes)

    assert found.is_to_be_checked == is_to_be_checked
    # a use that is not shown counts once nothing more is to come
    assert found.is_usable == is_to_be_checked


def test_a_run_that_can_read_nothing_again_is_finished_by_its_reduce(tmp_path: Path) -> None:
    """One response makes no pair of polarities."""
    checks = ChecksSpec(evaluation=0, causal=0, contexts=1)
    run = stored_run(tmp_path / "one", traits="evil", checks=checks)
    ref = run.spec.trait("evil")

    found = read_metrics(run.store, "evil")

    assert (run.plan.n_contexts(ref), run.plan.last_job(ref).stage) == (0, "reduce")
    assert not found.is_to_be_checked and found.verdict == VerdictName.WEAK


def test_records_are_read_with_the_mark_and_without_it() -> None:
    body = decided(is_checked=False).model_dump(mode="json")

    assert body.pop("is_to_be_checked")
    assert TraitMetrics.model_validate(body).is_to_be_checked
