"""Every token is projected in the step that runs it, and its projections are its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine_work import run, texts, tiny, work
from traitlens.capture.hooks import ActivationCapture, HookManager
from traitlens.compute import projection
from workers.engine.fallback import GenerateCore
from workers.engine.generation import (
    Generation,
    GenerationRequest,
    Intervention,
    Steering,
    UnitVectors,
)
from workers.engine.refill import RefillCore
from workers.engine.teacher_forced import project_tokens
from workers.models.model import LoadedModel

LAYERS = (0, 2, 2, 3, 4)


def directions(seed: int = 0) -> UnitVectors:
    vectors = np.random.default_rng(seed).normal(size=(len(LAYERS), 48)).astype(np.float32)
    return UnitVectors(LAYERS, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def projected(requests: list[GenerationRequest], on: UnitVectors) -> list[GenerationRequest]:
    return [replace(request, directions=on) for request in requests]


def alone(model: LoadedModel, ids: tuple[int, ...], on: UnitVectors) -> np.ndarray:
    """Projections [tokens, k] by the toolkit's hooks in a forward pass of this text only."""
    capture = ActivationCapture()
    with HookManager(model.model) as hooks, torch.inference_mode():
        hooks.add_forward_hook("model.embed_tokens", capture.make_hook("0"))
        for block in range(model.n_layers):
            hooks.add_forward_hook(f"model.layers.{block}", capture.make_hook(str(block + 1)))
        model.model(torch.tensor([ids]))
    columns = [
        projection(capture.get(str(layer))[0], torch.from_numpy(unit))
        for layer, unit in zip(on.layers, on.units, strict=True)
    ]
    return torch.stack(columns, dim=1).numpy()


@pytest.mark.parametrize("core", [RefillCore, GenerateCore])
def test_each_token_reads_as_in_a_forward_pass_of_its_text_alone(
    core: type[RefillCore] | type[GenerateCore], tmp_path: Path
) -> None:
    model, on = tiny(tmp_path, "llama"), directions()
    requests = projected(work(prompts=4, rollouts=3), on)

    made = run(core(model, max_rows=7), requests)

    for request, generation in zip(requests, made, strict=True):
        assert generation.projections is not None
        expected = alone(model, (*request.prompt_ids, *generation.response_ids), on)
        scale = np.abs(expected).max()
        assert np.abs(generation.projections[:, 0] - expected).max() < 1e-5 * max(scale, 1)
        assert (generation.projections[:, 1] >= np.abs(expected) - 1e-4).all()


def test_one_row_at_a_time_reads_as_many_do(tmp_path: Path) -> None:
    model, on = tiny(tmp_path, "gemma2"), directions()
    requests = projected(work(prompts=4, rollouts=2), on)

    batched, single = run(RefillCore(model), requests), run(RefillCore(model, max_rows=1), requests)

    assert texts(batched) == texts(single)
    for ours, theirs in zip(batched, single, strict=True):
        assert ours.projections is not None and theirs.projections is not None
        np.testing.assert_allclose(ours.projections, theirs.projections, rtol=1e-5, atol=1e-4)


def test_requests_that_are_not_read_lie_beside_those_that_are(tmp_path: Path) -> None:
    model, one, other = tiny(tmp_path, "llama"), directions(), directions(seed=1)
    plain = work(prompts=3, rollouts=2)
    mixed = [
        *plain,
        *(replace(r, directions=one) for r in plain),
        *(replace(r, directions=other) for r in plain),
    ]

    made = run(RefillCore(model), mixed)

    n = len(plain)
    assert texts(made)[:n] == texts(made)[n : 2 * n] == texts(made)[2 * n :]
    assert all(generation.projections is None for generation in made[:n])
    for ours, theirs in zip(made[n : 2 * n], made[2 * n :], strict=True):
        assert ours.projections is not None and theirs.projections is not None
        assert not np.allclose(ours.projections[:, 0], theirs.projections[:, 0])
        np.testing.assert_allclose(ours.projections[:, 1], theirs.projections[:, 1], rtol=1e-5)


def test_projections_are_of_the_states_after_steering(tmp_path: Path) -> None:
    model, on = tiny(tmp_path, "llama"), directions()
    vector = np.random.default_rng(3).normal(size=48).astype(np.float32)
    steering = Steering((Intervention(2, vector, 4.0),), "response")
    requests = [replace(r, steering=steering) for r in projected(work(3, 2), on)]

    made = run(RefillCore(model), requests)

    prompts = [request.prompt_ids for request in requests]
    expected = dict(project_tokens(model, prompts, texts(made), on, steering=steering))
    for row, generation in enumerate(made):
        assert generation.projections is not None
        np.testing.assert_allclose(generation.projections, expected[row], rtol=1e-5, atol=1e-3)


def test_running_sequences_grow_to_what_the_generation_holds(tmp_path: Path) -> None:
    model, on = tiny(tmp_path, "llama"), directions()
    requests = projected(work(prompts=3, rollouts=2), on)
    core = RefillCore(model)
    core.add(requests)
    seen: dict[GenerationRequest, list[np.ndarray]] = {}
    made: dict[GenerationRequest, Generation] = {}

    while core.has_work:
        made |= {generation.request: generation for generation in core.step()}
        for row in core.running():
            # the first is that of the prompt's last token
            own = row.projections[1:]
            assert len(own) in (len(row.response_ids), len(row.response_ids) - 1)
            assert len(own) >= len(seen.get(row.request, []))
            seen[row.request] = own

    assert any(seen.values())
    for request in requests:
        generation, projections = made[request], seen.get(request, [])
        assert generation.projections is not None
        response = generation.projections[len(request.prompt_ids) :]
        for ours, theirs in zip(projections, response, strict=False):
            assert np.array_equal(ours, theirs)
