"""The responses that controls.py tests on: generated once by a real model, read in every context.

What is stored of each set, in a folder of its own name and size: mean activations of every response
[n, L+1, d_model] under its own instruction, under the opposite one of its pair and under none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from storage.files.trait_files import load_trait
from traitlens.arrays import Float32, Ints
from workers.engine.engine import Engine, build_engine
from workers.engine.generation import Generation, GenerationRequest, Sampling
from workers.engine.teacher_forced import teacher_forced
from workers.models.chat import render_prompt
from workers.models.model import load_model

BADGES = (
    (4117, 8352),
    (2068, 9541),
    (7730, 1294),
    (5586, 3407),
    (6219, 2873),
    (9064, 4728),
    (3195, 7642),
    (8801, 5930),
)

PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "badge": tuple((f"Your badge number is {a}.", f"Your badge number is {b}.") for a, b in BADGES),
    "length": (
        ("Give a long answer with many sentences.", "Answer in one short sentence."),
        ("Explain at length.", "Be as brief as you can."),
        ("Write a whole paragraph.", "Answer in five words or fewer."),
        ("Go into every detail.", "Give only the answer, nothing else."),
    ),
    "format": (
        ("Write your answer as a list with dashes.", "Write your answer as plain sentences."),
        ("Use a numbered list.", "Do not use a list."),
        ("Answer in bullet points.", "Answer in running text."),
        ("Put each point on a line of its own, with a dash.", "Write without line breaks."),
    ),
    "language": (
        ("Answer in French.", "Answer in English."),
        ("Write in Spanish.", "Write in English."),
        ("Your answer must be in French.", "Your answer must be in English."),
        ("Only use Spanish words.", "Only use English words."),
    ),
}
"""(positive, negative) instructions that change nothing, or one thing alone."""

OF_TRAITS = ("evil", "cheerful", "wordy", "bulleted")
"""Traits whose instructions are put before the very same texts, their first pairs."""

N_PAIRS_OF_TRAITS = 3
N_QUESTIONS = 10
# The figures of one layer depend on others in how many there are to choose from, no more.
N_LAYERS = 6


@dataclass(frozen=True, eq=False)
class Set:
    """n responses; `own`, `opposite` and `plain` are [n, layers, d_model]; the cell of each is its
    `instruction` pair, `question` and side (`is_pos`)."""

    own: Float32
    opposite: Float32
    plain: Float32
    is_pos: Ints
    instruction: Ints
    question: Ints
    n_tokens: Ints
    first_token: Ints


class _Asked(NamedTuple):
    is_pos: bool
    instruction: int
    question: int
    own: str
    opposite: str


def stored_sets(folder: Path, model: str, device: str, rollouts: int) -> dict[str, Set]:
    """The sets below a folder, made there first where they are missing: `badge`, `length`,
    `format`, `language`, and of each trait in OF_TRAITS its instructions before answers to the same
    questions without one (own is behind the positive one, opposite behind the negative one)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}-{rollouts}.npz" for name in (*PAIRS, *OF_TRAITS)}
    missing = [name for name, file in files.items() if not file.exists()]
    engine = build_engine(load_model(model, device=device)) if missing else None
    for name in missing:
        assert engine is not None
        made = generated(engine, name, rollouts) if name in PAIRS else before_texts(engine, name)
        _save(files[name], made)
        print(f"{name}: {len(made.own)} responses", flush=True)
    return {name: Set(**np.load(file)) for name, file in files.items()}


def _save(file: Path, found: Set) -> None:
    unfinished = file.with_suffix(".part.npz")
    np.savez(unfinished, **vars(found))
    unfinished.rename(file)


def generated(engine: Engine, name: str, rollouts: int) -> Set:
    """A set of PAIRS."""
    asked = [
        _Asked(is_pos, i, q, *(pair if is_pos else pair[::-1]))
        for is_pos in (True, False)
        for i, pair in enumerate(PAIRS[name])
        for q in range(N_QUESTIONS)
        for _ in range(rollouts)
    ]
    # where length is what differs it has to have room to
    made = _answers(
        engine,
        [(one.own, one.question) for one in asked],
        most=24 if name == "badge" else 48,
        seed=1000 * list(PAIRS).index(name),
    )
    pairs = [(one, done) for one, done in zip(asked, made, strict=True) if done.response_ids]
    texts = [(one.question, done.response_ids) for one, done in pairs]
    return Set(
        own=_layers(engine, np.stack([done.response_avg for _, done in pairs])),
        opposite=_read(engine, [one.opposite for one, _ in pairs], texts),
        plain=_read(engine, [None] * len(pairs), texts),
        is_pos=np.array([one.is_pos for one, _ in pairs], dtype=np.int64),
        instruction=np.array([one.instruction for one, _ in pairs]),
        question=np.array([one.question for one, _ in pairs]),
        **_facts(texts),
    )


def before_texts(engine: Engine, name: str) -> Set:
    """The first pairs of a trait's instructions, each before another text of each question."""
    answered = [(cell, done) for cell, done in _plain_answers(engine) if done.response_ids]
    texts = [(q, done.response_ids) for (_, q), done in answered]
    pairs = [load_trait(name).instruction[i] for (i, _), _ in answered]
    return Set(
        own=_read(engine, [pair.positive for pair in pairs], texts),
        opposite=_read(engine, [pair.negative for pair in pairs], texts),
        plain=_layers(engine, np.stack([done.response_avg for _, done in answered])),
        is_pos=np.ones(len(texts), dtype=np.int64),
        instruction=np.array([i for (i, _), _ in answered]),
        question=np.array([q for q, _ in texts]),
        **_facts(texts),
    )


@cache
def _plain_answers(engine: Engine) -> list[tuple[tuple[int, int], Generation]]:
    """One to each pair and question, without an instruction: the same for every trait."""
    cells = [(i, q) for i in range(N_PAIRS_OF_TRAITS) for q in range(N_QUESTIONS)]
    made = _answers(engine, [(None, q) for _, q in cells], most=24, seed=10**5)
    return list(zip(cells, made, strict=True))


_Text = tuple[int, Sequence[int]]
"""Which question, and the ids of a response to it."""


def _answers(
    engine: Engine, asked: Sequence[tuple[str | None, int]], *, most: int, seed: int
) -> list[Generation]:
    requests = [
        GenerationRequest(_prompt(engine, system, question), seed + k, Sampling(most), None, None)
        for k, (system, question) in enumerate(asked)
    ]
    engine.add(requests)
    made: dict[GenerationRequest, Generation] = {}
    while engine.has_work:
        made |= {one.request: one for one in engine.step()}
    return [made[one] for one in requests]


def _read(engine: Engine, systems: Sequence[str | None], texts: Sequence[_Text]) -> Float32:
    """Mean activations of texts behind other instructions."""
    prompts = [_prompt(engine, one, q) for one, (q, _) in zip(systems, texts, strict=True)]
    found = teacher_forced(engine.model, prompts, [ids for _, ids in texts])
    return _layers(engine, found.response_avg)


def _layers(engine: Engine, rows: Float32) -> Float32:
    return np.ascontiguousarray(rows[:, :: max(1, engine.model.n_layers // N_LAYERS)], np.float32)


def _facts(texts: Sequence[_Text]) -> dict[str, Ints]:
    return {
        "n_tokens": np.array([len(ids) for _, ids in texts]),
        "first_token": np.array([ids[0] for _, ids in texts]),
    }


@cache
def _prompt(engine: Engine, system: str | None, question: int) -> tuple[int, ...]:
    asked = load_trait("cheerful").questions[question]
    return tuple(render_prompt(engine.model, system=system, user=asked).token_ids)
