"""The stages of a GPU worker, whose libraries load while the worker already takes part.

Importing torch and transformers takes seconds, more on a busy machine. A worker joins the fleet
without them and takes one job, which waits for them as it would for the model.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from celery.exceptions import Reject

from domain.errors import CannotWorkError
from domain.plan.jobs import Job
from storage.record.artifacts import Record
from storage.record.run import Run
from tasks.fleet.kombu_internals import end_worker
from tasks.fleet.suspects import DyingReject

if TYPE_CHECKING:
    from workers.engine.resident import Residents

log = logging.getLogger(__name__)

# An exit code that has the launcher start the worker again.
DEVICE_LOST = 1


class DeviceStage:
    """Does a GPU worker's jobs on one device; `most_jobs` of them side by side."""

    def __init__(self, device: str, *, limit: int, shown: str = "") -> None:
        """`shown` is what people call the device, outside a process that is pinned to it."""
        self._device, self._limit, self._shown = device, limit, shown or device
        self._residents: Future[Residents] = Future()
        self._most_jobs = 1
        self._is_closing = False

    def most_jobs(self) -> int:
        """One until the libraries are there; then what keeps the device full."""
        return self._most_jobs

    def computed(self) -> tuple[float, int]:
        """Seconds that the device computed so far, and tokens that it drew."""
        if not self._residents.done() or self._residents.exception() is not None:
            return 0.0, 0
        return self._residents.result().computed()

    def load(self) -> None:
        """Begin to import; returns at once. A worker that cannot, or whose device computes
        nothing, leaves with code 6."""
        threading.Thread(target=self._load, name="import", daemon=True).start()

    def carry(self, run: Run, job: Job) -> Record:
        """See tasks.stages.generate and contexts; hands the job back where the worker cannot work
        or leaves, or the device has failed: then a fresh process takes its place."""
        try:
            residents = self._residents.result()
        except CannotWorkError as error:
            raise Reject(str(error), requeue=True) from error
        if self._is_closing:
            raise Reject("the worker is leaving", requeue=True)
        from tasks.stages.contexts import contexts
        from tasks.stages.generate import generate
        from workers.engine.engine_thread import EngineClosedError
        from workers.models.device import is_device_lost

        stage = contexts if job.stage == "contexts" else generate
        try:
            return stage(run, job, residents=residents)
        except EngineClosedError as error:
            # the job goes back to the queue at once
            raise Reject(str(error), requeue=True) from error
        except RuntimeError as error:
            if not is_device_lost(error):
                raise
            self._leave(error)
            raise DyingReject(f"the device is lost: {error}", requeue=True) from error

    def close(self) -> None:
        """Stop generating; jobs in hand go back."""
        self._is_closing = True
        if self._residents.done() and self._residents.exception() is None:
            self._residents.result().close()

    def _leave(self, error: RuntimeError) -> None:
        """End this process, whose launcher starts another; its other jobs go back."""
        if not self._is_closing:
            log.critical("The device is lost: %s.", error, extra={"event": "device_lost"})
        self._is_closing = True
        end_worker(DEVICE_LOST)

    def _load(self) -> None:
        try:
            import tasks.stages.contexts
            import tasks.stages.generate  # noqa: F401
            from workers.engine.resident import Residents, jobs_in_flight
            from workers.models.device import prove_device

            prove_device(self._device, shown=self._shown)
            self._most_jobs = min(jobs_in_flight(self._device), self._limit)
            self._residents.set_result(Residents(device=self._device))
        except CannotWorkError as error:
            self._give_up(error)
        # whatever a broken installation raises: this worker can do nothing, and says why
        except Exception as error:
            self._give_up(error, trace=error)

    def _give_up(self, error: Exception, *, trace: Exception | None = None) -> None:
        log.critical("Cannot generate: %s.", error, exc_info=trace, extra={"event": "broken"})
        end_worker(CannotWorkError.exit_code)
        self._residents.set_exception(CannotWorkError(f"{type(error).__name__}: {error}"))
