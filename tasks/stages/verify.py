"""The verify stage: a trait's vectors on held-out questions and in steering; the last verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from domain.plan.jobs import Job
from domain.plan.samples import CONFIRMATION, EVALUATION, ROUNDS
from domain.plan.spec import FilterSpec, TraitRef
from domain.plan.steering_search import best_confirmed_cell
from domain.scoring.scores import score_value
from domain.scoring.thresholds import is_missing, is_readable, outcomes, with_missing_at
from domain.verdict.gates import with_verdict
from domain.verdict.record import (
    PARTS,
    CausalFigures,
    EvaluationFigures,
    Quality,
    TraitMetrics,
)
from domain.verdict.uses import use_layers
from storage.record.artifacts import Record, load_record, publish_artifact, read_artifact
from storage.record.judged_samples import judged_samples, kept_training
from storage.record.responses import load_activations
from storage.record.results import Results, kept_keys, write_metrics, write_tested, writing_results
from storage.record.run import Run
from tasks.stages.checks import Answered, causal_figures, evaluation_figures
from tasks.stages.reading import reading_figures
from tasks.stages.reduce import METRICS
from tasks.stages.steering_cells import (
    load_directions,
    load_likelihood,
    recorded_cells,
    shown_in_cells,
)
from tasks.stages.vectors import stored_vectors, vector_key
from traitlens.assess.kept_rows import Array
from traitlens.assess.reading import FoldedDirections
from traitlens.vectors.files import to_safetensors_bytes


def verify(run: Run, job: Job) -> Record:
    """Test what reduce made, and write the verdict that takes it in."""
    assert job.trait is not None
    trait, folder = run.spec.trait(job.trait), f"traits/{job.trait}"
    record = load_record(run.store, run.plan.trait_job("reduce", trait.name))
    metrics = read_artifact(run.store, record, METRICS, TraitMetrics.model_validate_json)
    with writing_results(run.store, folder):
        quality = metrics.quality
        if quality is not None:
            tested = verify_vectors(run, trait, quality, filter_spec=run.spec.filter, folder=folder)
            steered = dose_response(run, trait, folder)
            reads = reading_figures(run, trait, quality, folder=folder)
            found = {"evaluation": tested, "likelihood": load_likelihood(run, trait.name)}
            quality = quality.model_copy(update={**found, "causal": steered, "reading": reads})
            note_in_vectors(run, quality, folder)
        told = {"checks": run.spec.checks, "is_checked": True, "is_steered_with_others": False}
        metrics = with_verdict(metrics.model_copy(update={"quality": quality, **told}))
        write_metrics(run.store, folder, metrics)
    info = {"summary": metrics.verdict, "verdict": metrics.verdict}
    return publish_artifact(run.store, job, files={}, info=info)


def verify_vectors(
    run: Run, trait: TraitRef, quality: Quality, *, filter_spec: FilterSpec, folder: str
) -> EvaluationFigures | None:
    """Test the vectors below a folder on the stored answers to the evaluation questions, and write
    evaluation.parquet; None where there are no such answers."""
    jobs = run.plan.part_jobs(trait, "generate", EVALUATION)
    if not jobs:
        return None
    results = outcomes(judged_samples(run, jobs), filter_spec)
    write_tested(run.store, f"{folder}/evaluation.parquet", results)
    stored = [load_activations(run.store, job).at(quality.position) for job in jobs]
    vectors = {name: v.tensor.numpy() for name, v in stored_vectors(run, quality, folder).items()}
    answered = _answered(results, np.concatenate(stored), filter_spec)
    directions = FoldedDirections(range(trait.n_instructions), trait.n_instructions)
    kept = kept_keys(run.store, folder)
    for samples, rows in kept_training(run, trait, kept, quality.position):
        is_pos = np.array([sample.polarity == "positive" for sample in samples])
        directions.add(rows, is_pos=is_pos, labels=[sample.instruction for sample in samples])
    return evaluation_figures(vectors, answered, without_instruction=directions)


def _answered(results: Results, activations: Array, filter_spec: FilterSpec) -> Answered:
    readable = [is_readable(one, filter_spec) for one, _ in results]
    coherent = [with_missing_at(one, trait=0.0, coherence=100.0) for one, _ in results]
    may_be = [is_readable(one, filter_spec) for one in coherent]
    samples = [one.sample for one, _ in results]
    scores = [
        score_value(one.trait) if is_read else None
        for (one, _), is_read in zip(results, readable, strict=True)
    ]
    return Answered(
        activations=activations,
        polarity=[sample.polarity for sample in samples],
        is_example=np.array([outcome.fall is None for _, outcome in results]),
        is_readable=np.array(readable),
        may_be_readable=np.array(may_be) if may_be != readable else None,
        trait=np.array([np.nan if score is None else score for score in scores]),
        prompts=[(sample.instruction, sample.question) for sample in samples],
    )


def dose_response(run: Run, trait: TraitRef, folder: str) -> CausalFigures | None:
    """The dose-response with how it was found; None when nothing was steered."""
    directions = load_directions(run, trait.name)
    jobs = run.plan.part_jobs(trait, "generate", CONFIRMATION)
    if directions is None or not jobs:
        return None
    cells = recorded_cells(run, trait.name, CONFIRMATION)
    results = outcomes(judged_samples(run, jobs), run.spec.filter)
    write_tested(run.store, f"{folder}/steering.parquet", results, cells)
    best = best_confirmed_cell(cells)
    steered = [(one, one.sample.cell) for one, _ in results if one.sample.cell is not None]
    return causal_figures(
        [
            (one.sample, cells[cell], score_value(one.trait), score_value(one.coherence))
            for one, cell in steered
        ],
        [one for part in ROUNDS for one in shown_in_cells(run, trait.name, part)],
        method=directions.method,
        best=best,
        step=directions.steps[directions.layers.index(best.layer)],
        is_missing=[is_missing(one, "trait") for one, _ in steered],
    )


def note_in_vectors(run: Run, quality: Quality, folder: str) -> None:
    """Have each vector's file say what it reached on responses of its own."""
    has_parts = quality.reading is not None and quality.reading.text_share is not None
    for name, vector in stored_vectors(run, quality, folder, *(PARTS if has_parts else ())).items():
        layer, causal = quality.best.by_method.get(name, quality.best.layer), quality.causal
        reads, steers = use_layers(quality, name)
        noted: dict[str, object] = {
            "position": quality.position,
            "layer": layer,
            "reading_layer": reads,
            "steering_layer": steers,
        }
        tested = quality.evaluation.methods.get(name) if quality.evaluation else None
        held_out = tested and tested.between_instructions
        if held_out:
            noted["held_out_auroc"] = held_out.auroc.at(layer).model_dump(mode="json")
            noted["held_out_cohens_d"] = held_out.cohens_d.at(layer).model_dump(mode="json")
        if causal is not None and causal.method == name:
            noted["steering"] = {
                "layer": causal.layer,
                "strength": causal.vector.rise_at,
                "step": causal.step,
                "trait_rise": causal.vector.rise.model_dump(mode="json"),
            }
        extra = {**vector.provenance.extra, "tested": noted}
        changed = replace(vector, provenance=replace(vector.provenance, extra=extra))
        run.store.write(vector_key(folder, name), to_safetensors_bytes(changed))
