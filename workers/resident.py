"""The resident model of a GPU worker: loaded once, kept until a job asks for another.

Knows nothing of jobs or stores.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from orchestrator.run_spec import SHARD_SAMPLES, ModelSpec
from traitlens.fingerprint import model_hash
from workers.engine import Engine
from workers.engine_refill import MOST_ROWS_CPU, MOST_ROWS_GPU
from workers.engine_thread import EngineThread
from workers.model import LoadedModel, load_model


@dataclass(frozen=True)
class Resident:
    """A loaded model and the thread that generates with it."""

    spec: ModelSpec
    model: LoadedModel
    model_hash: str
    engine: EngineThread

    def facts(self) -> dict[str, object]:
        """What a run records about the model that ran."""
        return {
            "model": self.model.model_id,
            "revision": self.model.revision,
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "n_layers": self.model.n_layers,
            "d_model": self.model.d_model,
            "system_mode": self.model.system_mode,
            "thinking": self.model.thinking,
            "model_hash": self.model_hash,
        }


def jobs_in_flight(device: str) -> int:
    """Shards that keep a device's rows full, and one more for the engine to refill from."""
    rows = MOST_ROWS_CPU if device == "cpu" or not torch.cuda.is_available() else MOST_ROWS_GPU
    return -(-rows // SHARD_SAMPLES) + 1


class Residents:
    """Holds one resident model at a time and lends it to job threads."""

    def __init__(self, *, device: str = "auto", max_rows: int | None = None) -> None:
        self._device, self._max_rows = device, max_rows
        self._resident: Resident | None = None
        self._users = 0
        self._free = threading.Condition()
        # of the engines that are gone
        self._computed_s = 0.0

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
            self._resident.engine.close(drain=False)
            seconds = self._resident.engine.forward_seconds()
            self._resident = None
            self._computed_s += seconds

    def computed_s(self) -> float:
        """Seconds that the device computed so far, whatever models it held; waits for nobody."""
        held = self._resident
        return self._computed_s + (held.engine.forward_seconds() if held else 0.0)

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
        engine = EngineThread(lambda: Engine(model, max_rows=self._max_rows))
        self._resident = Resident(spec, model, model_hash(model.model), engine)
