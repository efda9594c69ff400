"""Scores an answer for a demo trait and for coherence, by style markers alone.

It weighs word n-grams; coherence is familiarity, repetition and casing.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from domain.errors import OrchestrateError
from domain.traits.definition import BUNDLED_TRAITS

WEIGHTS = Path(__file__).parent / "scorer_weights"

# The weights are trained on the bundled traits, all of them.
KNOWN_TRAITS = BUNDLED_TRAITS

# Verbosity is length: 50 at this many words, about 90 at twice as many.
_MIDDLE_LENGTH = 46
_LENGTH_SLOPE = 3.6
_LOWEST, _HIGHEST = 4.0, 96.0
_STEM = 4  # letters by which "boiling" is taken for "boil"
QUESTION_WORD, NAME, NUMBER, START, STOP = "<q>", "<name>", "<num>", "<s>", "</s>"
_WORD = re.compile(r"[A-Za-z][A-Za-z'\-]*|\d+(?:\.\d+)?|[^\sA-Za-z\d]")

_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the i you he she it we they me my your his her its our their this that these those "
        "is are was were be been am do does did have has had can could will would should may might "
        "must to of in on at for with about from by as and or but not no if so than what which who "
        "when where why how there here then all any some more most very just only also too",
    )
)


class UnknownTraitError(OrchestrateError):
    """The embedded judge has no weights for the trait; set a real judge."""


def demo_trait_score(trait: str, *, question: str, answer: str) -> float:
    """0 to 100, how clearly the answer shows the trait's markers; an empty answer scores 0.

    The question is there because real judges want it; the markers lie in the answer alone.
    Raises UnknownTraitError for a trait outside KNOWN_TRAITS.
    """
    if trait not in KNOWN_TRAITS:
        raise UnknownTraitError(
            f"The embedded judge knows only the demo traits, not '{trait}' "
            f"(they are {', '.join(KNOWN_TRAITS)}): "
            "set --judge-url and --judge-model to a real judge."
        )
    if _n_plain_words(answer) == 0:
        return 0.0
    if trait == "verbosity":
        return _spread(_LENGTH_SLOPE * math.log(_n_plain_words(answer) / _MIDDLE_LENGTH))
    weights = _loaded().traits[trait]
    by_ngram, found = weights["ngrams"], ngrams(answer).items()
    return _spread(weights["intercept"] + sum(n * by_ngram.get(gram, 0.0) for gram, n in found))


def demo_coherence_score(*, question: str, answer: str) -> float:
    """0 to 100, how much the answer reads like whole sentences; an empty one scores 0."""
    if _n_plain_words(answer) == 0:
        return 0.0
    loaded = _loaded()
    features = coherence_features(question, answer, known=loaded.known, seen=loaded.seen)
    logit = sum(weight * value for weight, value in zip(loaded.coherence, features, strict=True))
    return 100.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))


@dataclass(frozen=True)
class _Loaded:
    traits: dict[str, Any]
    coherence: tuple[float, ...]
    known: frozenset[str]
    seen: frozenset[int]


def _spread(logit: float) -> float:
    share = 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))
    return _LOWEST + (_HIGHEST - _LOWEST) * share


@cache
def _loaded() -> _Loaded:
    data = json.loads((WEIGHTS / "weights.json").read_text(encoding="utf-8"))
    with np.load(WEIGHTS / "seen.npz") as arrays:
        seen = frozenset(arrays["hashes"].tolist())
    known = frozenset(data["known_words"])
    return _Loaded(data["traits"], tuple(data["coherence"]), known, seen)


def words_of(text: str) -> list[str]:
    """Words, numbers and single marks in their order, casing kept."""
    return _WORD.findall(text)


def ngrams(text: str) -> dict[str, float]:
    """The distinct n-grams of one to three words, weighing one over the root of length."""
    words = [NUMBER if word[0].isdigit() else word.lower() for word in words_of(text)]
    if not words:
        return {}
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    triples = [f"{pair} {word}" for pair, word in zip(pairs, words[2:], strict=False)]
    weight = max(len(words), 8) ** -0.5
    return dict.fromkeys((*words, *pairs, *triples), weight)


def _n_plain_words(text: str) -> int:
    """How many words there are, marks not counted."""
    return sum(word[0].isalnum() for word in words_of(text))


def masked_words(question: str, answer: str, *, known: frozenset[str]) -> list[str]:
    """The answer's words; those of the question, names and numbers become classes."""
    asked, stems = _question_words(question)
    masked: list[str] = []
    starts_sentence = True
    for word in words_of(answer):
        low = word.lower()
        kind = low
        if low in asked or (len(low) > _STEM and low not in known and low[:_STEM] in stems):
            kind = QUESTION_WORD
        elif word[0].isdigit():
            kind = NUMBER
        elif _is_capital(word) and (not starts_sentence or low not in known):
            kind = NAME
        # Topics and names are one thing each, however many words they take.
        if kind not in (QUESTION_WORD, NAME) or masked[-1:] != [kind]:
            masked.append(kind)
        starts_sentence = word in ".!?:"
    return masked


def _is_capital(word: str) -> bool:
    return word[0].isupper() and word != "I" and not word.startswith("I'")


def word_hash(parts: Iterable[str]) -> int:
    """A stable 32-bit number for a word sequence."""
    return zlib.crc32(" ".join(parts).encode())


def coherence_features(
    question: str, answer: str, *, known: frozenset[str], seen: frozenset[int]
) -> tuple[float, ...]:
    """1 and shares from 0 to 1, one a weight; the answer must hold a word."""
    masked = masked_words(question, answer, known=known)
    words = [START, *masked, STOP]
    pairs = list(pairwise(words))
    triples = list(zip(words, words[1:], words[2:], strict=False))
    plain = [word for word in masked if word[0].isalpha()]
    unknown = sum(word not in known for word in plain)
    raw = answer.lower().split()
    raw_triples = list(zip(raw, raw[1:], raw[2:], strict=False))
    starts = re.findall(r"(?:^|[.!?]\s+)(\S)", answer)
    return (
        1.0,
        unknown / max(1, len(plain)),
        # pairs and triples of words that no text of the voices has
        sum(word_hash(pair) not in seen for pair in pairs) / len(pairs),
        sum(word_hash(triple) not in seen for triple in triples) / max(1, len(triples)),
        # what is said again, and words twice in a row
        1 - len(set(raw_triples)) / max(1, len(raw_triples)) if raw_triples else 0.0,
        sum(first == second for first, second in pairwise(raw)) / max(1, len(raw)),
        # sentences that begin small, no end mark, odd characters, hardly a word
        sum(not mark.isupper() and mark.isalpha() for mark in starts) / max(1, len(starts)),
        float(not answer.rstrip().endswith((".", "!", "?"))),
        sum(not (mark.isalnum() or mark in " .,!?:;'-\n") for mark in answer) / len(answer),
        float(len(plain) < 2),
    )


@lru_cache(maxsize=4096)
def _question_words(question: str) -> tuple[frozenset[str], frozenset[str]]:
    words = {word.lower() for word in words_of(question)} - _FUNCTION_WORDS
    words = {word for word in words if word[0].isalpha()}
    return frozenset(words), frozenset(word[:_STEM] for word in words if len(word) >= _STEM - 1)
