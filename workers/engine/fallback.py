"""The plain core for models the engine cannot carry: generate in batches, then a second pass.

Same requests, same seeds and same measurements as the continuous-refill core; only slower.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from domain.errors import ModelNotHereError
from traitlens.arrays import Float32
from workers.engine.forward import steered
from workers.engine.generation import EngineStats, Finish, Generation, GenerationRequest
from workers.engine.parts import FollowedParts
from workers.engine.running import RunningSequence
from workers.engine.sampler import RowSampling, draw, tree_levels, uniforms
from workers.engine.teacher_forced import project_tokens, teacher_forced
from workers.models.device import is_out_of_memory, release_reserve
from workers.models.model import LoadedModel

MOST_ROWS = 32


Company = Literal["any", "alike", "alone"]
"""What a prompt may be batched with so that its response is the one it has alone: where padding or
a neighbor changes what a model writes, only prompts that are alike in length, or none."""

# Of the trials: a prompt beside a longer one, which pads it, and beside another of its length.
TRIAL_LENGTHS: dict[Company, tuple[int, int]] = {"any": (12, 5), "alike": (5, 5)}
TRIAL_TOKENS = 6


class GenerateCore:
    """Takes the waiting requests batch by batch; a step is a whole batch."""

    path: Literal["fallback"] = "fallback"

    def __init__(
        self, model: LoadedModel, *, max_rows: int | None = None, company: Company = "any"
    ) -> None:
        self.model = model
        self._company = company
        self._waiting: deque[GenerationRequest] = deque()
        self._limit = 1 if company == "alone" else max_rows or MOST_ROWS
        self.stats = EngineStats()

    @property
    def has_work(self) -> bool:
        """True while a request waits."""
        return bool(self._waiting)

    def add(self, requests: Iterable[GenerationRequest]) -> None:
        """Queue requests behind those that wait."""
        self._waiting.extend(requests)

    def running(self) -> Iterable[RunningSequence]:
        """None: a step is a whole batch."""
        return ()

    @torch.inference_mode()
    def step(self) -> list[Generation]:
        """Generate and measure one batch. Out of memory halves the batch and loses no request."""
        batch = self._next_batch()
        finished: list[Generation] | None = None
        try:
            finished = self._run(batch) if batch else []
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # After the handler: inside it the error still holds the failed pass's tensors.
        if finished is None:
            self._halve(len(batch))
            return []
        taken = set(batch)
        self._waiting = deque(one for one in self._waiting if one not in taken)
        return finished

    def _next_batch(self) -> list[GenerationRequest]:
        # generate steers a batch as a whole, and the second pass reads it so
        first = self._waiting[0]
        alike = (
            one
            for one in self._waiting
            if one.steering is first.steering
            and one.directions is first.directions
            and (self._company == "any" or len(one.prompt_ids) == len(first.prompt_ids))
        )
        return list(islice(alike, self._limit))

    def _run(self, batch: list[GenerationRequest]) -> list[Generation]:
        started = time.perf_counter()
        responses = self._responses(batch)
        generated = time.perf_counter()
        prompts = [request.prompt_ids for request in batch]
        texts = [tuple(one.ids) for one in responses]
        steering, directions = batch[0].steering, batch[0].directions
        starts = [one.parts.answer_start for one in responses]
        means = teacher_forced(self.model, prompts, texts, steering=steering, answer_starts=starts)
        thoughts = means.thought_avg
        projections: dict[int, Float32] = {}
        if directions:
            projections.update(
                project_tokens(self.model, prompts, texts, directions, steering=steering)
            )
        self.stats.decode_seconds += generated - started
        self.stats.capture_seconds += time.perf_counter() - generated
        self.stats.prompt_tokens += sum(map(len, prompts))
        self.stats.prefilled_tokens += sum(map(len, prompts))
        self.stats.response_tokens += sum(map(len, texts))
        self.stats.drawn_tokens = self.stats.response_tokens
        self.stats.finished += len(batch)
        self.stats.peak_rows = max(self.stats.peak_rows, len(batch))
        self.stats.steps += 1
        return [
            Generation(
                request=request,
                response_ids=texts[row],
                finish=one.finish or one.parts.finish("length"),
                response_avg=means.response_avg[row],
                prompt_avg=means.prompt_avg[row],
                prompt_last=means.prompt_last[row],
                prompt_sinks=int(means.prompt_sinks[row]),
                projections=projections.get(row),
                answer_start=starts[row],
                thought_avg=thoughts[row] if thoughts is not None and starts[row] else None,
            )
            for row, (request, one) in enumerate(zip(batch, responses, strict=True))
        ]

    def _responses(self, batch: list[GenerationRequest]) -> list[_Written]:
        ids, real = left_padded([request.prompt_ids for request in batch])
        width = ids.shape[1]
        stops = sorted(self.model.stop_ids)
        settings = GenerationConfig(
            max_new_tokens=max(request.sampling.most_tokens for request in batch),
            do_sample=False,
            pad_token_id=stops[0] if stops else 0,
        )
        vocabulary = self.model.model.config.get_text_config().vocab_size
        draw_seeded = _SeededDraw(batch, width, tree_levels(vocabulary))
        written = [_Written(FollowedParts(self.model, request)) for request in batch]
        with steered(self.model.model, batch[0].steering):
            self.model.model.generate(
                ids.to(self.model.device),
                attention_mask=real.to(self.model.device),
                generation_config=settings,
                logits_processor=LogitsProcessorList([draw_seeded]),
                stopping_criteria=StoppingCriteriaList([_Ends(written, self.model.stop_ids)]),
            )
        return written

    def _halve(self, size: int) -> None:
        if size <= 1:
            raise ModelNotHereError(
                "One response alone does not fit in the device's memory: lower the limit on "
                "tokens, or use a smaller dtype or model."
            )
        self._limit = size // 2
        self.stats.halvings += 1
        release_reserve(self.model.device)


@dataclass(eq=False)
class _Written:
    """One response of a batch that is generated."""

    parts: FollowedParts
    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None


class _Ends(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Takes each row's tokens down until it ends by itself or at its limit."""

    def __init__(self, rows: Sequence[_Written], stop_ids: frozenset[int]) -> None:
        self._rows, self._stop_ids = rows, stop_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            if row.finish is None:
                self._take(row, token)
        ended = [row.finish is not None for row in self._rows]
        return torch.tensor(ended, device=input_ids.device)

    def _take(self, row: _Written, token: int) -> None:
        if token in self._stop_ids and not row.parts.passes(token):
            row.finish = row.parts.finish("stop")
            return
        row.ids.append(token)
        if row.parts.take(row.ids):
            row.finish = row.parts.finish("length")


def exact_company(model: LoadedModel, *, rounding: float) -> Company:
    """The largest company in which a trial gives the logits that the prompt has alone, but for a
    `rounding` relative to their length."""
    for company, lengths in TRIAL_LENGTHS.items():
        if _trial_error(model, lengths) <= rounding:
            return company
    return "alone"


@torch.inference_mode()
def _trial_error(model: LoadedModel, lengths: tuple[int, int]) -> float:
    """Largest distance of a step's logits between a prompt beside another one and alone, relative
    to their length; infinite where it is continued by other tokens, or the trial fails."""
    step = max(1, model.model.config.get_text_config().vocab_size // (2 * max(lengths)))
    prompts = [tuple(range(1 + k, 1 + k + n * step, step)) for k, n in enumerate(lengths)]
    settings = GenerationConfig(
        max_new_tokens=TRIAL_TOKENS,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )

    def written(batch: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids, real = (one.to(model.device) for one in left_padded(batch))
        made = model.model.generate(ids, attention_mask=real, generation_config=settings)
        return made.sequences[-1, ids.shape[1] :], torch.stack(made.logits)[:, -1].double()

    try:
        (beside, their_logits), (alone, own_logits) = written(prompts), written(prompts[-1:])
    except (TypeError, AttributeError, KeyError, IndexError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return float("inf")
    if not torch.equal(beside, alone):
        return float("inf")
    apart = torch.linalg.vector_norm(their_logits - own_logits, dim=-1)
    return float((apart / torch.linalg.vector_norm(own_logits, dim=-1)).max())


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids [prompts, tokens], padded on the left, and where they are real."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    real = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        real[row, width - len(prompt) :] = 1
    return ids, real


class _SeededDraw(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Leaves only the token that a row's own stream draws, which greedy search then takes."""

    def __init__(self, batch: list[GenerationRequest], prompt_width: int, levels: int) -> None:
        self._sampling = RowSampling.of([request.sampling for request in batch])
        longest = max(request.sampling.most_tokens for request in batch)
        self._uniforms = np.stack([uniforms(r.seed, longest, levels) for r in batch])
        self._prompt_width = prompt_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self._prompt_width
        tokens = draw(scores, self._uniforms[:, step], self._sampling)
        only = torch.full_like(scores, float("-inf"))
        return only.scatter_(1, tokens.unsqueeze(1), 0.0)
