"""The continuous-refill core: decodes many rows at once and measures them in the same pass.

A finished row's place is taken by the next request at once; a prompt is prefilled once for all
its rollouts.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from domain.errors import ModelNotHereError
from workers.engine.device import release_reserve, rows_that_fit
from workers.engine.generation import (
    EngineStats,
    Generation,
    GenerationRequest,
    LiveResponse,
    PromptKey,
)
from workers.engine.prefix_cache import MeasuredForward, PrefixCache
from workers.engine.residual import Projector, RowInterventions
from workers.engine.running import RunningSequence, RunningSequences
from workers.engine.sampler import RowSampling, draw
from workers.models.model import LoadedModel, is_out_of_memory

# Beyond these the matrix products gain nothing more.
MOST_ROWS_CPU = 256

MOST_ROWS_GPU = 512

# Waiting requests looked through for prompts that can join a prefill.
LOOK_AHEAD = 512

log = logging.getLogger(__name__)


class RefillCore:
    """Requests that wait, rows that live, and the steps that turn one into the other."""

    def __init__(self, model: LoadedModel, *, max_rows: int | None = None) -> None:
        self._model = model
        self._measured = MeasuredForward(model)
        self._projector = Projector(model.device)
        self._prefixes = PrefixCache(self._measured)
        self._rows = RunningSequences(model)
        self._pending: deque[GenerationRequest] = deque()
        self._finished: list[Generation] = []
        self._limit = max_rows or (MOST_ROWS_CPU if model.device.type == "cpu" else MOST_ROWS_GPU)
        self.stats = EngineStats()

    @property
    def has_work(self) -> bool:
        """True while a request is unfinished or a generation has not been handed over."""
        return bool(self._pending or len(self._rows) or self._finished)

    @property
    def windows(self) -> list[int | None]:
        """The sliding windows that the layers asked for in the last prefill."""
        return self._prefixes.windows

    def add(self, requests: Iterable[GenerationRequest]) -> None:
        """Queue requests behind those that wait."""
        self._pending.extend(requests)

    def live(self) -> Iterator[LiveResponse]:
        """The responses in the making that are read on the way."""
        for row in self._rows.rows():
            if row.request.directions and row.projections:
                # the first is of the prompt's last token
                yield LiveResponse(row.request.key, row.response, row.projections[1:])

    @torch.inference_mode()
    def step(self) -> list[Generation]:
        """One decode step of all rows; what finished.

        Out of memory halves the rows from then on; what they had done is done again, nothing is
        lost.
        """
        full = False
        try:
            self._advance()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            full = True
        # After the handler: inside it the error still holds the failed pass's tensors.
        if full:
            self._halve()
        finished, self._finished = self._finished, []
        return finished

    def _advance(self) -> None:
        self._collect()
        if self._pending:
            self._refill()
        self._rows.make_room()
        rows = self._rows.rows()
        if rows:
            self._decode(rows)
            self._collect()

    def _refill(self) -> None:
        self._prefill_missing(self._pending[0])
        wanted = min(self._room(self._pending[0]) - len(self._rows), len(self._pending))
        for _ in range(wanted):
            request = self._pending[0]
            self._prefill_missing(request)
            self._rows.start(request, self._prefixes.take(request.prompt_key))
            self._pending.popleft()
            self.stats.prompt_tokens += len(request.prompt_ids)
        self.stats.peak_rows = max(self.stats.peak_rows, len(self._rows))

    def _room(self, request: GenerationRequest) -> int:
        # Rows that have memory already may all be used; only further ones are asked for.
        capacity = self._rows.capacity
        if capacity >= self._limit:
            return self._limit
        fitting = rows_that_fit(self._model, request, self._prefixes.token_bytes)
        return max(1, min(self._limit, capacity + fitting))

    def _prefill_missing(self, request: GenerationRequest) -> None:
        if request.prompt_key in self._prefixes:
            return
        started = time.perf_counter()
        self._prefixes.prefill(self._missing_prompts())
        self.stats.prefill_seconds += time.perf_counter() - started
        self.stats.prefilled_tokens = self._prefixes.tokens_run
        self.stats.prefill_capture_seconds = self._prefixes.capture_seconds

    def _missing_prompts(self) -> Iterator[PromptKey]:
        waiting = dict.fromkeys(r.prompt_key for r in islice(self._pending, LOOK_AHEAD))
        return (prompt for prompt in waiting if prompt not in self._prefixes)

    def _decode(self, rows: list[RunningSequence]) -> None:
        started = time.perf_counter()
        logits, states = self._forward(rows)
        forward_done = time.perf_counter()
        at = np.stack([row.uniforms[len(row.response)] for row in rows])
        tokens = draw(logits, at, RowSampling.of([row.request.sampling for row in rows])).tolist()
        drawn = time.perf_counter()
        projections = self._projector.project_rows(states, [row.request.directions for row in rows])
        self._rows.add(rows, torch.stack(states))
        for row, token, projected in zip(rows, tokens, projections, strict=True):
            if projected is not None:
                row.projections.append(projected)
            self._take(row, token)
        self.stats.decode_seconds += forward_done - started
        self.stats.sample_seconds += drawn - forward_done
        self.stats.capture_seconds += time.perf_counter() - drawn
        self.stats.steps += 1
        self.stats.row_steps += len(rows)

    def _forward(self, rows: list[RunningSequence]) -> tuple[Tensor, list[Tensor]]:
        device = self._model.device
        slots = self._rows.decode_pass(rows)
        interventions = RowInterventions([row.active_steering for row in rows], device)
        states: list[Tensor] = []

        def tap(layer: int, state: Tensor) -> Tensor | None:
            changed = interventions.applied(layer, state)
            states.append((state if changed is None else changed)[:, -1].to(device))
            return changed

        fed = torch.tensor([[row.token for row in rows], [row.position for row in rows]])
        ids, positions = fed.to(device).unsqueeze(2)
        logits = self._measured.logits(ids, positions, slots, tap)
        self.stats.columns_read += slots.columns_read
        self.stats.columns_live += sum(row.position + 1 for row in rows)
        # logits [rows, vocabulary]; states, per layer, [rows, d_model]
        return logits, states

    def _take(self, row: RunningSequence, token: int) -> None:
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
        for made in self._rows.collect():
            self._finished.append(made)
            self.stats.finished += 1
            self.stats.response_tokens += len(made.response_ids)

    def _halve(self) -> None:
        live = len(self._rows)
        if live <= 1 and self._prefixes.batch_tokens == 1:
            raise ModelNotHereError(
                "One response alone does not fit in the device's memory: use a shorter limit on "
                "tokens, a smaller dtype or a smaller model."
            )
        self._limit = max(1, (live or self._limit) // 2)
        self._prefixes.halve()
        release_reserve(self._model.device)
        # The seed of a request that starts again gives the same text.
        self._pending.extendleft(reversed(self._rows.cut(self._limit)))
        release_reserve(self._model.device)
        self.stats.halvings += 1
        log.warning("Out of memory: going on with at most %d rows.", self._limit)
