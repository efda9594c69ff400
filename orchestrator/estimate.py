"""What a run will ask for: samples, calls, tokens, before anything is spent.

Tokens are estimated from the actual prompts' characters; the estimate says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import ceil

from domain.plan.jobs import Plan, Stage
from domain.plan.spec import TraitRef
from domain.scoring.prices import Price
from domain.traits.definition import TraitDefinition
from domain.traits.prompts import coherence_prompt

# English in the tokenizers of current models: 4 to 4.7 characters a token; the low end is safe.
CHARACTERS_PER_TOKEN = 4.0


@dataclass(frozen=True)
class Asking:
    """How often a scoring is asked and how long its answers are, in tokens."""

    votes: int
    completion_tokens: float


# Calls measured on gpt-4-class judges are charged one token for the number.
WITH_LOGPROBS = Asking(votes=1, completion_tokens=1)

# Without token probabilities a scoring takes three votes; a judge that thinks first was charged
# about 200 tokens each.
WITHOUT_LOGPROBS = Asking(votes=3, completion_tokens=200)


@dataclass(frozen=True)
class TraitEstimate:
    """What one trait still needs at most, and what exists already; `n_checked` of the samples are
    those that vectors are tested on."""

    trait: str
    n_samples: int
    n_checked: int
    n_generated: int
    n_judged: int
    judge_prompt_tokens: int

    @property
    def n_to_generate(self) -> int:
        """Responses still to generate."""
        return self.n_samples - self.n_generated

    @property
    def n_calls(self) -> int:
        """Judge calls still to make: trait and coherence of each response."""
        return 2 * (self.n_samples - self.n_judged)

    def usd(self, price: Price, asking: Asking) -> float:
        """What the calls still to make will cost."""
        return asking.votes * price.usd(
            prompt_tokens=self.judge_prompt_tokens,
            completion_tokens=self.n_calls * asking.completion_tokens,
        )


def estimate(
    plan: Plan, definitions: Mapping[str, TraitDefinition], *, done: AbstractSet[str]
) -> list[TraitEstimate]:
    """One estimate per trait; `done` are the keys of the jobs that have ended."""
    # half of the longest response is a fair guess before any was made
    response_tokens = plan.spec.sampling.max_new_tokens // 2
    found = []
    for trait in plan.spec.traits:
        definition = definitions[trait.name]
        questions = definition.questions[: trait.n_questions]
        characters = sum(
            len(definition.judge_prompt(q, "")) + len(coherence_prompt(q, "")) for q in questions
        )
        per_response = characters / len(questions) / CHARACTERS_PER_TOKEN + 2 * response_tokens
        n_checked = plan.n_checked(trait)
        n_samples = plan.n_samples(trait) + n_checked
        judged = _n_done(plan, trait, "judge", done)
        found.append(
            TraitEstimate(
                trait=trait.name,
                n_samples=n_samples,
                n_checked=n_checked,
                n_generated=_n_done(plan, trait, "generate", done),
                n_judged=judged,
                judge_prompt_tokens=ceil((n_samples - judged) * per_response),
            )
        )
    return found


def _n_done(plan: Plan, trait: TraitRef, stage: Stage, done: AbstractSet[str]) -> int:
    jobs = plan.stage_jobs(trait, stage)
    return sum(plan.n_samples_of(job) for job in jobs if job.key in done)
