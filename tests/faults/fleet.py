"""A fleet that a test breaks: real workers, each its own process, restarted when it dies."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.broker.embedded_redis import die_with_parent
from tests.fleet import clean_environment

# One tenth of the default: every wait of a case is scaled with it.
VISIBILITY_TIMEOUT_S = 3.0


@dataclass
class Worker:
    """One worker process and its log."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its log goes on where it ended."""
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                list(self.command),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
                start_new_session=True,
            )

    def log(self) -> str:
        """All it has said."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


@dataclass
class Fleet:
    """Workers on one broker. Dead ones are started again within a moment."""

    broker_url: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    deaths: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    # held while a worker is started again or ended for good: never both
    _tending: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self,
        name: str,
        *arguments: str,
        module: str = "trait_vector_orchestrator",
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> Worker:
        """Start a worker: `add("gpu-0", *GPU)`."""
        command = [*prefix, sys.executable, "-P", "-m", module, "worker", *arguments]
        variables = {
            **clean_environment(),
            "ORCHESTRATE_BROKER_URL": self.broker_url,
            "ORCHESTRATE_VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT_S),
            **self.environment,
            **(environment or {}),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        worker = Worker(name, command, variables, self.folder / f"{name}.log")
        worker.start()
        self.workers[name] = worker
        return worker

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> None:
        """Send a worker a signal."""
        process = self.workers[name].process
        assert process is not None
        process.send_signal(signal_number)

    def remove(self, name: str) -> None:
        """End a worker for good."""
        with self._tending:
            worker = self.workers.pop(name)
        assert worker.process is not None
        worker.process.kill()
        worker.process.wait()

    def logs(self) -> dict[str, str]:
        """What every worker has said so far, those that left included."""
        return {f.stem: f.read_text(errors="replace") for f in self.folder.glob("*-*.log")}

    def marks(self) -> dict[str, int]:
        """Where each log ends now; give it to `begun` and `busy_with` to look at what is new."""
        return {name: len(log) for name, log in self.logs().items()}

    def begun(self, marks: Mapping[str, int]) -> list[str]:
        """Jobs that workers began since the marks, each as often as it was begun."""
        found = []
        for name, log in self.logs().items():
            found += re.findall(r"Begins (\S+)\.", log[marks.get(name, 0) :])
        return found

    def busy_with(self, name: str, stage: str, marks: Mapping[str, int]) -> set[str]:
        """Jobs of a stage that a worker began since the marks and has not finished."""
        log = self.workers[name].log()[marks.get(name, 0) :]
        began = set(re.findall(rf"Begins (\S*{stage}\S*)\.", log))
        return began - set(re.findall(r"Finished (\S+) in", log))

    @contextlib.contextmanager
    def tended(self) -> Iterator[Fleet]:
        """Restart what dies while the context is open, then end all."""
        thread = threading.Thread(target=self._tend, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()
            for name in list(self.workers):
                self.remove(name)

    def _tend(self) -> None:
        while not self._stop.wait(0.1):
            with self._tending:
                for worker in list(self.workers.values()):
                    if worker.process is not None and worker.process.poll() is not None:
                        self.deaths += 1
                        worker.start()


def wait_until(condition: Callable[[], bool], *, timeout_s: float, what: str) -> float:
    """Block until a condition holds; returns how long it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.005)
    return time.monotonic() - started
