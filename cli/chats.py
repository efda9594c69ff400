"""Transcripts as a model reads them: chats through its template, ids that ran as they are.

Imported by commands when they run, because it loads transformers.
"""

from __future__ import annotations

from typing import Any

from orchestrator.errors import UsageError
from storage.transcripts import Transcript
from workers.chat import Prompt, prompt_of_text, render_chat, response_ids
from workers.generation import Steering
from workers.model import LoadedModel
from workers.monitor import Answered, Asked


def asked_of(
    model: LoadedModel,
    transcript: Transcript,
    *,
    seed: int,
    steering: Steering | None = None,
    facts: dict[str, Any] | None = None,
) -> Asked:
    """A response to be made to the transcript's prompt."""
    told = {**transcript.facts, **(facts or {})}
    return Asked(transcript.shown, _prompt(model, transcript), seed, steering, told)


def answered_of(model: LoadedModel, transcript: Transcript) -> Answered:
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
    return Answered(transcript.shown, prompt.token_ids, ids, transcript.facts)


def _prompt(model: LoadedModel, transcript: Transcript) -> Prompt:
    if transcript.prompt_ids is not None:
        return Prompt(transcript.rendered or "", transcript.prompt_ids)
    if transcript.rendered is not None:
        return prompt_of_text(model, transcript.rendered)
    return render_chat(model, [(turn.role, turn.content) for turn in transcript.turns])
