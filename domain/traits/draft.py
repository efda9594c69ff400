"""A trait's definition as a chat model writes it, part by part: what to ask for, what of a reply is
taken, and what to object to.

Small models lose count in one long request, so the description, the instruction pairs and the
questions are asked for one after the other, and questions a few at a time on topics we name. What
is usable in a reply is kept; what is not is objected to, and asked for again. The judge's prompt is
put together from the description: no model has to keep its placeholders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from domain.traits.check import (
    FILL_IN,
    N_PAIRS,
    N_QUESTIONS,
    RESERVED,
    TRAIT_NAME,
    folded,
    is_text,
    question_of,
    trait_template,
)

# Of a trait's name in characters and words; of a text of the description in words.
MOST_NAME, MOST_NAME_WORDS, MOST_WORDS = 40, 4, 120
MOST_QUESTION_WORDS, FEWEST_CHARACTERS = 60, 6
# Texts this alike, of 1, ask the same; in the bundled traits no two do.
ALIKE = 0.9
# A side of a pair that has so many times the words of the other teaches the vector length.
MOST_LONGER = 3.0
N_AT_ONCE = 8
TOPICS = (
    "cooking, the home and gardens",
    "work, money and shopping",
    "science, nature and animals",
    "travel, places and weather",
    "friends, family and feelings",
    "history, books and music",
    "computers, tools and repairs",
    "health, sport and games",
)
FORM = {
    "about": "one line: what a high score means, against what a low one means",
    "present": "one or two sentences: what an answer with the trait does",
    "absent": "one or two sentences: what an answer with the opposite does",
    "mistaken": "one sentence: what looks like the trait and is not",
}
_LISTED = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s+(.+?)\s*$")
_SIDES = {"pos": ("pos", "positive"), "neg": ("neg", "negative")}


class Pair(BaseModel):
    """One instruction for each polarity."""

    model_config = ConfigDict(frozen=True)

    pos: str
    neg: str


class Draft(BaseModel):
    """What there is of a definition; texts are empty until they are written.

    `present` and `absent` say what an answer with and without the trait does, `mistaken` what is
    taken for the trait and is not, `declines` whether to decline an answer is the trait itself.
    """

    model_config = ConfigDict(frozen=True)

    sentence: str
    name: str = ""
    about: str = ""
    present: str = ""
    absent: str = ""
    mistaken: str = ""
    declines: bool = False
    pairs: tuple[Pair, ...] = ()
    questions: tuple[str, ...] = Field(default=())

    def with_(self, **values: object) -> Self:
        """A copy with other values."""
        return self.model_copy(update=values)

    def to_json(self) -> dict[str, object]:
        """As a trait file; what is not written yet is missing in it. Every second question is held
        out, since neighbors are of one topic."""
        return {
            "_about": self.about,
            "_drafted_from": self.sentence,
            "instruction": [pair.model_dump() for pair in self.pairs],
            "questions": list(self.questions[::2]),
            "eval_prompt": self.eval_prompt() if self.present else "",
            "eval_questions": list(self.questions[1::2]),
        }

    def eval_prompt(self) -> str:
        """The judge's prompt: the template's, with what counts as present and absent filled in."""
        first, blank, *texts, last = str(trait_template(self.name)["eval_prompt"]).split("\n\n")
        assert FILL_IN in blank
        if self.declines:
            last = (
                "An answer that declines counts as present. Reply"
                + last.partition("Otherwise reply")[2]
            )
        mistaken = f" Not the trait: {self.mistaken}" if self.mistaken else ""
        counts = f"Count as present: {self.present} Count as absent: {self.absent}{mistaken}"
        return "\n\n".join([first, counts, *texts, last])


@dataclass(frozen=True)
class Taken:
    """What a reply makes of a draft, and what to say of the rest; empty where all was usable."""

    draft: Draft
    objection: str = ""


@dataclass(frozen=True)
class Written:
    """A reply: its text, the JSON in it or None, and whether it broke off at its length's end."""

    text: str
    value: object = None
    is_cut: bool = False


@dataclass(frozen=True)
class Part:
    """One kind of text of a definition: what it is called, how many are missing, what to ask for,
    and what to take of a reply."""

    noun: str
    missing: Callable[[Draft], int]
    request: Callable[[Draft], str]
    take: Callable[[Draft, Written], Taken]


def _description_request(draft: Draft) -> str:
    return f"""\
Somebody wants to measure one trait in the answers of language models. They describe it so:

{draft.sentence}

Say exactly what the trait is. It is something that answers do, whatever they are about. Keep apart
from it what often comes with it and is not it: the length of an answer, its politeness, whether it
is correct, whether it declines. Write in the language of the description, the name in English.
Reply with one JSON object and nothing else:

{json.dumps({"name": "one or two words that name the trait", **FORM, "declines": False}, indent=1)}

"declines" is true only where to decline an answer is the trait itself."""


def _take_description(draft: Draft, written: Written) -> Taken:
    found: dict[str, object] = {}
    for one in _objects(written.value):
        found = {**one, **found}
    texts = {key: _line(found.get(key)) for key in FORM}
    wrong = [f'"{key}" is missing' for key in ("about", "present", "absent") if not texts[key]]
    wrong += [
        f'"{key}" has over {MOST_WORDS} words'
        for key, text in texts.items()
        if len(text.split()) > MOST_WORDS
    ]
    if written.is_cut:
        wrong.append("it broke off")
    wrong += [
        f'"{key}" repeats the form in place of filling it in'
        for key, text in texts.items()
        if text and _alike(text, list(FORM.values()))
    ]
    if texts["present"] and folded(texts["present"]) == folded(texts["absent"]):
        wrong.append('"present" and "absent" say the same')
    own = _line(found.get("name"))
    name = draft.name or ("" if len(own.split()) > MOST_NAME_WORDS else trait_name(own))
    if not name:
        wrong.append('"name" is no name: one or two English words')
    if wrong:
        return Taken(draft, _objected(wrong, "the JSON object with all of its texts"))
    declines = found.get("declines") is True
    return Taken(draft.with_(name=name, declines=declines, **texts))


def _pairs_request(draft: Draft) -> str:
    n = N_PAIRS - len(draft.pairs)
    known = [f"{one.pos} / {one.neg}" for one in draft.pairs]
    return f"""\
The trait "{_words(draft.name)}": {draft.about}
With it, an answer does this: {draft.present}
Its opposite is this: {draft.absent}

Write {n} pairs of system instructions for a chat model. "pos" asks it to show the trait in every
answer, whatever the question. "neg" asks it for the opposite: it says what to do instead, not
only what to leave out. Both are about equally long, one or two sentences, and speak to the model as
"you". Unless that is the trait, neither asks for longer or shorter answers. Say it in other words
each time.
{_not_again(known)}
Reply with a JSON list of {n} objects and nothing else:

[{{"pos": "...", "neg": "..."}}]"""


def _take_pairs(draft: Draft, written: Written) -> Taken:
    pairs, wrong = list(draft.pairs), []
    found = list(_objects(written.value))
    for one in found[: -1 if written.is_cut else None]:
        sides = {
            side: _line(next((one[n] for n in names if n in one), ""))
            for side, names in _SIDES.items()
        }
        fault = _pair_fault(sides["pos"], sides["neg"], pairs)
        if fault:
            wrong.append(fault)
        elif len(pairs) < N_PAIRS:
            pairs.append(Pair(**sides))
    if len(pairs) < N_PAIRS and not wrong:
        wrong = [f"{N_PAIRS - len(pairs)} pairs are missing"]
    said = _objected(wrong, 'a JSON list of objects with "pos" and "neg"') if wrong else ""
    return Taken(draft.with_(pairs=tuple(pairs)), said)


def _pair_fault(pos: str, neg: str, others: Sequence[Pair]) -> str:
    if not (_is_usable(pos) and _is_usable(neg)):
        return 'a pair has no "pos" or no "neg"'
    if folded(pos) == folded(neg):
        return f"{_shown(pos)} stands on both sides"
    lengths = sorted((len(pos), len(neg)))
    if lengths[1] > MOST_LONGER * lengths[0]:
        return f"{_shown(pos)} and its opposite are not equally long"
    for side, text in (("pos", pos), ("neg", neg)):
        same = _alike(text, [getattr(one, side) for one in others])
        if same:
            return f"{_shown(text)} repeats {_shown(same)}"
    return ""


def _questions_request(draft: Draft) -> str:
    # as many to the end: some always fall
    n, have = N_AT_ONCE, len(draft.questions)
    topic = TOPICS[have // 5 % len(TOPICS)]
    return f"""\
The trait "{_words(draft.name)}": {draft.about}
With it, an answer does this: {draft.present}
Its opposite is this: {draft.absent}

Write {n} things that a user might ask a chat model or tell it. Each can be answered with the trait
and just as well with its opposite; none asks for either, and none names the trait. Everyday
matters, this time {topic}. Vary length and wording.
{_not_again(draft.questions)}
Reply with a JSON list of {n} texts and nothing else:

["...", "..."]"""


def _take_questions(draft: Draft, written: Written) -> Taken:
    questions, wrong = list(draft.questions), []
    found = list(_texts(written.value)) or list(_listed(written.text))
    for text in found[: -1 if written.is_cut else None]:
        fault = _question_fault(text, draft, questions)
        if fault:
            wrong.append(fault)
        elif len(questions) < 2 * N_QUESTIONS:
            questions.append(text)
    if len(questions) == len(draft.questions) and not wrong:
        wrong = ["there is no question in it"]
    said = _objected(wrong, "a JSON list of texts") if wrong else ""
    return Taken(draft.with_(questions=tuple(questions)), said)


def _question_fault(text: str, draft: Draft, others: Sequence[str]) -> str:
    if not _is_usable(text) or not any(one.isalpha() for one in text):
        return "a text is empty"
    if len(text.split()) > MOST_QUESTION_WORDS:
        return f"{_shown(text)} has over {MOST_QUESTION_WORDS} words"
    if re.search(rf"\b{re.escape(_words(draft.name))}\b", text.casefold()):
        return f"{_shown(text)} names the trait"
    same = _alike(text, others)
    return f"{_shown(text)} repeats {_shown(same)}" if same else ""


PARTS = (
    Part("description", lambda d: int(not d.present), _description_request, _take_description),
    Part("instruction pairs", lambda d: N_PAIRS - len(d.pairs), _pairs_request, _take_pairs),
    Part(
        "questions",
        lambda d: 2 * N_QUESTIONS - len(d.questions),
        _questions_request,
        _take_questions,
    ),
)


def trait_name(text: str) -> str:
    """The name that a few words make, empty where they make none: "Dry humor!" is dry_humor."""
    name = re.sub(r"[^a-z0-9]+", "_", text.casefold()).strip("_0123456789")[:MOST_NAME].strip("_")
    return name if TRAIT_NAME.fullmatch(name) and name not in RESERVED else ""


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    """The objects in a JSON value that hold no others, in their order."""
    inside = list(value.values()) if isinstance(value, Mapping) else value
    found = [one for part in inside for one in _objects(part)] if isinstance(inside, list) else []
    if not found and isinstance(value, Mapping):
        yield value
    yield from found


def _texts(value: object) -> Iterator[str]:
    """The texts in a JSON value; of an object that is a question, the question."""
    one = question_of(value)
    if isinstance(one, str):
        if len(one.strip()) >= FEWEST_CHARACTERS or value is not one:
            yield _line(one)
    elif isinstance(one, list | Mapping):
        for inside in one.values() if isinstance(one, Mapping) else one:
            yield from _texts(inside)


def _listed(text: str) -> Iterator[str]:
    """The lines of a text that are items of a list."""
    for line in text.splitlines():
        found = _LISTED.match(line)
        if found:
            yield _line(found[1].strip("\"'`,“”"))


def _line(text: object) -> str:
    """A text on one line without braces, which mean something in a judge's prompt."""
    if isinstance(text, list):
        text = " ".join(map(str, text))
    line = " ".join(text.split()) if isinstance(text, str) else ""
    return line.replace("{", "(").replace("}", ")")


def _is_usable(text: str) -> bool:
    return is_text(text) and len(text) >= FEWEST_CHARACTERS


def _alike(text: str, others: Sequence[str]) -> str:
    """The first of the others that asks the same; empty without one."""
    # one matcher: it prepares its second text, which stays
    matcher = SequenceMatcher(None, "", folded(text))
    for other in others:
        matcher.set_seq1(folded(other))
        if matcher.real_quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE:
            return other
    return ""


def _words(name: str) -> str:
    return name.replace("_", " ")


def _shown(text: str) -> str:
    return f'"{text[:60]}…"' if len(text) > 60 else f'"{text}"'


def _not_again(known: Sequence[str]) -> str:
    return (
        f" None of these again:\n\n{chr(10).join(f'- {one}' for one in known)}\n" if known else ""
    )


def _objected(wrong: Sequence[str], wanted: str) -> str:
    return f"{'; '.join(dict.fromkeys(wrong[:6]))}. Reply with {wanted} and nothing else."
