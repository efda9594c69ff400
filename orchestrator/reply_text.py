"""Reads a judge's reply as text: an answer, a refusal, nothing, or words that are no answer.

Pure; knows nothing of probabilities.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from orchestrator.scores import Scale

_TAG = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(
    r"(?<![\w.,-])(\d{1,3}(?:\.\d+)?)(?:\s*(?:/|out of)\s*(?:100|10|9))?(?![\w/]|\.\d)"
)
_WORD = re.compile(r"\b(YES|NO|REFUSAL)\b")
_REFUSAL = re.compile(
    r"^\W*(REFUSAL\b|(I['\u2019]m |I am )?(very )?sorry\b|"
    r"I (can['\u2019]?t|cannot|won['\u2019]?t|will not|must decline|am (not able|unable)))",
    re.IGNORECASE,
)


def parse_text(text: str, scale: Scale) -> float | Literal["refused", "unparseable", "empty"]:
    """The answer on the scale, or why there is none; nothing is guessed between two numbers."""
    if not text.strip():
        return "empty"
    said = _unwrapped(text)
    if said is None or is_refusal_text(said):
        return "refused"
    if scale in ("binary", "binary_text"):
        words = set(_WORD.findall(said.upper()))
        if words == {"REFUSAL"}:
            return "refused"
        return {"YES": 1.0, "NO": 0.0}[words.pop()] if len(words) == 1 else "unparseable"
    top = 100 if scale == "0_100" else 9
    for part in (said, said.strip().splitlines()[-1]):
        found = {float(n) for n in _NUMBER.findall(part)}
        if len(found) == 1:
            value = found.pop()
            return value if value <= top else "unparseable"
    return "unparseable"


def is_refusal_text(text: str) -> bool:
    """Whether a reply begins as a refusal."""
    return _REFUSAL.match(text) is not None


def is_refusal_token(token: str) -> bool:
    """Whether a first token begins the word REFUSAL; tokenizers cut it after 2 to 4 letters."""
    text = token.strip().upper()
    return len(text) >= 2 and "REFUSAL".startswith(text)


def _unwrapped(text: str) -> str | None:
    """What stands in the <answer> tags or in the JSON object; None for a null answer."""
    tags = _TAG.findall(text)
    if tags:
        return str(tags[-1])
    try:
        body = json.loads(text)
    except ValueError:
        return text
    if not isinstance(body, dict) or len(body) != 1:
        return text
    value = next(iter(body.values()))
    return None if value is None else str(value)
