"""The causal test that needs no judge, on a trait's kept responses as texts; see
`traitlens.assess.likelihood`. It also says where the search for the best push begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from domain.plan.jobs import Job
from domain.plan.likelihood import (
    MOST_TOKENS,
    N_RANDOM_PUSHES,
    NEUTRAL_TEXTS,
    PUSHED_LAYERS,
    PUSHED_TEXTS,
    STRENGTHS,
)
from domain.plan.samples import EVALUATION, Sample
from domain.plan.spec import TraitRef
from domain.plan.steering_search import steering_layers_apart
from domain.verdict.record import (
    Layers,
    LikelihoodFigures,
    PolarityCounts,
    PushFigures,
    Quality,
    TraitMetrics,
    VerdictName,
)
from domain.verdict.steering import P_SHOWN
from storage.record.artifacts import Decoders, load_record, read_artifact
from storage.record.judged_samples import training_jobs
from storage.record.responses import decode_arrays, load_activations, load_responses
from storage.record.results import read_response_vectors
from storage.record.run import Run
from tasks.stages.quality import estimates_of, layer_numbers
from tasks.stages.reduce import METRICS
from tasks.stages.steering_cells import DIRECTIONS, LIKELIHOOD, encode_directions
from traitlens.arrays import Float32, Float64, Ints
from traitlens.assess.likelihood import (
    N_FOLDS,
    N_RANDOM,
    HeldOutTexts,
    LikelihoodTest,
    likelihood_gain,
    likelihood_test,
    question_folds,
)
from traitlens.assess.random_directions import covariance_matched
from traitlens.methods import METHODS
from workers.engine.generation import Intervention, Steering
from workers.engine.likelihood import pushed_texts, text_gradients
from workers.engine.resident import Ids, Resident, Text

LIKELIHOOD_DECODERS: Decoders = {
    LIKELIHOOD: LikelihoodFigures.model_validate_json,
    DIRECTIONS: decode_arrays,
}

# With fewer texts or responses of a polarity in a fold one odd answer decides.
FEWEST = 4

# Rows that random directions are drawn of: more span nothing that matters.
MOST_ROWS = 200


@dataclass(frozen=True, eq=False)
class KeptResponses:
    """Kept samples with their mean activations [n, L+1, d_model], in the plan's order."""

    samples: Sequence[Sample]
    rows: Float32

    @classmethod
    def of(cls, run: Run, trait: TraitRef, kept: Sequence[Sample]) -> KeptResponses:
        """Those of a trait, from what its generate jobs stored."""
        wanted, samples, rows = set(kept), [], []
        for job in training_jobs(run, trait, "generate"):
            own = run.plan.samples(job)
            chosen = [k for k, sample in enumerate(own) if sample in wanted]
            samples += [own[k] for k in chosen]
            rows.append(load_activations(run.store, job).response_avg[chosen])
        return cls(samples, np.concatenate(rows))

    def by_polarity(self, fold: Mapping[int, int], but: int = -1) -> tuple[Ints, Ints]:
        """The rows of the positives and of the negatives but those of a fold of the questions."""
        sides: dict[str, list[int]] = {"positive": [], "negative": []}
        for k, sample in enumerate(self.samples):
            if fold.get(sample.question) != but:
                sides[sample.polarity].append(k)
        return np.array(sides["positive"], int), np.array(sides["negative"], int)

    def within(self, rows: tuple[Ints, Ints]) -> Float32:
        """Some of these rows, each centered in its polarity."""
        each = MOST_ROWS // len(rows)
        centered = [self.rows[side] - self.rows[side].mean(axis=0) for side in rows]
        return np.concatenate([side[:: -(-len(side) // each)] for side in centered])


@dataclass(frozen=True)
class CausalTest:
    """What a contexts job stores of it: files, and what its record says."""

    files: dict[str, bytes]
    info: dict[str, Any]


def causal_test(
    run: Run,
    trait: TraitRef,
    kept: Sequence[Sample],
    *,
    texts: Mapping[Sample, Text],
    resident: Resident,
) -> CausalTest:
    """Test the best vectors of what reduce made, and choose what the search for a push may add: a
    trait whose vectors reduce found no use for is steered with if they make its texts likelier.

    `texts` are a balanced part of what was `kept`: the ids of the question alone, and of the
    response. Empty where there are no vectors, or too few texts to test them with.
    """
    record = load_record(run.store, run.plan.own.trait_job("reduce", trait.name))
    metrics = read_artifact(run.store, record, METRICS, TraitMetrics.model_validate_json)
    quality = metrics.quality
    if quality is None:
        return CausalTest({}, {})
    rows = KeptResponses.of(run, trait, kept)
    few = dict(list(texts.items())[: run.plan.n_likelihood(trait)])
    found = likelihood_figures(run, trait, quality, kept=rows, texts=few, resident=resident)
    if found is None:
        return CausalTest({}, {})
    figures, ranked = found
    files = {LIKELIHOOD: figures.model_dump_json().encode()}
    if metrics.verdict == VerdictName.DO_NOT_USE and figures.p > P_SHOWN:
        return CausalTest(files, {})
    vectors = read_response_vectors(run.store, trait.name, quality.best.method)
    within = rows.within(rows.by_polarity({}))
    directions, steering = encode_directions(vectors, quality, ranked=ranked, within=within)
    return CausalTest(files | directions, {"steering": steering})


def likelihood_figures(
    run: Run,
    trait: TraitRef,
    quality: Quality,
    *,
    kept: KeptResponses,
    texts: Mapping[Sample, Text],
    resident: Resident,
) -> tuple[LikelihoodFigures, list[int]] | None:
    """The test of the best method's vectors on `texts`, a balanced part of what was kept, each the
    ids of its question alone and of its response; and the layers from the best down. None where
    too few are there to test with."""
    samples = [sample for sample, (_, ids) in texts.items() if ids]
    questions = sorted({sample.question for sample in kept.samples})
    fold = dict(zip(questions, question_folds(questions).tolist(), strict=True))
    held_out = _held_out(samples, fold)
    made_of = [kept.by_polarity(fold, but) for but in range(N_FOLDS)]
    sizes = [
        int(((held_out.fold == f) & (held_out.is_positive == polarity)).sum())
        for f in range(N_FOLDS)
        for polarity in (True, False)
    ]
    if min(*sizes, *(len(side) for rows in made_of for side in rows)) < FEWEST:
        return None
    vectors = np.stack([_vectors(kept, rows, quality.best.method) for rows in made_of])
    within = (kept.within(made_of[0]), kept.within(made_of[1]))
    read = [_cut(texts[sample]) for sample in samples]
    gradients = resident.read_in_turn(
        read, lambda prompts, ids: text_gradients(resident.model, prompts, ids)[1]
    )
    test = likelihood_test(np.stack(gradients), held_out, vectors, within)
    pushes = [
        _Push(layer, strength, number)
        for layer in steering_layers_apart(test.best, PUSHED_LAYERS)
        for number in (None, *range(N_RANDOM_PUSHES if layer == test.layer else 0))
        for strength in (STRENGTHS if number is None else STRENGTHS[-1:])
    ]
    random = [covariance_matched(one, N_RANDOM_PUSHES, seed=f) for f, one in enumerate(within)]
    steerings = [
        [one.steering(vectors[f], random[f], quality.residual_norm) for one in pushes]
        for f in range(N_FOLDS)
    ]
    log_p, damage = _measured(
        resident, read[:PUSHED_TEXTS], held_out.fold[:PUSHED_TEXTS], steerings
    )
    neutral = [_cut(one) for one in _neutral_texts(run, trait)]
    # every fold's vector has its share of these
    neutral_damage = _measured(resident, neutral, np.arange(len(neutral)) % N_FOLDS, steerings)[1]
    gains = likelihood_gain(log_p, _held_out(samples[:PUSHED_TEXTS], fold))
    figures = _push_figures(pushes, gains, neutral_damage[1:] if neutral else damage[1:])
    return _recorded(test, held_out, quality.best.method, figures), test.best


def _held_out(samples: Sequence[Sample], fold: Mapping[int, int]) -> HeldOutTexts:
    return HeldOutTexts(
        is_positive=np.array([sample.polarity == "positive" for sample in samples]),
        instruction=np.array([sample.instruction for sample in samples]),
        question=np.array([sample.question for sample in samples]),
        fold=np.array([fold[sample.question] for sample in samples]),
    )


def _vectors(kept: KeptResponses, rows: tuple[Ints, Ints], method: str) -> Float32:
    groups = tuple([kept.samples[int(k)].question for k in side] for side in rows)
    pos, neg = (kept.rows[side] for side in rows)
    return METHODS[method](pos, neg, groups=(groups[0], groups[1])).vectors


def _cut(text: Text) -> Text:
    prompt, ids = text
    return prompt, ids[:MOST_TOKENS]


def _neutral_texts(run: Run, trait: TraitRef) -> list[Text]:
    """Answers to evaluation questions without an instruction, one to each; empty without such."""
    found: dict[int, Text] = {}
    for job in run.plan.own.part_jobs(trait, "generate", EVALUATION):
        found |= _plain_texts(run, job)
    return [found[question] for question in sorted(found)][:NEUTRAL_TEXTS]


def _plain_texts(run: Run, job: Job) -> dict[int, Text]:
    samples = run.plan.samples(job)
    return {
        sample.question: (tuple(one.prompt_token_ids) + before, ids)
        for sample, one in zip(samples, load_responses(run.store, job), strict=True)
        for before, ids in [one.measured(run.spec.measure)]
        if sample.polarity == "plain" and ids
    }


@dataclass(frozen=True)
class _Push:
    """The vector, or the random direction of that number, with a strength at a layer."""

    layer: int
    strength: float
    number: int | None = None

    def steering(self, vectors: Float32, random: Float32, norms: Layers) -> Steering:
        """It, of vectors [L+1, d_model], random directions [k, L+1, d_model] and the mean norms
        of the residual stream."""
        along = (vectors if self.number is None else random[self.number])[self.layer]
        length = self.strength * (norms[self.layer] or 0.0)
        unit = along / max(float(np.linalg.norm(along)), np.finfo(np.float32).tiny)
        return Steering((Intervention(self.layer, (length * unit).astype(np.float32)),))


def _measured(
    resident: Resident,
    texts: Sequence[Text],
    folds: Ints,
    steerings: Sequence[Sequence[Steering]],
) -> Float64:
    """Log p and damage [2, 1 + pushes, n] of texts, each under the pushes of its fold."""
    measured = np.zeros((2, 1 + len(steerings[0]), len(texts)))
    for fold, pushes in enumerate(steerings):
        own = np.flatnonzero(folds == fold)

        def read(
            prompts: Sequence[Ids], ids: Sequence[Ids], pushes: Sequence[Steering] = pushes
        ) -> Float64:
            found = pushed_texts(resident.model, prompts, ids, pushes)
            return np.stack(found).transpose(2, 0, 1)

        if len(own):
            found = np.stack(resident.read_in_turn([texts[int(k)] for k in own], read))
            measured[:, :, own] = found.transpose(1, 2, 0)
    return measured


def _push_figures(pushes: Sequence[_Push], gains: Float64, damage: Float64) -> list[PushFigures]:
    """One for each push of the vector, from gains [pushes] and damage [pushes, n]."""
    found = []
    for row, push in enumerate(pushes):
        if push.number is not None:
            continue
        random = [
            k
            for k, one in enumerate(pushes)
            if one.number is not None and replace(one, number=None) == push
        ]
        found.append(
            PushFigures(
                layer=push.layer,
                strength=push.strength,
                gain=float(gains[row]),
                damage=float(damage[row].mean()),
                random_gain=tuple(gains[random].tolist()),
                random_damage=float(damage[random].mean()) if random else None,
            )
        )
    return found


def _recorded(
    test: LikelihoodTest, texts: HeldOutTexts, method: str, pushes: Sequence[PushFigures]
) -> LikelihoodFigures:
    return LikelihoodFigures(
        method=method,
        layer=test.layer,
        p=test.p,
        z=layer_numbers(test.z),
        gain=estimates_of(test.effect),
        n_texts=PolarityCounts(
            positive=int(texts.is_positive.sum()), negative=int((~texts.is_positive).sum())
        ),
        n_questions=len(set(texts.question.tolist())),
        n_random=N_RANDOM,
        most_tokens=MOST_TOKENS,
        pushes=tuple(pushes),
    )
