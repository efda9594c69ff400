"""Protects prompt means from attention sinks: one rule, on every path that measures a prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine_work import run, tiny, work
from traitlens.capture.sinks import are_sinks
from workers.engine.engine import build_engine
from workers.engine.fallback import GenerateCore
from workers.engine.generation import GenerationRequest, UnitVectors
from workers.engine.teacher_forced import teacher_forced
from workers.models.model import LoadedModel
from workers.monitor.monitor import AnsweredPrompt, project_answers

FIRST, SINK = 1, 270


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    """A model with two tokens whose states are thousands of times as long as the others."""
    made = tiny(tmp_path, "llama")
    embedding = made.model.get_input_embeddings().weight
    with torch.no_grad():
        embedding[[FIRST, SINK]] *= 5000 / embedding[[FIRST, SINK]].norm(dim=1, keepdim=True)
    return made


def prompts() -> list[tuple[int, ...]]:
    plain = [request.prompt_ids for request in work(prompts=5, rollouts=1)]
    begun = [(FIRST, *ids) for ids in plain]
    return [*begun, (FIRST,), (FIRST, SINK), (FIRST, 30, SINK, 40, 50), (FIRST, 30, 40, 50, SINK)]


def states_of(model: LoadedModel, ids: tuple[int, ...]) -> torch.Tensor:
    """[L, tokens, d_model], of every layer but the last, by transformers alone."""
    with torch.inference_mode():
        hidden = model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.cat(hidden)[:-1]


def plain_mean(states: torch.Tensor) -> torch.Tensor:
    """The rule, written once more, for one layer's states [tokens, d_model]."""
    norms = states.norm(dim=1)
    between = sorted(norms[1:-1].tolist())
    limit = 10 * between[(len(between) - 1) // 2] if between else float("inf")
    stay = [t for t in range(1, len(norms)) if norms[t] <= limit] or [len(norms) - 1]
    return states[stay].mean(0)


def test_every_path_leaves_the_same_tokens_out(model: LoadedModel) -> None:
    requests = [replace(work(1, 1)[0], prompt_ids=ids, seed=i) for i, ids in enumerate(prompts())]

    fast = run(build_engine(model, max_rows=4), requests)
    slow_core = GenerateCore(model)
    slow_core.add(requests)
    slow = {g.request: g for g in slow_core.step()}
    forced = teacher_forced(model, prompts(), [g.response_ids for g in fast])

    for i, (request, made) in enumerate(zip(requests, fast, strict=True)):
        expected = torch.stack([plain_mean(one) for one in states_of(model, request.prompt_ids)])
        scale = expected.norm(dim=1).numpy()
        for found in (made.prompt_avg, slow[request].prompt_avg, forced.prompt_avg[i]):
            error = np.linalg.norm(found[:-1] - expected.numpy(), axis=1) / scale
            assert error.max() < 1e-6, request.prompt_ids
        assert made.prompt_sinks == slow[request].prompt_sinks == forced.prompt_sinks[i]
        assert made.prompt_sinks == min(
            max(1, sum(token in (FIRST, SINK) for token in request.prompt_ids)),
            len(request.prompt_ids) - 1,
        )


def test_a_sink_does_not_determine_a_prompts_mean(model: LoadedModel) -> None:
    random = np.random.default_rng(0)
    asked = [(FIRST, *map(int, random.integers(16, 262, n))) for n in range(4, 60, 4)]

    made = teacher_forced(model, asked, [(20,)] * len(asked))

    inverse = np.array([1 / len(ids) for ids in asked])
    along = states_of(model, asked[0])[2, 0].numpy()
    with_it = [states_of(model, ids)[2].mean(0).numpy() @ along for ids in asked]
    without = made.prompt_avg[:, 2] @ along
    assert np.corrcoef(with_it, inverse)[0, 1] > 0.99
    assert abs(np.corrcoef(without, inverse)[0, 1]) < 0.7


def test_what_a_monitor_says_of_a_prompt_leaves_its_sinks_out(model: LoadedModel) -> None:
    ids, layer = (FIRST, 30, SINK, 40, 50), 2
    unit = np.zeros((1, model.d_model), np.float32)
    unit[0, 3] = 1
    directions = UnitVectors((layer,), unit)
    asked = GenerationRequest(ids, 0, work(1, 1)[0].sampling, None, directions)

    (read,) = project_answers(build_engine(model), [AnsweredPrompt("", ids, (20, 21))], directions)
    (made,) = run(build_engine(model), [asked])

    assert np.flatnonzero(read.prompt_sinks[:, 0]).tolist() == [0, 2]
    assert read.prompt_mean[0] == pytest.approx(made.prompt_avg[layer, 3], rel=1e-4)


def test_a_prompt_of_nothing_but_sinks_is_its_last_token() -> None:
    alone, both = torch.tensor([[7.0]]), torch.tensor([[7.0, 9000.0]])
    last_too = torch.tensor([[7.0, 1.0, 1.0, 9000.0]])

    assert are_sinks(alone).tolist() == [[False]]
    assert are_sinks(both).tolist() == [[True, False]]
    assert are_sinks(last_too).tolist() == [[True, False, False, True]]
