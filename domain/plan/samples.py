"""Samples: what is generated, in parts with a purpose each; keys and seeds follow from the
specification alone.

* positive, negative: what the vectors are made from, one part for each polarity
* evaluation: held-out questions with positive, negative and no instruction
* steering-1, -2 ...: rounds of the search for the layer and strength that steer best
* confirmation: fresh samples of the best push, beside random vectors and none

and which of the kept ones are read again in other contexts.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from domain.plan.spec import RunSpec, TraitRef

Polarity = Literal["positive", "negative"]
AnyPolarity = Literal["positive", "negative", "plain"]
POLARITIES: tuple[Polarity, ...] = ("positive", "negative")
ANY_POLARITY: tuple[AnyPolarity, ...] = (*POLARITIES, "plain")
"""The polarities, and no instruction."""

EVALUATION = "evaluation"
CONFIRMATION = "confirmation"

# Successive halving over 4 layers x 3 strengths: each round keeps the better half and gives each
# survivor twice the samples, so every round costs the same.
ROUND_CELLS = (12, 6, 3)

ROUND_SAMPLES = (2, 4, 8)
ROUNDS = tuple(f"steering-{number + 1}" for number in range(len(ROUND_CELLS)))


@dataclass(frozen=True)
class Sample:
    """One response to generate (indices from 0).

    `question` counts the trait's evaluation questions outside of training. `cell` says which of a
    round's pushes is added; None is no push.
    """

    trait: str
    polarity: AnyPolarity
    instruction: int
    question: int
    rollout: int
    part: str = ""
    cell: int | None = None

    @property
    def key(self) -> str:
        """The sample's name, the same on every machine and in every run with these traits."""
        instruction = "" if self.polarity == "plain" else f"/i{self.instruction}"
        which = self.polarity if self.cell is None else f"c{self.cell:02d}"
        part = f"{self.part}/" if self.part else ""
        return f"{self.trait}/{part}{which}{instruction}/q{self.question:02d}/r{self.rollout}"

    def seed(self, run_seed: int) -> int:
        """63-bit seed from the key and the run's seed alone: not of the worker, shard or resume."""
        digest = hashlib.sha256(f"{run_seed}/{self.key}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


def part_size(spec: RunSpec, trait: TraitRef, part: str) -> int:
    """Number of samples of a part; 0 for one that the run does without."""
    if part in POLARITIES:
        return trait.n_instructions * trait.n_questions * spec.rollouts
    if part == EVALUATION:
        return len(ANY_POLARITY) * trait.n_eval_questions * spec.checks.evaluation
    if not trait.n_eval_questions or not spec.checks.causal:
        return 0
    if part == CONFIRMATION:
        return n_confirmed_cells(spec) * spec.checks.causal
    number = ROUNDS.index(part)
    return ROUND_CELLS[number] * ROUND_SAMPLES[number]


def n_confirmed_cells(spec: RunSpec) -> int:
    """Pushes that are confirmed: none, the vector at each dose, and random vectors at the same."""
    return 1 + 2 * spec.checks.doses


def part_samples(spec: RunSpec, trait: TraitRef, part: str) -> list[Sample]:
    """A part's samples in the plan's order.

    Of a polarity the rollouts of a prompt stand side by side; with `until` converged all prompts
    come once, then again, since another prompt tells more of the direction than another rollout.
    """
    for polarity in POLARITIES:
        if part == polarity:
            pairs, rollouts = sample_cells(trait), range(spec.rollouts)
            if spec.until == "converged":
                return [Sample(trait.name, polarity, i, q, r) for r in rollouts for i, q in pairs]
            return [Sample(trait.name, polarity, i, q, r) for i, q in pairs for r in rollouts]
    if part == EVALUATION:
        return _evaluation_samples(spec, trait)
    if not part_size(spec, trait, part):
        return []
    if part == CONFIRMATION:
        return _pushed_samples(trait, part, n_confirmed_cells(spec), spec.checks.causal)
    number = ROUNDS.index(part)
    return _pushed_samples(trait, part, ROUND_CELLS[number], ROUND_SAMPLES[number])


def sample_cells(trait: TraitRef) -> list[tuple[int, int]]:
    """(instruction, question) pairs in waves of n_questions, a Latin rectangle.

    Any stretch of n_questions consecutive cells holds each question once and the instructions as
    evenly as their number allows (5 x 20: four times each), so a run that stops early is not
    biased to some of them.
    """
    n_i, n_q = trait.n_instructions, trait.n_questions
    return [((question + wave) % n_i, question) for wave in range(n_i) for question in range(n_q)]


def _evaluation_samples(spec: RunSpec, trait: TraitRef) -> list[Sample]:
    """Each question in each polarity and in none, the instruction pairs taking turns."""
    return [
        Sample(
            trait.name,
            polarity,
            (question + rollout) % trait.n_instructions,
            question,
            rollout,
            EVALUATION,
        )
        for rollout in range(spec.checks.evaluation)
        for question in range(trait.n_eval_questions)
        for polarity in ANY_POLARITY
    ]


def _pushed_samples(trait: TraitRef, part: str, n_cells: int, n_each: int) -> list[Sample]:
    """Every cell answers the same questions without an instruction, so that cells compare.

    The confirmation begins behind the questions that the search chose its push by, as far as there
    are others.
    """
    n_questions = trait.n_eval_questions
    first = ROUND_SAMPLES[-1] if part == CONFIRMATION else 0
    return [
        Sample(trait.name, "plain", 0, (first + k) % n_questions, k // n_questions, part, cell)
        for cell in range(n_cells)
        for k in range(n_each)
    ]


def balanced_samples(kept: Sequence[Sample], *, n: int) -> list[Sample]:
    """At most n of the kept training samples, as many of each polarity and, of each question, as
    many of one polarity as of the other; the instructions of a question take turns.

    Which rollout is taken follows from the sample's key alone, so the choice is the same on
    every machine.
    """
    by_question: dict[tuple[int, Polarity], list[Sample]] = defaultdict(list)
    for sample in kept:
        if sample.polarity != "plain":
            by_question[sample.question, sample.polarity].append(sample)
    queues = {place: _in_turn(found) for place, found in by_question.items()}
    questions = sorted({question for question, _ in queues})
    chosen: list[Sample] = []
    depth = 0
    while len(chosen) + 2 <= n:
        both = [[queues.get((q, p), [])[depth : depth + 1] for p in POLARITIES] for q in questions]
        pairs = [[*positive, *negative] for positive, negative in both if positive and negative]
        if not pairs:
            break
        for pair in pairs[: (n - len(chosen)) // 2]:
            chosen += pair
        depth += 1
    return chosen


def _in_turn(samples: Sequence[Sample]) -> list[Sample]:
    """A question's samples of a polarity: each instruction once, then each once more; every
    question begins with another one."""
    rank: dict[int, int] = defaultdict(int)
    places = []
    for sample in sorted(samples, key=lambda s: s.seed(0)):
        places.append((rank[sample.instruction], sample.instruction, sample))
        rank[sample.instruction] += 1
    n = max(sample.instruction for sample in samples) + 1
    shift = samples[0].question
    return [s for *_, s in sorted(places, key=lambda p: (p[0], (p[1] - shift) % n))]
