"""A trait assembled again with other settings, and tested on what its run stored."""

from __future__ import annotations

import numpy as np

from domain.errors import UsageError
from domain.plan.samples import CONFIRMATION, EVALUATION
from domain.plan.spec import DEFAULT_POSITION, FilterSpec, TraitRef
from domain.plan.steering_search import best_confirmed_cell
from domain.scoring.thresholds import outcomes
from domain.verdict.gates import with_verdict
from domain.verdict.record import TraitMetrics
from storage.record.judged_samples import judged_samples, training_jobs
from storage.record.responses import stored_positions
from storage.record.results import read_response_vectors, write_metrics, writing_results
from storage.record.run import Run
from tasks.stages.reading import reading_figures
from tasks.stages.reduce import assemble
from tasks.stages.steering_cells import load_directions, load_likelihood, recorded_cells
from tasks.stages.vectors import stored_vectors
from tasks.stages.verify import dose_response, note_in_vectors, verify_vectors
from traitlens.arrays import Float32

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
) -> TraitMetrics:
    """New vectors below a folder, tested at one position on what is stored: the answers to the
    evaluation questions, and the dose-response where the run steered with the very same direction.

    Returns the metrics; raises UsageError for a position that the run did not store.
    """
    _check_stored(run, trait, position)
    results = outcomes(judged_samples(run, training_jobs(run, trait, "generate")), filter_spec)
    metrics = assemble(
        run, trait, results, filter_spec, methods=methods, folder=folder, position=position
    )
    quality = metrics.quality
    if quality is None:
        return metrics
    done = run.done(trait.name)
    answers = run.plan.part_jobs(trait, run.plan.settled_by, EVALUATION)
    told = {"is_checked": run.plan.trait_job("verify", trait.name).key in done}
    with writing_results(run.store, folder):
        if answers and all(job.key in done for job in answers):
            tested = verify_vectors(run, trait, quality, filter_spec=filter_spec, folder=folder)
            quality = quality.model_copy(update={"evaluation": tested})
        reads = reading_figures(run, trait, quality, folder=folder)
        quality = quality.model_copy(update={"reading": reads})
        directions = load_directions(run, trait.name) if told["is_checked"] else None
        if directions is not None and run.plan.part_jobs(trait, "generate", CONFIRMATION):
            layer = best_confirmed_cell(recorded_cells(run, trait.name, CONFIRMATION)).layer
            vector = stored_vectors(run, quality, folder).get(directions.method)
            is_same = vector is not None and _is_along(
                directions.unit(layer), vector.at(layer).numpy()
            )
            told["is_steered_with_others"] = not is_same
            if is_same:
                steered = dose_response(run, trait, folder)
                quality = quality.model_copy(update={"causal": steered})
        likelihood = load_likelihood(run, trait.name) if told["is_checked"] else None
        if likelihood is not None:
            own = read_response_vectors(run.store, trait.name, likelihood.method)
            vector = stored_vectors(run, quality, folder).get(likelihood.method)
            if vector is not None and _is_along(
                own[likelihood.layer], vector.at(likelihood.layer).numpy()
            ):
                quality = quality.model_copy(update={"likelihood": likelihood})
        if quality.evaluation or quality.causal or quality.reading:
            note_in_vectors(run, quality, folder)
        metrics = with_verdict(metrics.model_copy(update={"quality": quality, **told}))
        write_metrics(run.store, folder, metrics)
    return metrics


def _check_stored(run: Run, trait: TraitRef, position: str) -> None:
    stored = stored_positions(run.store, training_jobs(run, trait, "generate")[0])
    if position not in stored:
        raise UsageError(
            f"{run.name} stored no activations at {position}: choose from {', '.join(stored)}"
        )


def _is_along(one: Float32, other: Float32) -> bool:
    wide = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(wide[0]) * np.linalg.norm(wide[1])
    return bool(norms > 0 and wide[0] @ wide[1] / norms > SAME_COSINE)
