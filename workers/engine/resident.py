"""The resident model of a GPU worker: loaded once, lent to jobs until one asks for another."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from domain.plan.spec import SHARD_SAMPLES, ModelSpec
from traitlens.vectors.trait_vector import model_hash
from workers.engine.engine import build_engine
from workers.engine.engine_thread import EngineThread
from workers.engine.refill import MOST_ROWS_CPU, MOST_ROWS_GPU
from workers.models.device import is_out_of_memory, release_reserve
from workers.models.model import LoadedModel, load_model

T = TypeVar("T")
Ids = tuple[int, ...]
Text = tuple[Ids, Ids]
"""The token ids of a prompt and of a response."""

# Nothing is generated while so many texts are read: on a slow processor that is some seconds.
TEXTS_AT_ONCE = 16


@dataclass(frozen=True)
class Resident:
    """A loaded model and the thread that generates with it."""

    spec: ModelSpec
    model: LoadedModel
    model_hash: str
    engine: EngineThread

    def facts(self) -> dict[str, object]:
        """What a run records about the model that ran."""
        adapter = self.model.adapter
        return {
            "model": self.model.model_id,
            "revision": self.model.revision,
            "base": adapter and {"model": adapter.base, "revision": adapter.base_revision},
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "n_layers": self.model.n_layers,
            "d_model": self.model.d_model,
            "system_mode": self.model.system_mode,
            "thinking": self.model.thinking.case,
            "ignored": dict(self.model.ignored),
            "model_hash": self.model_hash,
            "path": self.engine.engine.path if self.engine.engine else None,
        }

    def read_in_turn(
        self, texts: Sequence[Text], work: Callable[[list[Ids], list[Ids]], Iterable[T]]
    ) -> list[T]:
        """What `work` makes of each text, given the prompts and responses of some at a time.

        Gives way to the engine's steps, and halves what memory does not hold.
        """
        made: dict[int, T] = {}

        def read(some: list[int]) -> None:
            prompts, responses = [texts[k][0] for k in some], [texts[k][1] for k in some]
            try:
                found = self.engine.between_steps(lambda: work(prompts, responses))
            except (RuntimeError, MemoryError) as error:
                if len(some) == 1 or not is_out_of_memory(error):
                    raise
            else:
                made.update(zip(some, found, strict=True))
                return
            # after the handler: inside it the error still holds the failed pass's tensors
            release_reserve(self.model.device)
            read(some[: len(some) // 2])
            read(some[len(some) // 2 :])

        in_order = sorted(range(len(texts)), key=lambda k: sum(map(len, texts[k])))
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            read(in_order[first : first + TEXTS_AT_ONCE])
        return [made[k] for k in range(len(texts))]


def jobs_in_flight(device: str) -> int:
    """Shards that keep a device's rows full, and one more for the engine to refill from."""
    rows = MOST_ROWS_CPU if device == "cpu" or not torch.cuda.is_available() else MOST_ROWS_GPU
    return -(-rows // SHARD_SAMPLES) + 1


class Computed(NamedTuple):
    """Seconds that a device computed, and the tokens that it drew."""

    seconds: float
    tokens: int


class Residents:
    """Holds one resident model at a time and lends it to job threads."""

    def __init__(self, *, device: str = "auto", max_rows: int | None = None) -> None:
        self._device, self._max_rows = device, max_rows
        self._resident: Resident | None = None
        self._users = 0
        self._free = threading.Condition()
        # of the engines that are gone
        self._computed = Computed(0.0, 0)

    @contextlib.contextmanager
    def use(self, spec: ModelSpec) -> Iterator[Resident]:
        """Lend the model of that spec; waits for the users of another one, then loads it."""
        with self._free:
            self._free.wait_for(lambda: self._users == 0 or self._holds(spec))
            if not self._holds(spec):
                self._load(spec)
            assert self._resident is not None
            resident = self._resident
            self._users += 1
        try:
            yield resident
        finally:
            with self._free:
                self._users -= 1
                self._free.notify_all()

    def close(self) -> None:
        """Stop generating and let the model go."""
        if self._resident is not None:
            self._resident.engine.close()
            now = self.computed()
            self._resident = None
            self._computed = now

    def computed(self) -> Computed:
        """What the device did so far, whatever models it held; waits for nobody."""
        held, before = self._resident, self._computed
        if held is None:
            return before
        return Computed(
            before.seconds + held.engine.forward_seconds(),
            before.tokens + held.engine.drawn_tokens(),
        )

    def _holds(self, spec: ModelSpec) -> bool:
        held = self._resident
        # an engine that failed stays so; the next user loads again
        return held is not None and held.spec == spec and not held.engine.has_failed()

    def _load(self, spec: ModelSpec) -> None:
        # the old model's memory has to be free before the new one arrives
        self.close()
        # an engine that failed is held by the traceback of its own error
        gc.collect()
        model = load_model(
            spec.model_id,
            device=self._device,
            dtype=spec.dtype,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
        )
        engine = EngineThread(lambda: build_engine(model, max_rows=self._max_rows))
        self._resident = Resident(spec, model, model_hash(model.model), engine)
