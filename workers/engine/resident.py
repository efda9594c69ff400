"""The resident model of a GPU worker: loaded once, kept until a job asks for another, and generated
with in a thread of its own for many jobs at once.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from domain.errors import OrchestrateError
from domain.plan.spec import SHARD_SAMPLES, ModelSpec
from traitlens.vectors.trait_vector import model_hash
from workers.engine.engine import Engine, build_engine
from workers.engine.generation import Generation, GenerationRequest
from workers.engine.refill import MOST_ROWS_CPU, MOST_ROWS_GPU
from workers.models.model import LoadedModel, is_out_of_memory, load_model, release_reserve

T = TypeVar("T")
Ids = tuple[int, ...]
Text = tuple[Ids, Ids]
"""The token ids of a prompt and of a response."""

# Nothing is generated while so many texts are read: on a slow processor that is some seconds.
TEXTS_AT_ONCE = 16


class EngineClosedError(OrchestrateError):
    """The engine was closed before it finished: hand the job to another worker."""


@dataclass(eq=False)
class _Order:
    """One caller's requests."""

    requests: list[GenerationRequest]
    finished: dict[GenerationRequest, Generation] = field(default_factory=dict)
    settled: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


@dataclass(eq=False)
class _Errand(Generic[T]):
    """Other work on the engine's model, that one caller waits for."""

    work: Callable[[], T]
    settled: Future[T] = field(default_factory=Future)

    def run(self) -> None:
        """Do it; what it raises is its caller's."""
        try:
            self.settled.set_result(self.work())
        except BaseException as error:
            self.settled.set_exception(error)


class EngineThread:
    """Owns an engine that is loaded and stepped in one thread, for callers from other threads; it
    never drains between two jobs."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._engine: Engine | None = None
        self._orders: dict[GenerationRequest, _Order] = {}
        self._busy_seconds = self._errand_seconds = 0.0
        # What is shared with the callers is guarded by the condition.
        self._changed = threading.Condition()
        self._waiting: list[_Order] = []
        self._errands: list[_Errand[Any]] = []
        self._open = True
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def engine(self) -> Engine | None:
        """The engine once it is loaded, for reading its model, path and statistics only."""
        return self._engine

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """The generations of the requests, in their order; blocks until all are done.

        Raises what loading or stepping the engine raised, EngineClosedError once it is closed.
        """
        if not requests:
            return []
        # Copies, because a request is told by itself and two callers may hand in the same ones.
        order = _Order([replace(request) for request in requests])
        with self._changed:
            self._require_open()
            self._waiting.append(order)
            self._changed.notify_all()
        order.settled.wait()
        if order.error:
            raise order.error
        return [order.finished[request] for request in order.requests]

    def between_steps(self, work: Callable[[], T]) -> T:
        """What `work` returns, done between two steps: for passes over the engine's model, whose
        hooks would see the engine's own passes too, and it theirs.

        To be kept short, since nothing is generated meanwhile. Raises what it raises, what loading
        or stepping the engine raised, and EngineClosedError once it is closed.
        """
        errand = _Errand(work)
        with self._changed:
            self._require_open()
            self._errands.append(errand)
            self._changed.notify_all()
        return errand.settled.result()

    def has_failed(self) -> bool:
        """Whether loading or stepping raised: every further call would raise the same."""
        with self._changed:
            failure = self._failure
        return failure is not None and not isinstance(failure, EngineClosedError)

    def busy_share(self) -> float:
        """Share, 0 to 1, of the wall time with work queued that went into forward passes."""
        return min(1.0, self.forward_seconds() / self._busy_seconds) if self._busy_seconds else 0.0

    def forward_seconds(self) -> float:
        """Seconds that went into forward passes so far."""
        own = self._engine.stats.forward_seconds if self._engine else 0.0
        return own + self._errand_seconds

    def drawn_tokens(self) -> int:
        """Tokens that were drawn so far."""
        return self._engine.stats.drawn_tokens if self._engine else 0

    def close(self) -> None:
        """Stop after the step in progress."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._thread.join()

    def _require_open(self) -> None:
        if self._failure:
            raise self._failure
        if not self._open:
            raise EngineClosedError("The engine is closed: hand the job to another worker.")

    def _run(self) -> None:
        error: BaseException = EngineClosedError(
            "The engine was closed: hand the job to another worker."
        )
        try:
            engine = self._engine = self._load()
            while self._take_orders(engine):
                started = time.perf_counter()
                for generation in engine.step() if engine.has_work else ():
                    order = self._orders.pop(generation.request)
                    order.finished[generation.request] = generation
                    if len(order.finished) == len(order.requests):
                        order.settled.set()
                self._busy_seconds += time.perf_counter() - started
        except BaseException as raised:  # the thread's edge: the callers raise it
            error = raised
        with self._changed:
            self._failure = error
            unsettled = {*self._waiting, *self._orders.values()}
            errands, self._errands = self._errands, []
            self._waiting, self._orders = [], {}
        for errand in errands:
            errand.settled.set_exception(error)
        for order in unsettled:
            order.error = error
            order.settled.set()

    def _take_orders(self, engine: Engine) -> bool:
        """Hand new orders to the engine, and do what else callers ask for, waiting for something
        to do if there is nothing; False once closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._open or self._waiting or self._errands or engine.has_work
            )
            arrived, self._waiting = self._waiting, []
            errands, self._errands = self._errands, []
        started = time.perf_counter()
        for errand in errands:
            errand.run()
        seconds = time.perf_counter() - started if errands else 0.0
        self._errand_seconds += seconds
        self._busy_seconds += seconds
        for order in arrived:
            self._orders |= dict.fromkeys(order.requests, order)
            engine.add(order.requests)
        return self._open


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
