"""Runs a monitored batch: tokens to the terminal and to files as they come, results in order.

The ending of a file's name decides what is written. Imported by commands when they run, because it
loads torch.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from cli.options.using import SamplingOptions
from cli.screens.scores import TokenMarks
from cli.using.loaded_run import LoadedRun
from domain.errors import UsageError
from storage.files.transcripts import Transcript
from storage.record.results import spreadsheet_text
from workers.engine.generation import Steering
from workers.models.chat import Prompt, prompt_of_text, render_chat, response_ids
from workers.models.model import LoadedModel
from workers.monitor.monitor import AnsweredPrompt, OpenPrompt, ProjectedToken, monitor
from workers.monitor.trajectory import (
    TraitScale,
    Trajectory,
    response_row,
    token_rows,
    token_scores,
    trajectory_dynamics,
    trajectory_record,
    trajectory_summary,
)

SHOWN_EVERY_S = 0.5


def monitored(
    loaded: LoadedRun,
    asked: Sequence[OpenPrompt],
    sampling: SamplingOptions,
    sinks: Sequence[Sink],
    console: Console,
) -> list[Trajectory]:
    """The trajectories in the order of `asked`; a single one is printed while it is made."""
    scale = loaded.scale
    marks = TokenMarks(scale) if len(asked) == 1 else None
    streams = marks is not None or any(isinstance(sink, EventFile) for sink in sinks)
    progress, n_tokens, made = CountLine(console), 0, []
    with all_sinks(sinks, scale):
        for sink in sinks:
            for i, one in enumerate(asked):
                sink.start(i, one.shown, one.facts)
        for event in monitor(
            loaded.engine,
            asked,
            loaded.directions,
            sampling=loaded.sampling(sampling),
            streams=streams,
        ):
            if isinstance(event, ProjectedToken):
                if marks:
                    console.print(marks.marked(event), end="", soft_wrap=True)
                for sink in sinks:
                    sink.token(scale, event)
            else:
                made.append(event)
                n_tokens += len(event.tokens)
                rate = n_tokens / progress.seconds()
                progress.show(f"{len(made)}/{len(asked)} responses, {rate:.0f} tokens/s")
                for sink in sinks:
                    sink.done(scale, event)
    progress.clear()
    if marks:
        console.print("\n")
        if marks.seen:
            console.print(marks.legend())
    return sorted(made, key=lambda one: one.id)


class CountLine:
    """A line that says how far a batch is, on a terminal only, twice a second at most."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = self._shown = time.monotonic()

    def seconds(self) -> float:
        """Since the batch began."""
        return time.monotonic() - self._started

    def show(self, text: str) -> None:
        """Write it over the line before."""
        now = time.monotonic()
        if self._console.is_terminal and now - self._shown > SHOWN_EVERY_S:
            self._shown = now
            self._console.print(text, end="\r", soft_wrap=True)

    def clear(self) -> None:
        """Leave an empty line to what comes next."""
        if self._console.is_terminal:
            self._console.print(" " * 40, end="\r")


def asked_of(
    model: LoadedModel,
    transcript: Transcript,
    *,
    seed: int,
    steering: Steering | None = None,
    facts: dict[str, Any] | None = None,
) -> OpenPrompt:
    """A response to be made to the transcript's prompt."""
    told = {**transcript.facts, **(facts or {})}
    return OpenPrompt(transcript.shown, _prompt(model, transcript), seed, steering, told)


def answered_of(model: LoadedModel, transcript: Transcript) -> AnsweredPrompt:
    """The transcript's own response, as token ids; raises UsageError without one."""
    if transcript.response is None:
        raise UsageError(
            f"no response to {transcript.shown[:60]!r}: name a column response or answer, or end "
            "messages with the assistant's"
        )
    ids = transcript.response_ids
    if ids is None or transcript.prompt_ids is None:
        ids = response_ids(model, transcript.response)
    prompt = _prompt(model, transcript)
    return AnsweredPrompt(transcript.shown, prompt.token_ids, ids, transcript.facts)


def _prompt(model: LoadedModel, transcript: Transcript) -> Prompt:
    if transcript.prompt_ids is not None:
        return Prompt(transcript.rendered or "", transcript.prompt_ids)
    if transcript.rendered is not None:
        return prompt_of_text(model, transcript.rendered)
    return render_chat(model, [(turn.role, turn.content) for turn in transcript.turns])


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
        scores = token_scores(scale, token.projections)
        self._write({"event": "token", "id": token.id, "token": token.text, **scores})

    def done(self, scale: TraitScale, trajectory: Trajectory) -> None:
        about = {"summary": trajectory_summary(scale, trajectory), "directions": scale.about}
        self._write(
            {
                "event": "done",
                "id": trajectory.id,
                "response": trajectory.response,
                "dynamics": trajectory_dynamics(scale, trajectory),
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
            rows = [response_row(scale, one) for one in ordered]
            self._path.write_text(csv_text(rows), encoding="utf-8")
        else:
            rows = [row for one in ordered for row in token_rows(scale, one)]
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


def open_sink(path: Path) -> Sink:
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
def all_sinks(sinks: Sequence[Sink], scale: TraitScale) -> Iterator[Sequence[Sink]]:
    """Close every sink at the end, also after an interrupt and where another cannot be closed:
    what came until then is kept."""
    with contextlib.ExitStack() as open_still:
        for sink in reversed(sinks):
            open_still.callback(sink.close, scale)
        yield sinks
