"""The rows that are decoded together, dense from 0, with their caches and running sums.

Knows nothing about the order of requests or about the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.decode_attention import DecodePass
from workers.generation import Finish, Generation, GenerationRequest, Steering
from workers.kv_cache import SlotCache
from workers.model import LoadedModel
from workers.prefill import Prefilled
from workers.sampler import tree_levels, uniforms
from workers.shared_prompts import Place, SharedPrompts


@dataclass
class Row:
    """A response being generated: `token` is fed next, at `position`; `place` holds its prompt."""

    request: GenerationRequest
    place: Place
    uniforms: NDArray[np.float64]
    token: int
    position: int
    fresh: bool = True
    response: list[int] = field(default_factory=list)
    at_limit: bool = False
    finish: Finish | None = None

    @property
    def columns(self) -> int:
        """Own tokens fed so far, the last prompt token among them."""
        return self.position - (self.place.prompt.tokens - 1)

    @property
    def active_steering(self) -> Steering | None:
        """The steering of the token fed next; a fresh row feeds its prompt's last one."""
        steering = self.request.steering
        other = "response" if self.fresh else "prompt"
        return None if steering is None or steering.positions == other else steering


class LiveRows:
    """Rows with their slots; a row that leaves makes a hole, to be filled or closed before
    decoding.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._levels = tree_levels(model.model.config.get_text_config().vocab_size)
        self._prompts = SharedPrompts(model.n_layers)
        self._cache = SlotCache(model.n_layers)
        self._rows: list[Row | None] = []
        # [layer, row, d_model], float32: sums of a fp16 or bf16 model's states keep their digits.
        self._sums = self._new_sums(0)

    def __len__(self) -> int:
        return sum(row is not None for row in self._rows)

    @property
    def capacity(self) -> int:
        """Rows that have memory."""
        return self._sums.shape[1]

    def dense(self) -> list[Row]:
        """The rows in the order of their slots; holes are closed by moving the last rows."""
        while None in self._rows:
            row = self._rows.pop()
            if row is None:
                continue
            index, source = self._rows.index(None), len(self._rows)
            self._cache.move(source, index, row.columns)
            self._sums[:, index] = self._sums[:, source]
            self._rows[index] = row
        return [row for row in self._rows if row]

    def free(self, wanted: int) -> list[int]:
        """So many indices to start rows at, holes first; makes memory for them."""
        holes = [index for index, row in enumerate(self._rows) if row is None]
        length = max(len(self._rows), len(self) + wanted)
        self._reserve(length, 1)
        return [*holes, *range(len(self._rows), length)][: max(0, wanted)]

    def start(self, index: int, request: GenerationRequest, prompt: Prefilled) -> None:
        """Begin a response in a free index; its first step feeds the prompt's last token."""
        draws = request.sampling.max_new_tokens + 1
        row = Row(
            request=request,
            place=self._prompts.join(prompt),
            uniforms=uniforms(request.seed, draws, self._levels),
            token=request.prompt_ids[-1],
            position=prompt.tokens - 1,
        )
        self._rows[index : index + 1] = [row]

    def drop(self, keys: Iterable[str]) -> None:
        """Take out the rows of these requests."""
        gone = frozenset(keys)
        for index, row in enumerate(self._rows):
            if row and row.request.key in gone:
                self._leave(index, row)

    def cut(self, rows: int) -> list[GenerationRequest]:
        """Keep `rows` rows and their memory; the requests of the others, which have to start
        again.
        """
        kept = self.dense()[:rows]
        gone = self.dense()[rows:]
        self.drop(row.request.key for row in gone)
        self._rows = list(kept)
        self._sums = self._sums[:, :rows].clone()
        self._cache.shrink(rows)
        return [row.request for row in gone]

    def decode_pass(self, rows: list[Row]) -> DecodePass:
        """The attention of one step over all rows, with a column to write in for each."""
        self._reserve(0, max(row.columns for row in rows) + 1)
        places = [row.place for row in rows]
        positions = [row.position for row in rows]
        return DecodePass(self._cache, self._prompts, places, positions, self._model.device)

    def add(self, rows: list[Row], states: Tensor) -> None:
        """Count the states [layer, row, d_model] of a step: for a fresh row the last prompt
        token's.
        """
        for index, row in enumerate(rows):
            if row.fresh and row.place.prompt.last is None:
                row.place.prompt.take_last(states[:, index].float())
        # Nothing above changed a row, so a step that ran out of memory there can be taken again.
        self._sums[:, : len(rows)] += states
        for index, row in enumerate(rows):
            if row.fresh:
                self._sums[:, index].zero_()
                row.fresh = False

    def collect(self) -> list[Generation]:
        """The rows that finished, as generations; they leave."""
        made = []
        for index, row in enumerate(self._rows):
            if row and row.finish:
                made.append(self._generation(row, row.finish, index))
                self._leave(index, row)
        return made

    def _generation(self, row: Row, finish: Finish, index: int) -> Generation:
        prompt = row.place.prompt
        assert prompt.last is not None and prompt.average is not None
        total = self._sums[:, index].cpu().numpy()
        return Generation(
            key=row.request.key,
            response_ids=tuple(row.response),
            finish=finish,
            response_avg=np.divide(total, max(1, len(row.response)), dtype=np.float32),
            prompt_avg=prompt.average,
            prompt_last=prompt.last,
        )

    def _leave(self, index: int, row: Row) -> None:
        self._prompts.leave(row.place)
        self._rows[index] = None

    def _reserve(self, rows: int, columns: int) -> None:
        if rows > self.capacity:
            sums = self._new_sums(rows)
            sums[:, : self.capacity] = self._sums
            self._sums = sums
        self._cache.reserve(self.capacity, columns, live=len(self._rows))

    def _new_sums(self, rows: int) -> Tensor:
        shape = (self._model.n_layers + 1, rows, self._model.d_model)
        return torch.zeros(shape, dtype=torch.float32, device=self._model.device)
