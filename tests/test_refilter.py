"""Protects `refilter`: new vectors from what is stored, beside the run's own, honestly judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from threadpoolctl import threadpool_info, threadpool_limits

from cli.main import main, orchestrate
from orchestrator.run_spec import ChecksSpec
from orchestrator.samples import Polarity
from orchestrator.untested import untested
from storage.metrics_file import read_metrics
from storage.seal import broken
from storage.store import open_store
from tests.stored_run import stored_run
from traitlens import load_vectors
from workers.kept_rows import KeptRows
from workers.vectors import build_vectors

CHECKS = ChecksSpec(evaluation=2, causal=6)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    stored_run(folder / "tested", traits="evil", checks=CHECKS)
    stored_run(folder / "idle", traits="evil", checks=CHECKS, effect=0.0)
    return folder


def recorded(runs: Path, run: str) -> Any:
    return read_metrics(open_store(str(runs / run)), "evil")


def refiltered(runs: Path, *flags: str, run: str = "tested") -> Any:
    """The metrics of the run's one trait after `refilter`."""
    result = invoke(runs, *flags, "--json", run=run)
    (one,) = json.loads(result.stdout)["traits"]
    return one


def invoke(runs: Path, *flags: str, run: str = "tested") -> Result:
    arguments = ["refilter", run, "--runs-dir", str(runs), *flags]
    return CliRunner().invoke(orchestrate, arguments, catch_exceptions=False)


@pytest.mark.parametrize("name", ["threshold", "coherence"])
@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-1", "100.5", "1e999", "much"])
@pytest.mark.parametrize("way", ["flag", "environment", "file"])
def test_a_threshold_that_is_none_is_a_usage_error_before_anything_is_written(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    name: str,
    number: str,
    way: str,
) -> None:
    words = ["orchestrate", "refilter", "tested", "--runs-dir", str(runs)]
    monkeypatch.chdir(tmp_path)
    if way == "flag":
        words.append(f"--{name}={number}")
    elif way == "environment":
        monkeypatch.setenv(f"ORCHESTRATE_{name.upper()}", number)
    else:
        value = f'"{number}"' if number in ("1e999", "much") else number
        (tmp_path / "orchestrate.toml").write_text(f"[refilter]\n{name} = {value}\n")
    monkeypatch.setattr(sys, "argv", words)
    before = sorted(runs.rglob("*"))

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert name in capsys.readouterr().err
    assert sorted(runs.rglob("*")) == before


def test_thresholds_that_keep_nothing_name_no_place_of_vectors(runs: Path) -> None:
    some = invoke(runs, "--threshold", "60").stdout
    none = invoke(runs, "--threshold", "99.9").stdout

    assert f"Vectors: {runs}/tested/traits/<trait>/refiltered/t60-c50-unpaired-mean_diff" in some
    assert "Vectors:" not in none
    assert "No vectors: no trait kept responses on both sides" in none


OTHERS = "steering was not tested with these vectors: the run steered with its own"


def test_the_same_vectors_keep_the_verdict_that_steering_gave_them(runs: Path) -> None:
    """A vector that steers nothing must not become usable by being assembled again."""
    before = recorded(runs, "idle")

    again = refiltered(runs, "--threshold", "51", run="idle")

    assert (before["verdict"], again["verdict"]) == ("weak", "weak")
    assert again["reasons"] == before["reasons"]
    assert again["quality"]["causal"] == before["quality"]["causal"]
    assert again["is_checked"] and again["untested"] == []
    folder = runs / "idle/traits/evil/refiltered/t51-c50-unpaired-mean_diff"
    assert (folder / "steering.parquet").is_file()
    assert "steering" in load_vectors(folder).provenance.extra["tested"]
    key = folder.relative_to(runs / "idle").as_posix()
    assert broken(open_store(str(runs / "idle")), key) == []


def test_other_vectors_than_those_steered_with_say_that_steering_was_not_tested(
    runs: Path,
) -> None:
    found = refiltered(runs, "--threshold", "82", run="idle")
    shown = invoke(runs, "--threshold", "82", run="idle").stdout

    assert found["n_kept"]["positive"] < recorded(runs, "idle")["n_kept"]["positive"]
    assert (found["verdict"], found["quality"]["causal"]) == ("usable", None)
    assert OTHERS in found["notes"] and OTHERS in found["untested"]
    assert f"evil, worth knowing: {OTHERS}" in shown


def test_a_method_that_was_not_steered_with_is_named_beside_the_one_that_was(runs: Path) -> None:
    found = refiltered(runs, "--methods", "probe", run="idle")

    assert found["quality"]["causal"] is None
    assert OTHERS in found["untested"]


def test_a_run_that_is_not_tested_says_so_beside_its_verdict(tmp_path: Path) -> None:
    stored_run(tmp_path / "plain", traits="evil")

    own, again = recorded(tmp_path, "plain"), refiltered(tmp_path, run="plain")

    assert own["verdict"] == "usable" and not own["is_checked"]
    assert own["untested"] == [
        "not tested on evaluation questions (--evaluation 0)",
        "nothing was steered with these vectors (--causal 0)",
    ]
    assert again["untested"] == own["untested"]
    status = CliRunner().invoke(orchestrate, ["status", "plain", "--runs-dir", str(tmp_path)])
    assert "evil, worth knowing: not tested on evaluation questions" in status.stdout


SEPARATED: dict[str, Any] = {"auroc": {"value": [0.9], "interval": [[0.8, 1.0]]}}
TESTED: dict[str, Any] = {
    "separation": SEPARATED,
    "correlation": {"value": [0.9], "interval": [[0.8, 1.0]]},
}
CAUSAL: dict[str, Any] = {
    "method": "mean_diff",
    "vector": {"rise": {"value": 9.0, "interval": [5.0, 13.0]}, "rise_at": 1.0},
    "rise_over_random": {"interval": [2.0, 9.0]},
}


@pytest.mark.parametrize(
    ("changes", "tested", "causal", "says"),
    [
        ({}, TESTED, CAUSAL, ""),
        ({"n_eval_questions": 0}, None, None, "no evaluation questions, so the vectors are tested"),
        ({"checks": {"evaluation": 0, "causal": 1}}, None, CAUSAL, "(--evaluation 0)"),
        ({"checks": {"evaluation": 1, "causal": 0}}, TESTED, None, "(--causal 0)"),
        ({}, None, CAUSAL, "their answers are not judged yet"),
        ({"is_checked": False}, TESTED, None, "nothing was steered with these vectors yet"),
        ({}, TESTED, None, "those that the run made were not worth it"),
        ({"is_steered_with_others": True}, TESTED, None, "the run steered with its own"),
        ({}, TESTED, {**CAUSAL, "method": "ica"}, "with the ica vectors, not with the best, mean"),
        ({}, {**TESTED, "correlation": None}, CAUSAL, "too few evaluation questions"),
        (
            {},
            {**TESTED, "separation": {"auroc": {"value": [0.9], "interval": [[None, None]]}}},
            CAUSAL,
            "one evaluation question does not show",
        ),
        # the gate itself says that too few show the trait
        ({}, {**TESTED, "separation": None}, CAUSAL, ""),
    ],
)
def test_each_test_that_was_not_made_is_named(
    changes: dict[str, object], tested: Any, causal: Any, says: str
) -> None:
    metrics: dict[str, Any] = {
        "n_eval_questions": 6,
        "checks": {"evaluation": 1, "causal": 1},
        "is_checked": True,
        "is_steered_with_others": False,
        "quality": {
            "best": {"method": "mean_diff", "layer": 0},
            "evaluation": tested and {"methods": {"mean_diff": tested}},
            "causal": causal,
        },
    }

    found = untested({**metrics, **changes})

    assert len(found) == bool(says)
    assert says in " ".join(found)


def test_vectors_are_fitted_on_one_thread_whatever_the_machine_has() -> None:
    """Threads that share such small products wait for one another, for most of the time."""
    side = KeptRows([0, 0, 1, 1], [0, 1, 0, 1], np.ones(4), np.zeros(4))
    while_fitted: list[int] = []

    def read(position: str, polarity: Polarity) -> Iterator[np.ndarray]:
        while_fitted.extend(blas_threads())
        yield np.random.default_rng(len(polarity)).standard_normal((4, 3, 6)).astype(np.float32)

    with threadpool_limits(2, user_api="blas"):
        build_vectors(read, methods=["ica"], positions=["response_avg"], rows=(side, side))
        after = blas_threads()

    # empty where the system brings a BLAS of its own
    assert set(while_fitted) <= {1}
    assert 1 not in after


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
