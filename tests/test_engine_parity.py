"""The engine's means are those of a separate pass over the same ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine_work import POSITIONS, run, texts, tiny, work, worst_error
from tests.tiny_models import FAMILIES, byte_tokenizer, save_tiny_model
from traitlens.capture.blocks import backbone, decoder_blocks
from traitlens.capture.hooks import tapped
from workers.engine.engine import build_engine
from workers.engine.generation import Generation, GenerationRequest, Sampling
from workers.engine.refill import RefillCore
from workers.engine.running import WIDTHS_CPU
from workers.engine.slot_cache import SlotCache
from workers.engine.teacher_forced import teacher_forced
from workers.models.model import LoadedModel, load_model


def second_pass(
    model: LoadedModel, requests: list[GenerationRequest], made: list[Generation]
) -> dict[str, np.ndarray]:
    prompts = [request.prompt_ids for request in requests]
    means = teacher_forced(model, prompts, [generation.response_ids for generation in made])
    return dict(zip(POSITIONS, means[:3], strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_position_equals_a_teacher_forced_pass(family: str, tmp_path: Path) -> None:
    model = tiny(tmp_path, family)
    requests = work()

    engine = build_engine(model, max_rows=7)
    made = run(engine, requests)

    assert engine.path == "engine"
    assert {generation.finish for generation in made} == {"stop", "length"}
    for position, means in second_pass(model, requests, made).items():
        ours = np.stack([getattr(generation, position) for generation in made])
        assert worst_error(ours, means) < 1e-5, position


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("max_rows", [1, 13, 128])
def test_the_number_of_rows_does_not_change_the_means(
    family: str, max_rows: int, tmp_path: Path
) -> None:
    model = tiny(tmp_path, family)
    requests = work(prompts=2, rollouts=4, longest=25)
    backwards = list(reversed(requests))

    made = run(build_engine(model, max_rows=max_rows), backwards)

    for position, means in second_pass(model, backwards, made).items():
        ours = np.stack([getattr(generation, position) for generation in made])
        assert worst_error(ours, means) < 1e-5, position


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_long_responses_that_move_from_bucket_to_bucket_keep_their_means_and_texts(
    family: str, tmp_path: Path
) -> None:
    model = tiny(tmp_path, family, n_stops=1)
    requests = work(prompts=3, rollouts=4, longest=150)

    made = run(build_engine(model, max_rows=8), requests)

    assert max(len(generation.response_ids) for generation in made) > WIDTHS_CPU[-1]
    expected = second_pass(model, requests, made)["response_avg"]
    assert worst_error(np.stack([g.response_avg for g in made]), expected) < 1e-5
    assert texts(made) == texts(run(build_engine(model, max_rows=3), requests))


@pytest.mark.parametrize("rows", [8, 40])
def test_memory_that_runs_out_while_rows_move_on_changes_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Some layers' keys have moved by then, and their slots are given back, and others' not."""
    model = tiny(tmp_path, "llama", n_stops=1)
    # many are equally long, so that they move at once
    requests = [replace(r, sampling=Sampling(90)) for r in work(prompts=8, rollouts=5)]
    expected = texts(run(RefillCore(model, max_rows=rows), requests))
    core = RefillCore(model, max_rows=rows)
    moved: list[int] = []
    made_layer = SlotCache.layer

    def full(cache: SlotCache, index: int, keys: torch.Tensor, values: torch.Tensor) -> object:
        if cache._columns > WIDTHS_CPU[0] and not moved and index == 1:
            moved.append(index)
            raise torch.OutOfMemoryError("out of memory")
        return made_layer(cache, index, keys, values)

    monkeypatch.setattr(SlotCache, "layer", full)
    made = run(core, requests)

    assert moved and core.stats.halvings == 1
    assert texts(made) == expected


def test_a_left_padded_batch_of_the_stock_model_gives_the_same_means(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    requests = work(prompts=2, rollouts=3)
    made = run(build_engine(model), requests)
    rows = [[*r.prompt_ids, *g.response_ids] for r, g in zip(requests, made, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    states: list[torch.Tensor] = []

    with torch.no_grad(), tapped(decoder_blocks(model.model), lambda _, s: states.append(s)):
        backbone(model.model)(
            input_ids=ids, attention_mask=real, position_ids=(real.cumsum(1) - 1).clamp(min=0)
        )

    for row, (request, generation) in enumerate(zip(requests, made, strict=True)):
        start = width - len(rows[row]) + len(request.prompt_ids)
        expected = torch.stack([layer[row, start:].sum(0) for layer in states]).numpy()
        n = max(1, len(generation.response_ids))
        assert worst_error(generation.response_avg * n, expected) < 1e-5


def test_the_last_row_is_raw_and_the_first_is_the_embedding(tmp_path: Path) -> None:
    model = tiny(tmp_path, "gemma2")
    prompt = (20, 30, 40)
    request = replace(work(prompts=1, rollouts=1)[0], prompt_ids=prompt)

    (made,) = run(build_engine(model), [request])

    decoder: Any = backbone(model.model)
    with torch.no_grad():
        normed = decoder(input_ids=torch.tensor([prompt])).last_hidden_state[0, -1]
        embedded = decoder.embed_tokens(torch.tensor(prompt[-1]))
        assert torch.allclose(decoder.norm(torch.tensor(made.prompt_last[-1])), normed, atol=1e-4)
    assert np.allclose(made.prompt_last[0], embedded.numpy(), atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_bfloat16_is_no_farther_from_float32_arithmetic_than_a_second_pass(
    family: str, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path, family, dtype=torch.bfloat16)
    coarse = load_model(folder, device="cpu", dtype="bfloat16")
    exact = load_model(folder, device="cpu", dtype="float32")
    requests = work(prompts=4)

    made = run(build_engine(coarse, max_rows=9), requests)

    truth = second_pass(exact, requests, made)
    second = second_pass(coarse, requests, made)
    for position in POSITIONS:
        ours = np.stack([getattr(generation, position) for generation in made])
        filled = np.linalg.norm(truth[position], axis=-1).min(axis=1) > 0
        error = worst_error(ours[filled], truth[position][filled])
        assert error < 3e-2, position
        assert error < 1.3 * worst_error(second[position][filled], truth[position][filled])


def test_a_multimodal_wrapper_is_measured_in_its_text_model(tmp_path: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from tests.tiny_models import SHAPE

    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(
        text_config={**SHAPE, **FAMILIES["gemma3_text"]},
        vision_config=vision,
        mm_tokens_per_image=4,
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    requests = work(prompts=2, longest=20)

    engine = build_engine(model)
    made = run(engine, requests)

    assert engine.path == "engine"
    expected = second_pass(model, requests, made)["response_avg"]
    assert worst_error(np.stack([g.response_avg for g in made]), expected) < 1e-5
