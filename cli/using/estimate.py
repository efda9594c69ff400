"""What a plan comes to before it is begun: responses, judge calls, tokens and money.

Tokens are estimated from the actual prompts' characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import ceil

from domain.plan.jobs import Job, Plan, Stage
from domain.plan.likelihood import likelihood_tokens
from domain.plan.readiness import is_job_needed
from domain.plan.spec import RunSpec, TraitRef
from domain.scoring.prices import BATCH_SHARE, Price
from domain.thoughts import Thinking
from domain.traits.definition import TraitDefinition
from domain.traits.room import CHARACTERS_PER_TOKEN
from storage.record.artifacts import DamagedArtifactError
from storage.record.run import Run
from storage.record.spending import Terms


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
    those that vectors are tested on, `n_contexts` responses are read again in two other contexts.
    `tokens` are generated in all, and the causal test without a judge reads `test_tokens`.
    """

    trait: str
    n_samples: int
    n_checked: int
    n_contexts: int
    n_generated: int
    n_judged: int
    n_to_generate: int
    n_judge_calls: int
    judge_prompt_tokens: int
    tokens: int
    test_tokens: int

    def usd(self, price: Price, asking: Asking) -> float:
        """What the calls still to make will cost."""
        return asking.votes * price.usd(
            prompt_tokens=self.judge_prompt_tokens,
            completion_tokens=self.n_judge_calls * asking.completion_tokens,
        )


def tokens_expected(spec: RunSpec) -> int:
    """A response's tokens as they are guessed before any was made: half of the longest."""
    return max(1, spec.sampling.max_new_tokens // 2)


def thought_tokens_expected(spec: RunSpec, thinks: Thinking | None) -> int:
    """The same of the thought before it."""
    return spec.sampling.max_thought_tokens // 2 if thinks and thinks.may_think else 0


def estimate_plan(
    plan: Plan,
    definitions: Mapping[str, TraitDefinition],
    *,
    done: AbstractSet[str],
    thought_tokens: int = 0,
) -> list[TraitEstimate]:
    """One estimate per trait; `done` are the keys of the jobs that have ended, a response begins
    with so many tokens of thought."""
    response_tokens, generates = tokens_expected(plan.spec), plan.spec.scenarios != "read"
    found = []
    for trait in plan.spec.traits:
        definition = definitions[trait.name]
        questions = definition.questions[: trait.n_questions]
        characters = sum(
            len(definition.judge_prompt(q, "")) + len(definition.coherence_prompt(q, ""))
            for q in questions
        )
        per_response = characters / len(questions) / CHARACTERS_PER_TOKEN + 2 * response_tokens
        question_tokens = sum(map(len, questions)) / len(questions) / CHARACTERS_PER_TOKEN
        n_checked = plan.n_checked(trait)
        n_samples = plan.n_samples(trait) + n_checked
        n_to_judge = _n_left(plan, trait, "judge", done)
        found.append(
            TraitEstimate(
                trait=trait.name,
                n_samples=n_samples,
                n_checked=n_checked,
                n_contexts=plan.n_contexts(trait),
                n_generated=_n_done(plan, trait, "generate", done),
                n_judged=_n_done(plan, trait, "judge", done) if plan.is_judged else n_samples,
                n_to_generate=_n_left(plan, trait, "generate", done),
                # trait and coherence of each
                n_judge_calls=2 * n_to_judge,
                judge_prompt_tokens=ceil(n_to_judge * per_response),
                tokens=n_samples * (response_tokens + thought_tokens) if generates else 0,
                test_tokens=ceil(
                    likelihood_tokens(plan.n_likelihood(trait), question_tokens, response_tokens)
                ),
            )
        )
    return found


def estimate_judgement(
    run: Run, found: list[TraitEstimate], *, done: AbstractSet[str]
) -> list[TraitEstimate]:
    """The estimates of a later judgement, by the stored responses that it asks about; where they
    are missing or damaged, and made again first, the plan's."""
    return [
        _of_stored(run, one, _jobs_left(run.plan, trait, "judge", done))
        for one, trait in zip(found, run.spec.traits, strict=True)
    ]


def _of_stored(run: Run, planned: TraitEstimate, jobs: list[Job]) -> TraitEstimate:
    # what reads tables is not loaded for --help
    from storage.record.judgements import asked_prompts
    from storage.record.scorings import load_partial_scorings

    n_calls, n_tokens = 0, 0.0
    try:
        for job in jobs:
            answered = load_partial_scorings(run.store, job)
            prompts = [text for k, text in asked_prompts(run, job)[0].items() if k not in answered]
            n_calls += len(prompts)
            n_tokens += sum(map(len, prompts)) / CHARACTERS_PER_TOKEN
    except (KeyError, DamagedArtifactError):
        return planned
    return replace(planned, n_judge_calls=n_calls, judge_prompt_tokens=ceil(n_tokens))


def _n_done(plan: Plan, trait: TraitRef, stage: Stage, done: AbstractSet[str]) -> int:
    jobs = plan.part_jobs(trait, stage)
    return sum(plan.n_samples_of(job) for job in jobs if job.key in done)


def _n_left(plan: Plan, trait: TraitRef, stage: Stage, done: AbstractSet[str]) -> int:
    return sum(plan.n_samples_of(job) for job in _jobs_left(plan, trait, stage, done))


def _jobs_left(plan: Plan, trait: TraitRef, stage: Stage, done: AbstractSet[str]) -> list[Job]:
    jobs = plan.part_jobs(trait, stage)
    return [job for job in jobs if job.key not in done and is_job_needed(plan, job, done)]


def plan_usd(
    spec: RunSpec, found: list[TraitEstimate], terms: Terms, asking: Asking = WITH_LOGPROBS
) -> float | None:
    """What the judge calls still to make will cost; None where the price is unknown."""
    if spec.judge.votes is not None:
        asking = replace(asking, votes=spec.judge.votes)
    if terms.price is None:
        return None
    share = BATCH_SHARE if terms.batch else 1.0
    return share * sum(e.usd(terms.price, asking) for e in found)


def plan_cost(spec: RunSpec, found: list[TraitEstimate], terms: Terms) -> str:
    """What the judge will cost, in words; an unknown price is said, never taken for nothing."""
    if not spec.judge.scores:
        return "nobody is asked, so it costs nothing"
    if spec.judge.url == "embedded":
        return "runs on this machine and costs nothing"
    price = terms.price
    if price is None:
        return "its price is unknown, so no sum is given (give one with --prices)"
    usual, thinking = plan_usd(spec, found, terms), plan_usd(spec, found, terms, WITHOUT_LOGPROBS)
    parts = [
        f"about ${usual:.4g} with token probabilities, up to ${thinking:.4g} if it gives none",
        f"(${price.input:g} in, ${price.output:g} out per million tokens; {price.source})",
    ]
    if terms.cap_usd is not None:
        parts.append(f"at most ${terms.cap_usd:g} by --budget")
    if price.retires:
        parts.append(f"its vendor announced that it closes on {price.retires}")
    return ", ".join([" ".join(parts[:2]), *parts[2:]])


def plan_line(found: list[TraitEstimate]) -> str:
    """What a run will do, in a line."""
    n_traits = len(found)
    responses, tests, left, calls, tokens = (
        sum(getattr(one, name) for one in found)
        for name in (
            "n_samples",
            "n_checked",
            "n_to_generate",
            "n_judge_calls",
            "judge_prompt_tokens",
        )
    )
    parts = [
        f"{found[0].trait if n_traits == 1 else f'{n_traits} traits'}: {responses:,} responses",
        f"{tests:,} of them tests of the vectors",
    ]
    if left < responses:
        parts.append(f"{left:,} still to generate")
    if calls:
        parts.append(f"{calls:,} judge calls of about {tokens:,} tokens")
    return ", ".join(parts)
