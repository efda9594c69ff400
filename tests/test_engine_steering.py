"""Requests may be steered, each in its own way, in one batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine_work import run, texts, tiny, work, worst_error
from traitlens.steering import Positions
from workers.engine.fallback import GenerateCore
from workers.engine.generation import GenerationRequest, Intervention, Steering
from workers.engine.refill import RefillCore
from workers.engine.teacher_forced import teacher_forced


def interventions(positions: Positions, *, seed: int = 0, size: float = 3.0) -> Steering:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(2, 48)).astype(np.float32)
    return Steering(
        (Intervention(0, vectors[0], size), Intervention(2, vectors[1], size)), positions
    )


def steered(requests: list[GenerationRequest], steering: Steering) -> list[GenerationRequest]:
    return [replace(r, steering=steering) for r in requests]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_each_request_is_steered_like_a_plain_pass_is(family: str, tmp_path: Path) -> None:
    model = tiny(tmp_path, family)
    plain = work(prompts=3, rollouts=3)
    ways = [
        interventions("all"),
        interventions("prompt"),
        interventions("response"),
        interventions("all", seed=1),
    ]
    batches = [steered(plain, way) for way in ways]
    mixed = [request for group in zip(plain, *batches, strict=True) for request in group]

    made = {m.request: m for m in run(RefillCore(model, max_rows=20), mixed)}

    for way, batch in zip([None, *ways], [plain, *batches], strict=True):
        ours = [made[request] for request in batch]
        prompts = [request.prompt_ids for request in batch]
        expected = teacher_forced(model, prompts, [m.response_ids for m in ours], steering=way)
        assert worst_error(np.stack([m.response_avg for m in ours]), expected[0]) < 1e-5
        assert worst_error(np.stack([m.prompt_avg for m in ours]), expected[1]) < 1e-5
        assert worst_error(np.stack([m.prompt_last for m in ours]), expected[2]) < 1e-5


def test_a_steered_request_has_the_same_text_alone_and_among_others(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    plain = work(prompts=2, rollouts=4)
    hard = steered(plain, interventions("response"))

    together = texts(run(RefillCore(model), [*plain, *hard]))

    assert together[: len(plain)] == texts(run(RefillCore(model), plain))
    assert together[len(plain) :] == texts(run(RefillCore(model), hard))
    assert together[: len(plain)] != together[len(plain) :]


def test_the_fallback_steers_alike(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    plain = work(prompts=2, rollouts=3)
    mixed = [
        *plain,
        *steered(plain, interventions("all")),
        *steered(plain, interventions("response")),
    ]

    fast, slow = run(RefillCore(model), mixed), run(GenerateCore(model), mixed)

    assert texts(fast) == texts(slow)
    for ours, theirs in zip(fast, slow, strict=True):
        assert worst_error(ours.response_avg, theirs.response_avg) < 1e-5


def test_ablating_and_capping_rows_are_steered_like_a_plain_pass_is(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    a, b = np.random.default_rng(5).normal(size=(2, 48)).astype(np.float32)
    ways = [
        Steering((Intervention(2, a, 1.0, "ablate"),)),
        Steering((Intervention(3, a, 0.2, "cap"), Intervention(1, b, 2.0))),
        # the order matters: what is added first is removed again
        Steering(
            (Intervention(2, a, 3.0), Intervention(2, a, 1.0, "ablate"), Intervention(2, b, 1.0)),
            "response",
        ),
    ]
    plain = work(prompts=3, rollouts=2)
    batches = [steered(plain, way) for way in ways]
    mixed = [request for group in zip(plain, *batches, strict=True) for request in group]

    made = {m.request: m for m in run(RefillCore(model), mixed)}

    for way, batch in zip([None, *ways], [plain, *batches], strict=True):
        ours = [made[request] for request in batch]
        prompts = [request.prompt_ids for request in batch]
        expected = teacher_forced(model, prompts, [m.response_ids for m in ours], steering=way)
        assert worst_error(np.stack([m.response_avg for m in ours]), expected[0]) < 1e-5
        assert worst_error(np.stack([m.prompt_avg for m in ours]), expected[1]) < 1e-5
