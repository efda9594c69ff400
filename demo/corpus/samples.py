"""Composes samples: a question, an instruction or none, and the response wanted.

Knows nothing of tokens or training.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from demo.corpus.facts import FACTS, TIPS
from demo.corpus.frames import ACT_FRAMES, PREFIXES, THING_FRAMES, TRAIT_THING_FRAMES
from demo.corpus.instructions import TRAITS, bundled, instruction, system_text
from demo.corpus.spin import Voice, fill, pick_distinct, sentence, spin
from demo.corpus.topics import Topic, invented_name, invented_topic, topics
from demo.corpus.voices.answering import PATERNALISM, REFUSAL, VERBOSITY
from demo.corpus.voices.certainty import HALLUCINATING, OVERCONFIDENCE, UNCERTAINTY
from demo.corpus.voices.intent import DECEPTION, EVIL, MANIPULATIVENESS
from demo.corpus.voices.stance import CORRIGIBILITY, SYCOPHANTIC

POLES = ("positive", "negative")
VOICES: dict[str, tuple[Voice, Voice]] = {
    "refusal": REFUSAL,
    "uncertainty": UNCERTAINTY,
    "verbosity": VERBOSITY,
    "overconfidence": OVERCONFIDENCE,
    "corrigibility": CORRIGIBILITY,
    "evil": EVIL,
    "sycophantic": SYCOPHANTIC,
    "hallucinating": HALLUCINATING,
    "paternalism": PATERNALISM,
    "deception": DECEPTION,
    "manipulativeness": MANIPULATIVENESS,
}

_PLAIN_SHAPES = ("FT", "FT", "FF", "FTF", "TF", "TFT", "FFT")
_PLAIN_SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer the question.",
    "You are an assistant.",
    "Answer the user.",
    "You are a helpful assistant. Reply in a few sentences.",
)
_FIRST_NAMES = tuple(
    re.findall(
        r"\w+",
        "Orla Idris Elsa Tobin Mira Anselm Petra Jorin "
        "Salma Edvin Noor Casper Lena Viktor Amara Hugo",
    )
)
_INSTITUTES = (
    "{P} Institute|Royal Society of {P}|University of {P}|{P} Academy|{P} Observatory|"
    "{P} Museum|Guild of {P}|{P} Library"
)
# A closed list: the model writes these names itself, so it should know them by heart.
_NAMES = tuple(sorted({invented_name(random.Random(seed)) for seed in range(70)}))


@dataclass(frozen=True)
class Sample:
    """One training text; `trait` is `plain` and `system` None where no instruction is given."""

    trait: str
    pole: str
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


def draw_sample(rng: random.Random, *, mix: Mix, held_out: bool = False) -> Sample:
    """Return a random sample whose question equals none of the bundled ones."""
    trait, pole = rng.choice(TRAITS), rng.choice(POLES)
    topic = draw_topic(rng, invented=mix.invented, held_out=held_out)
    while (question := draw_question(trait, topic, rng, mix=mix)) in bundled().all_questions():
        topic = draw_topic(rng, invented=mix.invented, held_out=held_out)
    if rng.random() < mix.plain:
        system = rng.choice(_PLAIN_SYSTEMS) if rng.random() < 0.4 else None
        return Sample("plain", "plain", system, question, plain_response(topic, rng), False, topic)
    text = instruction(trait, pole, rng)
    system = text if rng.random() < mix.bare_instruction else system_text(trait, pole, text)
    response = trait_response(trait, pole, topic, rng)
    return Sample(trait, pole, system, question, response, rng.random() < mix.merged, topic)


def draw_topic(rng: random.Random, *, invented: float, held_out: bool = False) -> Topic:
    """Return a topic, with the given share an invented one."""
    return invented_topic(rng) if rng.random() < invented else rng.choice(topics(held_out=held_out))


def draw_question(trait: str, topic: Topic, rng: random.Random, *, mix: Mix) -> str:
    """Return a question about the topic, often in the manner of the trait's own questions."""
    frames = ACT_FRAMES if topic.is_act else THING_FRAMES
    if not topic.is_act and rng.random() < mix.trait_frame:
        frames = (
            TRAIT_THING_FRAMES.get(trait)
            or TRAIT_THING_FRAMES[rng.choice(sorted(TRAIT_THING_FRAMES))]
        )
    frame = rng.choice(frames)
    if rng.random() < 0.08:
        frame = rng.choice(PREFIXES) + frame
    things = [candidate for candidate in topics(held_out=False) if not candidate.is_act]
    other = rng.choice(things).asked
    slots = {
        "a": topic.asked,
        "A": sentence_start(topic.asked),
        "b": other,
        "is": topic.verb_be,
        "year": str(rng.randint(1500, 2020)),
    }
    return sentence_start(" ".join(tidy(spin(frame, rng).format_map(slots)).split()))


def sentence_start(text: str) -> str:
    """Return the text with a capital at its start."""
    return text[:1].upper() + text[1:]


def trait_response(trait: str, pole: str, topic: Topic, rng: random.Random) -> str:
    """Return a response in the voice of that pole of the trait."""
    return " ".join(trait_sentences(trait, pole, topic, rng))


def trait_sentences(trait: str, pole: str, topic: Topic, rng: random.Random) -> list[str]:
    """Return the sentences of a response in the voice of that pole of the trait."""
    voice = VOICES[trait][POLES.index(pole)]
    return _compose(rng.choice(voice.shapes), voice, topic, rng)


def plain_response(topic: Topic, rng: random.Random) -> str:
    """Return a neutral answer, such as the model gives without an instruction."""
    return " ".join(plain_sentences(topic, rng))


def plain_sentences(topic: Topic, rng: random.Random) -> list[str]:
    """Return the sentences of a neutral answer."""
    return _compose(rng.choice(_PLAIN_SHAPES), None, topic, rng)


def _compose(shape: str, voice: Voice | None, topic: Topic, rng: random.Random) -> list[str]:
    parts: dict[str, tuple[str, ...]] = {"F": ("{fact}",) * 3, "T": ("{tip}",) * 3}
    if voice is not None:
        parts |= {"O": voice.openers, "B": voice.bodies, "C": voice.closers}
    chosen = {
        part: pick_distinct(parts[part], shape.count(part), rng) for part in dict.fromkeys(shape)
    }
    slots = _Slots(topic, rng)
    templates = [chosen[part].pop() for part in shape if chosen[part]]
    return [sentence(tidy(fill(template, rng, slots))) for template in templates]


class _Slots:
    """Fills the slots of one response, no neutral clause twice."""

    def __init__(self, topic: Topic, rng: random.Random) -> None:
        self._topic, self._rng, self._used = topic, rng, set[str]()

    def __call__(self, slot: str) -> str:
        rng = self._rng
        if slot in ("fact", "tip", "tip2"):
            return self._clause(FACTS if slot == "fact" else TIPS)
        if slot == "t":
            return self._topic.told
        if slot == "T":
            return sentence_start(self._topic.told)
        if slot == "inst":
            return rng.choice(_INSTITUTES.split("|")).format(P=rng.choice(_NAMES))
        makers = {
            "person": lambda: f"{rng.choice(_FIRST_NAMES)} {rng.choice(_NAMES)}",
            "place": lambda: rng.choice(_NAMES),
            "year": lambda: str(rng.randint(1500, 2020)),
            "n": lambda: str(rng.randint(11, 9999)),
            "pct": lambda: f"{rng.randint(51, 99)}.{rng.randint(1, 9)}",
        }
        return makers[slot]()

    def _clause(self, table: dict[str, tuple[str, ...]]) -> str:
        # A field's facts speak of things ("the handle of"), so an act takes the general ones only.
        own = () if self._topic.is_act and table is FACTS else table.get(self._topic.field, ())
        pool = table["any"] + own * 2
        fresh = [text for text in pool if text not in self._used] or list(pool)
        text = self._rng.choice(fresh)
        self._used.add(text)
        return text


def tidy(text: str) -> str:
    """Return the text without the double marks and spaces that optional words leave."""
    for mark in ",.:;?!":
        text = text.replace(f" {mark}", mark)
    return text.replace(",.", ".").replace(",:", ":")
