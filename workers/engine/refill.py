"""The continuous-refill core: decodes many rows at once and measures them in the same pass.

A finished row's place is taken by the next request at once; a prompt is prefilled once for all
its rollouts.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Literal

import numpy as np
import torch

from domain.errors import ModelNotHereError
from workers.engine.forward import MeasuredForward, Projector
from workers.engine.generation import EngineStats, Generation, GenerationRequest
from workers.engine.parts import most_tokens
from workers.engine.prefix_cache import PrefixCache
from workers.engine.running import RunningSequence, RunningSequences
from workers.engine.sampler import RowSampling, draw
from workers.engine.steps import DecodeSteps, Recorder
from workers.models.device import free_bytes, is_out_of_memory, release_reserve
from workers.models.model import LoadedModel

# Beyond these the matrix products gain nothing more.
MOST_ROWS_CPU = 256
MOST_ROWS_GPU = 512

# Waiting requests looked through for prompts that can join a prefill.
LOOK_AHEAD = 512

# Logits, their float32 copy and the probabilities, in bytes per vocabulary entry and row.
LOGIT_BYTES = 12

# Of the free memory; the rest is for what a forward pass holds for a moment.
MEMORY_SHARE = 0.8

# On a CPU what prompts and steps leave free in small pieces goes back so often; it takes 10 ms.
SECONDS_BETWEEN_RELEASES = 5.0

log = logging.getLogger(__name__)


class RefillCore:
    """Requests that wait, sequences that run, and the steps that turn one into the other."""

    path: Literal["engine"] = "engine"

    def __init__(
        self, model: LoadedModel, *, max_rows: int | None = None, recorder: Recorder | None = None
    ) -> None:
        """`recorder` records the kernels of decode steps; without one they are launched singly."""
        self.model = model
        forward = MeasuredForward(model)
        self._projector = Projector(model.device)
        self._prefixes = PrefixCache(forward, self._projector)
        self._steps = DecodeSteps(forward, recorder)
        self._running = RunningSequences(model, stateful=forward.stateful)
        self._waiting: deque[GenerationRequest] = deque()
        self._finished: list[Generation] = []
        self._limit = max_rows or (MOST_ROWS_CPU if model.device.type == "cpu" else MOST_ROWS_GPU)
        self._released = time.monotonic()
        self.stats = EngineStats()

    @property
    def has_work(self) -> bool:
        """True while a request is unfinished or a generation has not been handed over."""
        return bool(self._waiting or len(self._running) or self._finished)

    @property
    def reaches(self) -> dict[int, tuple[int | None, int | None]]:
        """The sliding window and chunk that each layer asked for in the last prefill."""
        return self._prefixes.reaches

    def add(self, requests: Iterable[GenerationRequest]) -> None:
        """Queue requests behind those that wait."""
        self._waiting.extend(requests)

    def running(self) -> Iterable[RunningSequence]:
        """The sequences that run, between two steps; one that memory cut off starts again."""
        return self._running

    @torch.inference_mode()
    def step(self) -> list[Generation]:
        """One decode step of all rows; what finished.

        Out of memory halves the rows from then on; what they had done is done again, nothing is
        lost. Raises ModelNotHereError when not even one response fits.
        """
        full = False
        try:
            # What finished in a step that ran out of memory is still there.
            self._collect()
            self._refill()
            self._running.make_room()
            rows = list(self._running)
            if rows:
                self._decode(rows)
                self._collect()
            if self.model.device.type == "cpu":
                self._give_back()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            full = True
        # After the handler: inside it the error still holds the failed pass's tensors.
        if full:
            self._halve()
        finished, self._finished = self._finished, []
        return finished

    def _refill(self) -> None:
        if not self._waiting:
            return
        self._prefill_missing(self._waiting[0])
        wanted = min(self._room(self._waiting[0]) - len(self._running), len(self._waiting))
        if wanted > 0:
            prompts = (request.prompt_key for request in islice(self._waiting, wanted))
            self._running.expect(wanted, self._prefixes.without_place(prompts))
        for _ in range(wanted):
            request = self._waiting[0]
            self._prefill_missing(request)
            self._running.start(request, self._prefixes.take(request.prompt_key))
            self._waiting.popleft()
            self.stats.prompt_tokens += len(request.prompt_ids)
        self.stats.peak_rows = max(self.stats.peak_rows, len(self._running))

    def _room(self, request: GenerationRequest) -> int:
        # Rows that have memory already may all be used; only further ones are asked for, each taken
        # to become as long as this request may.
        capacity = self._running.capacity
        if capacity >= self._limit:
            return self._limit
        model = self.model
        tokens = len(request.prompt_ids) + most_tokens(model, request.sampling)
        summed = 4 * (model.n_layers + 1) * model.d_model
        drawn = LOGIT_BYTES * model.model.config.get_text_config().vocab_size
        stored = tokens * self._prefixes.token_bytes + self._prefixes.state_bytes
        row = stored + summed + drawn
        fitting = int(MEMORY_SHARE * free_bytes(model.device) / row)
        return max(1, min(self._limit, capacity + fitting))

    def _prefill_missing(self, request: GenerationRequest) -> None:
        if request.prompt_key in self._prefixes:
            return
        started = time.perf_counter()
        keys = dict.fromkeys(r.prompt_key for r in islice(self._waiting, LOOK_AHEAD))
        self._prefixes.prefill(key for key in keys if key not in self._prefixes)
        self.stats.prefill_seconds += time.perf_counter() - started
        self.stats.prefilled_tokens = self._prefixes.tokens_run
        self.stats.prefill_capture_seconds = self._prefixes.capture_seconds

    def _decode(self, rows: list[RunningSequence]) -> None:
        started = time.perf_counter()
        # logits [rows, vocabulary]; states [layer, rows, d_model]
        logits, states = self._steps.run(self._running.decode_step(rows))
        forward_done = time.perf_counter()
        at = np.stack([row.uniforms[len(row.response_ids)] for row in rows])
        tokens = draw(logits, at, RowSampling.of([row.request.sampling for row in rows])).tolist()
        drawn = time.perf_counter()
        projections = self._projector.project_rows(states, [r.request.directions for r in rows])
        self._running.count(rows, states)
        for row, token, projected in zip(rows, tokens, projections, strict=True):
            if projected is not None:
                row.projections.append(projected)
            self._take(row, token)
        self.stats.decode_seconds += forward_done - started
        self.stats.sample_seconds += drawn - forward_done
        self.stats.capture_seconds += time.perf_counter() - drawn
        self.stats.steps += 1
        self.stats.row_steps += len(rows)
        self.stats.recorded_steps = self._steps.n_recorded

    def _take(self, row: RunningSequence, token: int) -> None:
        row.position += 1
        if row.at_limit:
            row.finish = row.parts.finish("length")
        elif token in self.model.stop_ids and not row.parts.passes(token):
            row.finish = row.parts.finish("stop")
        else:
            row.response_ids.append(token)
            row.token = token
            self.stats.drawn_tokens += 1
            # The last token is fed once more, so that its state counts.
            row.at_limit = row.parts.take(row.response_ids)

    def _collect(self) -> None:
        for made in self._running.take_finished():
            self._finished.append(made)
            self.stats.finished += 1
            self.stats.response_tokens += len(made.response_ids)

    def _give_back(self) -> None:
        if not len(self._running):
            # caches let go of what the last rows had
            self._running.make_room()
        if time.monotonic() - self._released > SECONDS_BETWEEN_RELEASES:
            release_reserve(self.model.device)
            self._released = time.monotonic()

    def _halve(self) -> None:
        running = len(self._running)
        if running <= 1 and self._prefixes.batch_tokens == 1:
            raise ModelNotHereError(
                "One response alone does not fit in the device's memory: use a shorter limit on "
                "tokens, a smaller dtype or a smaller model."
            )
        self._limit = max(1, (running or self._limit) // 2)
        self._steps.forget()
        self._prefixes.halve()
        release_reserve(self.model.device)
        # The seed of a request that starts again gives the same text.
        self._waiting.extendleft(reversed(self._running.cut(self._limit)))
        release_reserve(self.model.device)
        self.stats.halvings += 1
        log.warning("Out of memory: going on with at most %d rows.", self._limit)
