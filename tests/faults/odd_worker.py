"""`orchestrate` with a fault that nothing else can cause: a prompt that kills, a clock that is off.

ODD_POISON names a file that holds a job's key: while it exists, that job kills its worker.
ODD_HOLD names a file: while it exists, a reduce job waits at its beginning.
ODD_SLOW_S is how long a generate job takes at least.
ODD_CLOCK_S is how many seconds the clock of the process is ahead.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_real_time = time.time


def _skew(seconds: float) -> None:
    time.time = lambda: _real_time() + seconds


def _change_generate(poison: Path | None, slow_s: float) -> None:
    import tasks.stages.generate as module
    from domain.plan.jobs import Job
    from storage.record.artifacts import Record
    from storage.record.run import Run
    from workers.engine.resident import Residents

    generate = module.generate

    def changed(run: Run, job: Job, *, residents: Residents) -> Record:
        if poison and poison.exists() and poison.read_text() == job.key:
            os.kill(os.getpid(), signal.SIGKILL)
        # before, not after: what is stored is done
        time.sleep(slow_s)
        return generate(run, job, residents=residents)

    module.generate = changed


def _hold_reduce(hold: Path) -> None:
    import tasks.stages.reduce as module
    from domain.plan.jobs import Job
    from storage.record.artifacts import Record
    from storage.record.run import Run

    reduce = module.reduce

    def held(run: Run, job: Job) -> Record:
        while hold.exists():
            time.sleep(0.01)
        return reduce(run, job)

    module.reduce = held


def main() -> None:
    """Prepare the fault, then be `orchestrate`."""
    # before kombu and celery take their own reference to time.time
    if "ODD_CLOCK_S" in os.environ:
        _skew(float(os.environ["ODD_CLOCK_S"]))
    poison, slow_s = os.environ.get("ODD_POISON"), float(os.environ.get("ODD_SLOW_S", "0"))
    if poison or slow_s:
        _change_generate(Path(poison) if poison else None, slow_s)
    if "ODD_HOLD" in os.environ:
        _hold_reduce(Path(os.environ["ODD_HOLD"]))
    from cli.main import main as orchestrate

    orchestrate()


if __name__ == "__main__":
    main()
