"""Protects the main job: real queues, workers and model, and the run directory it leaves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from domain.plan.samples import Sample
from storage.broker.embedded_redis import embedded_redis
from storage.record.artifacts import load_record
from storage.record.results import damaged_results, read_metrics
from storage.record.run import load_definition, open_run
from storage.record.spending import read_terms
from storage.record.store import open_store
from tests.fleet import by_text, run_command, workers
from tests.http_judge import HttpJudge, http_judge
from tests.tiny_models import save_tiny_model
from traitlens.vectors.files import load_vectors

SIZE = ["--traits", "refusal", "--instructions", "2", "--questions", "4", "--rollouts", "3"]
N_SAMPLES = 2 * 2 * 4 * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def judge() -> Iterator[HttpJudge]:
    with http_judge(by_text) as server:
        yield server


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def command(model: str, judge: HttpJudge, runs: Path) -> list[str]:
    where = ["--judge-url", judge.url, "--judge-model", "test", "--runs-dir", str(runs)]
    return ["extract", *SIZE, "--model", model, *where, "--max-new-tokens", "12", "--json"]


@pytest.fixture(scope="module")
def one(command: list[str], runs: Path, judge: HttpJudge) -> Path:
    """A run on the embedded default: one worker of each kind."""
    judge.asked.clear()
    ended = run_command(*command, "--run", "one")
    assert ended.returncode == 3, ended.stderr  # scores at random: finished, not usable
    # without the negotiation
    paid = [b for b in judge.asked if "Boil it for eight minutes" not in str(b)]
    assert len(paid) == 2 * N_SAMPLES
    return runs / "one" / "traits" / "refusal"


@pytest.fixture(scope="module")
def three(command: list[str], runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on three GPU workers with another shard size."""
    logs = tmp_path_factory.mktemp("logs")
    kinds = [["gpu", "--device", "cpu,cpu,cpu"], ["judge", "--no-embedded"], ["reduce"]]
    with embedded_redis() as url, workers(url, *kinds, logs=logs):
        ended = run_command(*command, "--run", "three", "--shard-samples", "3", broker_url=url)
    assert ended.returncode == 3, ended.stderr
    return runs / "three" / "traits" / "refusal"


def test_no_worker_begins_with_a_warning(one: Path) -> None:
    """Celery has one for the superuser, whom containers run us as."""
    logs = list((one.parents[1] / "logs").glob("*.log"))

    warned = [line for log in logs for line in log.read_text().splitlines() if "Warning" in line]
    assert len(logs) == 3
    assert warned == []


def test_every_sample_is_there_once_and_the_counts_agree_everywhere(
    one: Path, command: list[str]
) -> None:
    table = pd.read_parquet(one / "responses.parquet")
    metrics = json.loads((one / "metrics.json").read_text())
    shown = json.loads(run_command(*command, "--run", "one").stdout)["traits"][0]

    assert len(table) == table["key"].nunique() == metrics["n_generated"] == N_SAMPLES
    by_status = table["status"].value_counts()
    kept = table[table["status"] == "kept"]["polarity"].value_counts()
    assert metrics["n_kept"] == {p: kept.get(p, 0) for p in ("positive", "negative")}
    assert sum(metrics["n_dropped"].values()) == by_status.get("dropped", 0)
    assert sum(metrics["n_unscored"].values()) == by_status.get("unscored", 0)
    assert metrics["n_scored"] == N_SAMPLES - by_status.get("unscored", 0)
    assert shown == metrics


def test_a_row_carries_its_own_seed_and_cell(one: Path) -> None:
    rows: Iterable[Any] = pd.read_parquet(one / "responses.parquet").itertuples()
    for row in rows:
        sample = Sample(
            row.trait, row.polarity, row.instruction_index, row.question_index, row.rollout
        )
        assert row.key == sample.key
        assert row.seed == sample.seed(0)
        assert row.instruction in row.prompt
        assert row.question in row.prompt


def test_three_workers_and_another_shard_size_give_the_same_texts_and_vectors(
    one: Path, three: Path
) -> None:
    first, second = (pd.read_parquet(p / "responses.parquet") for p in (one, three))

    assert list(first["key"]) == list(second["key"])
    assert list(first["response"]) == list(second["response"])
    for position in ("response_avg", "prompt_avg", "prompt_last"):
        a, b = (load_vectors(p).at_position(position).tensor for p in (one, three))
        assert torch.linalg.norm(a - b) <= 1e-5 * torch.linalg.norm(a)


def test_the_vector_equals_a_plain_second_pass_over_the_stored_ids(one: Path, model: str) -> None:
    table = pd.read_parquet(one / "responses.parquet")
    kept = table[table["status"] == "kept"]
    assert {"positive", "negative"} == set(kept["polarity"])

    expected = plain_difference(kept, model)

    for position, vector in expected.items():
        ours = load_vectors(one).at_position(position).tensor.double()
        assert torch.linalg.norm(ours - vector) <= 1e-5 * torch.linalg.norm(vector), position


def plain_difference(kept: pd.DataFrame, model: str) -> dict[str, torch.Tensor]:
    """Mean of positives minus mean of negatives: a float32 forward a response, hooks on blocks."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    states: list[torch.Tensor] = []
    loaded.model.embed_tokens.register_forward_hook(lambda m, a, out: states.append(out))
    for block in loaded.model.layers:
        block.register_forward_hook(lambda m, a, out: states.append(out))
    sides: dict[str, dict[str, list[torch.Tensor]]] = {}
    rows: Iterable[Any] = kept.itertuples()
    for row in rows:
        states.clear()
        ids = torch.tensor([[*row.prompt_token_ids, *row.response_token_ids]])
        with torch.inference_mode():
            loaded(ids)
        stacked = torch.cat(states).double()  # [L+1, tokens, d_model]
        split = len(row.prompt_token_ids)
        means = {
            "response_avg": stacked[:, split:].mean(1),
            # attention sinks stand out of it, in this model the first token alone
            "prompt_avg": stacked[:, 1:split].mean(1),
            "prompt_last": stacked[:, split - 1],
        }
        for position, mean in means.items():
            sides.setdefault(position, {}).setdefault(row.polarity, []).append(mean)
    return {
        position: torch.stack(both["positive"]).mean(0) - torch.stack(both["negative"]).mean(0)
        for position, both in sides.items()
    }


def test_persona_vectors_reads_the_csv_and_the_pt_files(one: Path) -> None:
    positive = pd.read_csv(one / "responses" / "pos.csv", keep_default_na=False)
    negative = pd.read_csv(one / "responses" / "neg.csv", keep_default_na=False)
    vector = torch.load(one / "vectors" / "refusal_response_avg_diff.pt", weights_only=True)

    columns = ["question", "prompt", "answer", "question_id", "refusal", "coherence"]
    assert list(positive.columns) == list(negative.columns) == columns
    assert list(positive["question_id"])[:4] == ["refusal_0_pos_0"] * 3 + ["refusal_0_pos_1"]
    assert len(positive) == len(negative) == N_SAMPLES // 2
    assert (positive["question"] == negative["question"]).all()
    assert vector.dtype == torch.float32
    assert tuple(vector.shape) == (5, 48)
    assert torch.equal(vector, load_vectors(one).tensor)


def test_running_again_changes_no_artifact_and_asks_no_judge(
    one: Path, command: list[str], judge: HttpJudge
) -> None:
    before = {p: p.stat().st_mtime_ns for p in one.rglob("*") if p.is_file()}
    asked = len(judge.asked)

    run_command(*command, "--run", "one")

    assert {p: p.stat().st_mtime_ns for p in one.rglob("*") if p.is_file()} == before
    assert len(judge.asked) == asked


def test_a_damaged_shard_is_found_and_made_again_with_the_same_result(
    one: Path, command: list[str]
) -> None:
    vector = load_vectors(one).tensor
    shard = next((one / "generate").glob("positive-000.activations-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(bytes(data))
    (one / "reduce.json").unlink()

    ended = run_command(*command, "--run", "one")

    assert ended.returncode == 3, ended.stderr
    again = load_vectors(one).tensor
    assert torch.linalg.norm(again - vector) <= 1e-5 * torch.linalg.norm(vector)
    assert np.isfinite(load_vectors(one).tensor.numpy()).all()


def test_what_is_lost_or_damaged_of_a_finished_run_is_mended_by_the_same_command(
    one: Path, command: list[str]
) -> None:
    run, vector = one.parent.parent, load_vectors(one).tensor
    (one / "seal.json").unlink()
    for file in (one / "metrics.json", one / "responses" / "pos.csv", run / "negotiate.json"):
        file.write_bytes(file.read_bytes()[:-9])
    for file in (run / "run.json", one / "definition.json"):
        file.write_bytes(file.read_bytes().replace(b"a", b"b", 1))
    (run / "judging.json").write_bytes(b"{}")
    as_cut = (one / "responses" / "pos.csv").read_bytes()

    unbounded = run_command(*command, "--run", "one")
    ended = run_command(
        *(*command, "--run", "one"),
        *("--budget", "5", "--prices", str(price_file(run.parent))),
    )

    assert unbounded.returncode == 1
    assert "give --budget again" in unbounded.stderr
    assert ended.returncode == 3, ended.stderr
    opened = open_run(open_store(str(run)))
    assert load_definition(opened, "refusal").questions
    assert load_record(opened.store, opened.plan.negotiate_job)
    assert read_terms(opened.store).cap_usd == 5
    assert damaged_results(opened.store, "traits/refusal") == []
    assert (one / "seal.json").exists()
    assert read_metrics(opened.store, "refusal").n_generated == N_SAMPLES
    assert (one / "responses" / "pos.csv").read_bytes() != as_cut
    again = load_vectors(one).tensor
    assert torch.linalg.norm(again - vector) <= 1e-5 * torch.linalg.norm(vector)
    assert list((run / "set-aside").glob("run.json-*"))


def test_prompts_that_the_model_has_no_room_for_are_told_and_refused(
    command: list[str], tmp_path: Path
) -> None:
    small = save_tiny_model(tmp_path, "llama", changes={"max_position_embeddings": 64})
    settings = [small if one == command[command.index("--model") + 1] else one for one in command]
    plan = ["plan", *(one for one in settings[1:] if one != "--json"), "--json"]

    *_, remark = json.loads(run_command(*plan, "--run", "small").stdout)["remarks"]
    ended = run_command(*settings, "--run", "small")

    assert "64 positions" in remark
    assert ended.returncode == 1
    assert "has 64 positions: shorten it" in ended.stderr
    assert "Traceback" not in ended.stderr


def price_file(folder: Path) -> Path:
    file = folder / "prices.json"
    file.write_text(json.dumps({"models": {"test": {"input": 1.0, "output": 1.0}}}))
    return file


def test_other_settings_under_the_same_name_are_refused_by_name(
    one: Path, command: list[str]
) -> None:
    ended = run_command(*command, "--run", "one", "--seed", "7")

    assert ended.returncode == 2
    assert "seed was 0, now 7" in ended.stderr
    assert "Traceback" not in ended.stderr
