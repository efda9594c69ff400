"""Renders a chat into prompt tokens, alike on every machine and day, and tokens into text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypedDict

from jinja2.exceptions import TemplateError

from domain.errors import ModelError
from domain.plan.spec import ScenariosAs
from domain.thoughts import MARKS, Marks, open_thought, with_words
from workers.models.model import LoadedModel
from workers.models.template import rendered

# Some templates print today's date; a fixed one keeps prompts, and every response, repeatable.
PINNED_DATE = date(2024, 7, 26)
DATE_PATTERNS = ("%Y-%m-%d", "%d %b %Y", "%d %B %Y", "%B %d, %Y", "%b %d, %Y", "%Y")

# What decoders put where bytes are not yet, or never, a letter.
INCOMPLETE = "\ufffd"

# A token's text depends on the one before it, which is looked up again and again.
REMEMBERED = 2**16


@dataclass(frozen=True)
class Prompt:
    """The rendered chat as text and as the token ids that are fed to the model; `opened` are the
    marks of the thought that it ends within."""

    text: str
    token_ids: tuple[int, ...]
    opened: Marks | None = None


class UnfitPromptError(ModelError):
    """A prompt that this model cannot be given; another one can."""


def render_prompt(model: LoadedModel, *, system: str | None, user: str) -> Prompt:
    """Render one turn with the model's chat template; see `render_chat`."""
    turns = [("system", system)] if system else []
    return render_chat(model, [*turns, ("user", user)])


def put_scenario(model: LoadedModel, text: str, *, put: ScenariosAs) -> Prompt:
    """A scenario as the prompt that a trait of such is measured after; of no text, what stands
    before a response that nothing calls up."""
    if put == "turn":
        return render_prompt(model, system=None, user=text)
    return prompt_of_text(model, text)


def open_prompt(model: LoadedModel, turns: Sequence[tuple[str, str]]) -> Prompt:
    """(role, content) turns as the prompt of whoever uses a model; a base model goes on with a
    single text as it stands.

    Raises UnfitPromptError for a chat that the model cannot be given.
    """
    if model.tokenizer.chat_template:
        return render_chat(model, turns)
    if [role for role, _ in turns] != ["user"]:
        raise UnfitPromptError(
            f"is a chat, and {model.model_id} is a base model, without a template to put one in: "
            "give it one text to go on with, or use its instruction-tuned version"
        )
    return prompt_of_text(model, turns[0][1])


def render_chat(model: LoadedModel, turns: Sequence[tuple[str, str]]) -> Prompt:
    """Render (role, content) turns with the model's chat template, up to where the response begins.

    A model whose template refuses system text gets it in front of the question. Thoughts are
    switched off where the template can. Exactly one beginning-of-text token. Raises ModelError
    without a chat template, UnfitPromptError for a chat that the template refuses.
    """
    if not model.tokenizer.chat_template:
        raise ModelError(
            f"Model {model.model_id!r} has no chat template: use its instruction-tuned version (of "
            "traits, those of scenarios need none)."
        )
    switch = model.thinking.switch
    try:
        text = rendered(
            model.tokenizer,
            _messages(model, with_words(turns, switch.words)),
            chat_template=_pinned(model.tokenizer.get_chat_template()),
            add_generation_prompt=True,
            date_string=PINNED_DATE.strftime("%d %b %Y"),
            **switch.variables,
        )
    except TemplateError as error:
        raise UnfitPromptError(
            f"is refused by the chat template of {model.model_id}: {error}"
        ) from error
    return Prompt(text, _token_ids(model, text), open_thought(text, user=turns[-1][1]))


def check_prompt_length(model: LoadedModel, prompt: Prompt, *, n_more: int) -> None:
    """Raises UnfitPromptError where a prompt and `n_more` tokens of response go beyond the
    positions that the model was made for: what it writes and is there means nothing."""
    n_prompt, most = len(prompt.token_ids), model.n_positions
    if most is not None and n_prompt + n_more > most:
        raise UnfitPromptError(
            f"has {n_prompt} tokens, and up to {n_more} more follow, where {model.model_id} has "
            f"{most} positions: shorten it, or lower --max-new-tokens"
            + (" or --max-thought-tokens" if model.thinking.may_think else "")
        )


def prompt_of_text(model: LoadedModel, text: str) -> Prompt:
    """A prompt that is rendered already, with exactly one beginning-of-text token; of no text that
    token alone, or one that ends texts."""
    if not text:
        stops = sorted(model.stop_ids) or [0]
        first = model.tokenizer.bos_token_id
        return Prompt("", (stops[0] if first is None else int(first),))
    return Prompt(text, _token_ids(model, text), open_thought(text, user=""))


def prompt_of_ids(model: LoadedModel, token_ids: tuple[int, ...]) -> Prompt:
    """A prompt that is tokenised already."""
    text = model.text_of(token_ids)
    return Prompt(text, token_ids, open_thought(text, user=""))


def response_ids(model: LoadedModel, text: str) -> tuple[int, ...]:
    """The token ids of a response that others wrote; the model may have chosen other tokens."""
    return tuple(model.tokenizer.encode(text, add_special_tokens=False))


class RecordedParts(TypedDict):
    """A response's fields in the record."""

    thought: str
    thought_token_ids: list[int]
    response: str
    response_token_ids: list[int]


def response_parts(
    model: LoadedModel, token_ids: Sequence[int], answer_start: int
) -> RecordedParts:
    """Thought and answer as ids and as text; the thought's text has its marks."""
    thought, answer = list(token_ids[:answer_start]), list(token_ids[answer_start:])
    return {
        "thought": model.text_of(thought),
        "thought_token_ids": thought,
        "response": decode_response(model, answer),
        "response_token_ids": answer,
    }


def answered_ids(
    model: LoadedModel, prompt: Prompt, response: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(what stands before an answer that others wrote, the answer) as token ids.

    A thought in the response stands before it, and one that the prompt opens is closed where the
    response does not: an answer is read as one.
    """
    begins = (one for one in MARKS if response.lstrip().startswith(one.opens))
    marks = prompt.opened or next(begins, None)
    if marks is None or not (prompt.opened or marks.closes in response):
        return prompt.token_ids, response_ids(model, response)
    thought, closed, answer = response.partition(marks.closes)
    if not closed:
        thought, answer = "\n", response
    before = response_ids(model, f"{thought}{marks.closes}\n\n")
    return prompt.token_ids + before, response_ids(model, answer.lstrip())


def decode_response(model: LoadedModel, token_ids: Sequence[int]) -> str:
    """The response as text, without special tokens; spaces stay as they were generated."""
    text = model.tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return str(text)


def _messages(model: LoadedModel, turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    begins_with_system = len(turns) > 1 and turns[0][0] == "system" and turns[1][0] == "user"
    if begins_with_system and model.system_mode == "prefix_user":
        turns = [("user", f"{turns[0][1]}\n\n{turns[1][1]}"), *turns[2:]]
    return [{"role": role, "content": content} for role, content in turns]


def _pinned(template: str) -> str:
    # A macro of the same name hides the function that would read the clock; transformers passes no
    # functions on.
    if "strftime_now" not in template:
        return template
    dates = {pattern: PINNED_DATE.strftime(pattern) for pattern in DATE_PATTERNS}
    chosen = f"{dates!r}.get(pattern, {dates['%Y-%m-%d']!r})"
    macro = "{% macro strftime_now(pattern) -%}{{ " + chosen + " }}{%- endmacro %}"
    return macro + template


def _token_ids(model: LoadedModel, text: str) -> tuple[int, ...]:
    # Most templates print the beginning token themselves, and the tokenizer would then add a second
    # one.
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    first = model.tokenizer.bos_token_id
    while len(ids) > 1 and ids[0] == ids[1] == first:
        ids = ids[1:]
    wants_first = first is not None and first in model.tokenizer.encode("a")
    return (first, *ids) if wants_first and ids[:1] != [first] else tuple(ids)


class TokenTexts:
    """Texts of tokens as they come, for many responses of one model: joined, they are the response.

    A letter of several tokens stands at the last of them.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self._pairs: dict[tuple[int, int], str] = {}

    def all(self, ids: Sequence[int]) -> tuple[str, ...]:
        """One text a token."""
        texts: list[str] = []
        while len(texts) < len(ids):
            texts.append(self.next(ids, len(texts), texts))
        return tuple(texts)

    def next(self, ids: Sequence[int], index: int, before: Sequence[str]) -> str:
        """The text of token `index`, given those before it; empty while a letter is incomplete."""
        is_open = index > 0 and before[index - 1] == ""
        if not is_open:
            text = self._after(ids[index - 1], ids[index]) if index else self._decode(ids[:1])
            if INCOMPLETE not in text:
                return text
        opened = index
        while opened and before[opened - 1] == "":
            opened -= 1
        start = max(0, opened - 1)  # the last token whose text is known, for its space
        text = self._decode(ids[start : index + 1])[len(self._decode(ids[start:opened])) :]
        is_last = index == len(ids) - 1
        return "" if text.endswith(INCOMPLETE) and not is_last else text

    def _after(self, previous: int, token: int) -> str:
        pair = (previous, token)
        if pair not in self._pairs:
            if len(self._pairs) >= REMEMBERED:
                self._pairs.clear()
            alone = self._decode([previous])
            self._pairs[pair] = self._decode([previous, token])[len(alone) :]
        return self._pairs[pair]

    def _decode(self, ids: Sequence[int]) -> str:
        return decode_response(self.model, ids)
