"""A judge's endpoint that tells the key it was sent, in the forms that servers quote keys in."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import redis

from orchestrator.local_fleet import Child, Processes, orchestrate
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from tests.attacks.scene import KEY, in_folder, listener, wait_until
from tests.fleet import clean_environment

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
            assert wait_until(lambda: "failed" in everything_on(client), within_s=60)
            stored = everything_on(client)
        doctor = in_folder(tmp_path, "doctor", *name, judge.url)

        assert KEY in str(judge)
    for text in (log.read_text(), stored, doctor.stdout):
        assert "Wrong key" in text
        assert [form for form in FORMS if form in text] == []
