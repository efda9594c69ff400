"""The rows that are decoded together, with their caches and running sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.engine.cache import FIRST_WIDTH_CPU, FIRST_WIDTH_GPU, LengthBuckets
from workers.engine.decode import BucketRows, DecodePass, Place, SharedPrefixes
from workers.engine.generation import Finish, Generation, GenerationRequest, Steering
from workers.engine.prefix_cache import Prefix
from workers.engine.sampler import tree_levels, uniforms
from workers.models.model import LoadedModel

# Rows are given running sums so many at a time at first, then twice as many.
HOMES_STEP = 16


@dataclass(eq=False)
class RunningSequence:
    """A response being generated: `token` is fed next, at `position`; `place` holds its prompt.

    `home` is its column among the running sums, `bucket` and `slot` say where its keys lie.
    `projections` are those of its own tokens, from the prompt's last on, where it has directions.
    """

    request: GenerationRequest
    place: Place
    uniforms: NDArray[np.float64]
    token: int
    position: int
    home: int
    bucket: int = 0
    slot: int = 0
    fresh: bool = True
    response: list[int] = field(default_factory=list)
    projections: list[NDArray[np.float32]] = field(default_factory=list)
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

    def all_projections(self) -> NDArray[np.float32] | None:
        """Of prompt and response, [tokens, 2, k]; None without directions."""
        if self.request.directions is None:
            return None
        own = np.stack(self.projections)
        before = self.place.prompt.projections
        return own if before is None else np.concatenate([before, own])


class RunningSequences:
    """Rows with slots, shared prefixes and running sums; a step takes them bucket by bucket."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._levels = tree_levels(model.model.config.get_text_config().vocab_size)
        self._prompts = SharedPrefixes(model.n_layers)
        on_cpu = model.device.type == "cpu"
        first_width = FIRST_WIDTH_CPU if on_cpu else FIRST_WIDTH_GPU
        self._buckets: LengthBuckets[RunningSequence] = LengthBuckets(model.n_layers, first_width)
        # [layer, home, d_model], float32: sums of a fp16 or bf16 model's states keep their digits.
        self._sums = self._new_sums(0)
        self._homes: list[int] = []

    def __len__(self) -> int:
        return len(self._buckets)

    @property
    def capacity(self) -> int:
        """Rows that have had memory."""
        return self._sums.shape[1]

    def rows(self) -> list[RunningSequence]:
        """All rows, in the order of a step."""
        return list(self._buckets)

    def start(self, request: GenerationRequest, prompt: Prefix) -> None:
        """Begin a response; its first step feeds the prompt's last token."""
        draws = request.sampling.max_new_tokens + 1
        if not self._homes:
            self._add_homes()
        row = RunningSequence(
            request=request,
            place=self._prompts.join(prompt),
            uniforms=uniforms(request.seed, draws, self._levels),
            token=request.prompt_ids[-1],
            position=prompt.tokens - 1,
            home=self._homes[-1],
        )
        try:
            self._buckets.push(row)
        except RuntimeError:
            # No memory for its slot: as if it had never been started.
            self._prompts.leave(row.place)
            raise
        self._homes.pop()

    def cut(self, rows: int) -> list[GenerationRequest]:
        """Keep the `rows` longest and free memory; the requests of the others, to start again."""
        gone = self.rows()[: max(0, len(self) - rows)]
        for row in gone:
            self._leave(row)
        self._buckets.shrink()
        return [row.request for row in gone]

    def decode_pass(self, rows: Sequence[RunningSequence]) -> DecodePass:
        """The attention of one step over rows(), with a column to write in for each."""
        buckets, start = [], 0
        for bucket in self._buckets.buckets:
            if bucket.rows:
                width = max(row.columns for row in bucket.rows) + 1
                buckets.append(BucketRows(bucket.cache, start, start + len(bucket.rows), width))
                start += len(bucket.rows)
        places = [row.place for row in rows]
        positions = [row.position for row in rows]
        return DecodePass(buckets, self._prompts, places, positions, self._model.device)

    def make_room(self) -> None:
        """Let every row have a free column; changes the order of rows."""
        self._buckets.make_room()

    def add(self, rows: Sequence[RunningSequence], states: Tensor) -> None:
        """Count a step's states [layer, row, d_model]; a fresh row's are its prompt's last."""
        for index, row in enumerate(rows):
            if row.fresh and row.place.prompt.last is None:
                row.place.prompt.take_last(states[:, index].float())
        homes = torch.tensor([row.home for row in rows]).to(states.device)
        counted = states.float()
        # Nothing above changed a row, so a step that ran out of memory there can be taken again.
        self._sums.index_add_(1, homes, counted)
        for row in rows:
            if row.fresh:
                self._sums[:, row.home].zero_()
                row.fresh = False

    def collect(self) -> list[Generation]:
        """The rows that finished, as generations; they leave."""
        made = []
        for row in self.rows():
            if row.finish:
                made.append(self._generation(row, row.finish))
                self._leave(row)
        return made

    def _generation(self, row: RunningSequence, finish: Finish) -> Generation:
        prompt = row.place.prompt
        assert prompt.last is not None and prompt.average is not None
        total = self._sums[:, row.home].cpu().numpy()
        return Generation(
            key=row.request.key,
            response_ids=tuple(row.response),
            finish=finish,
            response_avg=np.divide(total, max(1, len(row.response)), dtype=np.float32),
            prompt_avg=prompt.average,
            prompt_last=prompt.last,
            projections=row.all_projections(),
        )

    def _leave(self, row: RunningSequence) -> None:
        self._buckets.remove(row)
        self._prompts.leave(row.place)
        self._homes.append(row.home)

    def _add_homes(self) -> None:
        had = self.capacity
        sums = self._new_sums(max(HOMES_STEP, 2 * had))
        sums[:, :had] = self._sums
        self._homes = list(range(had, sums.shape[1]))
        self._sums = sums

    def _new_sums(self, rows: int) -> Tensor:
        shape = (self._model.n_layers + 1, rows, self._model.d_model)
        return torch.zeros(shape, dtype=torch.float32, device=self._model.device)
