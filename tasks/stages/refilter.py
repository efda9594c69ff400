"""A trait assembled again with other settings, and tested on what its run stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from domain.errors import UsageError
from domain.plan.samples import CONFIRMATION, EVALUATION
from domain.plan.spec import DEFAULT_POSITION, FilterSpec, TraitRef
from domain.plan.steering import confirmed_best
from domain.verdict.metrics import with_verdict
from storage.record.artifacts import done_jobs
from storage.record.manifest import writing_results
from storage.record.metrics import write_metrics
from storage.record.responses import stored_positions
from storage.record.run import Run
from storage.record.tables import training_jobs
from tasks.stages.reduce import assemble
from tasks.stages.steering_cells import load_directions, recorded_cells
from tasks.stages.verify import dose_response, evaluate, note_in_vectors, stored_vectors
from traitlens.assess.kept_rows import Array

# No threshold moves a direction by less and matters: what was seen of one holds for the other.
SAME_COSINE = 0.99999


def assemble_and_test(
    run: Run,
    trait: TraitRef,
    filter_spec: FilterSpec,
    *,
    methods: tuple[str, ...],
    folder: str,
    position: str = DEFAULT_POSITION,
) -> dict[str, Any]:
    """New vectors below a folder, tested at one position on what is stored: the answers to the
    evaluation questions, and the dose-response where the run steered with the very same direction.

    Returns the metrics; raises UsageError for a position that the run did not store.
    """
    _check_stored(run, trait, position)
    metrics = assemble(run, trait, filter_spec, methods=methods, folder=folder, position=position)
    if metrics["quality"] is None:
        return metrics
    done = done_jobs(run.store, [trait.name], judgement=run.judgement)
    with writing_results(run.store, folder):
        if _is_answered(run, trait, done):
            evaluate(run, trait, metrics, filter_spec=filter_spec, folder=folder)
        is_checked = run.plan.verify_job(trait.name).key in done
        if is_checked:
            _take_over_steering(run, trait, metrics, folder)
        if metrics["quality"]["evaluation"] or metrics["quality"]["causal"]:
            note_in_vectors(run, metrics, folder)
        metrics = with_verdict({**metrics, "is_checked": is_checked})
        write_metrics(run.store, folder, metrics)
    return metrics


def _check_stored(run: Run, trait: TraitRef, position: str) -> None:
    stored = stored_positions(run.store, training_jobs(run, trait, "generate")[0])
    if position not in stored:
        raise UsageError(
            f"{run.name} stored no activations at {position}: choose from {', '.join(stored)}"
        )


def _is_answered(run: Run, trait: TraitRef, done: set[str]) -> bool:
    jobs = run.plan.part_jobs(trait, "judge", EVALUATION)
    return bool(jobs) and all(job.key in done for job in jobs)


def _take_over_steering(run: Run, trait: TraitRef, metrics: dict[str, Any], folder: str) -> None:
    """Fill `quality.causal` with the run's dose-response where it is of these vectors, too."""
    directions = load_directions(run, trait.name)
    if directions is None or not run.plan.part_jobs(trait, "generate", CONFIRMATION):
        return
    layer = confirmed_best(recorded_cells(run, trait.name, CONFIRMATION)).layer
    vector = stored_vectors(run, metrics, folder).get(directions.method)
    is_same = vector is not None and _is_along(directions.unit(layer), vector.at(layer).numpy())
    metrics["is_steered_with_others"] = not is_same
    if is_same:
        metrics["quality"]["causal"] = dose_response(run, trait, folder)


def _is_along(unit: Array, vector: Array) -> bool:
    norm = np.linalg.norm(vector.astype(np.float64))
    return bool(norm > 0 and unit.astype(np.float64) @ vector / norm > SAME_COSINE)
