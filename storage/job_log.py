"""The latest log lines of a run's jobs, from all machines: on the broker, and kept in its record.

A Redis stream of bounded length: old lines go. Knows nothing of logging or of workers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import redis

from storage.broker_state import EXPIRE_S
from storage.store import Store

# About 300 bytes each: 3 MB a run at most, and the whole story of a run of 2000 jobs.
KEEP_LINES = 10_000
READ_AT_ONCE = 1000
KEPT = "logs/jobs.jsonl"


@dataclass(frozen=True)
class LogLine:
    """One line about a job; `at` is in seconds since 1970 by the worker's clock."""

    at: float
    level: str
    worker: str
    job: str
    event: str
    text: str
    trace: str = ""


def append_line(client: redis.Redis, run_id: str, line: LogLine) -> None:
    """Add a line to a run's log."""
    pipe = client.pipeline(transaction=False)
    pipe.xadd(_key(run_id), {"line": json.dumps(asdict(line))}, maxlen=KEEP_LINES)
    pipe.expire(_key(run_id), EXPIRE_S)
    pipe.execute()


def read_lines(
    client: redis.Redis, run_id: str, *, after: str = "-"
) -> Iterator[tuple[str, LogLine]]:
    """(position, line) of a run's log, oldest first; `after` a position to go on from there."""
    start = after if after == "-" else f"({after}"
    while True:
        found = cast(
            Sequence[tuple[bytes, dict[bytes, Any]]],
            client.xrange(_key(run_id), min=start, count=READ_AT_ONCE),
        )
        for position, fields in found:
            yield position.decode(), LogLine(**json.loads(fields[b"line"]))
        if len(found) < READ_AT_ONCE:
            return
        start = f"({found[-1][0].decode()}"


def last_lines(client: redis.Redis, run_id: str, *, levels: Sequence[str], n: int) -> list[LogLine]:
    """The last n lines of these levels among the latest thousand, newest first."""
    found = cast(
        Sequence[tuple[bytes, dict[bytes, Any]]],
        client.xrevrange(_key(run_id), count=READ_AT_ONCE),
    )
    lines = (LogLine(**json.loads(fields[b"line"])) for _, fields in found)
    return [line for line in lines if line.level in levels][:n]


def keep_lines(store: Store, client: redis.Redis, run_id: str) -> None:
    """Write what the broker holds of a run's log into its record, beside what is there."""
    seen = {*kept_lines(store), *(line for _, line in read_lines(client, run_id))}
    latest = sorted(seen, key=lambda line: line.at)[-KEEP_LINES:]
    store.write(KEPT, "".join(json.dumps(asdict(line)) + "\n" for line in latest).encode())


def kept_lines(store: Store) -> list[LogLine]:
    """The log in a run's record, oldest first; empty when none was kept, without damaged lines."""
    try:
        text = store.read(KEPT).decode(errors="replace")
    except KeyError:
        return []
    found = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError, TypeError):
            found.append(LogLine(**json.loads(line)))
    return found


def _key(run_id: str) -> str:
    return f"orchestrate:{run_id}:log"
