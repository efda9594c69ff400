"""Protects `refilter`: new vectors from what is stored, beside the run's own, honestly judged."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from threadpoolctl import threadpool_info, threadpool_limits

from cli.main import main, orchestrate
from domain.errors import UsageError
from domain.plan.samples import POLARITIES, Polarity
from domain.plan.spec import ChecksSpec
from domain.verdict.gates import with_verdict
from domain.verdict.record import CausalFigures, EvaluationFigures, Gate, Severity
from storage.record.artifacts import (
    load_record,
    publish_artifact,
    read_artifact,
    set_artifact_aside,
)
from storage.record.responses import ACTIVATIONS, RESPONSES
from storage.record.results import damaged_results, read_metrics
from storage.record.store import LocalStore, open_store
from tasks.stages.vectors import SMALL, build_vectors
from tests.quality_records import evaluated, metrics, quality, steered
from tests.stored_run import PLANTED_LAYER, PROMPT_LAYER, stored_run
from traitlens.assess.kept_rows import KeptRows
from traitlens.methods.fitting import MethodResult
from traitlens.methods.mean_diff import mean_diff
from traitlens.stats.separation import separation
from traitlens.vectors.files import load_vectors

CHECKS = ChecksSpec(evaluation=2, causal=6)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    stored_run(folder / "tested", traits="evil", checks=CHECKS)
    stored_run(folder / "idle", traits="evil", checks=CHECKS, effect=0.0)
    return folder


def recorded(runs: Path, run: str) -> Any:
    return read_metrics(open_store(str(runs / run)), "evil").model_dump(mode="json")


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


def test_what_a_terminal_has_no_room_for_is_in_the_file_that_is_named(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Console(width=300, file=io.StringIO(), force_terminal=True, color_system=None)
    monkeypatch.setattr("cli.commands.refilter.Screen", lambda: shown)
    monkeypatch.setattr("cli.screens.verdicts.MOST_REMARK_LINES", 1)

    invoke(runs, "--threshold", "55")

    assert isinstance(shown.file, io.StringIO)
    (named,) = re.findall(r"\d+ more in (\S+)", shown.file.getvalue())
    metrics = json.loads(Path(named.replace("<trait>", "evil")).read_text())
    assert metrics["filter"]["threshold"] == 55


OTHERS = "steering was not tested with these vectors: the run steered with its own"


def test_the_same_vectors_keep_the_verdict_that_steering_gave_them(runs: Path) -> None:
    """A vector that steers nothing must not become usable by being assembled again."""
    before = recorded(runs, "idle")

    again = refiltered(runs, "--threshold", "51", run="idle")

    assert (before["verdict"], again["verdict"]) == ("usable with a doubt",) * 2
    assert again["reasons"] == before["reasons"]
    assert again["quality"]["causal"] == before["quality"]["causal"]
    assert again["is_checked"] and again["untested"] == before["untested"]
    folder = runs / "idle/traits/evil/refiltered/t51-c50-unpaired-mean_diff"
    assert (folder / "steering.parquet").is_file()
    assert "steering" in load_vectors(folder).provenance.extra["tested"]
    key = folder.relative_to(runs / "idle").as_posix()
    assert damaged_results(open_store(str(runs / "idle")), key) == []


def test_other_vectors_than_those_steered_with_say_that_steering_was_not_tested(
    runs: Path,
) -> None:
    found = refiltered(runs, "--threshold", "82", run="idle")
    shown = invoke(runs, "--threshold", "82", run="idle").stdout

    assert found["n_kept"]["positive"] < recorded(runs, "idle")["n_kept"]["positive"]
    # of what was read again too little is kept as well: neither use is shown of these
    assert found["verdict"] in ("weak", "do not use")
    assert found["quality"]["causal"] is None
    assert {use["state"] for use in found["uses"].values()} == {"untested"}
    assert OTHERS in found["notes"] and OTHERS in found["untested"]
    assert OTHERS in shown


def test_one_response_fewer_is_another_vector(runs: Path) -> None:
    table = pd.read_parquet(runs / "tested/traits/evil/responses.parquet")
    kept = table[table["status"] == "kept"]
    sides = kept["polarity"] == "positive"
    nearest = sorted(kept["trait_score"].where(sides, 100 - kept["trait_score"]))[:2]
    threshold = sum(nearest) / 2

    own, found = recorded(runs, "tested"), refiltered(runs, "--threshold", str(threshold))

    assert sum(found["n_kept"].values()) == sum(own["n_kept"].values()) - 1
    assert found["quality"]["causal"] is None and OTHERS in found["untested"]


def test_a_method_that_was_not_steered_with_is_named_beside_the_one_that_was(runs: Path) -> None:
    found = refiltered(runs, "--methods", "probe", run="idle")

    assert found["quality"]["causal"] is None
    assert OTHERS in found["untested"]


def test_a_run_that_is_not_tested_says_so_beside_its_verdict(tmp_path: Path) -> None:
    stored_run(tmp_path / "plain", traits="evil")

    own, again = recorded(tmp_path, "plain"), refiltered(tmp_path, run="plain")

    assert own["verdict"] == "weak" and not own["is_checked"]
    assert own["untested"] == [
        "whether it reads texts or the instructions before them was not tested: nothing was read "
        "again (--contexts)",
        "not tested on evaluation questions (--evaluation 0)",
        "nothing was steered with these vectors (--causal 0)",
    ]
    assert again["untested"] == own["untested"]
    status = CliRunner().invoke(orchestrate, ["status", "plain", "--runs-dir", str(tmp_path)])
    assert "evil, worth knowing: whether it reads texts" in status.stdout


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose prompts differ too, from a later layer on than its responses."""
    folder = tmp_path_factory.mktemp("prompted")
    methods = ("mean_diff", "probe")
    stored_run(folder / "run", traits="evil", methods=methods, checks=CHECKS, prompt_gap=6.0)
    return folder


@pytest.mark.parametrize("position", ["prompt_last", "prompt_avg"])
def test_a_position_of_the_prompt_is_measured_and_tested_there(
    prompted: Path, position: str
) -> None:
    own = recorded(prompted, "run")

    found = refiltered(prompted, "--position", position, run="run")

    quality = found["quality"]
    assert quality["position"] == position
    assert (own["quality"]["best"]["layer"], quality["best"]["layer"]) == (
        PLANTED_LAYER,
        PROMPT_LAYER,
    )
    aurocs = quality["evaluation"]["methods"]["mean_diff"]["separation"]["auroc"]["value"]
    assert aurocs[PROMPT_LAYER] > 0.9 > aurocs[PLANTED_LAYER]
    assert "prompt_difference" not in quality["confounds"]
    assert "prompt_difference" in own["quality"]["confounds"]
    assert quality["causal"] is None and OTHERS in found["untested"]
    assert any(note.startswith("made from prompts") for note in found["notes"])


def test_a_position_of_the_prompt_has_a_folder_whose_files_hold_every_position(
    prompted: Path,
) -> None:
    invoke(prompted, "--position", "prompt_last", run="run")
    invoke(prompted, "--position", "response_avg", run="run")

    beside = prompted / "run/traits/evil/refiltered"
    plain, named = (load_vectors(beside / f"t50-c50-unpaired-{name}") for name in (
        "mean_diff+probe", "mean_diff+probe-prompt_last"
    ))  # fmt: skip
    own = load_vectors(prompted / "run/traits/evil")
    assert named.position == plain.position == "response_avg"
    assert set(named.vectors) == {"response_avg", "prompt_avg", "prompt_last"}
    assert torch.equal(named.at_position("prompt_last").tensor, own.vectors["prompt_last"])
    assert named.provenance.residual_norms == own.provenance.residual_norms
    tested = [vector.provenance.extra["tested"] for vector in (plain, named)]
    assert [one["position"] for one in tested] == ["response_avg", "prompt_last"]
    assert recorded(prompted, "run")["quality"]["position"] == "response_avg"


def test_a_position_that_the_run_did_not_store_is_refused(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", traits="evil")
    job = run.plan.part_jobs(run.spec.trait("evil"), "generate", *POLARITIES)[0]
    record = load_record(run.store, job)
    files = {
        name: read_artifact(run.store, record, name, bytes) for name in (RESPONSES, ACTIVATIONS)
    }
    arrays = load_safetensors(files[ACTIVATIONS])
    del arrays["prompt_last"]
    set_artifact_aside(run.store, job)
    publish_artifact(
        run.store, job, files={**files, ACTIVATIONS: save_safetensors(arrays)}, info={}
    )

    with pytest.raises(UsageError, match="stored no activations at prompt_last: choose from resp"):
        invoke(tmp_path, "--position", "prompt_last", run="run")

    assert not (tmp_path / "run/traits/evil/refiltered").exists()


def test_a_layer_where_all_prompts_are_alike_is_no_trouble() -> None:
    """The embedding of a prompt's last token is the same whatever stands before it."""
    alike, prompts = np.ones((10, 1)), [(k % 2, k) for k in range(10)]

    d = separation(alike, alike, prompts=(prompts, prompts)).cohens_d

    assert [d.value[0], d.low[0], d.high[0]] == [0, 0, 0]


EVALUATED, STEERED = evaluated(), steered()


@pytest.mark.parametrize(
    ("changes", "tested", "causal", "gate"),
    [
        ({}, EVALUATED, STEERED, None),
        ({"n_eval_questions": 0}, None, None, Gate.EVALUATION_NO_QUESTIONS),
        ({"checks": ChecksSpec(evaluation=0)}, None, STEERED, Gate.EVALUATION_OFF),
        ({"checks": ChecksSpec(causal=0)}, EVALUATED, None, Gate.STEERING_OFF),
        ({}, None, STEERED, Gate.EVALUATION_PENDING),
        ({"is_checked": False}, EVALUATED, None, Gate.STEERING_PENDING),
        ({}, EVALUATED, None, Gate.STEERING_NOT_WORTH),
        ({"is_steered_with_others": True}, EVALUATED, None, Gate.STEERING_OTHERS),
        ({}, EVALUATED, steered(method="ica"), Gate.STEERING_OTHER_METHOD),
        ({}, evaluated(follows=None), STEERED, Gate.CORRELATION_FEW),
        ({}, evaluated(held_out=None), STEERED, Gate.EVALUATION_ONE_QUESTION),
        # the gate itself says that too few show the trait
        ({}, evaluated(too_few=True), STEERED, None),
    ],
)
def test_each_test_that_was_not_made_is_named(
    changes: dict[str, object],
    tested: EvaluationFigures | None,
    causal: CausalFigures | None,
    gate: Gate | None,
) -> None:
    vectors = quality(evaluation=tested, causal=causal)

    decided = with_verdict(metrics(quality=vectors, **changes))

    untested = [one.gate for one in decided.findings if one.severity == Severity.UNTESTED]
    assert untested == [gate][: bool(gate)]
    assert len(decided.untested) == len(untested)


@pytest.mark.parametrize(("width", "threads"), [(6, {1}), (SMALL // 4, {2})])
def test_small_fits_run_on_one_thread_and_large_ones_on_what_the_machine_has(
    width: int, threads: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that share small products wait for one another, for most of the time."""
    side = KeptRows([0, 0, 1, 1], [0, 1, 0, 1], *[np.ones(4)] * 3)
    while_fitted: list[int] = []

    def fit(pos: np.ndarray, neg: np.ndarray, *, groups: object) -> MethodResult:
        while_fitted.extend(blas_threads())
        return mean_diff(pos, neg)

    def read(position: str, polarity: Polarity) -> Iterator[np.ndarray]:
        yield np.random.default_rng(len(polarity)).standard_normal((4, 2, width), dtype=np.float32)

    monkeypatch.setattr("tasks.stages.vectors.METHODS", {"ica": fit})
    monkeypatch.setattr("traitlens.assess.quality.METHODS", {"ica": fit})
    with threadpool_limits(2, user_api="blas"):
        build_vectors(read, methods=["ica"], positions=["response_avg"], rows=(side, side))
        after = blas_threads()

    # empty where the system brings a BLAS of its own
    assert set(while_fitted) <= threads
    assert 1 not in after


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


class Killed(BaseException):
    """What no command catches, as no command catches a kill."""


def test_a_refilter_that_is_killed_leaves_no_old_file_beside_a_new_one(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write it died at, what lies there is of one assembly, and the same command mends
    it."""
    below = runs / "tested/traits/evil/refiltered"
    folder = below / "t82-c50-unpaired-mean_diff"
    write = LocalStore.write
    n_writes = 0

    def dying(store: LocalStore, key: str, data: bytes) -> None:
        nonlocal n_writes
        if n_writes == 0:
            raise Killed
        n_writes -= 1
        write(store, key, data)

    refiltered(runs, "--threshold", "58")
    refiltered(runs, "--threshold", "82")
    whole = _contents(folder)
    for survived in range(len(whole) + 10):
        shutil.rmtree(folder)
        # as if thresholds of before had given other vectors: a judgement changed between the two
        shutil.copytree(below / "t58-c50-unpaired-mean_diff", folder)
        old, n_writes = _contents(folder), survived
        with monkeypatch.context() as patched:
            patched.setattr(LocalStore, "write", dying)
            try:
                refiltered(runs, "--threshold", "82")
            except Killed:
                found = _contents(folder)
                stale = [n for n in found if found[n] == old.get(n) and found[n] != whole.get(n)]
                assert stale == []
                continue
        break

    assert survived > 3
    again = _contents(folder)
    assert again.keys() == whole.keys() and again["metrics.json"] == whole["metrics.json"]


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
