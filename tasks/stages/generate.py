"""The generate stage: a shard's prompts in, responses and their mean activations out."""

from __future__ import annotations

import numpy as np
from celery.exceptions import Reject

from domain.plan.jobs import Job
from domain.plan.samples import EVALUATION, POLARITIES, Sample
from domain.plan.steering import Cell
from domain.traits.definition import TraitDefinition
from domain.traits.prompts import question_for, system_for
from storage.record.artifacts import Record, publish
from storage.record.responses import (
    ACTIVATIONS,
    RESPONSES,
    Activations,
    Response,
    encode_activations,
    encode_responses,
)
from storage.record.run import Run, load_definition
from tasks.stages.steering_cells import Directions, cells_json, job_cells, load_directions
from workers.engine.generation import Generation, GenerationRequest, Sampling, Steering
from workers.engine.resident import EngineClosedError, Residents
from workers.engine.residual import random_like, steering_along
from workers.models.chat import Prompt, decode_response, render_prompt
from workers.models.model import LoadedModel

IS_CAPTURED = (*POLARITIES, EVALUATION)
"""The parts whose activations vectors are made from or tested on."""


def generate(run: Run, job: Job, *, residents: Residents) -> Record:
    """Generate and capture one shard; responses keep the plan's order.

    A shard of steered samples is empty when the trait's vectors are not worth steering with.
    """
    assert job.trait is not None
    definition = load_definition(run, job.trait)
    samples, steerings, cells = _steered(run, job)
    with residents.use(run.spec.model) as resident:
        prompts = _prompts(resident.model, definition, samples)
        sampling = Sampling(**run.spec.sampling.model_dump())
        requests = [
            GenerationRequest(
                s.key,
                prompts[s.key].token_ids,
                s.seed(run.spec.seed),
                sampling,
                steerings.get(s.key),
            )
            for s in samples
        ]
        try:
            generations = resident.engine.generate(requests)
        except EngineClosedError as error:
            # the worker is leaving; the job goes back to the queue at once
            raise Reject(str(error), requeue=True) from error
        responses = [
            _response(resident.model, request, prompts[request.key], generation)
            for request, generation in zip(requests, generations, strict=True)
        ]
        info = {
            **resident.facts(),
            "path": resident.engine.engine.path if resident.engine.engine else None,
            "n_samples": len(samples),
            "n_tokens": sum(len(g.response_ids) for g in generations),
            "busy_share": resident.engine.busy_share(),
        }
    info["summary"] = f"{len(samples)} responses, {info['n_tokens']} tokens"
    files = {RESPONSES: encode_responses(responses)}
    if job.part in IS_CAPTURED:
        files[ACTIVATIONS] = encode_activations(_activations(requests, generations))
    else:
        info["cells"] = cells_json(cells)
    return publish(run.store, job, files=files, info=info)


def _steered(run: Run, job: Job) -> tuple[list[Sample], dict[str, Steering], list[Cell]]:
    """The job's samples, sample key -> what is added, and the cells that samples count into."""
    samples = run.plan.samples(job)
    if job.part in IS_CAPTURED:
        return samples, {}, []
    directions = load_directions(run, str(job.trait))
    cells = job_cells(run, job, directions) if directions else []
    samples = [s for s in samples if s.cell is not None and s.cell < len(cells)]
    return samples, _steerings(samples, cells, directions) if directions else {}, cells


def _steerings(
    samples: list[Sample], cells: list[Cell], directions: Directions
) -> dict[str, Steering]:
    """Samples that are pushed alike share one Steering; a random direction is each sample's own,
    so that intervals over questions hold over directions too."""
    made: dict[Cell, Steering] = {}
    found: dict[str, Steering] = {}
    for sample in samples:
        assert sample.cell is not None
        cell = cells[sample.cell]
        if cell.direction == "random":
            name = f"{sample.trait}/{cell.layer}/{sample.question}/{sample.rollout}"
            vector = random_like(directions.push(cell), name=name)
            found[sample.key] = steering_along(vector, cell.layer)
        elif cell.direction == "vector":
            if cell not in made:
                made[cell] = steering_along(directions.push(cell), cell.layer)
            found[sample.key] = made[cell]
    return found


def _prompts(
    model: LoadedModel, definition: TraitDefinition, samples: list[Sample]
) -> dict[str, Prompt]:
    """Sample key -> prompt; rendered once per distinct prompt."""
    rendered: dict[tuple[str, int, int], Prompt] = {}
    found: dict[str, Prompt] = {}
    for sample in samples:
        cell = (sample.polarity, sample.instruction, sample.question)
        if cell not in rendered:
            rendered[cell] = render_prompt(
                model,
                system=system_for(definition, sample),
                user=question_for(definition, sample),
            )
        found[sample.key] = rendered[cell]
    return found


def _response(
    model: LoadedModel, request: GenerationRequest, prompt: Prompt, generation: Generation
) -> Response:
    return Response(
        key=request.key,
        seed=request.seed,
        prompt=prompt.text,
        prompt_token_ids=list(request.prompt_ids),
        response=decode_response(model, generation.response_ids),
        response_token_ids=list(generation.response_ids),
        finish=generation.finish,
    )


def _activations(requests: list[GenerationRequest], generations: list[Generation]) -> Activations:
    first_of: dict[tuple[int, ...], int] = {}
    rows: list[Generation] = []
    prompt_of = []
    for request, generation in zip(requests, generations, strict=True):
        if request.prompt_ids not in first_of:
            first_of[request.prompt_ids] = len(rows)
            rows.append(generation)
        prompt_of.append(first_of[request.prompt_ids])
    return Activations(
        response_avg=np.stack([g.response_avg for g in generations]),
        prompt_avg=np.stack([g.prompt_avg for g in rows]),
        prompt_last=np.stack([g.prompt_last for g in rows]),
        prompt_of=np.asarray(prompt_of, dtype=np.int64),
    )
