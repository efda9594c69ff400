"""The latest log lines of a run's jobs, from all machines, on the broker.

A Redis stream of bounded length: old lines go. Knows nothing of logging or of workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import redis

from storage.broker_state import EXPIRE_S

# About 300 bytes each: 3 MB a run at most, and the whole story of a run of 2000 jobs.
KEEP_LINES = 10_000
READ_AT_ONCE = 1000


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


def _key(run_id: str) -> str:
    return f"orchestrate:{run_id}:log"
