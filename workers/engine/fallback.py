"""The plain core for models the engine cannot carry: generate in batches, then a second pass.

Same requests, same seeds and same measurements as the continuous-refill core; only slower.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from domain.errors import ModelNotHereError
from workers.engine.device import release_reserve
from workers.engine.generation import (
    EngineStats,
    Finish,
    Generation,
    GenerationRequest,
    LiveResponse,
)
from workers.engine.residual import Projections, steered
from workers.engine.sampler import RowSampling, draw, tree_levels, uniforms
from workers.engine.teacher_forced import project_tokens, teacher_forced
from workers.models.model import LoadedModel, is_out_of_memory

MOST_ROWS = 32


class GenerateCore:
    """Takes the waiting requests batch by batch; a step is a whole batch."""

    def __init__(self, model: LoadedModel, *, max_rows: int | None = None) -> None:
        self._model = model
        self._pending: deque[GenerationRequest] = deque()
        self._limit = max_rows or MOST_ROWS
        self.stats = EngineStats()

    @property
    def has_work(self) -> bool:
        """True while a request waits."""
        return bool(self._pending)

    def add(self, requests: Iterable[GenerationRequest]) -> None:
        """Queue requests behind those that wait."""
        self._pending.extend(requests)

    def live(self) -> Iterator[LiveResponse]:
        """None: a step is a whole batch."""
        return iter(())

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
        for _ in batch:
            self._pending.popleft()
        return finished

    def _next_batch(self) -> list[GenerationRequest]:
        # generate steers a batch as a whole, and the second pass reads it so
        first = self._pending[0]
        alike = takewhile(
            lambda r: r.steering is first.steering and r.directions is first.directions,
            self._pending,
        )
        return list(islice(alike, self._limit))

    def _run(self, batch: list[GenerationRequest]) -> list[Generation]:
        started = time.perf_counter()
        responses = [self._cut(r, ids) for r, ids in zip(batch, self._texts(batch), strict=True)]
        generated = time.perf_counter()
        prompts = [request.prompt_ids for request in batch]
        texts = [ids for ids, _ in responses]
        steering, directions = batch[0].steering, batch[0].directions
        averages, prompt_averages, last = teacher_forced(
            self._model, prompts, texts, steering=steering
        )
        projections: dict[int, Projections] = {}
        if directions:
            projections.update(
                project_tokens(self._model, prompts, texts, directions, steering=steering)
            )
        self._count(batch, responses, generated - started, time.perf_counter() - generated)
        return [
            Generation(
                key=request.key,
                response_ids=ids,
                finish=finish,
                response_avg=averages[row],
                prompt_avg=prompt_averages[row],
                prompt_last=last[row],
                projections=projections.get(row),
            )
            for row, (request, (ids, finish)) in enumerate(zip(batch, responses, strict=True))
        ]

    def _texts(self, batch: list[GenerationRequest]) -> list[list[int]]:
        width = max(len(request.prompt_ids) for request in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        real = torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, width - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            real[row, width - len(request.prompt_ids) :] = 1
        stops = sorted(self._model.stop_ids)
        settings = GenerationConfig(
            max_new_tokens=max(request.sampling.max_new_tokens for request in batch),
            do_sample=False,
            eos_token_id=stops or None,
            pad_token_id=stops[0] if stops else 0,
        )
        vocabulary = self._model.model.config.get_text_config().vocab_size
        draw_seeded = _SeededDraw(batch, width, tree_levels(vocabulary))
        with steered(self._model.model, batch[0].steering):
            made: Tensor = self._model.model.generate(
                ids.to(self._model.device),
                attention_mask=real.to(self._model.device),
                generation_config=settings,
                logits_processor=LogitsProcessorList([draw_seeded]),
            )
        rows: list[list[int]] = made[:, width:].tolist()
        return rows

    def _cut(self, request: GenerationRequest, made: list[int]) -> tuple[tuple[int, ...], Finish]:
        made = made[: request.sampling.max_new_tokens]
        for length, token in enumerate(made):
            if token in self._model.stop_ids:
                return tuple(made[:length]), "stop"
        return tuple(made), "length"

    def _count(
        self,
        batch: list[GenerationRequest],
        responses: list[tuple[tuple[int, ...], Finish]],
        generating: float,
        measuring: float,
    ) -> None:
        stats = self.stats
        stats.decode_seconds += generating
        stats.capture_seconds += measuring
        stats.prompt_tokens += sum(len(request.prompt_ids) for request in batch)
        stats.prefilled_tokens += sum(len(request.prompt_ids) for request in batch)
        stats.response_tokens += sum(len(ids) for ids, _ in responses)
        stats.finished += len(batch)
        stats.peak_rows = max(stats.peak_rows, len(batch))
        stats.steps += 1

    def _halve(self, size: int) -> None:
        if size <= 1:
            raise ModelNotHereError(
                "One response alone does not fit in the device's memory: lower the limit on "
                "tokens, or use a smaller dtype or model."
            )
        self._limit = size // 2
        self.stats.halvings += 1
        release_reserve(self._model.device)


class _SeededDraw(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Leaves only the token that a row's own stream draws, which greedy search then takes."""

    def __init__(self, batch: list[GenerationRequest], prompt_width: int, levels: int) -> None:
        self._sampling = RowSampling.of([request.sampling for request in batch])
        longest = max(request.sampling.max_new_tokens for request in batch)
        self._uniforms = np.stack([uniforms(r.seed, longest, levels) for r in batch])
        self._prompt_width = prompt_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self._prompt_width
        tokens = draw(scores, self._uniforms[:, step], self._sampling)
        only = torch.full_like(scores, float("-inf"))
        return only.scatter_(1, tokens.unsqueeze(1), 0.0)
