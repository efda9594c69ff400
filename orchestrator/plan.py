"""The plan of a run: its samples, and the jobs that carry them through the stages.

A plan follows from the run's specification alone, so every machine has the same one. Knows
nothing of what has been done already (see readiness).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.run_spec import RunSpec, TraitRef

Stage = Literal["probe", "generate", "judge", "reduce"]
Polarity = Literal["positive", "negative"]
POLARITIES: tuple[Polarity, ...] = ("positive", "negative")


@dataclass(frozen=True)
class Sample:
    """One cell: trait x polarity x instruction x question x rollout (indices from 0)."""

    trait: str
    polarity: Polarity
    instruction: int
    question: int
    rollout: int

    @property
    def key(self) -> str:
        """The sample's name, the same on every machine and in every run with these traits."""
        return (
            f"{self.trait}/{self.polarity}/i{self.instruction}/q{self.question:02d}/r{self.rollout}"
        )

    def seed(self, run_seed: int) -> int:
        """63-bit seed from the key and the run's seed alone: not of the worker, shard or resume."""
        digest = hashlib.sha256(f"{run_seed}/{self.key}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Job:
    """One stage over one shard of samples; `key` is its identity and its artifact's key.

    `judgement` names a later judging of the same responses; None is the run's own.
    """

    stage: Stage
    trait: str | None = None
    polarity: Polarity | None = None
    shard: int | None = None
    judgement: str | None = None

    @property
    def key(self) -> str:
        """Slash-separated: `probe`, `refusal/generate/positive-003`, `refusal/reduce@second`."""
        stage = self.stage if self.judgement is None else f"{self.stage}@{self.judgement}"
        if self.trait is None:
            return stage
        if self.polarity is None:
            return f"{self.trait}/{stage}"
        return f"{self.trait}/{stage}/{self.polarity}-{self.shard:03d}"


PROBE = Job("probe")


@dataclass(frozen=True)
class Plan:
    """All jobs of a run and the samples of each; of one judgement, the run's own when None."""

    spec: RunSpec
    judgement: str | None = None

    @property
    def probe(self) -> Job:
        """The job that finds out how the judge wants to be asked."""
        return Job("probe", judgement=self.judgement)

    def judge_job(self, generate: Job) -> Job:
        """The judge job over the responses of a generate job."""
        return Job("judge", generate.trait, generate.polarity, generate.shard, self.judgement)

    def reduce_job(self, trait: str) -> Job:
        """The job that makes a trait's vectors."""
        return Job("reduce", trait, judgement=self.judgement)

    def n_samples(self, trait: TraitRef) -> int:
        """Samples of a trait, both polarities."""
        return 2 * trait.n_instructions * trait.n_questions * self.spec.rollouts

    def n_samples_of(self, job: Job) -> int:
        """Samples of one generate or judge job."""
        assert job.trait is not None and job.shard is not None
        trait = self.spec.trait(job.trait)
        n_cells = trait.n_instructions * trait.n_questions - job.shard * self._cells_per_shard
        return min(n_cells, self._cells_per_shard) * self.spec.rollouts

    def n_shards(self, trait: TraitRef) -> int:
        """Shards of one polarity of a trait."""
        return -(-trait.n_instructions * trait.n_questions // self._cells_per_shard)

    def shard_jobs(self, trait: TraitRef, stage: Stage) -> list[Job]:
        """The stage's jobs over one trait, polarities alternating so that both sides grow alike."""
        judgement = None if stage == "generate" else self.judgement
        return [
            Job(stage, trait.name, polarity, shard, judgement)
            for shard in range(self.n_shards(trait))
            for polarity in POLARITIES
        ]

    def trait_jobs(self, trait: TraitRef) -> list[Job]:
        """Every job of one trait, inputs before what reads them."""
        generate, judge = self.shard_jobs(trait, "generate"), self.shard_jobs(trait, "judge")
        return [*generate, *judge, self.reduce_job(trait.name)]

    def jobs(self) -> Iterator[Job]:
        """Every job of the run."""
        yield self.probe
        for trait in self.spec.traits:
            yield from self.trait_jobs(trait)

    def samples(self, job: Job) -> list[Sample]:
        """The samples of a generate or judge job, the rollouts of a prompt side by side."""
        if job.trait is None or job.polarity is None or job.shard is None:
            raise ValueError(f"job {job.key} has no samples of its own")
        trait = self.spec.trait(job.trait)
        first = job.shard * self._cells_per_shard
        return [
            Sample(trait.name, job.polarity, instruction, question, rollout)
            for instruction, question in cells(trait)[first : first + self._cells_per_shard]
            for rollout in range(self.spec.rollouts)
        ]

    def parse_job(self, key: str) -> Job:
        """The plan's job of that key, of whichever judgement the key names; raises KeyError for a
        key that the plan does not contain."""
        name = key.partition("@")[2].partition("/")[0]
        plan = replace(self, judgement=name or None)
        if key == plan.probe.key:
            return plan.probe
        return _jobs_by_key(plan, key.partition("/")[0])[key]

    @property
    def _cells_per_shard(self) -> int:
        return max(1, self.spec.shard_samples // self.spec.rollouts)


# a worker parses a key a message, and a run of a million samples has thousands of jobs a trait
@functools.lru_cache(maxsize=16)
def _jobs_by_key(plan: Plan, trait: str) -> dict[str, Job]:
    return {job.key: job for job in plan.trait_jobs(plan.spec.trait(trait))}


def cells(trait: TraitRef) -> list[tuple[int, int]]:
    """(instruction, question) pairs in a Latin-square order.

    Any stretch of n_questions consecutive cells holds each question once and the instructions
    evenly (5 x 20: four times each), so a run that stops early is not biased to some of them.
    """
    n_i, n_q = trait.n_instructions, trait.n_questions
    stride = -(-n_q // n_i)
    return [(k % n_i, (k // n_i + stride * (k % n_i)) % n_q) for k in range(n_i * n_q)]
