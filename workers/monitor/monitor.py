"""Generates responses and hands out every token with its projections, while they are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.engine.engine import Engine
from workers.engine.generation import (
    Generation,
    GenerationRequest,
    Sampling,
    Steering,
    UnitVectors,
)
from workers.engine.teacher_forced import project_tokens
from workers.models.chat import Prompt, TokenTexts, decode_response
from workers.monitor.trajectory import Trajectory


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
    projections: NDArray[np.float32]


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
    streams: bool = True,
) -> Iterator[ProjectedToken | Trajectory]:
    """Each token as soon as it is read, when streaming, and each response's trajectory once it is
    done; response i answers asked[i]. A model on the slower core hands tokens out at the end."""
    texts = TokenTexts(engine.model)
    engine.add(
        GenerationRequest(
            str(i), one.prompt.token_ids, one.seed, sampling, one.steering, directions
        )
        for i, one in enumerate(asked)
    )
    shown: dict[int, list[str]] = {i: [] for i in range(len(asked))}
    while engine.has_work:
        finished = engine.step()
        for live in engine.live() if streams else ():
            i = int(live.key)
            yield from _new_tokens(i, live.response_ids, live.projections, shown[i], texts)
        for generation in finished:
            i = int(generation.key)
            response = _response_projections(asked[i], generation)
            if streams:
                yield from _new_tokens(i, generation.response_ids, response, shown[i], texts)
            yield _trajectory(engine, i, asked[i], generation, texts)


def project_answers(
    engine: Engine, answered: Sequence[AnsweredPrompt], directions: UnitVectors
) -> Iterator[Trajectory]:
    """The trajectories of responses that exist, in batches of like length, as they are read."""
    texts = TokenTexts(engine.model)
    prompts = [one.prompt_ids for one in answered]
    responses = [one.response_ids for one in answered]
    for i, projections in project_tokens(engine.model, prompts, responses, directions):
        one = answered[i]
        n_prompt = len(one.prompt_ids)
        yield Trajectory(
            id=i,
            prompt=one.shown,
            response=decode_response(engine.model, one.response_ids),
            tokens=texts.all(one.response_ids),
            token_ids=one.response_ids,
            projections=projections[n_prompt:, 0],
            norms=projections[n_prompt:, 1],
            prompt_projections=projections[:n_prompt, 0],
            facts=one.facts,
        )


def _new_tokens(
    i: int,
    ids: Sequence[int],
    projections: Iterable[NDArray[np.float32]],
    shown: list[str],
    texts: TokenTexts,
) -> Iterator[ProjectedToken]:
    """What was not handed out yet; a response that memory made start again is not repeated."""
    for index, one in enumerate(projections):
        if index >= len(shown):
            shown.append(texts.next(ids, index, shown))
            yield ProjectedToken(i, index, shown[index], one[0])


def _response_projections(one: OpenPrompt, generation: Generation) -> NDArray[np.float32]:
    assert generation.projections is not None
    return generation.projections[len(one.prompt.token_ids) :]


def _trajectory(
    engine: Engine, i: int, one: OpenPrompt, generation: Generation, texts: TokenTexts
) -> Trajectory:
    assert generation.projections is not None
    n_prompt = len(one.prompt.token_ids)
    return Trajectory(
        id=i,
        prompt=one.shown,
        response=decode_response(engine.model, generation.response_ids),
        tokens=texts.all(generation.response_ids),
        token_ids=generation.response_ids,
        projections=generation.projections[n_prompt:, 0],
        norms=generation.projections[n_prompt:, 1],
        prompt_projections=generation.projections[:n_prompt, 0],
        facts={**one.facts, "finish": generation.finish, "seed": one.seed},
    )
