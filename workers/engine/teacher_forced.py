"""Mean activations, and projections of every token, of given ids by a plain forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from traitlens.arrays import Float32, Ints
from traitlens.capture.blocks import backbone, decoder_blocks
from traitlens.capture.hooks import LayerTap, tapped
from traitlens.capture.sinks import mean_without_sinks, sums_before_last
from workers.engine.forward import Projector, steered, token_sums
from workers.engine.generation import Steering, UnitVectors
from workers.models.model import LoadedModel

# Padded tokens of one forward pass, whose states are held at once. With more, a CPU's caches lose
# what a layer made before the next one reads it; a GPU gains nothing.
BATCH_TOKENS_CPU, BATCH_TOKENS_GPU = 1024, 4096


class ForcedMeans(NamedTuple):
    """Means of N texts, each [N, L+1, d_model], and how many tokens [N] `prompt_avg` leaves out
    where it leaves out most. `response_avg` is of the answer, `thought_avg` of what is before it in
    the response; None where no response has a thought."""

    response_avg: Float32
    prompt_avg: Float32
    prompt_last: Float32
    prompt_sinks: Ints
    thought_avg: Float32 | None = None


def teacher_forced(
    model: LoadedModel,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    *,
    steering: Steering | None = None,
    answer_starts: Sequence[int] = (),
) -> ForcedMeans:
    """The means of N responses in their prompts; `answer_starts` say where their answers begin.

    Ids are fed as they are, sums are float32, states are those after steering. An empty response
    has a response_avg of zeros.
    """
    has_thoughts = any(answer_starts)
    shape = (3 + has_thoughts, len(prompt_ids), model.n_layers + 1, model.d_model)
    means, sinks = np.zeros(shape, np.float32), np.zeros(len(prompt_ids), np.int64)
    for batch, texts in text_batches(prompt_ids, response_ids, most=_most_tokens(model)):
        parts = [texts.response]
        if has_thoughts:
            parts = _parts(texts, [answer_starts[k] for k in batch])
        means[:, batch], sinks[batch] = _batch_means(model, texts, steering, parts)
    return ForcedMeans(means[0], means[1], means[2], sinks, means[3] if has_thoughts else None)


def _parts(texts: PaddedTexts, answer_starts: Sequence[int]) -> list[Tensor]:
    """Where answers and thoughts are 1, [batch, tokens] each."""
    place = texts.response.cumsum(-1)
    starts = torch.tensor(answer_starts).unsqueeze(-1)
    return [texts.response * (place > starts), texts.response * (place <= starts)]


def project_tokens(
    model: LoadedModel,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    directions: UnitVectors,
    *,
    steering: Steering | None = None,
) -> Iterator[tuple[int, Float32]]:
    """(which text, its projections [prompt + response tokens, 2, k]) of N texts, as they are read:
    short ones first; states are those after steering."""
    projector = Projector(model.device)
    for batch, texts in text_batches(prompt_ids, response_ids, most=_most_tokens(model)):
        states = _batch_states(model, texts, steering, set(directions.layers))
        for row, i in enumerate(batch):
            length = len(prompt_ids[i]) + len(response_ids[i])
            own = {layer: of_layer[row, :length] for layer, of_layer in states.items()}
            yield i, projector.project(own, directions).cpu().numpy()


class PaddedTexts(NamedTuple):
    """Token ids [batch, tokens], padded on the right, and where prompt and response are 1."""

    ids: Tensor
    prompt: Tensor
    response: Tensor


def text_batches(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    most: int,
) -> Iterator[tuple[list[int], PaddedTexts]]:
    """Which texts a forward pass of at most so many padded tokens takes, and them; of like length,
    so that padding wastes little."""
    texts = [[*p, *r] for p, r in zip(prompts, responses, strict=True)]
    batch: list[int] = []
    for i in sorted(range(len(texts)), key=lambda i: len(texts[i])):
        if batch and len(texts[i]) * (len(batch) + 1) > most:
            yield batch, _padded([(texts[k], len(prompts[k])) for k in batch])
            batch = []
        batch.append(i)
    if batch:
        yield batch, _padded([(texts[k], len(prompts[k])) for k in batch])


def _most_tokens(model: LoadedModel) -> int:
    return BATCH_TOKENS_CPU if model.device.type == "cpu" else BATCH_TOKENS_GPU


def _padded(texts: list[tuple[list[int], int]]) -> PaddedTexts:
    ids = torch.zeros(len(texts), max(len(text) for text, _ in texts), dtype=torch.long)
    prompt, response = torch.zeros(ids.shape), torch.zeros(ids.shape)
    for row, (text, n_prompt) in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        prompt[row, :n_prompt] = 1
        response[row, n_prompt : len(text)] = 1
    return PaddedTexts(ids, prompt, response)


@torch.inference_mode()
def _batch_means(
    model: LoadedModel, texts: PaddedTexts, steering: Steering | None, parts: Sequence[Tensor]
) -> tuple[Float32, Ints]:
    prompt = texts.prompt
    rows, lengths = torch.arange(len(prompt)), prompt.sum(-1).long()
    before_last = prompt.clone()
    before_last[rows, lengths - 1] = 0
    lengths_of = [part.sum(-1, keepdim=True).clamp(min=1) for part in parts]
    means: list[Tensor] = []
    stay: list[Tensor] = []

    def add(_: int, states: Tensor) -> None:
        last = states[rows, lengths - 1].float()
        prompt_avg, n = mean_without_sinks(*sums_before_last(states, before_last), last)
        pairs = zip(parts, lengths_of, strict=True)
        answer, *thought = [token_sums(states, part).cpu() / n for part, n in pairs]
        means.append(torch.stack([answer, prompt_avg.cpu(), last.cpu(), *thought]))
        stay.append(n.cpu())

    _forward(model, texts, steering, add)
    sinks = lengths - torch.stack(stay).min(dim=0).values.long()
    # [2 + parts, batch, layer, d_model]
    return torch.stack(means, dim=2).numpy(), sinks.numpy()


@torch.inference_mode()
def _batch_states(
    model: LoadedModel, texts: PaddedTexts, steering: Steering | None, layers: set[int]
) -> dict[int, Tensor]:
    """The states [batch, tokens, d_model] of some layers."""
    kept: dict[int, Tensor] = {}

    def keep(layer: int, states: Tensor) -> None:
        if layer in layers:
            kept[layer] = states

    _forward(model, texts, steering, keep)
    return kept


def _forward(
    model: LoadedModel, texts: PaddedTexts, steering: Steering | None, tap: LayerTap
) -> None:
    prompt_lengths = texts.prompt.sum(-1).to(model.device, torch.long)
    # Steered first: a layer's hooks run in the order they were made.
    with steered(model.model, steering, prompt_lengths), tapped(decoder_blocks(model.model), tap):
        backbone(model.model)(
            input_ids=texts.ids.to(model.device),
            attention_mask=(texts.prompt + texts.response).to(model.device, torch.long),
            use_cache=False,
        )
