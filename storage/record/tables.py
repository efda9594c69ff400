"""What a report reads of a run beside its metrics, and which shards its vectors are made from.

Both follow from the record alone: what was generated ahead and not needed does not count.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors

from domain.plan.jobs import Job, Stage
from domain.plan.readiness import is_needed, last_wave, stop_mark
from domain.plan.spec import TraitRef
from domain.scoring.scores import Scoring
from domain.scoring.thresholds import Fall
from domain.verdict.record import Stopping
from storage.record.artifacts import Record, load_record
from storage.record.judgements import effective_scorings
from storage.record.metrics import json_bytes
from storage.record.run import Run
from storage.record.store import Store

REPORT = "report.html"

RUN_METRICS = "metrics.json"


@dataclass(frozen=True)
class SampleRow:
    """One row of a trait's responses.parquet, as far as a report shows it."""

    key: str
    polarity: str
    instruction: str
    question: str
    response: str
    trait_score: float | None
    coherence_score: float | None
    status: str
    reason: str
    fall: Fall | None


_COLUMNS = list(SampleRow.__dataclass_fields__)

# What tables without a `fall` column say in `reason`, without the number; unscored go by status.
_FALLS_BEFORE = {
    "": None,
    "empty response": Fall.EMPTY,
    "coherence under": Fall.COHERENCE_LOW,
    "positive with trait under": Fall.TRAIT_LOW,
    "negative with trait at or over": Fall.TRAIT_HIGH,
    "its pair was not kept": Fall.UNPAIRED,
}

Vectors = NDArray[np.float32]


def read_rows(store: Store, trait: str) -> list[SampleRow]:
    """A reduced trait's samples."""
    data = store.read(f"traits/{trait}/responses.parquet")
    table = pq.ParquetFile(io.BytesIO(data))
    stored = set(table.schema_arrow.names)
    rows = table.read([name for name in _COLUMNS if name in stored]).to_pylist()
    return [SampleRow(**{**row, "fall": _fall(row)}) for row in rows]


def _fall(row: Mapping[str, Any]) -> Fall | None:
    if "fall" in row:
        return None if row["fall"] is None else Fall(row["fall"])
    if row["status"] == "unscored":
        return Fall.UNSCORED
    told: str = row["reason"]
    return _FALLS_BEFORE[told if told in _FALLS_BEFORE else told.rpartition(" ")[0]]


def read_response_vectors(store: Store, trait: str, method: str) -> Vectors:
    """A trait's response_avg vectors [L+1, d_model]; raises KeyError when it has none."""
    data = store.read(f"traits/{trait}/vectors/{method}.safetensors")
    vectors: Vectors = load_safetensors(data)["response_avg"]
    return vectors


def read_scorings(run: Run, trait: str) -> dict[tuple[str, str], Scoring]:
    """(sample key, metric) -> the scoring that counts, of a whole trait."""
    found: dict[tuple[str, str], Scoring] = {}
    for job in training_jobs(run, run.spec.trait(trait), "judge"):
        found |= effective_scorings(run, job)
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


def training_jobs(run: Run, trait: TraitRef, stage: Stage) -> list[Job]:
    """The stage's jobs whose samples count; every one of the plan while that is open."""
    jobs = run.plan.shard_jobs(trait, stage)
    if run.spec.until == "all":
        return jobs
    done = run.done(trait.name)
    return [job for job in jobs if is_needed(run.plan, job, done)]


def stopping(run: Run, trait: TraitRef) -> Stopping | None:
    """What was measured after the wave that a trait's samples ended with, and why; None
    while that is open and where everything is generated anyway."""
    if run.spec.until == "all":
        return None
    wave = last_wave(run.plan, trait, run.done(trait.name))
    if wave is None:
        return None
    info = load_record(run.store, stop_mark(trait, wave)).info
    return Stopping.model_validate({**info, "n_planned": run.plan.n_samples(trait)})
