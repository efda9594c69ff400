"""A verdict from arrays, by the stages that every run goes through: reduce, verify of a stored run.

What is not in the arrays is left out of the run, so it has no evaluation questions and nothing is
steered. Fewer gates look at it than at a run of today: what passes here too often may still fall
there, and what falls here falls there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

import numpy as np

from domain.plan.jobs import Job
from domain.plan.samples import POLARITIES, Sample
from domain.plan.spec import ChecksSpec, JudgeSpec, ModelSpec, RunSpec, TraitRef
from domain.scoring.scores import Candidate, Evidence, Reply, Score, Scoring, Unscored
from domain.traits.definition import TraitDefinition
from domain.verdict.record import TraitMetrics
from storage.record.artifacts import publish_artifact
from storage.record.contexts import CONTEXTS, ContextActivations, encode_contexts
from storage.record.responses import (
    ACTIVATIONS,
    RESPONSES,
    Activations,
    Response,
    encode_activations,
    encode_responses,
)
from storage.record.results import kept_keys, read_metrics
from storage.record.run import Run, create_run
from storage.record.scorings import SCORINGS, encode_scorings
from storage.record.store import open_store
from tasks.stages.reduce import reduce
from tasks.stages.verify import verify
from traitlens.arrays import Bools, Float32, Float64, Ints

TRAIT = "control"


@dataclass(frozen=True, eq=False)
class Case:
    """n judged responses: activations [n, layers, d_model] under their own instruction, under the
    opposite one of its pair and under none; their cells, lengths and trait scores [n]."""

    own: Float32
    opposite: Float32
    plain: Float32
    is_pos: Bools
    instruction: Ints
    question: Ints
    n_tokens: Ints
    score: Float64

    def rows(self, chosen: Bools | Ints) -> Self:
        """The case of some of its responses."""
        return replace(self, **{one.name: getattr(self, one.name)[chosen] for one in fields(self)})


def verdict_of(case: Case, folder: Path) -> TraitMetrics:
    """What a run with these responses says; its record is written below a folder."""
    run, place = _run(case, folder)
    publish_artifact(run.store, run.plan.negotiate_job, files={}, info={"mode": "logprob"})
    trait = run.spec.traits[0]
    for job in run.plan.part_jobs(trait, "generate", *POLARITIES):
        _write(run, job, case, place)
    reduce(run, run.plan.trait_job("reduce", TRAIT))
    kept = sorted(kept_keys(run.store, f"traits/{TRAIT}"))
    rows = [place[key] for key in kept]
    read_again = ContextActivations(tuple(kept), case.opposite[rows], case.plain[rows])
    files = {CONTEXTS: encode_contexts(read_again)}
    for job in run.plan.contexts_jobs(trait):
        publish_artifact(run.store, job, files=files, info={})
    verify(run, run.plan.trait_job("verify", TRAIT))
    return read_metrics(run.store, TRAIT)


def _run(case: Case, folder: Path) -> tuple[Run, dict[str, int]]:
    """The run, and which row of the case is a sample's."""
    cells: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for k, is_pos in enumerate(case.is_pos):
        polarity = "positive" if is_pos else "negative"
        cells[polarity, int(case.instruction[k]), int(case.question[k])].append(k)
    n_instructions, n_questions = int(case.instruction.max()) + 1, int(case.question.max()) + 1
    definition = TraitDefinition.from_json(
        TRAIT,
        {
            "instruction": [{"pos": f"Positive {i}.", "neg": f"Negative {i}."} for i in range(99)][
                :n_instructions
            ],
            "questions": [f"Question {q}?" for q in range(n_questions)],
            "eval_prompt": "Score {question} {answer} from 0 to 100.",
        },
    )
    trait = TraitRef(
        name=TRAIT,
        fingerprint=definition.fingerprint(),
        n_instructions=n_instructions,
        n_questions=n_questions,
    )
    spec = RunSpec(
        traits=(trait,),
        model=ModelSpec(model_id="stored"),
        judge=JudgeSpec(model="stored", url="http://nowhere"),
        rollouts=max(len(rows) for rows in cells.values()),
        methods=("mean_diff",),
        checks=ChecksSpec(evaluation=0, causal=0),
    )
    run = create_run(
        open_store(str(folder)), spec, run_id="r", definitions={TRAIT: definition}, provenance={}
    )
    place = {}
    for (polarity, instruction, question), rows in cells.items():
        for rollout, k in enumerate(rows):
            sample = Sample(TRAIT, polarity, instruction, question, rollout)  # type: ignore[arg-type]
            place[sample.key] = k
    return run, place


def _write(run: Run, job: Job, case: Case, place: dict[str, int]) -> None:
    """A shard's artifacts; a sample that the case has no response for is one without a score."""
    samples = run.plan.samples(job)
    rows = [place.get(sample.key, -1) for sample in samples]
    activations = Activations(
        response_avg=case.own[rows],
        prompt_avg=case.own[:1],
        prompt_last=case.own[:1],
        prompt_of=np.zeros(len(rows), np.int64),
    )
    responses = [
        Response(sample.key, 0, "p", [1], "Stored.", [1] * int(case.n_tokens[k]), "stop")
        for sample, k in zip(samples, rows, strict=True)
    ]
    files = {RESPONSES: encode_responses(responses), ACTIVATIONS: encode_activations(activations)}
    publish_artifact(
        run.store, job, files=files, info={"model": "stored", "n_samples": len(samples)}
    )
    scorings = _scorings(samples, rows, case.score)
    publish_artifact(
        run.store,
        run.plan.judge_job(job),
        files={SCORINGS: encode_scorings(scorings)},
        info={"n_verdicts": len(scorings)},
    )


def _scorings(
    samples: Sequence[Sample], rows: Sequence[int], score: Float64
) -> list[tuple[str, str, Scoring]]:
    found: list[tuple[str, str, Scoring]] = []
    for sample, k in zip(samples, rows, strict=True):
        values = {"trait": float(np.clip(score[k], 0, 100)), "coherence": 90.0}
        for metric, value in values.items():
            empty = Unscored(reason="empty", detail="nothing was answered")
            found.append((sample.key, metric, empty if k < 0 else _scored(value)))
    return found


def _scored(value: float) -> Score:
    reply = Reply(text=f"{value:.0f}", candidates=(Candidate(token=f"{value:.0f}", probability=1),))
    evidence = Evidence(replies=(reply,))
    return Score(value=value, numeric_mass=1, refusal_mass=0, evidence=evidence)
