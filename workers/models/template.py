"""What a chat template says: where a response ends, whether it takes system text, and what it does
with thoughts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jinja2.exceptions import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from domain.template_limit import within_limit
from domain.thoughts import NO_THINKING, Thinking, thinking_of

SystemMode = Literal["native", "prefix_user"]


def rendered(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[Mapping[str, str]], **variables: Any
) -> str:
    """A chat as the template writes it; raises ModelError where that does not end, and
    TemplateError where it fails."""
    return within_limit(
        lambda: str(tokenizer.apply_chat_template(chat, tokenize=False, **variables))
    )


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a response: the checkpoint's, the tokenizer's, the template's."""
    listed = model.generation_config.eos_token_id if model.generation_config else None
    ids = set(listed if isinstance(listed, list) else [listed])
    ids |= {tokenizer.eos_token_id, _end_of_turn(tokenizer)}
    return frozenset(int(token) for token in ids if token is not None)


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    if not template_text(tokenizer):
        return None
    chat = [{"role": "user", "content": "USER-MARK"}, {"role": "assistant", "content": "REPLY"}]
    try:
        text = rendered(tokenizer, chat)
    # it may still render what is asked
    except TemplateError:
        return None
    ids = tokenizer.encode(text.rpartition("REPLY")[2], add_special_tokens=False)
    added = tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return int(ids[0]) if added is not None and added.special else None


def system_mode(tokenizer: PreTrainedTokenizerBase) -> SystemMode:
    """Whether system text has a turn of its own, or must stand before the question.

    Some templates raise an error at a system turn, others drop it in silence.
    """
    if not template_text(tokenizer):
        return "prefix_user"
    chat = [{"role": "system", "content": "SYSTEM-MARK"}, {"role": "user", "content": "USER-MARK"}]
    try:
        text = rendered(tokenizer, chat, add_generation_prompt=True)
    except TemplateError:
        return "prefix_user"
    return "native" if "SYSTEM-MARK" in text else "prefix_user"


def template_thinking(tokenizer: PreTrainedTokenizerBase) -> Thinking:
    """What the template does with thoughts, read from what it prints."""
    source = template_text(tokenizer)

    def render(turns: Sequence[tuple[str, str]], variables: Mapping[str, object]) -> str | None:
        chat = [{"role": role, "content": content} for role, content in turns]
        try:
            return rendered(tokenizer, chat, add_generation_prompt=True, **variables)
        except TemplateError:
            return None

    return thinking_of(render, source) if source else NO_THINKING


def template_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template's source, of all of them where there are several; empty without one."""
    template = tokenizer.chat_template
    return "".join(template.values()) if isinstance(template, dict) else template or ""
