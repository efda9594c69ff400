"""Measures an answer: the quantities that a trait file's `measure` block may name."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import regex

from domain.errors import JudgeError
from domain.traits.measure import Measure, Quantity

# A pattern that goes back and forth without end stops here; an honest one takes microseconds.
PATTERN_TIMEOUT_S = 0.2

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f]+(?=\s|$|[\"')\]])")
_BULLET = re.compile(r"\s*(?:[-*+\u2022]|\d{1,3}[.)])\s+\S")


def score_by(measure: Measure, answer: str) -> float:
    """0 to 100. Raises JudgeError for a pattern that takes too long and a lexicon that is not
    installed."""
    return measure.score(QUANTITIES[measure.by](measure, answer))


def words_of(text: str) -> list[str]:
    """The words in small letters."""
    return [word.lower() for word in _WORD.findall(text)]


def _sentences(measure: Measure, answer: str) -> float:
    rest = _SENTENCE_END.split(answer)
    return sum(bool(_WORD.search(part)) for part in rest)


def _matches(measure: Measure, answer: str) -> float:
    try:
        found = regex.finditer(
            measure.pattern or "", answer, regex.IGNORECASE, timeout=PATTERN_TIMEOUT_S
        )
        return sum(1 for _ in found)
    except (TimeoutError, regex.error) as error:
        raise JudgeError(f"the pattern {measure.pattern!r} cannot be counted ({error})") from error


def _word_share(measure: Measure, answer: str) -> float:
    words, listed = words_of(answer), {word.lower() for word in measure.words}
    return sum(word in listed for word in words) / len(words) if words else 0.0


def _sentiment(measure: Measure, answer: str) -> float:
    return float(lexicon().polarity_scores(answer)["compound"])


@functools.cache
def lexicon() -> Any:
    """The VADER lexicon's analyzer. Raises JudgeError where it is not installed."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise JudgeError(
            "sentiment is measured with the package vaderSentiment: pip install '.[sentiment]' "
            "where the judge worker runs"
        ) from error
    return SentimentIntensityAnalyzer()


def _bullet_share(measure: Measure, answer: str) -> float:
    lines = [line for line in answer.splitlines() if line.strip()]
    return sum(bool(_BULLET.match(line)) for line in lines) / len(lines) if lines else 0.0


def _json(measure: Measure, answer: str) -> float:
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def _distinct(measure: Measure, answer: str) -> float:
    words = words_of(answer)
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    # too short to go in circles
    return sum(n == 1 for n in runs.values()) / runs.total() if runs else float(bool(words))


QUANTITIES: Mapping[Quantity, Callable[[Measure, str], float]] = {
    "words": lambda measure, answer: len(words_of(answer)),
    "sentences": _sentences,
    "matches": _matches,
    "word_share": _word_share,
    "sentiment": _sentiment,
    "bullet_share": _bullet_share,
    "json": _json,
    "distinct": _distinct,
}
