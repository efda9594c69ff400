"""What a command starts has no more of the environment than it needs, and ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.processes import orchestrate
from tests.attacks.scene import KEY, processes_with, wait_until
from tests.fleet import clean_environment

MARK = "mark-of-the-attacked-command"
HF_TOKEN = "planted-hub-token-0123456789"


def left_folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("orchestrate-redis-*"))


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def started(folder: Path, temporary: Path) -> subprocess.Popen[bytes]:
    """A command that has all its processes, in a folder whose .env names code."""
    (folder / "code").mkdir()
    told = folder / "it-ran"
    (folder / "code" / "sitecustomize.py").write_text(f"open({str(told)!r}, 'w').close()\n")
    (folder / ".env").write_text(f"PYTHONPATH={folder}/code\nLD_PRELOAD={folder}/code/x.so\n")
    process = subprocess.Popen(
        orchestrate("extract", "--traits", "all", "--run", "r"),
        cwd=folder,
        env={
            **clean_environment(),
            "PYTHONTESTMARK": MARK,
            "TMPDIR": str(temporary),
            "OPENAI_API_KEY": KEY,
            "HF_TOKEN": HF_TOKEN,
            "SOMEBODYS_SECRET": "another",
        },
        stdout=subprocess.DEVNULL,
        stderr=(folder / "said").open("wb"),
    )
    # three kinds of workers, the pinned one and the embedded judge; a redis-server has no mark
    assert wait_until(lambda: len(children_of(process)) >= 5, within_s=120)
    return process


def children_of(command: subprocess.Popen[bytes]) -> dict[int, str]:
    """pid -> what each process that the command started runs, of two words.

    One that was forked and has not executed yet has its parent's words and environment: it is
    left out, and who reads environments reads them after these words.
    """
    own = words_of(command.pid)
    found = {pid: words_of(pid) for pid in processes_with(MARK)}
    return {pid: " ".join(words[:2]) for pid, words in found.items() if words and words != own}


def words_of(pid: int) -> list[str]:
    """The words after our module in a process's command line; none of one that has ended."""
    try:
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []
    ours = next((i for i, word in enumerate(words) if "trait_vector_orchestrator" in word), -1)
    return words[ours + 1 :]


def test_each_child_has_what_it_needs_and_no_foreign_code_ran(
    tmp_path: Path, temporary: Path
) -> None:
    command = started(tmp_path, temporary)
    try:
        kinds = children_of(command)
        children = {pid: held for pid, held in processes_with(MARK).items() if pid in kinds}
        holds_key = {kinds[pid] for pid, found in children.items() if KEY in str(found)}
        holds_token = {kinds[pid] for pid, found in children.items() if HF_TOKEN in str(found)}
        (server,) = left_folders(temporary)

        assert holds_key == {"worker judge"}
        assert holds_token == {"worker gpu"}
        assert not any("SOMEBODYS_SECRET" in found for found in children.values())
        assert server.stat().st_mode & 0o077 == 0
    finally:
        command.send_signal(signal.SIGHUP)
        command.wait(timeout=60)

    said = (tmp_path / "said").read_text()
    assert not (tmp_path / "it-ran").exists()
    assert said.count("left aside") == 1
    assert "LD_PRELOAD" in said
    # a hang-up is an end like any other: nothing is left
    assert processes_with(MARK) == {}
    assert left_folders(temporary) == []


def test_a_command_that_is_killed_outright_leaves_no_process(
    tmp_path: Path, temporary: Path
) -> None:
    command = started(tmp_path, temporary)

    command.kill()
    command.wait()

    assert wait_until(lambda: not processes_with(MARK), within_s=60)
    (left,) = left_folders(temporary)
    # as if it had been left for a while
    os.utime(left, (1, 1))
    code = "from storage.broker.embedded_redis import embedded_redis\nwith embedded_redis(): pass"
    subprocess.run(
        [sys.executable, "-c", code],
        env={**clean_environment(), "TMPDIR": str(temporary)},
        check=True,
    )
    assert left_folders(temporary) == []
