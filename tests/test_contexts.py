"""Protects the reading of kept responses in other contexts: which ones, and what is measured."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from domain.plan.jobs import Plan
from domain.plan.samples import POLARITIES, Sample, balanced_samples, part_samples
from domain.plan.spec import ChecksSpec, ModelSpec, RunSpec
from tasks.stages.contexts import read_texts
from tests.engine_work import work
from tests.test_plan import spec, trait
from tests.tiny_models import save_tiny_model
from workers.engine.engine_thread import EngineClosedError
from workers.engine.resident import Residents, Text
from workers.models.model import LoadedModel


def kept_samples(rollouts: int = 4) -> list[Sample]:
    run = spec(rollouts=rollouts)
    return [sample for p in POLARITIES for sample in part_samples(run, trait(), p)]


def test_the_chosen_are_balanced_over_polarities_questions_and_instructions() -> None:
    chosen = balanced_samples(kept_samples(), n=120)

    assert len(set(chosen)) == 120
    assert set(Counter((s.polarity, s.question) for s in chosen).values()) == {3}
    assert set(Counter((s.polarity, s.instruction) for s in chosen).values()) == {12}
    assert chosen == balanced_samples(kept_samples()[::-1], n=120)


def test_a_question_kept_on_one_polarity_only_is_not_chosen() -> None:
    kept = [s for s in kept_samples() if s.polarity == "positive" or s.question < 3]

    chosen = balanced_samples(kept, n=120)

    assert {sample.question for sample in chosen} == {0, 1, 2}
    assert Counter(s.polarity for s in chosen) == {"positive": 60, "negative": 60}
    assert balanced_samples([s for s in kept if s.polarity == "positive"], n=120) == []


@pytest.mark.parametrize(("rollouts", "asked", "n"), [(10, 120, 120), (1, 120, 38), (10, 0, 0)])
def test_reading_again_takes_at_most_15_percent_of_what_is_generated(
    rollouts: int, asked: int, n: int
) -> None:
    plan = Plan(spec(rollouts=rollouts, checks=ChecksSpec(contexts=asked)))

    assert plan.n_contexts(trait()) == n
    generated = plan.n_samples(trait()) + plan.n_checked(trait())
    assert 2 * n <= 0.15 * generated
    assert [job.key for job in plan.contexts_jobs(trait())] == ["refusal/contexts"] * bool(n)


def test_a_run_recorded_before_there_was_the_setting_does_without() -> None:
    body = spec().model_dump(mode="json")
    del body["checks"]["contexts"]

    assert RunSpec.recorded(body).checks.contexts == 0
    assert RunSpec.recorded(spec().model_dump(mode="json")) == spec()


def plain_means(model: LoadedModel, text: Text) -> np.ndarray:
    """transformers alone: one text, no padding, the mean over the response at each layer."""
    prompt, response = text
    last: list[torch.Tensor] = []
    blocks = model.model.model.layers
    # what transformers reports last is behind the final norm
    hook = blocks[-1].register_forward_hook(lambda *found: last.append(found[-1]))
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *response]])
        states = list(model.model(ids, output_hidden_states=True).hidden_states)
    hook.remove()
    states[-1] = last[0][0] if isinstance(last[0], tuple) else last[0]
    return np.stack([one[0, len(prompt) :].double().mean(0).numpy() for one in states])


def test_texts_are_measured_as_transformers_does_while_the_engine_generates(tmp_path: Path) -> None:
    residents = Residents(device="cpu")
    requests = work(prompts=8)
    texts: list[Text] = [
        (request.prompt_ids, tuple(range(20, 21 + k % 9))) for k, request in enumerate(requests)
    ]
    with residents.use(ModelSpec(model_id=str(save_tiny_model(tmp_path, "llama")))) as resident:
        alone = resident.engine.generate(requests)
        with ThreadPoolExecutor(2) as pool:
            made = pool.submit(resident.engine.generate, requests)
            read = pool.submit(read_texts, resident, [*texts, *texts])
            states, again = read.result(), made.result()
        expected = np.stack([plain_means(resident.model, text) for text in texts])
    residents.close()

    scale = np.abs(expected).max()
    assert np.abs(states[: len(texts)] - expected).max() <= 1e-5 * scale
    # equal texts are equal to the last bit, whatever they were batched with
    assert (states[: len(texts)] == states[len(texts) :]).all()
    assert [one.response_ids for one in again] == [one.response_ids for one in alone]
    assert all(
        np.allclose(one.response_avg, other.response_avg, atol=1e-5 * scale)
        for one, other in zip(again, alone, strict=True)
    )


def test_what_an_errand_raises_is_its_callers_and_the_engine_goes_on(tmp_path: Path) -> None:
    residents = Residents(device="cpu")
    with residents.use(ModelSpec(model_id=str(save_tiny_model(tmp_path, "llama")))) as resident:
        engine = resident.engine
        with pytest.raises(ZeroDivisionError):
            engine.between_steps(lambda: 1 // 0)
        made = engine.generate(work(prompts=1, longest=4))
    residents.close()

    assert len(made) == 5
    with pytest.raises(EngineClosedError):
        engine.between_steps(lambda: 1)
