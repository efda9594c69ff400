"""Protects against silent damage: 100 random flips and cuts over all files of a run are found."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from domain.errors import OrchestrateError
from storage.record.artifacts import load_record, read_artifact
from storage.record.results import damaged_results, read_metrics
from storage.record.run import load_definition, open_run
from storage.record.spending import read_terms
from storage.record.store import open_store
from tests.faults.conftest import Note
from tests.fleet import by_text, run_command
from tests.http_judge import http_judge
from tests.tiny_models import save_tiny_model
from traitlens.vectors.files import load_vectors

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

N_DAMAGES = 100
SEED = 20
# For people, made anew by every report and read by nothing else: not artifacts.
# What is set aside and the copy are read by nobody while nothing is damaged.
NOT_ARTIFACTS = ("logs/", "report.html", "metrics.json", "set-aside/", "run.copy.json")
FINISHED = 3


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    folder = tmp_path_factory.mktemp("damage")
    model = save_tiny_model(folder / "model", "llama")
    with http_judge(by_text) as judge:
        size = ["--traits", "refusal", "--instructions", "2", "--questions", "2", "--rollouts", "3"]
        size += ["--evaluation", "1", "--causal", "1"]
        where = ["--judge-url", judge.url, "--judge-model", "test", "--runs-dir", str(folder / "r")]
        yield [
            "extract", *size, "--model", model, *where, "--max-new-tokens", "12",
            "--shard-samples", "6", "--run", "one",
        ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(command: list[str]) -> Path:
    ended = run_command(*command)
    assert ended.returncode == FINISHED, ended.stdout + ended.stderr
    return Path(command[command.index("--runs-dir") + 1]) / "one"


def read_everything(folder: Path) -> list[object]:
    """Whatever the program reads of a run, by the functions it reads it with."""
    run = open_run(open_store(str(folder)))
    found: list[object] = [run.spec, run.run_id]
    found.append(load_definition(run, "refusal"))
    for job in [run.plan.negotiate_job, *run.plan.trait_jobs(run.spec.traits[0])]:
        record = load_record(run.store, job)
        found += [record, *(read_artifact(run.store, record, role, bytes) for role in record.files)]
    found += [read_metrics(run.store, "refusal"), read_terms(run.store)]
    damaged = damaged_results(run.store, "traits/refusal")
    if damaged:
        raise OrchestrateError(f"broken: {damaged}")
    return found


def artifacts(folder: Path) -> list[Path]:
    names = {p: p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return sorted(p for p, name in names.items() if not name.startswith(NOT_ARTIFACTS))


def damage(data: bytes, dice: random.Random) -> bytes:
    if dice.random() < 0.3:
        return data[: dice.randrange(len(data))]
    position = dice.randrange(len(data))
    return data[:position] + bytes([data[position] ^ dice.randrange(1, 256)]) + data[position + 1 :]


def test_each_of_100_damages_is_found_and_none_is_used(folder: Path, note: Note) -> None:
    """Damage to any stored file is found on reading; nothing damaged is used.

    100 random byte flips and cuts over all files of a finished run, each file at least once.
    """
    dice, whole = random.Random(SEED), read_everything(folder)
    files = artifacts(folder)
    missed = []
    for number in range(N_DAMAGES):
        # each file once, then at random
        file = files[number] if number < len(files) else dice.choice(files)
        before = file.read_bytes()
        file.write_bytes(damage(before, dice))
        try:
            read_everything(folder)
            # restored from its copy, or read as it was not written
            if file.read_bytes() != before:
                missed.append(file)
        except OrchestrateError:
            pass
        file.write_bytes(before)

    note("seen", f"{N_DAMAGES - len(missed)} of {N_DAMAGES} found in {len(files)} files")
    assert missed == []
    assert read_everything(folder) == whole


@pytest.mark.parametrize("number", range(20))
def test_a_damaged_vector_file_is_refused_by_a_notebook_too(folder: Path, number: int) -> None:
    dice = random.Random(number)
    file = folder / "traits/refusal/vectors/mean_diff.safetensors"
    before = file.read_bytes()
    file.write_bytes(damage(before, dice))
    try:
        with pytest.raises(ValueError, match=r"safetensors|not what was written"):
            load_vectors(file)
    finally:
        file.write_bytes(before)


def test_the_same_command_mends_every_kind_of_damage(
    folder: Path, command: list[str], note: Note
) -> None:
    """The same command makes the damaged anew, with the same result.

    One file of each kind is cut short, then the command is run again.
    """
    vector = load_vectors(folder / "traits/refusal").tensor
    table = (folder / "traits/refusal/responses.parquet").read_bytes()
    trait = folder / "traits" / "refusal"
    kinds = [
        "generate/positive-000.responses-*", "generate/negative-000.activations-*",
        "generate/positive-001.json", "judge/positive-000.json", "judge/negative-001.verdicts-*",
        "reduce.json", "responses.parquet", "metrics.json", "vectors/mean_diff.safetensors",
        "seal.json",
    ]  # fmt: skip
    for pattern in kinds:
        file = next(trait.glob(pattern))
        file.write_bytes(file.read_bytes()[:-9])
    (folder / "negotiate.json").write_bytes(b"")

    ended = run_command(*command)

    assert ended.returncode == FINISHED, ended.stdout + ended.stderr
    assert read_everything(folder)
    assert torch.linalg.norm(load_vectors(trait).tensor - vector) <= 1e-5 * vector.norm()
    assert (trait / "responses.parquet").read_bytes() == table
    note("seen", f"{len(kinds) + 1} kinds of files mended")


def test_settings_that_were_changed_by_hand_are_not_used(folder: Path, command: list[str]) -> None:
    file = folder / "run.json"
    before = file.read_text()
    body = json.loads(before)
    body["spec"]["seed"] = 7
    file.write_text(json.dumps(body))
    (folder / "run.copy.json").rename(folder / "away")

    refused = run_command("resume", "one", "--runs-dir", str(folder.parent))
    (folder / "away").rename(folder / "run.copy.json")
    mended = run_command("resume", "one", "--runs-dir", str(folder.parent))

    assert refused.returncode == 1
    assert "run.json is not what was written" in refused.stderr
    assert mended.returncode == FINISHED, mended.stderr
    assert file.read_text() == before
