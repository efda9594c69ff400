"""Requests for engine tests and ways to run them. Knows nothing about what is asserted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tests.tiny_models import save_tiny_model
from traitlens.arrays import Float32
from traitlens.capture.blocks import decoder_blocks
from traitlens.capture.hooks import tapped
from workers.engine.engine import Engine, build_engine
from workers.engine.generation import Generation, GenerationRequest, Sampling
from workers.engine.sampler import RowSampling, draw, tree_levels, uniforms
from workers.models.model import LoadedModel, load_model

torch.set_num_threads(1)

POSITIONS = ("response_avg", "prompt_avg", "prompt_last")


def tiny(
    folder: Path, family: str, *, n_stops: int = 8, changes: dict[str, object] | None = None
) -> LoadedModel:
    """A tiny model on the CPU that stops at any of several tokens, so that many responses end
    early.
    """
    model = load_model(save_tiny_model(folder, family, changes=changes), device="cpu")
    return replace(model, stop_ids=frozenset(range(2, 2 + n_stops)))


def work(
    prompts: int = 6,
    rollouts: int = 5,
    *,
    longest: int = 40,
    sampling: Sequence[Sampling] = (),
) -> list[GenerationRequest]:
    """Rollouts of random prompts of 1 to 30 tokens, each with a limit of 1 to `longest` tokens."""
    random = np.random.default_rng(7)
    requests = []
    for p in range(prompts):
        ids = tuple(
            int(i) for i in random.integers(16, 262, 1 if p == 0 else random.integers(2, 31))
        )
        for r in range(rollouts):
            settings = Sampling(int(random.integers(1, longest + 1)))
            if sampling:
                settings = sampling[r % len(sampling)]
            requests.append(GenerationRequest(ids, 1000 * p + r, settings))
    return requests


def run(engine: Engine, requests: Sequence[GenerationRequest]) -> list[Generation]:
    """All generations, in the requests' order."""
    engine.add(requests)
    made: list[Generation] = []
    while engine.has_work:
        made += engine.step()
    assert len(made) == len(requests)
    by_request = {generation.request: generation for generation in made}
    return [by_request[request] for request in requests]


def plain(model: LoadedModel, request: GenerationRequest) -> tuple[tuple[int, ...], list[Float32]]:
    """The response of a request alone, its mean and the state of the prompt's last token.

    The whole text is run again for every token, without cache and padding, and once more for the
    states.
    """
    sampling, ids = request.sampling, list(request.prompt_ids)
    levels = tree_levels(model.model.config.get_text_config().vocab_size)
    numbers = uniforms(request.seed, sampling.max_new_tokens, levels)
    states: list[torch.Tensor] = []
    with torch.inference_mode():
        for number in numbers:
            logits = model.model(input_ids=torch.tensor([ids])).logits[:, -1]
            token = int(draw(logits, number[None], RowSampling.of([sampling]))[0])
            if token in model.stop_ids:
                break
            ids.append(token)
        with tapped(decoder_blocks(model.model), lambda _, state: states.append(state[0])):
            model.model(input_ids=torch.tensor([ids]))
    # [layer, token, d_model]
    every, n = torch.stack(states), len(request.prompt_ids)
    weights = torch.zeros(2, len(ids))
    weights[0, n:] = 1 / max(1, len(ids) - n)
    weights[1, n - 1] = 1
    response_avg, prompt_last = (weights @ every).transpose(0, 1).numpy()
    return tuple(ids[n:]), [response_avg, prompt_last]


class Compared(NamedTuple):
    """The core that a model gets, how many texts are others than alone in a plain pass, and the
    largest relative error of a state."""

    path: str
    other_texts: int
    error: float


def compared(model: LoadedModel, requests: Sequence[GenerationRequest]) -> Compared:
    """Run the requests together, and each alone in a plain pass."""
    engine = build_engine(model, max_rows=4)
    others, error = 0, 0.0
    for made in run(engine, requests):
        response, (response_avg, prompt_last) = plain(model, made.request)
        others += made.response_ids != response
        error = max(error, worst_error(made.response_avg, response_avg))
        error = max(error, worst_error(made.prompt_last, prompt_last))
    return Compared(engine.path, others, error)


def texts(generations: Sequence[Generation]) -> list[tuple[int, ...]]:
    """The response token ids."""
    return [generation.response_ids for generation in generations]


def worst_error(a: np.ndarray, b: np.ndarray) -> float:
    """Largest relative distance of a row of a to the same row of b, over all layers."""
    distance = np.linalg.norm(a - b, axis=-1)
    length = np.linalg.norm(b, axis=-1)
    return float(np.max(distance / np.where(length == 0, 1, length)))
