"""The generate stage: a shard's prompts in, responses and their mean activations out."""

from __future__ import annotations

import numpy as np
from celery.exceptions import Reject

from orchestrator.plan import Job, Sample
from orchestrator.prompts import system_for
from orchestrator.traits import TraitDefinition
from storage.artifacts import Record, publish
from storage.responses import (
    ACTIVATIONS,
    RESPONSES,
    Activations,
    Response,
    encode_activations,
    encode_responses,
)
from storage.run_record import Run, load_definition
from workers.chat import Prompt, decode_response, render_prompt
from workers.engine_thread import EngineClosedError
from workers.generation import Generation, GenerationRequest, Sampling
from workers.model import LoadedModel
from workers.resident import Residents


def generate(run: Run, job: Job, *, residents: Residents) -> Record:
    """Generate and capture one shard; responses keep the plan's order."""
    assert job.trait is not None
    definition = load_definition(run, job.trait)
    samples = run.plan.samples(job)
    with residents.use(run.spec.model) as resident:
        prompts = _prompts(resident.model, definition, samples)
        sampling = Sampling(**run.spec.sampling.model_dump())
        requests = [
            GenerationRequest(s.key, prompts[s.key].token_ids, s.seed(run.spec.seed), sampling)
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
    files = {
        RESPONSES: encode_responses(responses),
        ACTIVATIONS: encode_activations(_activations(requests, generations)),
    }
    return publish(run.store, job, files=files, info=info)


def _prompts(
    model: LoadedModel, definition: TraitDefinition, samples: list[Sample]
) -> dict[str, Prompt]:
    """Sample key -> prompt; rendered once per distinct prompt."""
    rendered: dict[tuple[int, int], Prompt] = {}
    found: dict[str, Prompt] = {}
    for sample in samples:
        cell = (sample.instruction, sample.question)
        if cell not in rendered:
            rendered[cell] = render_prompt(
                model,
                system=system_for(definition, sample),
                user=definition.questions[sample.question],
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
