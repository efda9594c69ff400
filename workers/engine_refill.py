"""The continuous-refill core: decodes many rows at once and measures them in the same pass.

A finished row's place is taken by the next request at once; rows are dense; a prompt is prefilled once.
Knows nothing about queues, threads or files.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.errors import ModelError
from workers.attention import DecodePass, attention_configs, slots_in_charge
from workers.capture import decoder_blocks, tapped
from workers.generation import EngineStats, Finish, Generation, GenerationRequest
from workers.kv_cache import SlotCache
from workers.memory import release_reserve, rows_that_fit
from workers.model import LoadedModel
from workers.out_of_memory import is_out_of_memory
from workers.prefill import Prefilled, PromptShelf
from workers.sampler import RowSampling, draw, uniforms

# Beyond these the matrix products gain nothing more.
MOST_ROWS_CPU = 128
MOST_ROWS_GPU = 512
# Waiting requests looked through for prompts that can join a prefill.
LOOK_AHEAD = 512

log = logging.getLogger(__name__)


@dataclass
class Row:
    """A response being generated: `position` is the column that the next token, `token`, is fed into."""

    request: GenerationRequest
    prompt: Prefilled
    uniforms: NDArray[np.float64]
    token: int
    position: int
    fresh: bool = True
    response: list[int] = field(default_factory=list)
    at_limit: bool = False
    finish: Finish | None = None


class RefillCore:
    """Holds the live rows, their cache and their running sums [L+1, rows, d_model] in float32."""

    def __init__(self, model: LoadedModel, *, max_rows: int | None = None) -> None:
        self._model = model
        self._blocks = decoder_blocks(model.model)
        self._configs = attention_configs(model.model)
        self._shelf = PromptShelf(model)
        self._cache = SlotCache(model.n_layers)
        self._pending: deque[GenerationRequest] = deque()
        self._rows: list[Row | None] = []
        self._sums = self._new_sums(0)
        self._finished: list[Generation] = []
        self._limit = max_rows or (MOST_ROWS_CPU if model.device.type == "cpu" else MOST_ROWS_GPU)
        self.stats = EngineStats()

    @property
    def has_work(self) -> bool:
        """True while a request is unfinished or a generation has not been handed over."""
        return bool(self._pending or self._rows or self._finished)

    @property
    def windows(self) -> list[int | None]:
        """The sliding windows that the layers asked for in the last prefill."""
        return self._shelf.windows

    def add(self, requests: Iterable[GenerationRequest]) -> None:
        """Queue requests behind those that wait."""
        self._pending.extend(requests)

    @torch.inference_mode()
    def discard(self, keys: Iterable[str]) -> None:
        """Forget requests, waiting or live; their generations never come."""
        gone = frozenset(keys)
        self._pending = deque(r for r in self._pending if r.key not in gone)
        self._rows = [None if row and row.request.key in gone else row for row in self._rows]
        self._finished = [done for done in self._finished if done.key not in gone]
        self._close_holes()

    @torch.inference_mode()
    def step(self) -> list[Generation]:
        """One decode step of all rows; what finished. Out of memory halves the rows and loses no request."""
        try:
            self._collect()
            self._refill()
            if self._rows:
                self._decode()
                self._collect()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._halve(error)
        finished, self._finished = self._finished, []
        return finished

    def _refill(self) -> None:
        if self._pending:
            self._fill(self._free_places())
        self._close_holes()
        self.stats.peak_rows = max(self.stats.peak_rows, len(self._rows))

    def _free_places(self) -> list[int]:
        holes = [place for place, row in enumerate(self._rows) if row is None]
        live = len(self._rows) - len(holes)
        target = min(self._room(), live + len(self._pending))
        self._reserve(target, len(self._pending[0].prompt_ids))
        return [*holes, *range(len(self._rows), target)]

    def _room(self) -> int:
        if self._sums.shape[1] >= self._limit:
            return self._limit
        fitting = rows_that_fit(self._model, self._pending[0])
        return max(1, min(self._limit, self._sums.shape[1] + fitting))

    def _fill(self, places: Iterable[int]) -> None:
        for place in places:
            if not self._pending:
                return
            if self._pending[0].prompt_ids not in self._shelf:
                started = time.perf_counter()
                self._shelf.prefill(self._missing_prompts())
                self.stats.prefilled_tokens = self._shelf.tokens_run
                self.stats.prefill_seconds += time.perf_counter() - started
            self._start(place, self._pending[0])
            self._pending.popleft()

    def _missing_prompts(self) -> Iterator[tuple[int, ...]]:
        waiting = dict.fromkeys(r.prompt_ids for r in islice(self._pending, LOOK_AHEAD))
        return (prompt for prompt in waiting if prompt not in self._shelf)

    def _start(self, place: int, request: GenerationRequest) -> None:
        prompt = self._shelf.take(request.prompt_ids)
        self._reserve(0, prompt.tokens)
        self._cache.load(place, prompt.keys, prompt.values)
        row = Row(
            request=request,
            prompt=prompt,
            uniforms=uniforms(request.seed, request.sampling.max_new_tokens + 1),
            token=request.prompt_ids[-1],
            position=prompt.tokens - 1,
        )
        self._rows[place : place + 1] = [row]
        self.stats.prompt_tokens += prompt.tokens

    def _reserve(self, rows: int, columns: int) -> None:
        allocated = self._sums.shape[1]
        if rows > allocated:
            sums = self._new_sums(rows)
            sums[:, :allocated] = self._sums
            self._sums = sums
        self._cache.reserve(self._sums.shape[1], columns, live_rows=len(self._rows))

    def _close_holes(self) -> None:
        while None in self._rows:
            row = self._rows.pop()
            if row is None:
                continue
            place, source = self._rows.index(None), len(self._rows)
            self._cache.move(source, place, row.position)
            self._sums[:, place] = self._sums[:, source]
            self._rows[place] = row

    def _decode(self) -> None:
        started = time.perf_counter()
        rows = [row for row in self._rows if row]
        logits, states = self._forward(rows)
        forward_done = time.perf_counter()
        at = np.array([row.uniforms[len(row.response)] for row in rows])
        tokens = draw(logits, at, RowSampling.of([row.request.sampling for row in rows])).tolist()
        drawn = time.perf_counter()
        self._commit(rows, states, tokens)
        self.stats.decode_seconds += forward_done - started
        self.stats.sample_seconds += drawn - forward_done
        self.stats.capture_seconds += time.perf_counter() - drawn
        self.stats.steps += 1
        self.stats.row_steps += len(rows)

    def _forward(self, rows: list[Row]) -> tuple[Tensor, Tensor]:
        positions = [row.position for row in rows]
        self._reserve(0, max(positions) + 1)
        device = self._model.device
        fed = torch.tensor([[row.token for row in rows], positions]).to(device).unsqueeze(2)
        states: list[Tensor] = []

        def keep(_: int, state: Tensor) -> None:
            states.append(state[:, -1].to(device))

        slots = DecodePass(self._cache, positions, fed[1, :, 0])
        with slots_in_charge(self._configs), tapped(self._blocks, keep):
            logits = self._model.model(
                input_ids=fed[0], position_ids=fed[1], use_cache=False, slots=slots
            ).logits
        self.stats.columns_read += len(rows) * (max(positions) + 1)
        self.stats.columns_live += sum(positions) + len(rows)
        # logits [rows, vocabulary]; states [layer, rows, d_model]
        return logits[:, -1], torch.stack(states)

    def _commit(self, rows: list[Row], states: Tensor, tokens: list[int]) -> None:
        # Nothing before this point changed a row, so a step that ran out of memory can be taken again.
        fresh = [place for place, row in enumerate(rows) if row.fresh]
        for place in fresh:
            if rows[place].prompt.last is None:
                rows[place].prompt.take_last(states[:, place].float())
        self._sums[:, : len(rows)] += states
        for place in fresh:
            # What was fed was the last prompt token: the response begins with the next step.
            self._sums[:, place].zero_()
            rows[place].fresh = False
        for row, token in zip(rows, tokens, strict=True):
            self._advance(row, token)

    def _advance(self, row: Row, token: int) -> None:
        row.position += 1
        if row.at_limit:
            row.finish = "length"
        elif token in self._model.stop_ids:
            row.finish = "stop"
        else:
            row.response.append(token)
            row.token = token
            # The last token is fed once more, so that its state counts.
            row.at_limit = len(row.response) == row.request.sampling.max_new_tokens

    def _collect(self) -> None:
        for place, row in enumerate(self._rows):
            if row and row.finish:
                self._finished.append(self._generation(row, place))
                self._rows[place] = None

    def _generation(self, row: Row, place: int) -> Generation:
        assert row.finish and row.prompt.last is not None and row.prompt.average is not None
        total = self._sums[:, place].cpu().numpy()
        self.stats.finished += 1
        self.stats.response_tokens += len(row.response)
        return Generation(
            key=row.request.key,
            response_ids=tuple(row.response),
            finish=row.finish,
            response_avg=total / np.float32(max(1, len(row.response))),
            prompt_avg=row.prompt.average,
            prompt_last=row.prompt.last,
        )

    def _halve(self, error: BaseException) -> None:
        live = sum(row is not None for row in self._rows)
        if live <= 1 and self._shelf.batch_tokens == 1:
            raise ModelError(
                "One response alone does not fit in the device's memory: use a shorter limit on tokens, "
                "a smaller dtype or a smaller model."
            ) from error
        self._limit = max(1, (live or self._limit) // 2)
        self._shelf.halve()
        self._close_holes()
        # They start again from their prompt; their seed gives the same text.
        back = [row.request for row in self._rows[self._limit :] if row]
        self._rows = self._rows[: self._limit]
        self._pending.extendleft(reversed(back))
        self._sums = self._sums[:, : self._limit].clone()
        self._cache.shrink(self._limit)
        release_reserve(self._model.device)
        self.stats.halvings += 1
        log.warning("Out of memory: going on with at most %d rows.", self._limit)

    def _new_sums(self, rows: int) -> Tensor:
        shape = (self._model.n_layers + 1, rows, self._model.d_model)
        return torch.zeros(shape, dtype=torch.float32, device=self._model.device)
