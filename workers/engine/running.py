"""The sequences that are decoded together, with their caches and running sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from traitlens.arrays import Float32, Float64
from workers.engine.decode import StepRows, StepShape
from workers.engine.forward import RowInterventions
from workers.engine.generation import (
    Finish,
    Generation,
    GenerationRequest,
    PromptKey,
    Steering,
)
from workers.engine.parts import FollowedParts
from workers.engine.prefix_cache import Place, Prefix, SharedPrefixes
from workers.engine.sampler import tree_levels, uniforms
from workers.engine.slot_cache import SlotCache
from workers.engine.states import StateStore
from workers.engine.steps import Step
from workers.models.device import is_out_of_memory
from workers.models.model import LoadedModel

# Columns of the first buckets, which double from there. A GPU has fewer, wider ones: each costs a
# launch of every kernel.
WIDTHS_CPU = (64, 96)
WIDTHS_GPU = (256,)

# Sequences are given running sums so many at a time at first, then twice as many.
SUMS_STEP = 16


@dataclass(eq=False)
class RunningSequence:
    """A response being generated: `token` is fed next, at `position`; `place` holds its prompt.

    `sums` is its column among the running sums, `states` that of its states where layers have some,
    `bucket` and `slot` say where its keys lie.
    `parts` tells its thought from its answer, `thought_sum` [L+1, d_model] is of the former.
    `projections` [2, k] are those of its own tokens that were fed, from the prompt's last on, where
    it has directions. Between two steps both lists only grow.
    """

    request: GenerationRequest
    place: Place
    uniforms: Float64
    token: int
    position: int
    sums: int
    parts: FollowedParts
    bucket: int = 0
    slot: int = 0
    fresh: bool = True
    response_ids: list[int] = field(default_factory=list)
    projections: list[Float32] = field(default_factory=list)
    at_limit: bool = False
    finish: Finish | None = None
    thought_sum: Float32 | None = None

    @property
    def states(self) -> int:
        """The column of its states; the first is `SCRATCH`."""
        return self.sums + 1

    @property
    def columns(self) -> int:
        """Own tokens fed so far, the last prompt token among them."""
        return self.position - (self.place.prefix.tokens - 1)

    @property
    def active_steering(self) -> Steering | None:
        """The steering of the token fed next; a fresh sequence feeds its prompt's last one."""
        steering = self.request.steering
        other = "response" if self.fresh else "prompt"
        return None if steering is None or steering.positions == other else steering


class LengthBucket:
    """Sequences in dense slots 0..n-1 of a cache of this width at most; on a CPU it widens with the
    longest, on a GPU that would end recordings."""

    def __init__(self, n_layers: int, width: int, *, on_cpu: bool) -> None:
        self.width = width
        self.cache = SlotCache(n_layers, on_cpu=on_cpu)
        self.rows: list[RunningSequence] = []
        self._on_cpu = on_cpu

    @property
    def longest(self) -> int:
        """Own tokens of the longest sequence that were fed."""
        return max((row.columns for row in self.rows), default=0)

    def reserve(self, more: int) -> None:
        """Have the memory of so many more slots, and of one more token for each."""
        columns = self.longest + 1 if self._on_cpu else self.width
        self.cache.reserve(len(self.rows) + more, columns, kept=len(self.rows))

    def shrink(self) -> None:
        """Give back what its sequences do not fill."""
        self.cache.shrink(len(self.rows), self.longest if self._on_cpu else self.width)

    def add(self, row: RunningSequence) -> None:
        """Give the sequence the next slot, which was reserved."""
        row.slot = len(self.rows)
        self.rows.append(row)

    def take_over(self, narrow: LengthBucket, rows: Sequence[RunningSequence]) -> None:
        """Take rows that fill a narrower bucket."""
        left = len(narrow.rows) - len(rows)
        moved = self.cache.take_over(
            narrow.cache,
            [row.slot for row in rows],
            behind=len(self.rows),
            left=left,
            columns=narrow.width,
            width=narrow.width + 1 if self._on_cpu else self.width,
        )
        for source, target in moved.items():
            narrow.rows[target] = narrow.rows[source]
            narrow.rows[target].slot = target
        del narrow.rows[left:]
        for row in rows:
            self.add(row)

    def remove(self, row: RunningSequence) -> None:
        """Take a sequence out; the last one moves into its slot."""
        last = self.rows.pop()
        if last is not row:
            self.cache.copy_from(self.cache, last.slot, row.slot, last.columns)
            last.slot = row.slot
            self.rows[row.slot] = last


class RunningSequences:
    """Sequences with slots, shared prefixes and running sums; a step takes them bucket by bucket.

    A step reads every row of a bucket as wide as its longest, so long rows must not lie among short
    ones: each bucket is wider than the one before, and a row that fills its bucket moves on.
    """

    def __init__(self, model: LoadedModel, *, stateful: bool) -> None:
        self._model = model
        self._levels = tree_levels(model.model.config.get_text_config().vocab_size)
        self._on_cpu = model.device.type == "cpu"
        self._prefixes = SharedPrefixes(model.n_layers, on_cpu=self._on_cpu)
        # False where memory ended while rows were moved, so that their keys lie in no one place.
        self._are_whole = True
        self._buckets: list[LengthBucket] = []
        # [layer, column, d_model], float32: sums of fp16 or bf16 states keep their digits.
        self._sums = self._new_sums(0)
        self._free_sums: list[int] = []
        self._states = StateStore() if stateful else None

    def __iter__(self) -> Iterator[RunningSequence]:
        return (row for bucket in self._buckets for row in bucket.rows)

    def __len__(self) -> int:
        return sum(len(bucket.rows) for bucket in self._buckets)

    @property
    def capacity(self) -> int:
        """Sequences that have had memory."""
        columns = self._sums.shape[1]
        return columns if self._states is None else min(columns, max(0, self._states.columns - 1))

    def expect(self, n: int, prompts: Sequence[PromptKey]) -> None:
        """Have memory at once for the first tokens of so many more, and for these prompts, which
        have no place yet."""
        self._bucket(0).reserve(n)
        self._prefixes.expect([len(prompt.token_ids) for prompt in prompts])

    def start(self, request: GenerationRequest, prefix: Prefix) -> None:
        """Begin a response; its first step feeds the prompt's last token."""
        draws = request.sampling.most_tokens + 1
        if not self._free_sums:
            had = self._sums.shape[1]
            sums = self._new_sums(max(SUMS_STEP, 2 * had))
            sums[:, :had] = self._sums
            # the first are taken first
            self._free_sums = list(reversed(range(had, sums.shape[1])))
            self._sums = sums
        # What can run out of memory comes first, so that nothing has to be undone.
        bucket = self._bucket(0)
        bucket.reserve(1)
        if self._states:
            column = self._free_sums[-1] + 1
            self._states.reserve(column + 1)
            self._states.begin(column, prefix.states)
        drawn = uniforms(request.seed, draws, self._levels)
        parts = FollowedParts(self._model, request)
        row = RunningSequence(
            request=request,
            place=self._prefixes.join(prefix),
            uniforms=drawn,
            token=request.prompt_ids[-1],
            position=prefix.tokens - 1,
            sums=self._free_sums.pop(),
            parts=parts,
        )
        bucket.add(row)

    def cut(self, rows: int) -> list[GenerationRequest]:
        """Keep the `rows` longest, and free memory; the requests of the others, to start again.

        None are kept where layers have states, where keys are between two places, and where even
        what is kept cannot be moved. Prefixes were forgotten before, so that none is read back.
        """
        before = list(self)
        # A step that ran out of memory may have moved some layers' states on.
        kept = rows if self._states is None and self._are_whole else 0
        self._are_whole = True
        gone = before[: max(0, len(before) - kept)]
        try:
            self._drop(gone)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            gone = before
        # After the handler: inside it the error still holds tensors.
        if gone is before:
            self._drop(list(self))
        return [row.request for row in gone]

    def _drop(self, rows: Sequence[RunningSequence]) -> None:
        all_go = len(rows) == len(self)
        for row in rows:
            # Nothing is moved where all go: keys may lie in no one place.
            if not all_go:
                self._buckets[row.bucket].remove(row)
            self._free(row)
        for bucket in self._buckets:
            if all_go:
                bucket.rows.clear()
            bucket.shrink()
        self._prefixes.shrink()

    def make_room(self) -> None:
        """Move every row that fills its bucket, so that each can write one more column; changes
        the order of rows."""
        for number, bucket in enumerate(list(self._buckets)):
            full = [row for row in bucket.rows if row.columns == bucket.width]
            if full:
                self._are_whole = False
                self._bucket(number + 1).take_over(bucket, full)
                self._are_whole = True
            for row in full:
                row.bucket = number + 1
            bucket.cache.give_back(len(bucket.rows))
            if bucket.rows:
                bucket.reserve(0)
        self._prefixes.cache.give_back(len(self._prefixes))

    def decode_step(self, rows: Sequence[RunningSequence]) -> Step:
        """One step over all rows, with a column to write in for each."""
        in_use = [bucket for bucket in self._buckets if bucket.rows]
        ranks = self._prefixes.ranks([row.place for row in rows])
        tokens, positions, cached, columns, places = np.array(
            [
                (r.token, r.position, r.place.prefix.tokens - 1, r.states, r.place.index)
                for r in rows
            ]
        ).T
        shape = StepShape(
            rows=tuple(len(bucket.rows) for bucket in in_use),
            widths=tuple(bucket.longest + 1 for bucket in in_use),
            places=len(self._prefixes),
            sharers=max(ranks) + 1,
            columns=self._prefixes.columns,
        )
        return Step(
            shape=shape,
            rows=StepRows(tokens, positions, cached, columns, places, np.array(ranks)),
            buckets=tuple(bucket.cache for bucket in in_use),
            prefixes=self._prefixes.cache,
            states=self._states,
            interventions=RowInterventions([r.active_steering for r in rows], self._model.device),
        )

    def count(self, rows: Sequence[RunningSequence], states: Tensor) -> None:
        """Count a step's states [layer, row, d_model]; a fresh row's are its prompt's last."""
        for index, row in enumerate(rows):
            if row.fresh and row.place.prefix.last is None:
                row.place.prefix.take_last(states[:, index].float())
        columns = torch.tensor([row.sums for row in rows]).to(states.device)
        counted = states.float()
        # Nothing above changed a row, so a step that ran out of memory there can be taken again.
        self._sums.index_add_(1, columns, counted)
        for row in rows:
            if row.fresh:
                self._sums[:, row.sums].zero_()
                row.fresh = False
            elif row.parts.ends_thought(len(row.response_ids)):
                self._end_thought(row)

    def _end_thought(self, row: RunningSequence) -> None:
        """Put aside what was summed; what is summed from here on is the answer."""
        summed = self._sums[:, row.sums].cpu().numpy().copy()
        row.thought_sum = summed if row.thought_sum is None else row.thought_sum + summed
        self._sums[:, row.sums].zero_()

    def take_finished(self) -> Iterator[Generation]:
        """The rows that finished, as generations; each leaves as it is handed out."""
        for row in list(self):
            if row.finish:
                made = self._generation(row, row.finish)
                self._buckets[row.bucket].remove(row)
                self._free(row)
                yield made

    def _generation(self, row: RunningSequence, finish: Finish) -> Generation:
        prefix = row.place.prefix
        assert prefix.last is not None and prefix.average is not None
        projections = None
        if row.request.directions:
            own = np.stack(row.projections)
            before = prefix.projections
            projections = own if before is None else np.concatenate([before, own])
        start, n_tokens = row.parts.answer_start, len(row.response_ids)
        if start == n_tokens:
            # a thought that did not end, or nothing behind it
            self._end_thought(row)
        total = self._sums[:, row.sums].cpu().numpy()
        thought = row.thought_sum if start else None
        return Generation(
            request=row.request,
            response_ids=tuple(row.response_ids),
            finish=finish,
            response_avg=np.divide(total, max(1, n_tokens - start), dtype=np.float32),
            prompt_avg=prefix.average,
            prompt_last=prefix.last,
            prompt_sinks=prefix.sinks,
            projections=projections,
            answer_start=start,
            thought_avg=None if thought is None else (thought / start).astype(np.float32),
        )

    def _free(self, row: RunningSequence) -> None:
        self._prefixes.leave(row.place)
        self._free_sums.append(row.sums)

    def _bucket(self, number: int) -> LengthBucket:
        while number >= len(self._buckets):
            widths = WIDTHS_CPU if self._on_cpu else WIDTHS_GPU
            doubled, first = divmod(len(self._buckets), len(widths))
            width = widths[first] << doubled
            self._buckets.append(LengthBucket(self._model.n_layers, width, on_cpu=self._on_cpu))
        return self._buckets[number]

    def _new_sums(self, columns: int) -> Tensor:
        shape = (self._model.n_layers + 1, columns, self._model.d_model)
        return torch.zeros(shape, dtype=torch.float32, device=self._model.device)
