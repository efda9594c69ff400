"""A judge's endpoint that tells the key it was sent, in every form, and one that never ends."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import redis
from starlette.responses import StreamingResponse

from orchestrator.processes import Child, Processes, orchestrate
from storage.broker.connection import connect
from storage.broker.embedded_redis import die_with_parent, embedded_redis
from tests.attacks.scene import KEY, in_folder, listener, wait_until
from tests.fleet import clean_environment
from tests.http_judge import http_judge

FORMS = (
    KEY[:12],
    base64.b64encode(f"Bearer {KEY}".encode()).decode()[12:30],
    KEY.encode().hex()[:24],
)


def everything_on(client: redis.Redis) -> str:
    """All that a broker holds, as one text."""
    found = []
    for key in client.scan_iter():
        kind = client.type(key)
        if kind == b"hash":
            found.append(str(client.hgetall(key)))
        elif kind == b"stream":
            found.append(str(client.xrange(key)))
        elif kind == b"list":
            found.append(str(client.lrange(key, 0, -1)))
        elif kind == b"string":
            found.append(str(client.get(key)))
    return "\n".join(found)


def test_a_key_that_a_judge_quotes_is_neither_shown_nor_stored(tmp_path: Path) -> None:
    coded = base64.b64encode(f"Bearer {KEY}".encode()).decode()
    words = f"Wrong key {KEY[:14]}***, header {coded}, bytes {KEY.encode().hex()}"
    answer = json.dumps({"error": {"message": words, "code": "invalid_api_key"}}).encode()
    log, name = tmp_path / "judge.log", ("--judge-model", "m", "--judge-url")

    with listener(answer, status=401) as judge, embedded_redis() as broker:
        environment = {"ORCHESTRATE_BROKER_URL": broker}
        sent = in_folder(
            tmp_path,
            *("extract", "--traits", "evil", "--run", "r", "--detach", *name, judge.url),
            environment=environment,
        )
        assert sent.returncode == 0, sent.stderr
        worker = Child(
            "judge",
            orchestrate("worker", "judge", "--no-embedded"),
            {**clean_environment(), **environment, "OPENAI_API_KEY": KEY},
            log,
        )
        with Processes([worker]).running(), connect(broker) as client:
            assert wait_until(lambda: "failed" in everything_on(client), within_s=120)
            stored = everything_on(client)
        doctor = in_folder(tmp_path, "doctor", *name, judge.url)

        assert KEY in str(judge)
    for text in (log.read_text(), stored, doctor.stdout):
        assert "Wrong key" in text
        assert [form for form in FORMS if form in text] == []


async def trickle() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.5)


def test_a_judge_that_sends_a_byte_now_and_then_holds_no_worker(tmp_path: Path) -> None:
    with (
        http_judge(lambda asked, call: StreamingResponse(trickle())) as judge,
        embedded_redis() as broker,
    ):
        environment = {"ORCHESTRATE_BROKER_URL": broker}
        named = ("--judge-model", "m", "--judge-url", judge.url)
        sent = in_folder(
            tmp_path,
            *("extract", "--traits", "evil", "--run", "r", "--detach", *named),
            environment=environment,
        )
        assert sent.returncode == 0, sent.stderr
        worker = subprocess.Popen(
            orchestrate("worker", "judge", "--no-embedded", "--judge-timeout", "3"),
            env={**clean_environment(), **environment},
            preexec_fn=die_with_parent,
        )
        # asked again: the first call was given up although bytes went on coming
        assert wait_until(lambda: len(judge.asked) > 1, within_s=120)
        worker.terminate()

        assert worker.wait(timeout=60) == 0
