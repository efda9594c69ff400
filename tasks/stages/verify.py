"""The verify stage: a trait's vectors on held-out questions and in steering; the last verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from domain.plan.jobs import Job
from domain.plan.samples import CONFIRMATION, EVALUATION, ROUNDS
from domain.plan.spec import FilterSpec, TraitRef
from domain.plan.steering import confirmed_best, mean_worth
from domain.scoring.thresholds import Fall
from domain.verdict.metrics import with_verdict
from storage.record.artifacts import Record, load_record, publish, read_file
from storage.record.manifest import writing_results
from storage.record.metrics import write_metrics
from storage.record.responses import load_activations
from storage.record.results import SampleResult, write_tested
from storage.record.run import Run
from tasks.stages.checks import Answered, causal, evaluation
from tasks.stages.reduce import METRICS, sample_results
from tasks.stages.steering_cells import load_directions, recorded_cells, shown_in
from traitlens.vectors.files import from_safetensors_bytes, to_safetensors_bytes
from traitlens.vectors.trait_vector import TraitVector

Vectors = dict[str, TraitVector]

# a response that fell short of its side by its trait still has a trait score
READABLE = (None, Fall.TRAIT_LOW, Fall.TRAIT_HIGH)


def verify(run: Run, job: Job) -> Record:
    """Test what reduce made, and write the verdict that takes it in."""
    assert job.trait is not None
    trait, folder = run.spec.trait(job.trait), f"traits/{job.trait}"
    record = load_record(run.store, run.plan.reduce_job(trait.name))
    metrics = json.loads(read_file(run.store, record, METRICS))
    with writing_results(run.store, folder):
        if metrics["quality"] is not None:
            evaluate(run, trait, metrics, filter_spec=run.spec.filter, folder=folder)
            metrics["quality"]["causal"] = dose_response(run, trait, folder)
            note_in_vectors(run, metrics, folder)
        told = {"checks": run.spec.checks.model_dump(), "is_steered_with_others": False}
        metrics = with_verdict({**metrics, **told, "is_checked": True})
        write_metrics(run.store, folder, metrics)
    info = {"summary": metrics["verdict"], "verdict": metrics["verdict"]}
    return publish(run.store, job, files={}, info=info)


def evaluate(
    run: Run, trait: TraitRef, metrics: dict[str, Any], *, filter_spec: FilterSpec, folder: str
) -> None:
    """Test the vectors below a folder on the stored answers to the evaluation questions: fills
    `quality.evaluation` and writes evaluation.parquet; nothing where there are no such answers."""
    jobs = run.plan.part_jobs(trait, "generate", EVALUATION)
    if not jobs:
        return
    # the three conditions of a question are no pairs
    single = filter_spec.model_copy(update={"pairing": "unpaired"})
    results = sample_results(run, jobs, single)
    write_tested(run.store, f"{folder}/evaluation.parquet", results)
    position = metrics["quality"]["position"]
    stored = [load_activations(run.store, job).at(position) for job in jobs]
    vectors = {name: v.tensor.numpy() for name, v in stored_vectors(run, metrics, folder).items()}
    answered = _answered(results, np.concatenate(stored))
    metrics["quality"]["evaluation"] = evaluation(vectors, answered)


def _answered(results: list[SampleResult], activations: np.ndarray) -> Answered:
    kept = [one.outcome.fall is None for one in results]
    samples = [one.judged.sample for one in results]
    scores = [one.trait_score if one.outcome.fall in READABLE else None for one in results]
    return Answered(
        activations=activations,
        side=[
            sample.polarity if is_kept and sample.polarity != "plain" else ""
            for sample, is_kept in zip(samples, kept, strict=True)
        ],
        is_plain=np.array([sample.polarity == "plain" for sample in samples]),
        trait=np.array([np.nan if score is None else score for score in scores]),
        prompts=[(sample.instruction, sample.question) for sample in samples],
    )


def dose_response(run: Run, trait: TraitRef, folder: str) -> dict[str, Any] | None:
    """The dose-response with how it was found; None when nothing was steered."""
    directions = load_directions(run, trait.name)
    jobs = run.plan.part_jobs(trait, "generate", CONFIRMATION)
    if directions is None or not jobs:
        return None
    cells = recorded_cells(run, trait.name, CONFIRMATION)
    results = sample_results(run, jobs, run.spec.filter)
    write_tested(run.store, f"{folder}/steering.parquet", results, cells)
    best = confirmed_best(cells)
    row = directions.layers.index(best.layer)
    found = causal(
        [
            (s, cells[s.cell], one.trait_score, one.coherence_score)
            for one in results
            if (s := one.judged.sample).cell is not None
        ],
        method=directions.method,
        best=best,
        step=directions.steps[row],
    )
    return {**found, **_search(run, trait), "n_confirmed": len(results)}


def _search(run: Run, trait: TraitRef) -> dict[str, Any]:
    shown = [one for part in ROUNDS for one in shown_in(run, trait.name, part)]
    worth = mean_worth(shown)
    counts = {cell: sum(one.cell == cell for one in shown) for cell in worth}
    return {
        "n_searched": len(shown),
        "search": [
            {"layer": c.layer, "strength": c.strength, "n": counts[c], "worth": worth[c]}
            for c in sorted(worth, key=lambda c: (c.layer, c.strength))
        ],
    }


def stored_vectors(run: Run, metrics: dict[str, Any], folder: str) -> Vectors:
    """The vectors below a folder, at the position that their quality is of."""
    names, position = metrics["quality"]["methods"], metrics["quality"]["position"]
    files = {name: run.store.read(_key(folder, name)) for name in names}
    return {n: from_safetensors_bytes(data).at_position(position) for n, data in files.items()}


def note_in_vectors(run: Run, metrics: dict[str, Any], folder: str) -> None:
    """Have each vector's file say what it reached on responses of its own."""
    quality = metrics["quality"]
    for name, vector in stored_vectors(run, metrics, folder).items():
        layer = quality["best"]["by_method"][name]
        noted = {"position": quality["position"], "layer": layer}
        noted |= _held_out(quality, name, layer)
        if quality["causal"] and quality["causal"]["method"] == name:
            causal = quality["causal"]
            curve = causal["vector"]
            noted["steering"] = {"layer": causal["layer"], "strength": curve["rise_at"]}
            noted["steering"] |= {"step": causal["step"], "trait_rise": curve["rise"]}
        extra = {**vector.provenance.extra, "tested": noted}
        changed = replace(vector, provenance=replace(vector.provenance, extra=extra))
        run.store.write(_key(folder, name), to_safetensors_bytes(changed))


def _held_out(quality: dict[str, Any], method: str, layer: int) -> dict[str, Any]:
    tested = quality["evaluation"]
    separation = tested["methods"][method]["separation"] if tested else None
    if separation is None:
        return {}
    return {
        f"held_out_{name}": {k: separation[name][k][layer] for k in ("value", "interval")}
        for name in ("auroc", "cohens_d")
    }


def _key(folder: str, method: str) -> str:
    return f"{folder}/vectors/{method}.safetensors"
