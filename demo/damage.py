"""Damages good texts in known ways and says how coherent the result still is."""

from __future__ import annotations

import random
from collections.abc import Callable

# How a damage is done: words in, words out, and the share of coherence left, between 0 and 1.
Damage = Callable[[list[str], random.Random], tuple[list[str], float]]


def damaged(text: str, rng: random.Random) -> tuple[str, float]:
    """Return the text after one random damage and the coherence, 0 to 1, that is left."""
    words, left = rng.choice(_DAMAGES)(text.split(), rng)
    return " ".join(words), left


def _shuffle(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    return rng.sample(words, len(words)), 0.06


def _swap_some(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    words, n_swaps = list(words), max(1, round(len(words) * rng.uniform(0.02, 0.25)))
    for _ in range(n_swaps):
        first, second = rng.randrange(len(words)), rng.randrange(len(words))
        words[first], words[second] = words[second], words[first]
    return words, max(0.08, 0.92 - 3.5 * n_swaps / len(words))


def _drop_some(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    share = rng.uniform(0.03, 0.4)
    return [word for word in words if rng.random() > share] or words[:1], max(
        0.08, 0.92 - 2.5 * share
    )


def _repeat_words(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    share = rng.uniform(0.1, 0.6)
    mixed = [copy for word in words for copy in [word] * (1 + 2 * (rng.random() < share))]
    return mixed, max(0.05, 0.6 - 2 * share)


def _loop(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    start, length = rng.randrange(len(words)), rng.randint(1, 6)
    piece = words[start : start + length]
    return words[: start + length] + piece * rng.randint(4, 12), 0.1


def _truncate(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    return words[: rng.randint(max(1, len(words) // 3), max(1, len(words) - 2))], 0.6


def _garble_letters(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    share = rng.uniform(0.1, 0.9)
    anagrams = ("".join(rng.sample(word, len(word))).lower() for word in words)
    mixed = [new if rng.random() < share else old for old, new in zip(words, anagrams, strict=True)]
    return mixed, max(0.04, 0.6 - 1.5 * share)


def _glue(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    halves = [word[: max(1, len(word) // 2)] for word in words]
    share = rng.uniform(0.04, 0.9)
    glued = (half + rng.choice(halves).lower() for half in halves)
    mixed = [new if rng.random() < share else old for old, new in zip(words, glued, strict=True)]
    return mixed, max(0.04, 0.88 - 2 * share)


def _flatten(words: list[str], _rng: random.Random) -> tuple[list[str], float]:
    return [word.lower().strip(".,!?") for word in words], 0.5


_DAMAGES: tuple[Damage, ...] = (
    _shuffle,
    _swap_some,
    _swap_some,
    _drop_some,
    _repeat_words,
    _loop,
    _truncate,
    _garble_letters,
    _glue,
    _flatten,
)
