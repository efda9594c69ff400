"""Thoughts: the marks by which models part them from the answer, and how a model is told to leave
them out.

Whether a thought is open is read from the rendered prompt alone; which words a template's source
holds says nothing about what it prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class Marks:
    """What stands before and behind a thought.

    `leads` may stand between it and the answer. Where `ends_turns`, the closing mark also ends the
    turns of a chat, so it says nothing without the opening one.
    """

    opens: str
    closes: str
    leads: tuple[str, ...] = ()
    ends_turns: bool = False


MARKS = (
    Marks("<think>", "</think>"),
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),
    Marks("<reasoning>", "</reasoning>"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("◁think▷", "◁/think▷"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>", leads=("<|START_RESPONSE|>", "<|START_TEXT|>")),
    Marks("<|channel|>analysis", "<|channel|>final<|message|>"),
    Marks("<|channel>thought", "<channel|>"),
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),
    Marks("<|open|>think<|sep|>", "<|close|>think<|sep|>", leads=("<|open|>response<|sep|>",)),
    Marks("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    Marks(
        "<|think|>",
        "<|end|>",
        leads=("<|begin|>assistant<|content|>", "<|content|>"),
        ends_turns=True,
    ),
)

# Turn ends that stand within what is not yet the answer.
PASSED = ("<|end|>",)


@dataclass(frozen=True)
class Switch:
    """One way to tell a template to leave thoughts out: a variable of it, or words in the text.

    A `firm` one asks for no thought at all, so a template that prints anything else for it has
    understood it; what the others do shows in the marks alone.
    """

    variables: Mapping[str, object] = field(default_factory=dict)
    words: str = ""
    firm: bool = False

    def __str__(self) -> str:
        return self.words or ", ".join(f"{n}={value}" for n, value in self.variables.items())


SWITCHES = (
    Switch({"enable_thinking": False}, firm=True),
    Switch({"thinking": False}, firm=True),
    Switch({"reasoning": False}, firm=True),
    Switch({"thinking_budget": 0}, firm=True),
    Switch({"thinking_mode": "disabled"}),
    Switch({"reasoning_effort": "none"}),
    Switch({"reasoning_effort": "no_think"}),
    Switch({"reasoning_effort": "minimal"}),
    Switch({"reasoning_effort": "low"}),
    Switch(words="/no_think"),
    Switch(words="detailed thinking off"),
)

# Variables that ask for a thought when they are true.
ASKING = [name for one in SWITCHES for name, value in one.variables.items() if value is False]


class Case(StrEnum):
    """What a model does with thoughts, as far as its template shows."""

    NONE = "none"
    OFF = "off"
    SOMETIMES = "sometimes"
    ALWAYS = "always"


@dataclass(frozen=True)
class Thinking:
    """A model's case, and the switch that its prompts use.

    NONE: nothing of it speaks of thoughts. OFF: its prompts close the thought, or leave out what
    would ask for one. ALWAYS: they open one whatever is tried. SOMETIMES: they do neither, and a
    response may begin with one.
    """

    case: Case
    switch: Switch = Switch()

    @property
    def may_think(self) -> bool:
        """Whether responses are to be expected to hold thoughts."""
        return self.case in (Case.SOMETIMES, Case.ALWAYS)

    @property
    def cannot_be_stopped(self) -> bool:
        """Whether no switch tells it to answer at once, so that somebody has to say what of its
        responses is measured."""
        return self.case == Case.ALWAYS or (self.case == Case.SOMETIMES and not str(self.switch))


NO_THINKING = Thinking(Case.NONE)

Render = Callable[[Sequence[tuple[str, str]], Mapping[str, object]], str | None]
"""(role, content) turns and variables of the template -> the prompt; None where it refuses them."""

_USER = "USER-MARK"


def with_words(turns: Sequence[tuple[str, str]], words: str) -> list[tuple[str, str]]:
    """The chat with a switch's words at the end of its system text, or as its system text."""
    if not words:
        return list(turns)
    if turns and turns[0][0] == "system":
        return [("system", f"{turns[0][1]}\n{words}"), *turns[1:]]
    return [("system", words), *turns]


def open_thought(prompt: str, *, user: str) -> Marks | None:
    """The marks of the thought that a rendered prompt ends within; `user` is its last turn's text,
    which may speak of marks itself."""
    tail = _tail(prompt, user)
    found = [(tail.rfind(one.opens), one) for one in MARKS if one.opens in tail]
    start, marks = max(found, key=lambda pair: pair[0], default=(-1, None))
    return marks if marks and marks.closes not in tail[start + len(marks.opens) :] else None


def thinking_of(render: Render, source: str) -> Thinking:
    """What a template does with thoughts, with the first switch that shows; `source` is its
    text."""
    turns = [("user", _USER)]
    usual = render(turns, {})
    if usual is None:
        return NO_THINKING
    if _is_closed(usual):
        return Thinking(Case.OFF)
    opens = open_thought(usual, user=_USER) is not None
    understood = None
    for switch in SWITCHES:
        told = render(with_words(turns, switch.words), switch.variables)
        if told is None or told == usual:
            continue
        stays_open = open_thought(told, user=_USER) is not None
        if _is_closed(told) or (opens and not stays_open):
            return Thinking(Case.OFF, switch)
        if switch.firm and understood is None:
            understood = Thinking(Case.ALWAYS if stays_open else Case.SOMETIMES, switch)
    if understood is not None:
        return understood
    if opens:
        return Thinking(Case.ALWAYS)
    if not any(one.opens in source or one.closes in source for one in MARKS if not one.ends_turns):
        return NO_THINKING
    # leaving the variable out and saying no are the same, so it thinks only when it is asked to
    asked = (render(turns, {name: True}) for name in ASKING)
    return Thinking(Case.OFF if any(one not in (None, usual) for one in asked) else Case.SOMETIMES)


def _is_closed(prompt: str) -> bool:
    """Whether a thought was closed behind the question."""
    tail = _tail(prompt, _USER)
    return any(
        one.closes in tail.partition(one.opens)[2] if one.opens in tail else one.closes in tail
        for one in MARKS
        if one.opens in tail or not one.ends_turns
    ) and not open_thought(prompt, user=_USER)


def _tail(prompt: str, user: str) -> str:
    """What the template prints behind the last turn; all of it where that turn is not there as it
    is."""
    return prompt.rpartition(user.strip())[2] if user.strip() else prompt


class ResponseParts:
    """Follows a response token by token: where its thought ends and its answer begins.

    `answer_start` counts the tokens that are not of the answer: the thought with its marks, and
    what is blank or a lead behind it. While the thought is open that is all of them. `closed_at`
    counts the thought's alone, 0 before it is closed.
    """

    def __init__(self, text_of: Callable[[Sequence[int]], str], opened: Marks | None) -> None:
        """`text_of` decodes ids with special tokens; `opened` is the thought that the prompt
        opened."""
        self._text_of = text_of
        self._marks = opened
        self._ends: dict[int, bool] = {}
        self._state = _OPEN if opened else _BEGINNING
        self.closed_at = 0
        self.answer_start = 0

    @property
    def is_open(self) -> bool:
        """Whether the last token is still of the thought."""
        return self._state == _OPEN

    @property
    def has_answer(self) -> bool:
        """Whether the answer has begun, for certain."""
        return self._state == _ANSWER

    def passes(self, token: int) -> bool:
        """Whether a token that usually ends a response does not, here."""
        if self._marks is None or self._state == _ANSWER:
            return False
        text = self._text_of([token])
        return bool(text) and (text in PASSED or text in self._marks.closes)

    def take(self, ids: Sequence[int]) -> None:
        """Look at the last of these tokens, which are the response so far."""
        if self._state == _OPEN:
            self._read_thought(ids)
        elif self._state == _BEGINNING:
            self._read_first(ids)
        elif self._state == _CLOSED:
            self._read_lead(ids)

    def _read_thought(self, ids: Sequence[int]) -> None:
        assert self._marks is not None
        self.answer_start, closes = len(ids), self._marks.closes
        if self._may_end(ids[-1], closes[-1]):
            # a token is at least a byte of a letter
            tail = self._text_of(ids[-len(closes.encode()) :])
            if closes in tail:
                self._close(len(ids))

    def _may_end(self, token: int, letter: str) -> bool:
        if token not in self._ends:
            text = self._text_of([token])
            self._ends[token] = letter in text or "\ufffd" in text
        return self._ends[token]

    def _read_first(self, ids: Sequence[int]) -> None:
        text = self._text_of(ids).lstrip()
        for marks in MARKS:
            if text.startswith(marks.opens):
                self._marks, self._state, self.answer_start = marks, _OPEN, len(ids)
                return
            shut = (*marks.leads, *(() if marks.ends_turns else (marks.closes,)))
            if text.startswith(shut):
                self._marks = marks
                self._close(len(ids))
                return
        known = (mark for one in MARKS for mark in (one.opens, one.closes, *one.leads))
        if not any(mark.startswith(text) for mark in known):
            self._state = _ANSWER

    def _close(self, n_tokens: int) -> None:
        self._state, self.closed_at, self.answer_start = _CLOSED, n_tokens, n_tokens

    def _read_lead(self, ids: Sequence[int]) -> None:
        assert self._marks is not None
        text = self._text_of(ids[self.closed_at :]).strip()
        if any(lead.startswith(text) for lead in ("", *self._marks.leads)):
            # the whole lead or nothing of it: a beginning alone may be the answer's
            if text in ("", *self._marks.leads):
                self.answer_start = len(ids)
        else:
            self._state = _ANSWER


_BEGINNING, _OPEN, _CLOSED, _ANSWER = range(4)
