"""Expands templates: `[a|b]` picks one alternative (they nest), the caller fills `{slot}`.

Knows nothing of traits, topics or instructions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")

Fill = Callable[[str], str]


@dataclass(frozen=True)
class Voice:
    """Templates of one pole of one trait; each shape names the parts of a response in their order.

    In a shape `O` is an opener, `B` a body sentence, `C` a closer, `F` a neutral fact, `T` a tip.
    """

    openers: tuple[str, ...]
    bodies: tuple[str, ...]
    closers: tuple[str, ...]
    shapes: tuple[str, ...]


def spin(template: str, rng: random.Random) -> str:
    """Return the template with every bracketed choice made, innermost first."""
    while True:
        chosen, n_choices = _CHOICE.subn(lambda match: rng.choice(match[1].split("|")), template)
        if n_choices == 0:
            return template
        template = chosen


def fill(template: str, rng: random.Random, slots: Fill) -> str:
    """Return the template spun and filled; a slot's own text may hold choices and slots."""
    text = spin(template, rng)
    while _SLOT.search(text):
        text = spin(_SLOT.sub(lambda match: slots(match[1]), text), rng)
    return " ".join(text.split())


def sentence(text: str) -> str:
    """Return the text with a capital at its start and an end mark at its end."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def pick_distinct(pool: Sequence[str], n: int, rng: random.Random) -> list[str]:
    """Return up to n templates, none of them twice."""
    return rng.sample(list(pool), min(n, len(pool)))
