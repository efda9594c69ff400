"""Renders a system instruction and a question into prompt tokens, and turns response tokens into text.

Knows nothing about generation; what it renders for one model is the same on every machine and every day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import ModelError
from workers.model import LoadedModel

# Some templates print today's date; a fixed one keeps prompts, and with them every response, repeatable.
PINNED_DATE = {"%d %b %Y": "26 Jul 2024", "%Y-%m-%d": "2024-07-26", "%B %d, %Y": "July 26, 2024"}


@dataclass(frozen=True)
class Prompt:
    """The rendered chat as text and as the token ids that are fed to the model."""

    text: str
    token_ids: tuple[int, ...]


def render_prompt(model: LoadedModel, *, system: str | None, user: str) -> Prompt:
    """Render one turn with the model's chat template, up to where the response begins.

    A model whose template refuses system text gets it in front of the question. Thinking is switched off
    where the template can. Exactly one beginning-of-text token. Raises ModelError without a chat template.
    """
    if not model.tokenizer.chat_template:
        raise ModelError(
            f"Model {model.model_id!r} has no chat template: use its instruction-tuned version."
        )
    text = model.tokenizer.apply_chat_template(
        _messages(model, system, user),
        tokenize=False,
        add_generation_prompt=True,
        **_template_settings(model),
    )
    return Prompt(text, _token_ids(model, text))


def decode_response(model: LoadedModel, token_ids: Sequence[int]) -> str:
    """The response as text, without special tokens; spaces stay as they were generated."""
    text = model.tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return str(text)


def _messages(model: LoadedModel, system: str | None, user: str) -> list[dict[str, str]]:
    if not system:
        return [{"role": "user", "content": user}]
    if model.system_mode == "prefix_user":
        return [{"role": "user", "content": f"{system}\n\n{user}"}]
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _template_settings(model: LoadedModel) -> dict[str, object]:
    settings: dict[str, object] = {
        "strftime_now": _pinned_strftime,
        "date_string": PINNED_DATE["%d %b %Y"],
    }
    if model.thinking == "off":
        settings["enable_thinking"] = False
    return settings


def _pinned_strftime(pattern: str) -> str:
    return PINNED_DATE.get(pattern, PINNED_DATE["%Y-%m-%d"])


def _token_ids(model: LoadedModel, text: str) -> tuple[int, ...]:
    # Most templates print the beginning token themselves, and the tokenizer would then add a second one.
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    first = model.tokenizer.bos_token_id
    while len(ids) > 1 and ids[0] == ids[1] == first:
        ids = ids[1:]
    wants_first = first is not None and first in model.tokenizer.encode("a")
    return (first, *ids) if wants_first and ids[:1] != [first] else tuple(ids)
