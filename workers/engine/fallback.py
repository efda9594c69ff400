"""The plain core for models the engine cannot carry: generate in batches, then a second pass.

Same requests, same seeds and same measurements as the continuous-refill core; only slower.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from itertools import islice, takewhile
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from domain.errors import ModelNotHereError
from traitlens.arrays import Float32
from workers.engine.generation import EngineStats, Finish, Generation, GenerationRequest
from workers.engine.running import RunningSequence
from workers.engine.sampler import RowSampling, draw, tree_levels, uniforms
from workers.engine.teacher_forced import project_tokens, steered, teacher_forced
from workers.models.model import LoadedModel, is_out_of_memory, release_reserve

MOST_ROWS = 32


class GenerateCore:
    """Takes the waiting requests batch by batch; a step is a whole batch."""

    path: Literal["fallback"] = "fallback"

    def __init__(self, model: LoadedModel, *, max_rows: int | None = None) -> None:
        self.model = model
        self._waiting: deque[GenerationRequest] = deque()
        self._limit = max_rows or MOST_ROWS
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
        for _ in batch:
            self._waiting.popleft()
        return finished

    def _next_batch(self) -> list[GenerationRequest]:
        # generate steers a batch as a whole, and the second pass reads it so
        first = self._waiting[0]
        alike = takewhile(
            lambda r: r.steering is first.steering and r.directions is first.directions,
            self._waiting,
        )
        return list(islice(alike, self._limit))

    def _run(self, batch: list[GenerationRequest]) -> list[Generation]:
        started = time.perf_counter()
        responses = self._responses(batch)
        generated = time.perf_counter()
        prompts = [request.prompt_ids for request in batch]
        texts = [ids for ids, _ in responses]
        steering, directions = batch[0].steering, batch[0].directions
        response_avg, prompt_avg, prompt_last = teacher_forced(
            self.model, prompts, texts, steering=steering
        )
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
        self.stats.finished += len(batch)
        self.stats.peak_rows = max(self.stats.peak_rows, len(batch))
        self.stats.steps += 1
        return [
            Generation(
                request=request,
                response_ids=ids,
                finish=finish,
                response_avg=response_avg[row],
                prompt_avg=prompt_avg[row],
                prompt_last=prompt_last[row],
                projections=projections.get(row),
            )
            for row, (request, (ids, finish)) in enumerate(zip(batch, responses, strict=True))
        ]

    def _responses(self, batch: list[GenerationRequest]) -> list[tuple[tuple[int, ...], Finish]]:
        width = max(len(request.prompt_ids) for request in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        real = torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, width - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            real[row, width - len(request.prompt_ids) :] = 1
        stops = sorted(self.model.stop_ids)
        settings = GenerationConfig(
            max_new_tokens=max(request.sampling.max_new_tokens for request in batch),
            do_sample=False,
            eos_token_id=stops or None,
            pad_token_id=stops[0] if stops else 0,
        )
        vocabulary = self.model.model.config.get_text_config().vocab_size
        draw_seeded = _SeededDraw(batch, width, tree_levels(vocabulary))
        with steered(self.model.model, batch[0].steering):
            made: Tensor = self.model.model.generate(
                ids.to(self.model.device),
                attention_mask=real.to(self.model.device),
                generation_config=settings,
                logits_processor=LogitsProcessorList([draw_seeded]),
            )
        rows: list[list[int]] = made[:, width:].tolist()
        return [self._cut(request, row) for request, row in zip(batch, rows, strict=True)]

    def _cut(self, request: GenerationRequest, made: list[int]) -> tuple[tuple[int, ...], Finish]:
        made = made[: request.sampling.max_new_tokens]
        for length, token in enumerate(made):
            if token in self.model.stop_ids:
                return tuple(made[:length]), "stop"
        return tuple(made), "length"

    def _halve(self, size: int) -> None:
        if size <= 1:
            raise ModelNotHereError(
                "One response alone does not fit in the device's memory: lower the limit on "
                "tokens, or use a smaller dtype or model."
            )
        self._limit = size // 2
        self.stats.halvings += 1
        release_reserve(self.model.device)


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
