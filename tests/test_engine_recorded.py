"""Protects recorded decode steps: padded, they give the tokens and sums of plain ones.

On a CPU the recording is made by hand: the same work on the same memory, which shows all but the
capture itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine_work import POSITIONS, run, texts, tiny, work, worst_error
from traitlens.arrays import Float32
from workers.engine.generation import GenerationRequest, Intervention, Steering, UnitVectors
from workers.engine.refill import RefillCore
from workers.engine.steps import Outputs, Recorded

FAMILIES = ["llama", "gemma2", "gpt_oss"]


class ByHand:
    """Runs the work again for a replay and writes into the memory of the first results."""

    def __init__(self) -> None:
        self.recordings = 0

    def record(self, work: Callable[[], Outputs]) -> tuple[Recorded, Outputs]:
        self.recordings += 1
        # What a graph shows: results are there after a replay, not after the recording.
        memory = tuple(torch.full_like(made, float("nan")) for made in work())

        class Again:
            def replay(self) -> None:
                for kept, made in zip(memory, work(), strict=True):
                    kept.copy_(made)

        return Again(), (memory[0], memory[1])


class Refuses:
    """What a model that decides on the host what to compute meets."""

    def record(self, work: Callable[[], Outputs]) -> tuple[Recorded, Outputs]:
        raise RuntimeError("operation not permitted when stream is capturing")


def steered(requests: list[GenerationRequest], model_size: int) -> list[GenerationRequest]:
    """Every third request pushed, every sixth also ablated, all projected."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(2, model_size)).astype(np.float32)
    units: Float32 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    added = Steering((Intervention(1, vectors[0], 0.5), Intervention(2, vectors[1], -0.5)))
    other = Steering((Intervention(2, vectors[1], 0.5, "ablate"),), "response")
    directions = UnitVectors((1, 2), units)
    return [
        GenerationRequest(
            r.prompt_ids,
            r.seed,
            r.sampling,
            other if i % 12 == 0 else added if i % 3 == 0 else None,
            directions,
        )
        for i, r in enumerate(requests)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_recorded_steps_give_the_tokens_and_sums_of_plain_ones(tmp_path: Path, family: str) -> None:
    model = tiny(tmp_path, family)
    requests = work(prompts=12, rollouts=6, longest=90)
    recorder = ByHand()
    recorded = RefillCore(model, max_rows=24, recorder=recorder)

    plain = run(RefillCore(model, max_rows=24), requests)
    made = run(recorded, requests)

    # some steps are run one by one: sizes that come once, memory that grew
    assert recorded.stats.recorded_steps > recorded.stats.steps / 2
    assert recorder.recordings > 2
    assert texts(made) == texts(plain)
    for position in POSITIONS:
        ours = np.stack([getattr(one, position) for one in made])
        theirs = np.stack([getattr(one, position) for one in plain])
        assert worst_error(ours, theirs) < 2e-6


def test_recorded_steps_steer_and_project_as_plain_ones(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    requests = steered(work(prompts=8, rollouts=6, longest=60), model.d_model)
    recorded = RefillCore(model, max_rows=16, recorder=ByHand())

    plain = run(RefillCore(model, max_rows=16), requests)
    made = run(recorded, requests)

    assert recorded.stats.recorded_steps > 0
    assert texts(made) == texts(plain)
    for a, b in zip(made, plain, strict=True):
        assert a.projections is not None and b.projections is not None
        np.testing.assert_allclose(a.projections, b.projections, atol=2e-5)


def test_a_model_that_cannot_be_recorded_runs_one_by_one(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    core = RefillCore(model, max_rows=16, recorder=Refuses())

    made = run(core, work())

    assert core.stats.recorded_steps == 0
    assert texts(made) == texts(run(RefillCore(model, max_rows=16), work()))


def test_memory_that_runs_out_forgets_the_recordings(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    requests = work(prompts=10, rollouts=6, longest=60)
    core = RefillCore(model, max_rows=32, recorder=ByHand())
    calls = iter(range(10_000))

    def full(*_: object) -> None:
        if next(calls) == 40:
            raise torch.OutOfMemoryError("out of memory")

    hook = model.model.register_forward_pre_hook(full)
    made = run(core, requests)
    hook.remove()

    assert core.stats.halvings == 1
    assert core.stats.recorded_steps > 0
    assert texts(made) == texts(run(RefillCore(model, max_rows=32), requests))
