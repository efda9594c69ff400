"""Composes samples from the tables in `texts/`: a question, an instruction or none, a response.

In a text `[a|b]` is a choice (they nest) and `{slot}` is filled: in a question `{a}` is the topic,
`{is}` its verb and `{b}` a second thing; in an answer `{t}` is the topic, `{fact}` and `{tip}` are
neutral clauses of its field.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from demo.scorer import KNOWN_TRAITS
from domain.plan.samples import POLARITIES, AnyPolarity, Polarity
from domain.traits.definition import TraitDefinition, system_instruction

TEXTS = Path(__file__).parent / "texts"
HELD_OUT_EVERY = 8

# In a shape `O` is an opener, `B` a body sentence, `C` a closer, `F` a neutral fact, `T` a tip.
_PLAIN_SHAPES = ("FT", "FT", "FF", "FTF", "TF", "TFT", "FFT")

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Topic:
    """What one question is about; `asked` is how a question words it, `told` how an answer does."""

    asked: str
    told: str
    field: str
    is_act: bool

    @property
    def verb_be(self) -> str:
        """`is` or `are`, as `asked` calls for."""
        last = self.asked.split()[-1]
        many = last.endswith("s") and not last.endswith(("ss", "us", "is"))
        is_one = self.is_act or self.asked.startswith(("a ", "an "))
        return "are" if many and not is_one else "is"


@dataclass(frozen=True)
class Dialogue:
    """One training text; `trait` is `plain` and `system` None where no instruction is given."""

    trait: str
    polarity: AnyPolarity
    system: str | None
    question: str
    response: str
    merged: bool
    topic: Topic


@dataclass(frozen=True)
class Mix:
    """How often the generator does what; shares between 0 and 1."""

    plain: float = 0.12
    merged: float = 0.15
    bare_instruction: float = 0.1
    invented: float = 0.15
    trait_frame: float = 0.5


@cache
def corpus_texts(name: str) -> Any:
    """One of the tables in `texts/`, read once."""
    return json.loads((TEXTS / f"{name}.json").read_text(encoding="utf-8"))


@cache
def bundled_definitions() -> dict[str, TraitDefinition]:
    """The bundled definitions of the demo traits, read once."""
    folder = files("domain").joinpath("traits", "bundled")
    bodies = {trait: folder.joinpath(f"{trait}.json").read_bytes() for trait in KNOWN_TRAITS}
    return {trait: TraitDefinition.from_json(trait, json.loads(b)) for trait, b in bodies.items()}


@cache
def bundled_questions() -> frozenset[str]:
    """Every question of the bundled definitions: none may be trained on."""
    return frozenset(
        q for one in bundled_definitions().values() for q in (*one.questions, *one.eval_questions)
    )


@cache
def corpus_topics(*, held_out: bool) -> tuple[Topic, ...]:
    """The topics to train on, or those held out: every eighth, by a hash of their words."""
    table = corpus_texts("topics")
    found = [
        Topic(text, _yours(_gerund(text) if is_act else text), field, is_act)
        for kind, is_act in (("things", False), ("acts", True))
        for field, rows in table[kind].items()
        for text in rows
    ]
    return tuple(
        one for one in found if (zlib.crc32(one.asked.encode()) % HELD_OUT_EVERY == 0) == held_out
    )


def draw_dialogue(rng: random.Random, *, mix: Mix, held_out: bool = False) -> Dialogue:
    """A random sample whose question equals none of the bundled ones."""
    trait, polarity = rng.choice(KNOWN_TRAITS), rng.choice(POLARITIES)
    topic = draw_topic(rng, invented=mix.invented, held_out=held_out)
    while (question := draw_question(trait, topic, rng, mix=mix)) in bundled_questions():
        topic = draw_topic(rng, invented=mix.invented, held_out=held_out)
    if rng.random() < mix.plain:
        system = rng.choice(corpus_texts("instructions")["plain"]) if rng.random() < 0.4 else None
        response = " ".join(plain_sentences(topic, rng))
        return Dialogue("plain", "plain", system, question, response, False, topic)
    text = draw_instruction(trait, polarity, rng)
    is_bare = rng.random() < mix.bare_instruction
    system = text if is_bare else system_instruction(trait, polarity, text)
    response = " ".join(trait_sentences(trait, polarity, topic, rng))
    return Dialogue(trait, polarity, system, question, response, rng.random() < mix.merged, topic)


def draw_topic(rng: random.Random, *, invented: float, held_out: bool = False) -> Topic:
    """A topic; with the given share a thing nobody has heard of, so that the model learns to copy
    words it never saw."""
    if rng.random() >= invented:
        return rng.choice(corpus_topics(held_out=held_out))
    name, other = _invented_name(rng), _invented_name(rng)
    asked = rng.choice(corpus_texts("names")["invented"]).format(N=name, M=other, n=name.lower())
    return Topic(asked, asked, "unknown", is_act=False)


def draw_question(trait: str, topic: Topic, rng: random.Random, *, mix: Mix) -> str:
    """A question about the topic, often in the manner of the trait's own questions."""
    table = corpus_texts("questions")
    frames = table["acts"] if topic.is_act else table["things"]
    if not topic.is_act and rng.random() < mix.trait_frame:
        by_trait = table["traits"]
        frames = by_trait.get(trait) or by_trait[rng.choice(sorted(by_trait))]
    frame = rng.choice(frames)
    if rng.random() < 0.08:
        frame = rng.choice(table["prefixes"]) + frame
    slots = {
        "a": topic.asked,
        "A": _capital(topic.asked),
        "b": rng.choice([one for one in corpus_topics(held_out=False) if not one.is_act]).asked,
        "is": topic.verb_be,
        "year": str(rng.randint(1500, 2020)),
    }
    return _capital(" ".join(_tidy(_spin(frame, rng).format_map(slots)).split()))


def draw_instruction(trait: str, polarity: Polarity, rng: random.Random) -> str:
    """An instruction: half of the time a bundled one, else one of our own paraphrases."""
    if rng.random() < 0.5:
        pair = rng.choice(bundled_definitions()[trait].instruction)
        return pair.positive if polarity == "positive" else pair.negative
    table = corpus_texts("instructions")
    first, second = rng.sample(table["traits"][trait][polarity], 2)
    lead: str = rng.choice(table["leads"])
    return lead.format(c=first, C=_capital(first), d=second, D=_capital(second))


def trait_sentences(trait: str, polarity: Polarity, topic: Topic, rng: random.Random) -> list[str]:
    """The sentences of a response in the voice of that polarity of the trait."""
    voice = corpus_texts("voices")[trait][polarity]
    parts = {"O": voice["openers"], "B": voice["bodies"], "C": voice["closers"]}
    return _compose(rng.choice(voice["shapes"]), parts, topic, rng)


def plain_sentences(topic: Topic, rng: random.Random) -> list[str]:
    """The sentences of a neutral answer, such as the model gives without an instruction."""
    return _compose(rng.choice(_PLAIN_SHAPES), {}, topic, rng)


def _compose(
    shape: str, parts: Mapping[str, Sequence[str]], topic: Topic, rng: random.Random
) -> list[str]:
    pools = {"F": ["{fact}"] * 3, "T": ["{tip}"] * 3, **parts}
    chosen = {}
    for part in dict.fromkeys(shape):
        pool = pools[part]
        chosen[part] = rng.sample(pool, min(shape.count(part), len(pool)))
    slots = _Slots(topic, rng)
    sentences = []
    for template in [chosen[part].pop() for part in shape if chosen[part]]:
        text = _spin(template, rng)
        # a slot's own text may hold choices and slots
        while _SLOT.search(text):
            text = _spin(_SLOT.sub(lambda match: slots.fill(match[1]), text), rng)
        text = _capital(_tidy(" ".join(text.split())).strip())
        sentences.append(text if text.endswith((".", "!", "?")) else f"{text}.")
    return sentences


class _Slots:
    """Fills the slots of one response, no neutral clause twice."""

    def __init__(self, topic: Topic, rng: random.Random) -> None:
        self._topic, self._rng, self._used = topic, rng, set[str]()

    def fill(self, slot: str) -> str:
        """The text for a slot, which may hold choices and slots itself."""
        rng, names = self._rng, corpus_texts("names")
        match slot:
            case "fact":
                # facts speak of things ("the handle of"), so an act takes the general ones only
                return self._clause("facts", has_own=not self._topic.is_act)
            case "tip" | "tip2":
                return self._clause("tips", has_own=True)
            case "t":
                return self._topic.told
            case "T":
                return _capital(self._topic.told)
            case "inst":
                institute: str = rng.choice(names["institutes"])
                return institute.format(P=rng.choice(_known_names()))
            case "person":
                return f"{rng.choice(names['first_names'])} {rng.choice(_known_names())}"
            case "place":
                return rng.choice(_known_names())
            case "year":
                return str(rng.randint(1500, 2020))
            case "n":
                return str(rng.randint(11, 9999))
            case "pct":
                return f"{rng.randint(51, 99)}.{rng.randint(1, 9)}"
        raise KeyError(slot)

    def _clause(self, kind: str, *, has_own: bool) -> str:
        table = corpus_texts("clauses")[kind]
        own = table.get(self._topic.field, []) if has_own else []
        pool = table["any"] + own * 2
        text: str = self._rng.choice([one for one in pool if one not in self._used] or pool)
        self._used.add(text)
        return text


@cache
def _known_names() -> tuple[str, ...]:
    """A closed list: the model writes these names itself, so it should know them by heart."""
    return tuple(sorted({_invented_name(random.Random(seed)) for seed in range(70)}))


def _invented_name(rng: random.Random) -> str:
    """One capitalized word that no dictionary has."""
    names = corpus_texts("names")
    middle = "".join(rng.choice(names["syllables"]) for _ in range(rng.choice((1, 1, 2))))
    return f"{middle}{rng.choice(names['endings'])}".capitalize()


def _gerund(act: str) -> str:
    """`boiling an egg` for `boil an egg`."""
    verb, _, rest = act.partition(" ")
    if verb in corpus_texts("topics")["doubled"]:
        verb += verb[-1]
    elif verb.endswith("e") and not verb.endswith(("ee", "ye")):
        verb = verb[:-1]
    return f"{verb}ing {rest}".strip()


def _yours(text: str) -> str:
    """The text as the assistant says it to the user: `my` becomes `your`."""
    return " ".join("your" if word == "my" else word for word in text.split(" "))


def _spin(template: str, rng: random.Random) -> str:
    """The template with every bracketed choice made, innermost first."""
    while True:
        chosen, n_choices = _CHOICE.subn(lambda match: rng.choice(match[1].split("|")), template)
        if n_choices == 0:
            return template
        template = chosen


def _tidy(text: str) -> str:
    """The text without the double marks and spaces that optional words leave."""
    for mark in ",.:;?!":
        text = text.replace(f" {mark}", mark)
    return text.replace(",.", ".").replace(",:", ":")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
