"""The plan of a run: its samples, and the jobs that carry them through the stages.

A plan follows from the run's specification alone, so every machine has the same one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from domain.plan.likelihood import n_likelihood_texts
from domain.plan.samples import (
    CONFIRMATION,
    EVALUATION,
    POLARITIES,
    ROUNDS,
    Sample,
    part_samples,
    part_size,
)
from domain.plan.spec import RunSpec, TraitRef

Stage = Literal["negotiate", "generate", "judge", "converge", "reduce", "contexts", "verify"]
STAGES: tuple[Stage, ...] = get_args(Stage)
FORMER_NEGOTIATE = "probe"
"""What runs made before call the negotiate stage; they are still read."""

CHECKED = (EVALUATION, *ROUNDS, CONFIRMATION)
"""The parts beside those that vectors are made from."""

# Of the responses that a trait generates: so many texts are read again, each response twice.
CONTEXTS_SHARE = 0.15


@dataclass(frozen=True)
class Job:
    """One stage over one shard of a part of the samples; `key` is its identity and its artifact's.

    `part` is one of orchestrator.samples', or `wave` and `stop` for the converge stage.
    `judgement` names a later judging of the same responses; None is the run's own.
    """

    stage: Stage
    trait: str | None = None
    part: str | None = None
    shard: int | None = None
    judgement: str | None = None

    @property
    def key(self) -> str:
        """Slash-separated: `negotiate`, `evil/generate/positive-003`, `evil/reduce@second`."""
        stage = self.stage if self.judgement is None else f"{self.stage}@{self.judgement}"
        if self.trait is None:
            return stage
        if self.part is None:
            return f"{self.trait}/{stage}"
        return f"{self.trait}/{stage}/{self.part}-{self.shard:03d}"


@dataclass(frozen=True)
class Plan:
    """All jobs of a run and the samples of each; of one judgement, the run's own when None."""

    spec: RunSpec
    judgement: str | None = None

    @property
    def negotiate_job(self) -> Job:
        """The job that finds out how the judge wants to be asked."""
        return Job("negotiate", judgement=self.judgement)

    @property
    def is_judged(self) -> bool:
        """Whether there are scores: a run without a judge may get them by a later judgement."""
        return self.judgement is not None or self.spec.judge.scores

    @property
    def settled_by(self) -> Literal["generate", "judge"]:
        """The stage after which a response is kept or not."""
        return "judge" if self.is_judged else "generate"

    @property
    def own(self) -> Plan:
        """The plan of the run's own judgement, which generated what later ones score."""
        return replace(self, judgement=None)

    def judge_job(self, generate: Job) -> Job:
        """The judge job over the responses of a generate job."""
        return Job("judge", generate.trait, generate.part, generate.shard, self.judgement)

    def settling_job(self, generate: Job) -> Job:
        """The job after which the responses of a generate job are kept or not."""
        return self.judge_job(generate) if self.is_judged else generate

    def trait_job(self, stage: Literal["reduce", "verify"], trait: str) -> Job:
        """The job that makes a trait's vectors, or the one that tests them."""
        return Job(stage, trait, judgement=self.judgement)

    def contexts_jobs(self, trait: TraitRef) -> list[Job]:
        """The job that reads kept responses again in other contexts, whoever judged them first;
        none with `contexts` 0."""
        return [Job("contexts", trait.name)] if self.n_contexts(trait) else []

    def n_contexts(self, trait: TraitRef) -> int:
        """Responses that are read again, at most: an even number, half of each polarity."""
        affordable = CONTEXTS_SHARE * (self.n_samples(trait) + self.n_checked(trait)) / 2
        if self.spec.scenarios == "read":
            # nothing is generated that it could be a share of
            affordable = self.n_samples(trait)
        return min(self.spec.checks.contexts, int(affordable)) // 2 * 2

    def n_likelihood(self, trait: TraitRef) -> int:
        """Of those, the responses that the causal test without a judge reads, at most."""
        return min(n_likelihood_texts(self.n_samples(trait)), self.n_contexts(trait))

    def last_job(self, trait: TraitRef) -> Job:
        """The job that ends a trait."""
        is_checked = any(self.size(trait, part) for part in CHECKED) or self.n_contexts(trait)
        return self.trait_job("verify" if is_checked else "reduce", trait.name)

    def size(self, trait: TraitRef, part: str) -> int:
        """Samples of one part of a trait."""
        return part_size(self.spec, trait, part)

    def n_samples(self, trait: TraitRef) -> int:
        """Samples that a trait's vectors are made from, both polarities."""
        return sum(self.size(trait, part) for part in POLARITIES)

    def n_checked(self, trait: TraitRef) -> int:
        """Samples that a trait's vectors are tested on."""
        return sum(self.size(trait, part) for part in CHECKED)

    def n_worked_on(self, trait: TraitRef) -> int:
        """Samples of a trait that go through the stages of this judgement, at most: those of its
        vectors, of their tests and of the search for the best push."""
        return self.n_samples(trait) + sum(self.size(trait, part) for part in self._checked_parts)

    def n_samples_of(self, job: Job) -> int:
        """Samples of one generate or judge job."""
        assert job.trait is not None and job.part is not None and job.shard is not None
        trait = self.spec.trait(job.trait)
        size = self._shard_size(trait, job.part)
        return min(self.size(trait, job.part) - job.shard * size, size)

    def n_shards(self, trait: TraitRef, part: str = "positive") -> int:
        """Shards of one part of a trait."""
        return -(-self.size(trait, part) // self._shard_size(trait, part))

    def part_jobs(self, trait: TraitRef, stage: Stage, *parts: str) -> list[Job]:
        """The stage's jobs over these parts, alternating so that all grow alike; without any, over
        what the vectors are made from and then over each of the other parts."""
        if stage == "judge" and not self.is_judged:
            return []
        if not parts:
            checked = self._checked_parts if stage == "judge" else CHECKED
            groups = (POLARITIES, *((part,) for part in checked))
            return [job for group in groups for job in self.part_jobs(trait, stage, *group)]
        judgement = None if stage == "generate" else self.judgement
        n_shards = {part: self.n_shards(trait, part) for part in parts}
        return [
            Job(stage, trait.name, part, shard, judgement)
            for shard in range(max(n_shards.values()))
            for part in parts
            if shard < n_shards[part]
        ]

    def wave_jobs(self, trait: TraitRef) -> list[Job]:
        """The jobs that look whether a trait has enough, one after each wave; none with `all`."""
        if self.spec.until == "all" or self.judgement is not None:
            return []
        return [Job("converge", trait.name, "wave", k) for k in range(self.n_shards(trait))]

    def trait_jobs(self, trait: TraitRef) -> list[Job]:
        """Every job of one trait, in about the order in which they become ready."""
        ends = dict.fromkeys((self.trait_job("reduce", trait.name), self.last_job(trait)))
        stages = [*self.part_jobs(trait, "generate"), *self.part_jobs(trait, "judge")]
        reduce, *verify = ends
        return [*stages, *self.wave_jobs(trait), reduce, *self.contexts_jobs(trait), *verify]

    def jobs(self) -> Iterator[Job]:
        """Every job of the run."""
        if self.is_judged:
            yield self.negotiate_job
        for trait in self.spec.traits:
            yield from self.trait_jobs(trait)

    def samples(self, job: Job) -> list[Sample]:
        """The samples of a generate or judge job."""
        if job.trait is None or job.part is None or job.shard is None:
            raise ValueError(f"job {job.key} has no samples of its own")
        trait = self.spec.trait(job.trait)
        size = self._shard_size(trait, job.part)
        return part_samples(self.spec, trait, job.part)[job.shard * size : (job.shard + 1) * size]

    def parse_job(self, key: str) -> Job:
        """The plan's job of that key, of whichever judgement the key names; raises KeyError for a
        key that the plan does not contain."""
        name = key.partition("@")[2].partition("/")[0]
        plan = replace(self, judgement=name or None)
        negotiate = plan.negotiate_job
        if key in (negotiate.key, negotiate.key.replace("negotiate", FORMER_NEGOTIATE)):
            return negotiate
        return _jobs_by_key(plan, key.partition("/")[0])[key]

    @property
    def _checked_parts(self) -> tuple[str, ...]:
        """A later judgement scores what its results need: the search for the best push was made by
        the scores of the first."""
        return CHECKED if self.judgement is None else (EVALUATION, CONFIRMATION)

    def _shard_size(self, trait: TraitRef, part: str) -> int:
        if part == EVALUATION:
            return self.spec.shard_samples
        if part not in POLARITIES:
            # one shard: whoever chooses the pushes of a round chooses them for all its samples
            return max(1, self.size(trait, part))
        if self.spec.until == "converged":
            # a wave: each question once, the instructions evenly
            return trait.n_questions
        rollouts = self.spec.rollouts
        return max(1, self.spec.shard_samples // rollouts) * rollouts


# a worker parses a key a message, and a run of a million samples has thousands of jobs a trait
@functools.lru_cache(maxsize=16)
def _jobs_by_key(plan: Plan, trait: str) -> dict[str, Job]:
    return {job.key: job for job in plan.trait_jobs(plan.spec.trait(trait))}
