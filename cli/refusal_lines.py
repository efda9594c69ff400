"""Which workers refuse which runs, as rows and as a line each.

Knows nothing of why; the worker said it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.text import Text

from orchestrator.fleet import RunCard, WorkerCard
from storage.connection import Client
from storage.refusals import read_refusals


def refusal_rows(
    client: Client, runs: Iterable[RunCard], workers: Sequence[WorkerCard]
) -> list[dict[str, str]]:
    """What living workers said of the runs that they cannot serve."""
    alive = {card.name for card in workers}
    return [
        {"run": run.name, "worker": one.worker, "host": one.host, "reason": one.reason}
        for run in runs
        for one in read_refusals(client, run.run_id)
        if one.worker in alive
    ]


def refusal_lines(rows: Iterable[Mapping[str, str]], *, run: str = "this run") -> list[Text]:
    """`host-2 gpu-cpu-17: cannot serve this run: ...`, or each run by its name when `run` is
    empty."""
    return [
        Text(
            f"{row['host']} {row['worker'].partition('@')[0]}: cannot serve "
            f"{run or row['run']}: {row['reason']}",
            style="yellow",
        )
        for row in rows
    ]
