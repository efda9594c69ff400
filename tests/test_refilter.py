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
from tests.stored_run import stored_run
from workers.kept_rows import KeptRows
from workers.vectors import build_vectors

CHECKS = ChecksSpec(evaluation=2, causal=6)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    stored_run(folder / "tested", traits="evil", checks=CHECKS)
    return folder


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
