"""Steps an engine in a thread of its own, for many jobs at once: it never drains between two."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from domain.errors import OrchestrateError
from workers.engine.engine import Engine
from workers.engine.generation import Generation, GenerationRequest

T = TypeVar("T")


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
