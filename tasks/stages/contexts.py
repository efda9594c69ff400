"""The contexts stage: kept responses read again under the opposite instruction and under none, and
the causal test on those read under none. Of scenarios, after the pair's other one and after none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from domain.plan.jobs import Job
from domain.plan.samples import Polarity, balanced_samples
from domain.scoring.thresholds import outcomes
from storage.record.artifacts import Record, publish_artifact
from storage.record.contexts import CONTEXTS, CONTEXTS_DECODERS, ContextActivations, encode_contexts
from storage.record.judged_samples import judged_samples, training_jobs
from storage.record.run import Run, load_definition
from tasks.stages.likelihood import LIKELIHOOD_DECODERS, causal_test
from traitlens.arrays import Float32
from workers.engine.resident import Resident, Residents, Text
from workers.engine.teacher_forced import teacher_forced
from workers.models.chat import put_scenario, render_prompt


def contexts(run: Run, job: Job, *, residents: Residents) -> Record:
    """Read a balanced part of the kept responses again: their own ids, after other prompts."""
    assert job.trait is not None
    trait, definition = run.spec.trait(job.trait), load_definition(run, job.trait)
    results = outcomes(judged_samples(run, training_jobs(run, trait, "generate")), run.spec.filter)
    kept = {one.sample: one for one, outcome in results if outcome.fall is None}
    chosen = balanced_samples([*kept], n=run.plan.n_contexts(trait))
    with residents.use(run.spec.model) as resident:

        @cache
        def prompt_ids(system: str | None, question: str) -> tuple[int, ...]:
            if definition.is_scenarios:
                found = put_scenario(resident.model, question, put=run.spec.scenarios)
                return found.token_ids
            return render_prompt(resident.model, system=system, user=question).token_ids

        def read(of: dict[Polarity, Polarity | None]) -> list[Text]:
            found = []
            for sample in chosen:
                assert sample.polarity != "plain"
                system = definition.system_turn(sample.instruction, of[sample.polarity] or "plain")
                before, ids = kept[sample].response.measured(run.spec.measure)
                question, other = kept[sample].question, of[sample.polarity]
                if definition.is_scenarios:
                    # the pair's other scenario stands for its other instruction; before a text that
                    # was not called up nothing stands at all
                    question = ""
                    if other is not None and run.spec.scenarios != "read":
                        question = definition.asked("", sample.question, other)
                found.append((prompt_ids(system, question) + before, ids))
            return found

        opposite = read({"positive": "negative", "negative": "positive"})
        plain = read({"positive": None, "negative": None})
        states = read_texts(resident, [*opposite, *plain])
        texts = dict(zip(chosen, plain, strict=True))
        causal = causal_test(run, trait, [*kept], texts=texts, resident=resident)
    n_tokens = sum(len(prompt) + len(ids) for prompt, ids in (*opposite, *plain))
    info: dict[str, Any] = {
        **causal.info,
        "n_texts": 2 * len(chosen),
        "n_read_tokens": n_tokens,
        "summary": f"{len(chosen)} responses in two other contexts, {n_tokens} tokens",
    }
    found = ContextActivations(
        keys=tuple(sample.key for sample in chosen),
        opposite=states[: len(chosen)],
        plain=states[len(chosen) :],
    )
    files = {CONTEXTS: encode_contexts(found), **causal.files}
    decoders = {**CONTEXTS_DECODERS, **LIKELIHOOD_DECODERS}
    return publish_artifact(run.store, job, files=files, info=info, decoders=decoders)


def read_texts(resident: Resident, texts: Sequence[Text]) -> Float32:
    """Mean activations [n, L+1, d_model] over each text's response; equal texts are read once and
    have equal rows."""
    model, different = resident.model, list(dict.fromkeys(texts))
    if not texts:
        return np.zeros((0, model.n_layers + 1, model.d_model), np.float32)
    found = resident.read_in_turn(
        different, lambda prompts, ids: teacher_forced(model, prompts, ids)[0]
    )
    states = dict(zip(different, found, strict=True))
    return np.stack([states[text] for text in texts])
