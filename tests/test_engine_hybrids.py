"""Protects layers that keep a state of fixed size, and chunked attention, on the fast core: each
row has its own, and nothing that runs beside it, before it or again leaves a trace there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine_work import plain, run, texts, tiny, work, worst_error
from tests.tiny_models import HYBRID_FAMILIES
from workers.engine.engine import build_engine
from workers.engine.generation import GenerationRequest, Intervention, Steering, UnitVectors
from workers.engine.refill import RefillCore
from workers.engine.running import WIDTHS_CPU
from workers.engine.states import StateStore
from workers.engine.steps import Outputs, Recorded
from workers.engine.teacher_forced import project_tokens, teacher_forced
from workers.models.model import LoadedModel


@pytest.fixture(scope="module")
def lfm2(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny(tmp_path_factory.mktemp("lfm2"), "lfm2")


LONG = ("qwen3_next", "jamba")


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=[pytest.mark.slow] if f in LONG else []) for f in HYBRID_FAMILIES],
)
def test_tokens_and_states_are_those_of_each_request_alone(family: str, tmp_path: Path) -> None:
    model = tiny(tmp_path, family)
    # a prompt of one token, which no prefill precedes, and others of several lengths
    requests = work(3, 3, longest=16)

    engine = build_engine(model, max_rows=5)
    made = run(engine, requests)

    assert engine.path == "engine"
    for request, ours in zip(requests, made, strict=True):
        response, (response_avg, prompt_last) = plain(model, request)
        assert ours.response_ids == response
        assert worst_error(ours.response_avg, response_avg) < 1e-5
        assert worst_error(ours.prompt_last, prompt_last) < 1e-5


def test_prompts_of_one_length_are_prefilled_together_and_others_apart(lfm2: LoadedModel) -> None:
    lengths: list[tuple[int, int]] = []

    def note(_: object, __: object, named: dict[str, torch.Tensor]) -> None:
        lengths.append(tuple(named["input_ids"].shape))  # type: ignore[arg-type]

    core = RefillCore(lfm2)
    hook = lfm2.model.model.register_forward_pre_hook(note, with_kwargs=True)
    prompts = [tuple(range(20, 30)), tuple(range(40, 46)), tuple(range(60, 70))]
    try:
        run(core, [GenerationRequest(ids, 1, work()[0].sampling) for ids in prompts])
    finally:
        hook.remove()

    assert lengths[:2] == [(2, 9), (1, 5)]


def test_long_responses_keep_their_states_from_bucket_to_bucket(lfm2: LoadedModel) -> None:
    requests = work(2, 4, longest=150)
    made = run(RefillCore(lfm2, max_rows=8), requests)

    assert max(len(generation.response_ids) for generation in made) > WIDTHS_CPU[0]
    prompts = [request.prompt_ids for request in requests]
    expected = teacher_forced(lfm2, prompts, texts(made)).response_avg
    assert worst_error(np.stack([g.response_avg for g in made]), expected) < 1e-5
    assert texts(made) == texts(run(RefillCore(lfm2, max_rows=3), requests))


def test_each_row_is_steered_and_projected_like_a_plain_pass(tmp_path: Path) -> None:
    model = tiny(tmp_path, "qwen3_5_text")
    a, b = np.random.default_rng(5).normal(size=(2, model.d_model)).astype(np.float32)
    units = UnitVectors((1, 3), np.stack([a, b]) / np.linalg.norm([a, b], axis=1, keepdims=True))
    ways = [
        None,
        Steering((Intervention(1, a, 0.7), Intervention(3, b, -0.5))),
        Steering((Intervention(2, a, 1.0, "ablate"),), "response"),
    ]
    mixed = [
        GenerationRequest(one.prompt_ids, one.seed, one.sampling, way, units)
        for one in work(2, 3, longest=20)
        for way in ways
    ]

    made = run(RefillCore(model, max_rows=7), mixed)

    for ours in made:
        prompt, way = ours.request.prompt_ids, ours.request.steering
        expected = teacher_forced(model, [prompt], [ours.response_ids], steering=way)
        assert worst_error(ours.response_avg, expected.response_avg[0]) < 1e-5
        assert worst_error(ours.prompt_avg, expected.prompt_avg[0]) < 1e-5
        [(_, projected)] = project_tokens(model, [prompt], [ours.response_ids], units, steering=way)
        assert ours.projections is not None
        np.testing.assert_allclose(ours.projections, projected, atol=1e-4)


def test_memory_that_runs_out_within_a_step_moves_no_state_on_twice(lfm2: LoadedModel) -> None:
    requests = work(3, 6, longest=30)
    expected = texts(run(RefillCore(lfm2), requests))
    core = RefillCore(lfm2, max_rows=16)
    calls = iter(range(10_000))

    def full(*_: object) -> None:
        if next(calls) == 25:
            raise torch.OutOfMemoryError("out of memory")

    # Behind the first layers, whose states have moved on by then.
    hook = lfm2.model.model.layers[-1].register_forward_hook(full)
    try:
        made = run(core, requests)
    finally:
        hook.remove()

    assert core.stats.halvings == 1
    assert texts(made) == expected


def test_recorded_steps_move_states_on_as_plain_ones_do(tmp_path: Path) -> None:
    model = tiny(tmp_path, "qwen3_5_text")
    requests = work(4, 4, longest=40)
    core = RefillCore(model, max_rows=12)
    store = core._running._states
    assert store is not None
    core._steps._recorder = ByHand(store)

    made = run(core, requests)

    assert core.stats.recorded_steps > core.stats.steps / 3
    assert texts(made) == texts(run(RefillCore(model, max_rows=12), requests))


class ByHand:
    """Runs the work again for a replay; like a graph, recording alone changes no state."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def record(self, work: Callable[[], Outputs]) -> tuple[Recorded, Outputs]:
        before = {key: held.clone() for key, held in self._store._held.items()}
        memory = work()
        for key, held in before.items():
            self._store._held[key].copy_(held)

        class Again:
            def replay(self) -> None:
                for kept, made in zip(memory, work(), strict=True):
                    kept.copy_(made)

        return Again(), memory
