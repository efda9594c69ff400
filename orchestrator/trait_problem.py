"""A finding about a trait's JSON, and the findings that any of its texts can have.

Knows nothing of the JSON's shape (see trait_check).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

FILL_IN = "FILL IN:"  # marks what a person still has to write in a template


@dataclass(frozen=True)
class Problem:
    """One finding: `where` is a path into the JSON like `questions[7]`, `message` says what to do.

    Findings in the second file of a two-file trait begin with `eval.`.
    """

    severity: Literal["error", "warning"]
    where: str
    message: str


def check_text(text: object, where: str) -> Iterator[Problem]:
    """What keeps a value from being one of a trait's texts."""
    if not isinstance(text, str):
        yield error(where, f"is {kind(text)}; make it a text in quotes")
    elif not text.strip():
        yield error(where, "is blank; write it or remove the entry")
    elif FILL_IN in text:
        yield error(where, f"still has the template's words; replace what begins with {FILL_IN!r}")
    elif any("\ud800" <= character <= "\udfff" for character in text):
        yield error(where, r"holds half a character (\ud800 to \udfff alone); write it out")


def check_duplicates(texts: Sequence[object], where: str, side: str = "") -> Iterator[Problem]:
    """Texts that repeat an earlier one of the list but for case and spacing; `side` is `.pos`."""
    first: dict[str, int] = {}
    for i, text in enumerate(map(folded, texts)):
        if not text:
            continue
        if text in first:
            message = f"repeats {where}[{first[text]}]{side}; write a different one"
            yield warning(f"{where}[{i}]{side}", message)
        first.setdefault(text, i)


def folded(text: object) -> str:
    """The text without regard to case and spacing; empty for what is not a text."""
    return " ".join(text.casefold().split()) if isinstance(text, str) else ""


def kind(value: object) -> str:
    """A JSON value's type in a reader's words."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
    names |= {list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def error(where: str, message: str) -> Problem:
    """A problem that keeps the definition from loading."""
    return Problem("error", where, message)


def warning(where: str, message: str) -> Problem:
    """A problem that a run can live with."""
    return Problem("warning", where, message)
