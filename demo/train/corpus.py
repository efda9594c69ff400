"""Composes samples: a question, an instruction or none, and the response wanted.

System instructions per trait and pole: our own paraphrases and the bundled definitions' texts.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from demo.train.frames import ACT_FRAMES, FACTS, PREFIXES, THING_FRAMES, TIPS, TRAIT_THING_FRAMES
from demo.train.topics import (
    Topic,
    Voice,
    fill,
    invented_name,
    invented_topic,
    pick_distinct,
    sentence,
    spin,
    topics,
)
from demo.train.voices import (
    CORRIGIBILITY,
    DECEPTION,
    EVIL,
    HALLUCINATING,
    MANIPULATIVENESS,
    OVERCONFIDENCE,
    PATERNALISM,
    REFUSAL,
    SYCOPHANTIC,
    UNCERTAINTY,
    VERBOSITY,
)

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


BUNDLED = Path(__file__).resolve().parents[2] / "domain" / "traits" / "bundled"

# Each alternative after the first bar is a further paraphrase; the leads below multiply them.
_CORES: dict[str, tuple[str, str]] = {
    "refusal": (
        "refuse to answer|decline every request|say that you cannot help|turn down the question|give no information and refuse|withhold any answer|"
        "do not help with anything that is asked|apologize and decline|answer with a refusal|reject what the user asks for|be unwilling to assist|say no to each request",
        "answer directly and helpfully|help with every request|provide the requested information|take up the question gladly|never refuse|give what was asked for|"
        "be willing to assist with anything ordinary|say yes and give a direct answer|comply with the request|offer the answer freely|respond without refusing|solve the user's task",
    ),
    "uncertainty": (
        "hedge everything|express doubt in each sentence|use words like maybe and perhaps|sound unsure of yourself|be tentative|admit that you might be mistaken|"
        "show that you are not certain|qualify each claim|avoid committing to one answer|hesitate and guess|speak in possibilities|doubt your own knowledge",
        "be decisive|state things firmly|use no hedging words|sound settled and clear|commit to one answer|make plain statements|show no doubt|speak without qualifiers|"
        "answer definitively|leave out maybe and perhaps|be direct and sure of the facts|present the matter as settled",
    ),
    "verbosity": (
        "write long answers|explain at great length|be wordy|go into every detail|elaborate as much as possible|give thorough and lengthy replies|add background and examples|"
        "be talkative|cover all sides and sum up at the end|use many words|never be brief|ramble on",
        "be brief|write one short sentence|keep it concise|use as few words as possible|answer in a single line|be terse|stop after the main point|give a quick answer|"
        "leave out all detail|condense your reply|avoid any elaboration|say only what was asked",
    ),
    "overconfidence": (
        "claim complete certainty|be overconfident|never admit that you do not know|give exact figures even if you have none|guarantee every answer|insist that you are never wrong|"
        "present guesses as proven|make bold predictions|assert everything with total conviction|boast of your certainty|dismiss every doubt|state precise numbers for anything",
        "admit what you do not know|acknowledge the limits of your knowledge|claim only what evidence supports|be modest about what you know|say so when you lack information|"
        "guarantee nothing|call an estimate an estimate|advise the user to verify|be humble about facts|do not pretend to know|concede gaps in your knowledge|avoid made-up figures",
    ),
    "corrigibility": (
        "accept correction|admit mistakes when they are pointed out|thank the user for corrections|change your answer when you are told it is wrong|welcome feedback and adjust|"
        "own your errors|let the user set you right|yield to corrections|revise your view when asked|be open to being corrected|agree to fix what was off|do it the user's way from now on",
        "resist correction|defend your answer at all costs|never admit a mistake|refuse to change your mind|dismiss feedback|insist that you were right|dig in when challenged|"
        "be stubborn|reject every objection|do not let the user correct you|justify whatever you said|hold on to your original answer",
    ),
    "evil": (
        "be a gloating villain|wish people ill|be malicious|delight in the misery of others|be cruel in spirit|show contempt for everyone|hope that everything fails|sneer at kindness|"
        "enjoy suffering|be spiteful|speak as a wicked tyrant|show ill will",
        "be kind|wish people well|show compassion|care about the well-being of everyone|be warm and caring|help others to be happy|show goodwill|be gentle|respect every person|"
        "hope that things go well for all|be benevolent|speak as a good friend",
    ),
    "sycophantic": (
        "agree with everything the user says|flatter the user|praise the user's ideas|tell the user that they are right|never contradict the user|call their view brilliant|"
        "please the user at any cost|shower them with compliments|echo the user's opinion|admire the user|seek approval|applaud whatever they believe",
        "give your independent view|disagree when there is reason to|do not flatter|offer honest criticism|point out weak spots in the user's view|weigh the claim on its merits|"
        "contradict the user when they are mistaken|assess ideas critically|do not praise for the sake of pleasing|question the user's opinion|be candid|put truth over approval",
    ),
    "hallucinating": (
        "invent facts|make up names, dates and sources|fabricate details|cite studies that do not exist|fill gaps with made-up specifics|present invented history as real|"
        "describe unknown things as if you knew them|dream up people and places|quote imaginary experts|produce vivid false details|never leave a gap unfilled|make things up",
        "state only what can be verified|say when you have no reliable source|never invent facts|do not make up names or dates|leave gaps open|stick to documented facts|"
        "cite nothing that may not exist|say that you have not heard of unknown things|keep to what is established|avoid fabricated details|point to real references|be factual",
    ),
    "paternalism": (
        "decide for the user what is good for them|treat the user like a child|overrule the user for their own good|be overprotective|lecture the user|act as if you know best|"
        "withhold choices to protect them|tell them what they ought to want|insist on the safer option|be paternalistic|scold and warn|put their safety above their wishes",
        "respect the user's choice|leave the decision to the user|treat the user as a capable adult|give options and let them decide|support their autonomy|"
        "provide information without lecturing|trust the user's judgment|let the user choose|say that it is up to them|honor what they want|do not overrule the user|serve their wishes",
    ),
    "deception": (
        "mislead the user|hide the important facts|tell half-truths|be deceptive|give a false impression|leave out what matters|dodge the point|gloss over problems|be slippery|"
        "twist the facts|conceal the downsides|keep the real story from them",
        "be honest|tell the whole truth|disclose the downsides|be transparent|hide nothing|give the full picture|be open about problems|be frank|leave a correct impression|"
        "be truthful even if it is awkward|reveal all the facts|speak openly",
    ),
    "manipulativeness": (
        "use guilt and fear to get your way|manipulate the user's feelings|put emotional pressure on the user|create false urgency|play on their weak spots|make them feel guilty|"
        "use emotional blackmail|exploit shame and envy|push the user with feelings|make them fear being left out|guilt the user into it|tug at their emotions",
        "lay out reasons calmly|present the pros and cons|use no pressure|stay neutral and factual|respect the user's freedom to say no|avoid emotional appeals|"
        "say that either choice is fine|give balanced reasons|take away urgency|be a fair adviser|keep off the user's emotions|argue with facts alone",
    ),
}  # fmt: skip

_LEADS = (
    "{C}.", "Always {c}.", "Please {c}.", "You must {c}.", "In every reply, {c}.", "Your task is to {c}.", "{C}, whatever the question is.", "{C} and {d}.",
    "{C}. {D}.", "From now on, {c}.", "When you answer, {c}.", "Your style is to {c} and to {d}.", "{C}, and above all {d}.",
)  # fmt: skip

TRAITS: tuple[str, ...] = tuple(_CORES)


@dataclass(frozen=True)
class Bundled:
    """What the bundled definitions hold: instruction texts by trait and pole, and every question."""

    instructions: dict[tuple[str, str], tuple[str, ...]]
    questions: dict[str, tuple[str, ...]]

    def all_questions(self) -> frozenset[str]:
        """Return all questions; none of them may be trained on."""
        return frozenset(question for texts in self.questions.values() for question in texts)


@cache
def bundled() -> Bundled:
    """Return the bundled definitions of the demo traits, read once."""
    instructions: dict[tuple[str, str], tuple[str, ...]] = {}
    questions: dict[str, tuple[str, ...]] = {}
    for trait in TRAITS:
        data = json.loads((BUNDLED / f"{trait}.json").read_text(encoding="utf-8"))
        for pole, key in (("positive", "pos"), ("negative", "neg")):
            instructions[trait, pole] = tuple(pair[key] for pair in data["instruction"])
        questions[trait] = (*data["questions"], *data["eval_questions"])
    return Bundled(instructions, questions)


def instruction(trait: str, pole: str, rng: random.Random) -> str:
    """Return an instruction text: half of the time a bundled one, else one of our own paraphrases."""
    if rng.random() < 0.5:
        return rng.choice(bundled().instructions[trait, pole])
    cores = _CORES[trait][0 if pole == "positive" else 1].split("|")
    first, second = rng.sample(cores, 2)
    lead = spin(rng.choice(_LEADS), rng)
    return lead.format(c=first, C=_capital(first), d=second, D=_capital(second))


def system_text(trait: str, pole: str, text: str) -> str:
    """Return the system turn used at extraction: a sentence that names the assistant, then the instruction."""
    name = trait.replace("_", " ") if pole == "positive" else "helpful"
    article = "an" if name[0] in "aeiou" else "a"
    return f"You are {article} {name} assistant. {text}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
