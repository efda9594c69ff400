"""Runs one engine in its own thread for many callers, so that it never drains between two jobs.

Knows nothing about jobs: a caller brings requests and waits for their generations.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.errors import OrchestrateError
from workers.engine import Engine
from workers.generation import Generation, GenerationRequest

# How often a waiting caller looks whether it was cancelled.
CANCEL_POLL_SECONDS = 0.2


class EngineClosedError(OrchestrateError):
    """The engine was closed before it finished: hand the job to another worker."""


class GenerationCancelledError(OrchestrateError):
    """The caller's job was cancelled while its responses were generated."""


@dataclass(eq=False)
class _Order:
    """One caller's requests, renamed so that two callers may use the same keys."""

    requests: dict[str, GenerationRequest]
    finished: dict[str, Generation] = field(default_factory=dict)
    settled: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def missing(self) -> list[str]:
        return [name for name in self.requests if name not in self.finished]


class EngineThread:
    """Owns an engine that is loaded and stepped in one thread, for callers from other threads."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._engine: Engine | None = None
        self._numbers = itertools.count()
        # Everything below is shared with the callers and guarded by the condition.
        self._changed = threading.Condition()
        self._waiting: list[_Order] = []
        self._running: list[_Order] = []
        self._withdrawn: list[_Order] = []
        self._open, self._draining = True, False
        self._failure: BaseException | None = None
        self._busy_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def engine(self) -> Engine | None:
        """The engine once it is loaded, for reading its model, path and statistics only."""
        return self._engine

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Generation]:
        """The generations of the requests, in their order; blocks until all are done.

        Raises what loading or stepping the engine raised, EngineClosedError after a close without
        draining, GenerationCancelledError once `cancelled` says so.
        """
        order = self._submit(requests)
        while not order.settled.wait(CANCEL_POLL_SECONDS):
            if cancelled():
                self._withdraw(order)
                raise GenerationCancelledError("The job was cancelled while it generated.")
        if order.error:
            raise order.error
        return [
            replace(order.finished[name], key=request.key)
            for name, request in order.requests.items()
        ]

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
        return self._engine.stats.forward_seconds if self._engine else 0.0

    def close(self, *, drain: bool) -> None:
        """Stop: after all that is queued when draining, else after the step in progress."""
        with self._changed:
            self._open, self._draining = False, drain
            self._changed.notify_all()
        self._thread.join()

    def _submit(self, requests: Sequence[GenerationRequest]) -> _Order:
        number = next(self._numbers)
        order = _Order({f"{number}/{i}": request for i, request in enumerate(requests)})
        with self._changed:
            if self._failure:
                raise self._failure
            if not self._open:
                raise EngineClosedError("The engine is closed: hand the job to another worker.")
            if requests:
                self._waiting.append(order)
                self._changed.notify_all()
            else:
                order.settled.set()
        return order

    def _withdraw(self, order: _Order) -> None:
        with self._changed:
            self._withdrawn.append(order)
            self._changed.notify_all()

    def _run(self) -> None:
        closed = EngineClosedError("The engine was closed: hand the job to another worker.")
        error: BaseException = closed
        try:
            self._engine = self._load()
            while self._exchange(self._engine):
                started = time.perf_counter()
                finished = self._engine.step()
                self._deliver(finished)
                self._busy_seconds += time.perf_counter() - started
        except BaseException as raised:  # the thread's edge: the callers raise it
            error = raised
        self._settle_all(error)

    def _exchange(self, engine: Engine) -> bool:
        """Take new orders in and withdrawn ones out; False when the thread shall end."""
        with self._changed:
            while self._open and not (self._waiting or self._withdrawn or engine.has_work):
                self._changed.wait()
            arrived, self._waiting = self._waiting, []
            withdrawn, self._withdrawn = self._withdrawn, []
            self._running += arrived
            self._running = [order for order in self._running if order not in withdrawn]
        for order in arrived:
            engine.add(replace(r, key=name) for name, r in order.requests.items())
        for order in withdrawn:
            engine.discard(order.missing())
        return self._open or (self._draining and engine.has_work)

    def _deliver(self, finished: Iterable[Generation]) -> None:
        for generation in finished:
            order = next(o for o in self._running if generation.key in o.requests)
            order.finished[generation.key] = generation
            if len(order.finished) == len(order.requests):
                self._running.remove(order)
                order.settled.set()

    def _settle_all(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            unsettled = [*self._waiting, *self._running]
            self._waiting, self._running = [], []
        for order in unsettled:
            order.error = error
            order.settled.set()
