"""Generates responses and hands out every token with its projections, while they are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from domain.plan.spec import Measure
from traitlens.arrays import Float32
from traitlens.capture.sinks import are_sinks
from workers.engine.engine import Engine
from workers.engine.generation import Generation, GenerationRequest, Sampling, Steering, UnitVectors
from workers.engine.likelihood import likeliest_tokens
from workers.engine.teacher_forced import project_tokens
from workers.models.chat import Prompt, TokenTexts, decode_response
from workers.monitor.trajectory import Trajectory

# Finer ones would only be long.
PROBABILITY_DIGITS = 5


@dataclass(frozen=True)
class OpenPrompt:
    """One response to make: the prompt as people see it and as the model does; facts are kept."""

    shown: str
    prompt: Prompt
    seed: int = 0
    steering: Steering | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ProjectedToken:
    """Token `index` of response `id` with the projections [k] of the state at that token itself."""

    id: int
    index: int
    text: str
    projections: Float32


@dataclass(frozen=True)
class AnsweredPrompt:
    """A prompt with a response that exists already, as token ids."""

    shown: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def monitor(
    engine: Engine,
    asked: Sequence[OpenPrompt],
    directions: UnitVectors,
    *,
    sampling: Sampling,
    measure: Measure = "answer",
    streams: bool = True,
    alternatives: int = 0,
) -> Iterator[ProjectedToken | Trajectory]:
    """Each token as soon as it is read, when streaming, and each response's trajectory once it is
    done; response i answers asked[i]. So many `alternatives` are kept at each token. Of a response
    with a thought only what is measured counts, and a thought alone is not streamed. A model on the
    slower core hands tokens out at the end."""
    texts = TokenTexts(engine.model)
    requests = [
        GenerationRequest(
            one.prompt.token_ids,
            one.seed,
            sampling,
            one.steering,
            directions,
            opened=one.prompt.opened,
        )
        for one in asked
    ]
    engine.add(requests)
    number = {request: i for i, request in enumerate(requests)}
    shown: list[list[str]] = [[] for _ in asked]
    while engine.has_work:
        finished = engine.step()
        for row in engine.running() if streams and measure != "thought" else ():
            if measure == "answer" and not row.parts.has_answer:
                continue
            # the first projection is that of the prompt's last token
            i, first = number[row.request], row.parts.answer_start if measure == "answer" else 0
            own = (one[0] for one in row.projections[1 + first :])
            yield from _new_tokens(i, row.response_ids[first:], own, shown[i], texts)
        for generation in finished:
            i = number[generation.request]
            made = _answer(i, asked[i], generation, measure, texts)
            if streams:
                yield from _new_tokens(i, made.token_ids, made.projections, shown[i], texts)
            if alternatives:
                first, last = _measured_span(generation, measure)
                likeliest = likeliest_tokens(
                    engine.model,
                    generation.request.prompt_ids,
                    generation.response_ids,
                    alternatives,
                    steering=asked[i].steering,
                )[first:last]
                made = replace(made, alternatives=_in_words(made.token_ids, likeliest, texts))
            yield made


def _answer(
    i: int, one: OpenPrompt, generation: Generation, measure: Measure, texts: TokenTexts
) -> Trajectory:
    """The trajectory of what is measured of a finished response."""
    assert generation.projections is not None
    first, last = _measured_span(generation, measure)
    n_prompt, start = len(generation.request.prompt_ids), generation.answer_start
    facts = {**one.facts, "finish": generation.finish, "seed": one.seed}
    if start:
        facts["thought"] = texts.model.text_of(generation.response_ids[:start])
    measured = generation.projections[n_prompt + first : n_prompt + last]
    read = np.concatenate([generation.projections[:n_prompt], measured])
    made = _trajectory(i, one.shown, generation.response_ids[first:last], read, facts, texts)
    return replace(made, all_ids=generation.response_ids, answer_start=start)


def _measured_span(generation: Generation, measure: Measure) -> tuple[int, int]:
    """The first token of a response that is measured, and the first after them."""
    start, n_tokens = generation.answer_start, len(generation.response_ids)
    spans = {"answer": (start, n_tokens), "thought": (0, start)}
    return spans.get(measure, (0, n_tokens))


def project_answers(
    engine: Engine, answered: Sequence[AnsweredPrompt], directions: UnitVectors
) -> Iterator[Trajectory]:
    """The trajectories of responses that exist, in batches of like length, as they are read."""
    texts = TokenTexts(engine.model)
    prompts = [one.prompt_ids for one in answered]
    responses = [one.response_ids for one in answered]
    for i, projections in project_tokens(engine.model, prompts, responses, directions):
        one = answered[i]
        yield _trajectory(i, one.shown, one.response_ids, projections, one.facts, texts)


def _in_words(
    ids: Sequence[int], likeliest: Sequence[Sequence[tuple[int, float]]], texts: TokenTexts
) -> tuple[tuple[tuple[str, float], ...], ...]:
    """The texts of other tokens in each token's place, with their probabilities."""
    before = texts.all(ids)
    return tuple(
        tuple(
            (texts.next([*ids[:t], token], t, before), round(share, PROBABILITY_DIGITS))
            for token, share in place
        )
        for t, place in enumerate(likeliest)
    )


def _new_tokens(
    i: int, ids: Sequence[int], projections: Iterable[Float32], shown: list[str], texts: TokenTexts
) -> Iterator[ProjectedToken]:
    """What was not handed out yet; a response that memory made start again is not repeated."""
    for index, one in enumerate(projections):
        if index >= len(shown):
            shown.append(texts.next(ids, index, shown))
            yield ProjectedToken(i, index, shown[index], one)


def _trajectory(
    i: int,
    prompt: str,
    ids: tuple[int, ...],
    projections: Float32,
    facts: dict[str, Any],
    texts: TokenTexts,
) -> Trajectory:
    n_prompt = len(projections) - len(ids)
    return Trajectory(
        id=i,
        prompt=prompt,
        response=decode_response(texts.model, ids),
        tokens=texts.all(ids),
        token_ids=ids,
        projections=projections[n_prompt:, 0],
        norms=projections[n_prompt:, 1],
        prompt_projections=projections[:n_prompt, 0],
        prompt_sinks=are_sinks(torch.from_numpy(projections[:n_prompt, 1].T)).T.numpy(),
        facts=facts,
    )
