"""Runs a monitored batch: tokens to the terminal and to files as they come, results in order.

Imported by commands when they run, because it loads torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from cli.options.using import SamplingOptions, say_unread
from cli.screens.scores import TokenMarks
from cli.screens.working import working
from cli.using.loaded_run import LoadedRun
from cli.using.monitored_output import EventFile, Sink, open_output_files
from domain.errors import UsageError
from storage.files.transcripts import Transcript, Unread, UnreadableRowError
from workers.engine.generation import Steering
from workers.engine.parts import most_tokens
from workers.models.chat import (
    Prompt,
    UnfitPromptError,
    answered_ids,
    check_prompt_length,
    decode_response,
    open_prompt,
    prompt_of_ids,
    prompt_of_text,
)
from workers.models.model import LoadedModel
from workers.monitor.monitor import AnsweredPrompt, OpenPrompt, ProjectedToken, monitor
from workers.monitor.trajectory import Trajectory


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
    made: list[Trajectory] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(open_output_files(sinks, scale))
        # a single response is seen as it comes
        counted = working("Generating", total=len(asked)) if marks is None else None
        note = stack.enter_context(counted) if counted else None
        for sink in sinks:
            for i, one in enumerate(asked):
                sink.start(i, one.shown, one.facts)
        for event in monitor(
            loaded.engine,
            asked,
            loaded.directions,
            sampling=loaded.sampling(sampling),
            measure=loaded.run.spec.measure,
            streams=streams,
            alternatives=sampling.alternatives,
        ):
            if isinstance(event, ProjectedToken):
                if marks:
                    console.print(marks.marked(event), end="", soft_wrap=True)
                for sink in sinks:
                    sink.token(scale, event)
            else:
                made.append(event)
                if note:
                    note(len(made))
                for sink in sinks:
                    sink.done(scale, event)
    if marks:
        console.print("\n")
        if marks.seen:
            console.print(marks.legend())
    return sorted(made, key=lambda one: one.id)


def prompt_to_monitor(
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


def answer_to_monitor(model: LoadedModel, transcript: Transcript) -> AnsweredPrompt:
    """The transcript's own response, as token ids; raises UnreadableRowError without one."""
    if not transcript.response:
        empty = "an empty response" if transcript.response == "" else "no response"
        raise UnreadableRowError(
            f"has {empty}: name a column response or answer, or end messages with the assistant's"
        )
    before, ids = transcript.prompt_ids, transcript.response_ids
    if before is None or ids is None or not _are_own_ids(model, transcript):
        before, ids = answered_ids(model, _prompt(model, transcript), transcript.response)
    _check_prompt_length(model, Prompt("", before), n_more=len(ids))
    return AnsweredPrompt(transcript.shown, before, ids, transcript.facts)


def transcripts_to_monitor(
    loaded: LoadedRun, transcripts: Sequence[Transcript], sampling: SamplingOptions
) -> list[Transcript]:
    """Those that the model can answer; the others are told on stderr.

    Raises UsageError for none.
    """
    model, found, unread = loaded.engine.model, [], []
    n_more = most_tokens(model, loaded.sampling(sampling))
    for one in transcripts:
        try:
            _check_prompt_length(model, _prompt(model, one), n_more=n_more)
            found.append(one)
        except UnreadableRowError as error:
            unread.append(Unread(one.row, str(error)))
    if not found:
        raise UsageError(f"{unread[0]}")
    say_unread(unread, n_rows=len(transcripts))
    return found


def _prompt(model: LoadedModel, transcript: Transcript) -> Prompt:
    """Raises UnreadableRowError for a chat that the model cannot be given."""
    if transcript.prompt_ids is not None and _are_own_ids(model, transcript):
        return prompt_of_ids(model, transcript.prompt_ids)
    if transcript.rendered is not None:
        return prompt_of_text(model, transcript.rendered)
    try:
        return open_prompt(model, [(turn.role, turn.content) for turn in transcript.turns])
    except UnfitPromptError as error:
        raise UnreadableRowError(str(error)) from error


def _are_own_ids(model: LoadedModel, transcript: Transcript) -> bool:
    """Whether a table's token ids are this model's: they spell the texts beside them. Those of a
    model with another tokenizer, or of a text that was changed since, do not."""
    asked, answered = transcript.prompt_ids or (), transcript.response_ids or ()
    if max((*asked, *answered), default=0) >= model.model.config.get_text_config().vocab_size:
        return False
    # a template may leave out spaces around what is asked, and a decoder change those of the rest
    text = prompt_of_text(model, transcript.rendered or transcript.shown).token_ids
    if asked[: len(text)] != text and transcript.shown.strip() not in model.text_of(asked):
        return False
    response = transcript.response
    if response is None or transcript.response_ids is None:
        return True
    return decode_response(model, answered).strip() == response.strip()


def _check_prompt_length(model: LoadedModel, prompt: Prompt, *, n_more: int) -> None:
    """Raises UnreadableRowError where the model has no room for that many more tokens."""
    try:
        check_prompt_length(model, prompt, n_more=n_more)
    except UnfitPromptError as error:
        raise UnreadableRowError(str(error)) from error
