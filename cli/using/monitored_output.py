"""Where a monitored batch goes: files as it comes and at its end, JSON, or a page that follows it.

The ending of a file's name decides what is written. Imported by commands when they run, because it
loads torch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pandas as pd

from domain.errors import UsageError
from storage.record.tables import spreadsheet_text
from workers.monitor.monitor import ProjectedToken
from workers.monitor.trajectory import TraitScale, Trajectory
from workers.monitor.trajectory_records import (
    trajectory_dynamics,
    trajectory_record,
    trajectory_row,
    trajectory_summary,
    trajectory_token_rows,
    trajectory_token_scores,
)


class Sink:
    """Takes what a monitored batch gives, in the order in which it comes."""

    def start(self, id: int, prompt: str, facts: dict[str, Any]) -> None:
        """A response will come."""

    def token(self, scale: TraitScale, token: ProjectedToken) -> None:
        """One token of it."""

    def done(self, scale: TraitScale, trajectory: Trajectory) -> None:
        """All of it."""

    def close(self, scale: TraitScale) -> None:
        """Nothing more comes."""


class EventFile(Sink):
    """JSON lines of events that `orchestrate view --follow` shows as they are written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def start(self, id: int, prompt: str, facts: dict[str, Any]) -> None:
        """See Sink. `beside` and `coefficient` among the facts are the event's own."""
        own = {name: facts[name] for name in ("beside", "coefficient") if name in facts}
        self._write({"event": "start", "id": id, "prompt": prompt, "metadata": facts} | own)

    def token(self, scale: TraitScale, token: ProjectedToken) -> None:
        scores = trajectory_token_scores(scale, token.projections)
        self._write({"event": "token", "id": token.id, "token": token.text, **scores})

    def done(self, scale: TraitScale, trajectory: Trajectory) -> None:
        about = {"summary": trajectory_summary(scale, trajectory), "directions": scale.about}
        self._write(
            {
                "event": "done",
                "id": trajectory.id,
                "response": trajectory.response,
                "dynamics": trajectory_dynamics(scale, trajectory),
                "alternatives": trajectory.alternatives,
                "metadata": {**trajectory.facts, **about},
            }
        )

    def close(self, scale: TraitScale) -> None:
        self._write({"event": "end"})
        self._file.close()

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()


class _AtTheEnd(Sink):
    """Keeps the trajectories and writes one file when the last has come, in the prompts' order."""

    def __init__(self, path: Path) -> None:
        # told before minutes of generation, not after
        path.open("ab").close()
        self._path = path
        self._done: list[Trajectory] = []

    def done(self, scale: TraitScale, trajectory: Trajectory) -> None:
        self._done.append(trajectory)

    def close(self, scale: TraitScale) -> None:
        ordered = sorted(self._done, key=lambda one: one.id)
        if self._path.suffix == ".json":
            records = nested_records(scale, ordered)
            text = json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False)
            self._path.write_text(text, encoding="utf-8")
        elif self._path.suffix == ".csv":
            rows = [trajectory_row(scale, one) for one in ordered]
            self._path.write_text(csv_text(rows), encoding="utf-8")
        else:
            rows = [row for one in ordered for row in trajectory_token_rows(scale, one)]
            pd.DataFrame(rows).to_parquet(self._path, index=False, compression="zstd")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a CSV in which a spreadsheet runs nothing."""
    table = pd.DataFrame(rows).rename(columns=spreadsheet_text)
    return str(
        table.map(lambda one: spreadsheet_text(one) if isinstance(one, str) else one).to_csv(
            index=False
        )
    )


def nested_records(scale: TraitScale, ordered: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """The records, steered ones inside those that they stand beside."""
    by_id = {one.id: trajectory_record(scale, one) for one in ordered}
    for one in ordered:
        beside = one.facts.get("beside")
        if beside is not None:
            body = by_id.pop(one.id) | {"coefficient": one.facts["coefficient"]}
            by_id[beside].setdefault("steered", []).append(body)
    return list(by_id.values())


def open_output_file(path: Path) -> Sink:
    """A sink for the file's kind; raises UsageError for another kind or a folder that is not
    there."""
    if path.suffix not in (".json", ".jsonl", ".parquet", ".csv"):
        raise UsageError(
            f"--output {path}: end it in .json (all), .jsonl (tokens as they come), .parquet (a "
            "row per token) or .csv (a row per response)"
        )
    try:
        return EventFile(path) if path.suffix == ".jsonl" else _AtTheEnd(path)
    except OSError as error:
        raise UsageError(f"--output {path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def open_output_files(sinks: Sequence[Sink], scale: TraitScale) -> Iterator[Sequence[Sink]]:
    """Close every sink at the end, also after an interrupt and where another cannot be closed:
    what came until then is kept."""
    with contextlib.ExitStack() as open_still:
        for sink in reversed(sinks):
            open_still.callback(sink.close, scale)
        yield sinks


def give_results(
    values: Mapping[str, Any],
    scale: TraitScale,
    made: Sequence[Trajectory],
    *,
    show: Callable[[], None],
) -> None:
    """The records as JSON where a command's values ask for it, else what `show` prints; then the
    names of the files."""
    if values["as_json"]:
        records = nested_records(scale, made)
        click.echo(json.dumps(records, ensure_ascii=False, allow_nan=False))
    else:
        show()
    for path in values["outputs"]:
        click.echo(f"Wrote {path}", err=True)
