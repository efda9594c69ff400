"""The generate stage: a shard's prompts in, responses and their mean activations out. Of scenarios
that are only read the responses are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from domain.errors import ModelError
from domain.plan.jobs import Job
from domain.plan.samples import EVALUATION, POLARITIES, Sample
from domain.plan.spec import Measure
from domain.plan.steering_search import Cell
from storage.record.artifacts import Record, publish_artifact
from storage.record.responses import (
    ACTIVATIONS,
    RESPONSES,
    RESPONSES_DECODERS,
    Activations,
    Response,
    encode_activations,
    encode_responses,
)
from storage.record.run import Run, load_definition
from tasks.stages.steering_cells import Directions, cells_json, job_cells, load_directions
from traitlens.arrays import Float32
from workers.engine.generation import (
    Generation,
    GenerationRequest,
    Intervention,
    Sampling,
    Steering,
)
from workers.engine.parts import most_tokens
from workers.engine.resident import Resident, Residents
from workers.engine.teacher_forced import teacher_forced
from workers.models.chat import (
    Prompt,
    UnfitPromptError,
    check_prompt_length,
    put_scenario,
    render_prompt,
    response_ids,
    response_parts,
)

IS_CAPTURED = (*POLARITIES, EVALUATION)
"""The parts whose activations vectors are made from or tested on."""


def generate(run: Run, job: Job, *, residents: Residents) -> Record:
    """Generate and capture one shard; responses keep the plan's order.

    A shard of steered samples is empty when the trait's vectors are not worth steering with.
    """
    assert job.trait is not None
    definition = load_definition(run, job.trait)
    samples = run.plan.samples(job)
    steerings: list[Steering | None] = [None] * len(samples)
    cells: list[Cell] = []
    if job.part not in IS_CAPTURED:
        directions = load_directions(run, job.trait)
        cells = job_cells(run, job, directions) if directions else []
        samples = [s for s in samples if s.cell is not None and s.cell < len(cells)]
        steerings = _steerings(samples, cells, directions) if directions else []
    sampling = Sampling(**run.spec.sampling.model_dump())
    with residents.use(run.spec.model) as resident:
        model = resident.model

        @cache
        def rendered(system: str | None, user: str) -> Prompt:
            if definition.is_scenarios:
                prompt = put_scenario(model, user, put=run.spec.scenarios)
            else:
                prompt = render_prompt(model, system=system, user=user)
            try:
                check_prompt_length(model, prompt, n_more=most_tokens(model, sampling))
            except UnfitPromptError as error:
                raise ModelError(f"the prompt of {user[:60]!r} for {job.trait} {error}") from error
            return prompt

        asked = [definition.asked(s.part, s.question, s.polarity) for s in samples]
        are_given = definition.is_scenarios and run.spec.scenarios == "read"
        prompts = [
            rendered(
                definition.system_turn(s.instruction, s.polarity), "" if are_given else question
            )
            for s, question in zip(samples, asked, strict=True)
        ]
        requests = [
            GenerationRequest(
                prompt.token_ids, s.seed(run.spec.seed), sampling, steering, opened=prompt.opened
            )
            for s, prompt, steering in zip(samples, prompts, steerings, strict=True)
        ]
        if are_given:
            generations = _given(resident, requests, asked)
        else:
            generations = resident.engine.generate(requests)
        responses = [
            Response(
                key=sample.key,
                seed=generation.request.seed,
                prompt=prompt.text,
                prompt_token_ids=list(prompt.token_ids),
                finish=generation.finish,
                **response_parts(model, generation.response_ids, generation.answer_start),
            )
            for sample, prompt, generation in zip(samples, prompts, generations, strict=True)
        ]
        info = {
            **resident.facts(),
            "n_samples": len(samples),
            "n_tokens": sum(len(g.response_ids) for g in generations),
            "n_thought_tokens": sum(g.answer_start for g in generations),
            "n_thoughts": sum(g.answer_start > 0 for g in generations),
            # none are generated where nothing is worth steering with
            "prompt_sinks": sum(g.prompt_sinks for g in generations) / max(len(generations), 1),
            "busy_share": resident.engine.busy_share(),
        }
    info["summary"] = f"{len(samples)} responses, {info['n_tokens']} tokens"
    files = {RESPONSES: encode_responses(responses)}
    if job.part in IS_CAPTURED:
        captured = _activations(generations, run.spec.measure)
        _check_finite(captured, run.spec.model.model_id, str(info["dtype"]))
        files[ACTIVATIONS] = encode_activations(captured)
    else:
        info["cells"] = cells_json(cells)
    return publish_artifact(run.store, job, files=files, info=info, decoders=RESPONSES_DECODERS)


def _given(
    resident: Resident, requests: Sequence[GenerationRequest], texts: Sequence[str]
) -> list[Generation]:
    """The texts as responses, with the states of a plain pass."""
    model, read = resident.model, []
    for request, text in zip(requests, texts, strict=True):
        ids = response_ids(model, text)
        try:
            check_prompt_length(model, Prompt(text, request.prompt_ids + ids), n_more=0)
        except UnfitPromptError as error:
            raise ModelError(f"the scenario {text[:60]!r} {error}") from error
        read.append((request.prompt_ids, ids))
    means = resident.read_in_turn(
        read, lambda prompts, ids: zip(*teacher_forced(model, prompts, ids)[:4], strict=True)
    )
    return [
        Generation(request, ids, "stop", *own[:3], prompt_sinks=int(own[3]))
        for request, (_, ids), own in zip(requests, read, means, strict=True)
    ]


def _steerings(
    samples: list[Sample], cells: list[Cell], directions: Directions
) -> list[Steering | None]:
    """Samples that are pushed alike share one Steering; a random direction is each sample's own,
    so that intervals over questions hold over directions too."""

    @cache
    def along_vector(cell: Cell) -> Steering:
        return Steering((Intervention(cell.layer, directions.push(cell)),))

    n_questions = 1 + max((sample.question for sample in samples), default=0)
    found: list[Steering | None] = []
    for sample in samples:
        assert sample.cell is not None
        cell = cells[sample.cell]
        if cell.direction == "random":
            name = f"{sample.trait}/{cell.layer}/{sample.question}/{sample.rollout}"
            number = sample.question + sample.rollout * n_questions
            drawn = directions.random_push(cell, number, name=name)
            found.append(Steering((Intervention(cell.layer, drawn),)))
        else:
            found.append(along_vector(cell) if cell.direction == "vector" else None)
    return found


def _activations(generations: list[Generation], measure: Measure) -> Activations:
    first_of: dict[tuple[int, ...], int] = {}
    rows: list[Generation] = []
    prompt_of = []
    for generation in generations:
        prompt_ids = generation.request.prompt_ids
        if prompt_ids not in first_of:
            first_of[prompt_ids] = len(rows)
            rows.append(generation)
        prompt_of.append(first_of[prompt_ids])
    return Activations(
        response_avg=np.stack([_measured(g, measure) for g in generations]),
        prompt_avg=np.stack([g.prompt_avg for g in rows]),
        prompt_last=np.stack([g.prompt_last for g in rows]),
        prompt_of=np.asarray(prompt_of, dtype=np.int64),
    )


def _check_finite(captured: Activations, model_id: str, dtype: str) -> None:
    """Before a night's work of them comes to nothing: no vector is made of such a row."""
    means = (captured.response_avg, captured.prompt_avg, captured.prompt_last)
    if not all(np.isfinite(of_all).all() for of_all in means):
        raise ModelError(
            f"states of {model_id} are NaN or infinite in {dtype}",
            advice="give --dtype bfloat16 or float32 where that is float16, else look whether its "
            "weights are whole (`orchestrate doctor`)",
        )


def _measured(generation: Generation, measure: Measure) -> Float32:
    """The mean [L+1, d_model] over what is measured of a response; see `Response.measured`."""
    answer, n_thought = generation.response_avg, generation.answer_start
    n_answer = len(generation.response_ids) - n_thought
    if measure == "answer" or not n_answer:
        return answer
    thought = np.zeros_like(answer) if generation.thought_avg is None else generation.thought_avg
    if measure == "thought":
        return thought
    share = np.float32(n_thought / (n_thought + n_answer))
    return share * thought + (1 - share) * answer
