"""Writes trajectories where people asked for them: JSON, a growing file of events, Parquet, CSV.

The name's ending decides.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from domain.errors import UsageError
from workers.monitor.monitor import ProjectedToken
from workers.monitor.trajectory import (
    TraitScale,
    Trajectory,
    dynamics_of,
    record,
    response_row,
    summary,
    token_rows,
    token_scores,
)


class Sink(Protocol):
    """Takes what a monitored batch gives, in the order in which it comes."""

    def start(self, id: int, prompt: str, facts: dict[str, Any]) -> None:
        """A response will come."""

    def token(self, scale: TraitScale, token: ProjectedToken) -> None:
        """One token of it."""

    def done(self, scale: TraitScale, trajectory: Trajectory) -> None:
        """All of it."""

    def close(self, scale: TraitScale) -> None:
        """Nothing more comes."""


class EventFile:
    """JSON lines of events that `orchestrate view --follow` shows as they are written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def start(self, id: int, prompt: str, facts: dict[str, Any]) -> None:
        """See Sink. `beside` and `coefficient` among the facts are the event's own."""
        event: dict[str, Any] = {"event": "start", "id": id, "prompt": prompt, "metadata": facts}
        own = {name: facts[name] for name in ("beside", "coefficient") if name in facts}
        self._write(event | own)

    def token(self, scale: TraitScale, token: ProjectedToken) -> None:
        """See Sink."""
        scores = token_scores(scale, token.projections)
        self._write({"event": "token", "id": token.id, "token": token.text, **scores})

    def done(self, scale: TraitScale, trajectory: Trajectory) -> None:
        """See Sink."""
        about = {"summary": summary(scale, trajectory), "directions": scale.about}
        self._write(
            {
                "event": "done",
                "id": trajectory.id,
                "response": trajectory.response,
                "dynamics": dynamics_of(scale, trajectory),
                "metadata": {**trajectory.facts, **about},
            }
        )

    def close(self, scale: TraitScale) -> None:
        """See Sink."""
        self._write({"event": "end"})
        self._file.close()

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()


class _AtTheEnd:
    """Keeps the trajectories and writes one file when the last has come, in the prompts' order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: list[Trajectory] = []

    def start(self, id: int, prompt: str, facts: dict[str, Any]) -> None:
        """Nothing yet."""

    def token(self, scale: TraitScale, token: ProjectedToken) -> None:
        """Nothing yet."""

    def done(self, scale: TraitScale, trajectory: Trajectory) -> None:
        """Keep it."""
        self._done.append(trajectory)

    def close(self, scale: TraitScale) -> None:
        """Write them."""
        ordered = sorted(self._done, key=lambda one: one.id)
        if self._path.suffix == ".json":
            records = nested(scale, ordered)
            text = json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False)
            self._path.write_text(text, encoding="utf-8")
        elif self._path.suffix == ".csv":
            rows = [response_row(scale, one) for one in ordered]
            pd.DataFrame(rows).to_csv(self._path, index=False)
        else:
            rows = [row for one in ordered for row in token_rows(scale, one)]
            pd.DataFrame(rows).to_parquet(self._path, index=False, compression="zstd")


def nested(scale: TraitScale, ordered: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """The records, steered ones inside those that they stand beside."""
    by_id = {one.id: record(scale, one) for one in ordered}
    for one in ordered:
        beside = one.facts.get("beside")
        if beside is not None:
            body = by_id.pop(one.id) | {"coefficient": one.facts["coefficient"]}
            by_id[beside].setdefault("steered", []).append(body)
    return list(by_id.values())


def open_sink(path: Path) -> Sink:
    """A sink for the file's kind; raises UsageError for another kind or a folder that is not
    there."""
    if path.suffix not in (".json", ".jsonl", ".parquet", ".csv"):
        raise UsageError(
            f"--output {path}: end it in .json (all), .jsonl (tokens as they come), .parquet (a "
            "row per token) or .csv (a row per response)"
        )
    try:
        return EventFile(path) if path.suffix == ".jsonl" else _checked(path)
    except OSError as error:
        raise UsageError(f"--output {path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def all_sinks(sinks: Sequence[Sink], scale: TraitScale) -> Iterator[Sequence[Sink]]:
    """Close every sink at the end, also after an interrupt and where another cannot be closed:
    what came until then is kept."""
    with contextlib.ExitStack() as open_still:
        for sink in reversed(sinks):
            open_still.callback(sink.close, scale)
        yield sinks


def _checked(path: Path) -> Sink:
    # told before minutes of generation, not after
    path.open("ab").close()
    return _AtTheEnd(path)
