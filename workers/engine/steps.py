"""Runs decode steps: one by one, or from kernels that were recorded once as CUDA graphs.

Between two kernels of a small batch a GPU waits for Python. A recorded step waits for nobody, but
its sizes are fixed: a step takes the smallest recording that it fits into, padded, and sizes that
come again are recorded. Where recording is impossible (a model that decides on the host what to
compute, weights spread over devices, a CPU) every step runs one by one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from workers.engine.decode import DecodePass, StepRows, StepShape
from workers.engine.forward import MeasuredForward, RowInterventions
from workers.engine.slot_cache import SlotCache
from workers.engine.states import StateStore
from workers.models.device import is_out_of_memory
from workers.models.model import LoadedModel

# Recordings kept, and how often sizes come before they are recorded.
MOST_RECORDINGS = 16
WORTH_RECORDING = 2

# A recording is used for a step with so much fewer rows than a recording of its own would have.
MOST_PADDING = 1.25

# What the sizes of a recording are rounded up to.
WIDTH, PLACES, SHARERS, COLUMNS = 128, 8, 4, 64

log = logging.getLogger(__name__)
Outputs = tuple[Tensor, Tensor]
Storage = tuple[tuple[SlotCache | StateStore, int], ...]


@dataclass(frozen=True, eq=False)
class Step:
    """A decode step to run: its sizes, its rows, and the caches that they lie in, one a bucket."""

    shape: StepShape
    rows: StepRows
    buckets: tuple[SlotCache, ...]
    prefixes: SlotCache
    states: StateStore | None
    interventions: RowInterventions

    @property
    def storage(self) -> Storage:
        """The caches, each with the version of its memory."""
        caches: list[SlotCache | StateStore] = [*self.buckets, self.prefixes]
        if self.states:
            caches.append(self.states)
        return tuple((cache, cache.version) for cache in caches)


class Recorded(Protocol):
    """Kernels that read and write the same memory each time."""

    def replay(self) -> None:
        """Run them on what the memory holds now."""
        ...


class Recorder(Protocol):
    """Records the kernels of some work."""

    def record(self, work: Callable[[], Outputs]) -> tuple[Recorded, Outputs]:
        """What runs the work again, and the memory that its results then lie in.

        Raises RuntimeError where it cannot be recorded.
        """
        ...


class CudaGraphs:
    """Records on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One piece of memory for all: no two recordings run at the same time.
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Outputs]) -> tuple[Recorded, Outputs]:
        """Record without running; other threads may use the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
        with torch.cuda.device(self._device), recording:
            made = work()
        return graph, made


def recorder_for(model: LoadedModel) -> Recorder | None:
    """What records decode steps of this model; None where its weights are not on one GPU."""
    places = {weight.device for weight in model.model.parameters()}
    return (
        CudaGraphs(model.device)
        if places == {model.device} and model.device.type == "cuda"
        else None
    )


@dataclass(frozen=True, eq=False)
class Recording:
    """The kernels of a step of one shape, and the memory that they read and write."""

    shape: StepShape
    numbers: Tensor
    added: dict[int, Tensor]
    storage: Storage
    run: Recorded
    logits: Tensor
    states: Tensor

    @property
    def cost(self) -> tuple[int, int, int]:
        """Orders recordings by what they compute."""
        shape = self.shape
        seen = sum(rows * width for rows, width in zip(shape.rows, shape.widths, strict=True))
        return shape.n_rows, seen, shape.places * shape.sharers * shape.columns


class DecodeSteps:
    """The decode steps of one model."""

    def __init__(self, forward: MeasuredForward, recorder: Recorder | None) -> None:
        """Without a recorder all steps run one by one."""
        self._forward = forward
        self._recorder = recorder
        self._recordings: list[Recording] = []
        self._seen: Counter[object] = Counter()
        self.n_recorded = 0

    def run(self, step: Step) -> Outputs:
        """Logits [rows, vocabulary] and states [layer, rows, d_model], on the model's device."""
        recording = self._recording(step) if self._recorder else None
        if recording is None:
            numbers = torch.from_numpy(step.rows.numbers(step.shape, step.shape))
            numbers = numbers.to(self._forward.model.device)
            return self._compute(step, step.shape, numbers, step.interventions)
        recording.numbers.copy_(torch.from_numpy(step.rows.numbers(step.shape, recording.shape)))
        where = torch.from_numpy(recording.shape.spots_of(step.shape)).to(recording.numbers.device)
        for layer, added in recording.added.items():
            added.zero_()
            added[where] = step.interventions.added[layer]
        recording.run.replay()
        self.n_recorded += 1
        return recording.logits.index_select(0, where), recording.states.index_select(1, where)

    def forget(self) -> None:
        """Give the memory of all recordings back."""
        self._recordings.clear()
        self._seen.clear()

    def _compute(
        self, step: Step, shape: StepShape, numbers: Tensor, interventions: RowInterventions
    ) -> Outputs:
        device = self._forward.model.device
        states: list[Tensor] = []
        attention = DecodePass(shape, numbers, step.buckets, step.prefixes, step.states)
        logits = self._forward.logits(
            attention.tokens.unsqueeze(1),
            attention.positions.unsqueeze(1),
            attention,
            interventions,
            lambda _, state: states.append(state[:, -1].to(device)),
        )
        if attention.states is not None:
            attention.states.write_back()
        return logits, torch.stack(states)

    def _recording(self, step: Step) -> Recording | None:
        """The recording to use for a step, made now if its sizes were seen before."""
        if step.interventions.in_turn:
            return None
        layers = tuple(sorted(step.interventions.added))
        rounded = _rounded(step.shape)
        fitting = [
            recording
            for recording in self._recordings
            if recording.storage == step.storage
            and tuple(recording.added) == layers
            and recording.shape.covers(step.shape)
            and recording.shape.n_rows <= MOST_PADDING * rounded.n_rows
        ]
        if fitting:
            best = min(fitting, key=lambda recording: recording.cost)
            # the latest used stand last
            self._recordings.remove(best)
            self._recordings.append(best)
            return best
        self._seen[rounded, layers] += 1
        if self._seen[rounded, layers] < WORTH_RECORDING:
            return None
        return self._record(step, rounded, layers)

    def _record(self, step: Step, shape: StepShape, layers: tuple[int, ...]) -> Recording | None:
        assert self._recorder is not None
        sizes = zip(shape.rows, shape.widths, step.shape.rows, step.buckets, strict=True)
        for rows, width, kept, cache in sizes:
            cache.reserve(rows, width, kept=kept)
        step.prefixes.reserve(shape.places, shape.columns, kept=step.shape.places)
        # Recordings of memory that is gone are void, and so are the oldest beyond the limit.
        valid = [r for r in self._recordings if all(c.version == v for c, v in r.storage)]
        self._recordings = valid[1 - MOST_RECORDINGS :]
        model = self._forward.model
        numbers = torch.from_numpy(step.rows.numbers(step.shape, shape)).to(model.device)
        added = {
            layer: torch.zeros(shape.n_rows, model.d_model, device=model.device) for layer in layers
        }
        try:
            run, (logits, states) = self._recorder.record(
                partial(self._compute, step, shape, numbers, RowInterventions.adding(added))
            )
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            log.info("Decode steps are not recorded: %s", str(error).splitlines()[0])
            self._recorder = None
            self.forget()
            return None
        made = Recording(shape, numbers, added, step.storage, run, logits, states)
        self._recordings.append(made)
        return made


def _rounded(shape: StepShape) -> StepShape:
    return StepShape(
        rows=tuple(_up(rows, max(8, _power(rows) // 8)) for rows in shape.rows),
        widths=tuple(_up(width, WIDTH) for width in shape.widths),
        places=_up(shape.places, PLACES),
        sharers=_up(shape.sharers, SHARERS),
        columns=_up(shape.columns, COLUMNS),
    )


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _power(number: int) -> int:
    """The power of two at or over a number."""
    return 1 << (number - 1).bit_length()
