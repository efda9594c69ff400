"""Processes of this program: given what they need, kept alive, and ended with their parent."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import trait_vector_orchestrator
from domain.errors import BrokerError, CannotWorkError
from domain.redaction import SECRETS
from storage.broker.embedded_redis import die_with_parent

log = logging.getLogger(__name__)

# A process that dies this often within the window will not get well by itself; a job that kills
# its worker is given up earlier (tasks/fleet/app.py).
MAX_DEATHS = 8

DEATH_WINDOW_S = 60.0

# One that ends because the broker is away starts again as often as it takes, not more often.
RESTART_PAUSE_S = 5.0

# One that says itself that it can do nothing may have met a file server in a bad moment.
MAX_TRIES = 3

# How long a process may take to leave before it is killed, with all that it has started. A GPU
# worker kills itself earlier (tasks/fleet/worker.py), and a launcher insists earlier with its own.
STOP_TIMEOUT_S = 20.0
STOP_CHILDREN_TIMEOUT_S = 16.0

# Beginnings of what a child needs of the environment: the machine, the libraries of devices and
# models, the way to networks and storages, and our own settings.
PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLUMNS", "LINES", "NO_COLOR"),
    *("LANG", "LC_", "TZ", "TMP", "TEMP", "XDG_", "PYTHON", "VIRTUAL_ENV", "CONDA_"),
    *("LD_LIBRARY_PATH", "DYLD_", "SYSTEMROOT", "SLURM_", "COVERAGE_"),
    *("CUDA", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCR_", "ROCM_", "ZE_", "SYCL_"),
    *("TORCH", "PYTORCH", "TRITON_", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "NUMEXPR_"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "ACCELERATE_", "TOKENIZERS_", "BITSANDBYTES_"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_", "CURL_CA_BUNDLE"),
    *("REQUESTS_CA_BUNDLE", "AWS_", "GOOGLE_", "GCS", "CLOUDSDK_", "AZURE_", "FSSPEC_", "KRB5"),
    *("OCI_", "OSS_", "DATABRICKS_", "HADOOP_", "JAVA_HOME", "CLASSPATH", "SSH_AUTH_SOCK"),
    "ORCHESTRATE_",
)


def orchestrate(*arguments: str) -> list[str]:
    """The command line of this program in a child; -P keeps the working folder off its path.

    The file itself, so that a checkout that nobody installed has workers too.
    """
    return [sys.executable, "-P", trait_vector_orchestrator.__file__, *arguments]


def say_with_time(text: str) -> None:
    """Tell the person at the terminal, or the launcher's log, with the time."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")


def how_it_ended(code: int) -> str:
    """A process's return code in words."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@dataclass
class Child:
    """One process to keep alive; `tries` is how often it may say that it can do nothing here.

    One that `may_fail` is given up then, as long as another of the set runs.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path | None = None
    tries: int = MAX_TRIES
    may_fail: bool = False
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list)
    started: float = 0.0
    waits: bool = False
    _lifeline: Lifeline = field(default_factory=lambda: Lifeline())

    def start(self) -> None:
        """Start it, its output going to the log or to ours."""
        self.started = time.monotonic()
        with contextlib.ExitStack() as files:
            stdin = files.enter_context(self._lifeline.renewed())
            output: IO[bytes] | None = None
            if self.log is not None:
                output = files.enter_context(self.log.open("ab"))
            self.process = subprocess.Popen(
                list(self.command),
                env={**self.environment, **LIFELINE},
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                preexec_fn=die_with_parent,
                start_new_session=True,
            )

    def end_lifeline(self) -> None:
        """It has ended, or may end by itself."""
        self._lifeline.cut()

    def log_tail(self) -> str:
        """The last lines of its log, for an error message."""
        if self.log is None or not self.log.is_file():
            return "see the lines above"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])


LIFELINE = {"ORCHESTRATE_LIFELINE": "stdin"}
"""Tells a child of ours that its standard input ends when its parent does."""

# What a child may take to leave when its parent was killed outright; nobody waits for it then.
ORPHAN_LEAVES_WITHIN_S = 6.0


class Lifeline:
    """A pipe of which a child holds one end, and this process alone the other."""

    def __init__(self) -> None:
        self._ours: int | None = None

    @contextlib.contextmanager
    def renewed(self) -> Iterator[int]:
        """A new one; yields the child's end, which is open here for as long as the context is."""
        self.cut()
        theirs, self._ours = os.pipe()
        try:
            yield theirs
        finally:
            os.close(theirs)

    def cut(self) -> None:
        """Let the child go."""
        if self._ours is not None:
            os.close(self._ours)
            self._ours = None


def end_with_parent() -> None:
    """In a process that was given a lifeline: leave when it is cut, however the parent ended."""
    if os.environ.pop("ORCHESTRATE_LIFELINE", None) is None:
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_LEAVES_WITHIN_S)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


class Processes:
    """Children that live and end together."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        say: Callable[[str], None] = say_with_time,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        """`say` tells people that a child died and was started again."""
        self.children, self._say, self._stop_timeout_s = list(children), say, stop_timeout_s

    @contextlib.contextmanager
    def running(self) -> Iterator[Processes]:
        """Run them while the context is open."""
        try:
            for child in self.children:
                child.start()
            yield self
        finally:
            self.stop()

    def tend(self) -> None:
        """Restart what died; raises CannotWorkError when a child keeps dying.

        What ended with code 0 was told to leave, and stays away, as does what was given up.
        """
        for child in self.children:
            if child.process is None or child.process.poll() in (None, 0) or child.tries <= 0:
                continue
            now = time.monotonic()
            if child.process.poll() == BrokerError.exit_code:
                # no fault of its own, and none of this machine
                self._wait_for_broker(child, now)
                continue
            child.waits = False
            child.deaths = [t for t in child.deaths if now - t < DEATH_WINDOW_S] + [now]
            child.tries -= child.process.poll() == CannotWorkError.exit_code
            if child.tries <= 0:
                said = (
                    f"{child.name} cannot work on this machine: mend what its last words name, "
                    f"then run the same command again\n{child.log_tail()}"
                )
                if not (child.may_fail and self._any_runs()):
                    raise CannotWorkError(said)
                log.error("%s\nThe others go on.", said)
                continue
            if len(child.deaths) >= MAX_DEATHS:
                raise CannotWorkError(
                    f"{child.name} died {MAX_DEATHS} times within {DEATH_WINDOW_S:.0f} s; its last "
                    f"words:\n{child.log_tail()}"
                )
            end = how_it_ended(child.process.returncode)
            child.start()
            self._say(f"{child.name} {end}; started again")

    def _wait_for_broker(self, child: Child, now: float) -> None:
        if not child.waits:
            self._say(f"{child.name} waits for the broker; it is started again until that is there")
            child.waits = True
        if now - child.started >= RESTART_PAUSE_S:
            child.start()

    def all_left(self) -> bool:
        """Whether every child that was not given up was told to leave and did."""
        return all(c.tries <= 0 or (c.process and c.process.poll() == 0) for c in self.children)

    def _any_runs(self) -> bool:
        return any(c.process and c.process.poll() is None for c in self.children)

    def stop(self) -> None:
        """Ask all to end, then insist; what they have started ends with them."""
        alive = [c.process for c in self.children if c.process and c.process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._stop_timeout_s
        for process in alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            # each leads a group of its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for child in self.children:
            child.end_lifeline()


def child_environment(
    environment: Mapping[str, str], *, keys: Iterable[str] = ()
) -> dict[str, str]:
    """The environment of a child: what a machine is set up by, our own settings, and of the secrets
    these keys. It is told everything by who starts it and reads no file of the working folder."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in keys or (name not in SECRETS and name.upper().startswith(PASSED_ON))
    }
    return {**kept, "ORCHESTRATE_CONFIG": ""}
