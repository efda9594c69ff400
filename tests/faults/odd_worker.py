"""`orchestrate` with a fault that nothing else can cause: a prompt that kills, a clock that is off.

ODD_POISON names a file that holds a job's key: while it exists, that job kills its worker.
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


def _poison(file: Path) -> None:
    import tasks.generate as module
    from orchestrator.plan import Job
    from storage.artifacts import Record
    from storage.run_record import Run
    from workers.resident import Residents

    generate = module.generate

    def deadly(run: Run, job: Job, *, residents: Residents) -> Record:
        if file.exists() and file.read_text() == job.key:
            os.kill(os.getpid(), signal.SIGKILL)
        return generate(run, job, residents=residents)

    module.generate = deadly


def main() -> None:
    """Prepare the fault, then be `orchestrate`."""
    # before kombu and celery take their own reference to time.time
    if "ODD_CLOCK_S" in os.environ:
        _skew(float(os.environ["ODD_CLOCK_S"]))
    if "ODD_POISON" in os.environ:
        _poison(Path(os.environ["ODD_POISON"]))
    from cli.main import main as orchestrate

    orchestrate()


if __name__ == "__main__":
    main()
