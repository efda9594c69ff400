"""Trait files made for tests: one without a problem, and ways to change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from domain.traits.definition import TraitDefinition

PROMPT = "Rate **humor**.\n{question}\n{answer}\nReply with a number from 0 to 100."


def trait_json(**changed: Any) -> dict[str, Any]:
    """A trait file without a problem, but for what is changed."""
    return {
        "instruction": [{"pos": f"Be funny {i}.", "neg": f"Be dry {i}."} for i in range(5)],
        "questions": [f"What is thing {i}?" for i in range(20)],
        "eval_prompt": PROMPT,
        "eval_questions": [f"Where is place {i}?" for i in range(20)],
    } | changed


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in trait_json().items() if k != key}


def definition(eval_prompt: str = PROMPT) -> TraitDefinition:
    return TraitDefinition.from_json("humor", trait_json(eval_prompt=eval_prompt))


def write(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
