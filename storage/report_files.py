"""What a report reads of a run beside its metrics, and where the pages lie.

Knows nothing of what a page looks like.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors

from orchestrator.plan import Stage
from orchestrator.report_data import SampleRow
from orchestrator.scores import Verdict
from storage.artifacts import Record, load_record
from storage.metrics_file import json_bytes
from storage.run_record import Run
from storage.store import Store
from storage.training import training_jobs
from storage.verdicts import effective_verdicts

REPORT = "report.html"
RUN_METRICS = "metrics.json"
_COLUMNS = list(SampleRow.__dataclass_fields__)

Vectors = NDArray[np.float32]


def read_rows(store: Store, trait: str) -> list[SampleRow]:
    """A reduced trait's samples."""
    data = store.read(f"traits/{trait}/responses.parquet")
    return [
        SampleRow(**row) for row in pq.read_table(io.BytesIO(data), columns=_COLUMNS).to_pylist()
    ]


def read_response_vectors(store: Store, trait: str, method: str) -> Vectors:
    """A trait's response_avg vectors [L+1, d_model]; raises KeyError when it has none."""
    data = store.read(f"traits/{trait}/vectors/{method}.safetensors")
    vectors: Vectors = load_safetensors(data)["response_avg"]
    return vectors


def read_verdicts(run: Run, trait: str) -> dict[tuple[str, str], Verdict]:
    """(sample key, metric) -> the verdict that counts, of a whole trait."""
    found: dict[tuple[str, str], Verdict] = {}
    for job in training_jobs(run, run.spec.trait(trait), "judge"):
        found |= effective_verdicts(run, job)
    return found


def stage_totals(run: Run) -> dict[str, Any]:
    """What the run's generate and judge records say they took; jobs not done count nothing."""
    generate = [r.info for r in _records(run, "generate")]
    judge = [r.info for r in _records(run, "judge")]
    return {
        "responses": sum(int(str(i.get("n_samples", 0))) for i in generate),
        "generated_tokens": sum(int(str(i.get("n_tokens", 0))) for i in generate),
        "devices": sorted({str(i.get("device")) for i in generate}),
        "verdicts": sum(int(str(i.get("n_verdicts", 0))) for i in judge),
        "judge_prompt_tokens": sum(int(str(i.get("prompt_tokens", 0))) for i in judge),
        "judge_completion_tokens": sum(int(str(i.get("completion_tokens", 0))) for i in judge),
    }


def read_recorded(run: Run) -> Mapping[str, Any]:
    """run.json as it was written, with the versions the run was planned with."""
    body: dict[str, Any] = json.loads(run.store.read("run.json"))
    return body


def write_run_metrics(store: Store, body: Mapping[str, Any]) -> None:
    """The run's own metrics.json: what compares traits with one another."""
    store.write(RUN_METRICS, json_bytes(body))


def _records(run: Run, stage: Stage) -> list[Record]:
    found = []
    for trait in run.spec.traits:
        for job in run.plan.stage_jobs(trait, stage):
            try:
                found.append(load_record(run.store, job))
            except KeyError:
                continue
    return found
