"""A reader's shell: a folder, an environment, and commands that end or stay.

Knows nothing of pages.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from storage.broker.embedded_redis import die_with_parent

PATIENCE_S = 100.0
INTERRUPTED = (0, 130, -signal.SIGINT)


@dataclass
class Shell:
    """Runs lines in a folder, one after another, as a reader would type them."""

    folder: Path
    environment: dict[str, str]
    staying: list[tuple[str, subprocess.Popen[bytes], Path]] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)

    def run(self, line: str) -> int:
        """Run a line to its end; `export` lasts. Returns the exit code."""
        exported = re.fullmatch(r"export (\w+)=(.*)", line)
        if exported:
            self.environment[exported[1]] = self._said(f"printf %s {exported[2]}")
            return 0
        process = self._start(line)
        try:
            return process.wait(timeout=PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def stay(self, line: str, *, up: str) -> None:
        """Start a line that stays, and wait until it is up."""
        process = self._start(f"exec {line}")
        self.staying.append((line, process, self.logs[-1]))
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(up, self.last_words())):
            assert process.poll() is None, f"{line} ended:\n{self.last_words()}"
            assert time.monotonic() < deadline, f"{line} is not up:\n{self.last_words()}"
            time.sleep(0.1)
        if found.groups():
            assert _answers(found[1]), f"{line}: nobody answers at {found[1]}"

    def stop(self) -> list[str]:
        """Stop what stays, the last first; those that ended badly."""
        bad = []
        for line, process, log in reversed(self.staying):
            if process.poll() is None:
                # Celery calls a Ctrl-C a failure, and what service managers send an end
                worker = line.startswith("orchestrate worker")
                process.send_signal(signal.SIGTERM if worker else signal.SIGINT)
            code = process.wait(timeout=PATIENCE_S)
            if code not in INTERRUPTED:
                bad.append(f"{line} ended with {code}:\n{log.read_text()[-2000:]}")
        self.staying.clear()
        return bad

    def last_words(self) -> str:
        """The output of the latest line that ran a program."""
        return self.logs[-1].read_text(errors="replace")[-3000:] if self.logs else ""

    def _start(self, line: str) -> subprocess.Popen[bytes]:
        self.logs.append(self.folder.with_name(f"{self.folder.name}-{len(self.logs):02d}.log"))
        with self.logs[-1].open("wb") as log:
            return subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_as_at_a_terminal,
                start_new_session=True,
            )

    def _said(self, line: str) -> str:
        return subprocess.run(
            ["bash", "-c", line], env=self.environment, capture_output=True, text=True, check=True
        ).stdout


def _as_at_a_terminal() -> None:
    """Ctrl-C counts, also where the tests run in the background of a shell that ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent()


def _answers(url: str) -> bool:
    """Whether a server speaks at the address, be it only of a login or an unknown path."""
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False
