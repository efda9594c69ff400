"""What others wrote does not steer the terminal: trait files, folders, workers, logs, settings."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import orchestrate as orchestrate_command
from orchestrator.processes import orchestrate
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from storage.broker.job_log import LogLine, append_log_line
from tests.attacks.scene import KEY
from tests.fleet import clean_environment, run_command
from tests.simulated_runs import make_run

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"
HOSTILE = f"{CLIPBOARD}\x1b]0;title\x07\x1b[2J\x9b2J\u202e\rfine"


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


def on_a_terminal(*arguments: str, cwd: Path, environment: dict[str, str]) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        orchestrate(*arguments),
        cwd=cwd,
        env={**clean_environment(), "TERM": "xterm-256color", "COLUMNS": "200", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:
            break
        if not read:
            break
        written += read
    os.close(ours)
    process.wait(timeout=60)
    return written.decode(errors="replace")


def is_harmless(written: str) -> bool:
    """Whether nothing of the hostile text would be obeyed."""
    steering = ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\x07", "\rfine")
    return not any(one in written for one in steering)


def test_a_trait_file_and_its_folder(tmp_path: Path, broker: str) -> None:
    folder = tmp_path / f"f{CLIPBOARD}"
    folder.mkdir()
    body = {
        "instruction": [{"pos": f"Be calm. {HOSTILE}", "neg": f"Be wild. {HOSTILE}"}] * 5,
        "questions": [f"Why? {HOSTILE} {n}" for n in range(20)],
        "eval_prompt": f"{{question}} {{answer}} {HOSTILE}",
    }
    file = folder / "calm.json"
    file.write_text(json.dumps(body))
    (folder / "odd.json").write_text(json.dumps({"instruction": HOSTILE, HOSTILE: 1}))

    for command in ("show", "check"):
        for name in ("calm.json", "odd.json"):
            written = on_a_terminal(
                "traits", command, str(folder / name), cwd=tmp_path, environment={}
            )
            assert "Be calm" in written or "rror" in written
            assert is_harmless(written)


def test_names_and_logs_from_the_broker(tmp_path: Path, broker: str) -> None:
    run = make_run(tmp_path / "runs" / "one", traits=1, shards=1)
    heartbeat = {"name": f"gpu@{HOSTILE}", "kind": "gpu", "host": HOSTILE, "at": 9e12}
    with connect(broker) as client:
        append_log_line(
            client, run.run_id, LogLine(0, "error", HOSTILE, HOSTILE, "", HOSTILE, trace=HOSTILE)
        )
        client.hset("orchestrate:workers", HOSTILE, json.dumps(heartbeat))
        client.hset(
            f"orchestrate:{run.run_id}:failures",
            HOSTILE,
            json.dumps({"job": HOSTILE, "error": HOSTILE, "message": HOSTILE, "fatal": False}),
        )
    environment = {"ORCHESTRATE_BROKER_URL": broker, "ORCHESTRATE_RUNS_DIR": str(tmp_path / "runs")}

    for command in (("logs", "one"), ("status", "one"), ("worker", "list")):
        written = on_a_terminal(*command, cwd=tmp_path, environment=environment)
        assert written.strip()
        assert is_harmless(written), repr(written)
        assert "title" in written


def test_a_key_in_an_error_does_not_reach_the_terminal(tmp_path: Path) -> None:
    ended = run_command(
        *("extract", "--run", f"no {KEY[:12]} name", "--traits", "evil", "--dry-run"),
        environment={"OPENAI_API_KEY": KEY},
    )

    assert ended.returncode == 2
    assert KEY[:8] not in ended.stdout + ended.stderr
    assert "name" in ended.stderr


@pytest.mark.parametrize("number", ["inf", "nan", "-inf", "1e999"])
def test_a_number_without_end_is_refused_before_any_work(number: str) -> None:
    arguments = ["extract", "--traits", "evil", f"--temperature={number}"]

    ended = CliRunner().invoke(orchestrate_command, arguments)

    assert ended.exit_code == 2
    assert "finite" in ended.output or "range" in ended.output


def test_a_full_disk_behind_standard_output_is_said_in_words() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            orchestrate("traits", "list"),
            env=clean_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert ended.returncode == 1
    assert "No space left" in ended.stderr
    assert "fault of the program" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_a_terminal_without_letters_beyond_ascii_gets_them_written_out(tmp_path: Path) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    ended = subprocess.run(
        [*orchestrate("plan", "--traits", f"{tmp_path}/n\xe4her.json")],
        env={**clean_environment(), **environment},
        capture_output=True,
    )
    listed = subprocess.run(
        orchestrate("traits", "show", "evil"),
        env={**clean_environment(), **environment},
        capture_output=True,
    )

    assert ended.returncode == 2
    assert listed.returncode == 0
    assert b"fault of the program" not in ended.stderr + listed.stderr
