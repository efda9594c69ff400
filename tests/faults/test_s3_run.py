"""Protects runs in an object store: several writers, and the same result as in a folder."""

from __future__ import annotations

import io
from pathlib import Path

import fsspec
import pandas as pd
import pytest
import torch

from storage.broker.embedded_redis import embedded_redis
from tests.faults.conftest import Note
from tests.faults.fleet import Fleet, wait_until
from tests.fleet import by_text, run_command
from tests.http_judge import http_judge
from tests.s3_server import s3_bucket
from tests.tiny_models import save_tiny_model
from traitlens.vectors.files import load_vectors

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

GPU = ("gpu", "--device", "cpu", "--pinned", "cpu")
SIZE = ["--traits", "refusal", "--instructions", "2", "--questions", "2", "--rollouts", "3"]
SIZE += ["--evaluation", "1", "--causal", "0"]
N_SAMPLES = 2 * 2 * 2 * 3
FINISHED = 3


def test_a_run_on_s3_with_two_writers_equals_the_run_in_a_folder(
    tmp_path: Path, note: Note
) -> None:
    """An object store holds a run as a folder does, also with several writers.

    The same run on a local S3 server (moto) and in a folder, two GPU workers each.
    """
    model = save_tiny_model(tmp_path / "model", "llama")
    with s3_bucket() as bucket, http_judge(by_text) as judge, embedded_redis() as url:
        fleet = Fleet(url, tmp_path / "logs")
        with fleet.tended():
            for name, arguments in {
                "gpu-0": GPU,
                "gpu-1": GPU,
                "judge-0": ("judge", "--no-embedded"),
                "reduce-0": ("reduce",),
            }.items():
                fleet.add(name, *arguments)
            wait_until(
                lambda: all("ready." in w.log() for w in fleet.workers.values()),
                timeout_s=150,
                what="the workers",
            )
            common = [
                *("extract", *SIZE, "--model", model, "--judge-url", judge.url),
                *("--judge-model", "test", "--max-new-tokens", "60", "--shard-samples", "3"),
            ]
            for place in (f"{bucket}/runs", str(tmp_path / "runs")):
                ended = run_command(*common, "--run", "one", "--runs-dir", place, broker_url=url)
                assert ended.returncode == FINISHED, ended.stderr

        theirs, ours = f"{bucket}/runs/one/traits/refusal", tmp_path / "runs/one/traits/refusal"
        with fsspec.open(f"{theirs}/responses.parquet") as file:
            stored = pd.read_parquet(io.BytesIO(file.read()))
        local = pd.read_parquet(ours / "responses.parquet")
        vector = load_vectors(theirs).tensor

    assert len(stored) == stored["key"].nunique() == N_SAMPLES
    assert list(stored["response"]) == list(local["response"])
    reference = load_vectors(ours).tensor
    assert torch.linalg.norm(vector - reference) <= 1e-5 * reference.norm()
    note("seen", f"the same {N_SAMPLES} samples and vectors")
