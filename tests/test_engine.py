"""What the engine promises: the same text whatever runs beside it, every request once, the model
untouched.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from domain.errors import ModelError
from tests.engine_work import run, texts, tiny, work, worst_error
from workers.engine.engine import build_engine
from workers.engine.fallback import GenerateCore
from workers.engine.forward import PackedLinears
from workers.engine.generation import Generation, GenerationRequest, Sampling
from workers.engine.refill import RefillCore
from workers.engine.slot_cache import SlotCache
from workers.models.device import unmap_clean
from workers.models.model import LoadedModel

MIXED = (
    Sampling(25),
    Sampling(25, temperature=0.0),
    Sampling(25, temperature=0.7, top_k=5),
    Sampling(25, temperature=1.3, top_p=0.8),
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny(tmp_path_factory.mktemp("llama"), "llama")


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3", "qwen3_moe", "gpt_oss"])
def test_a_sample_has_the_same_text_alone_in_a_batch_of_60_and_after_a_resume(
    family: str, tmp_path: Path
) -> None:
    model = tiny(tmp_path, family)
    requests = work(prompts=6, rollouts=10)

    together = texts(run(RefillCore(model, max_rows=60), requests))

    some = range(0, 60, 9)
    alone = [texts(run(RefillCore(model), [requests[i]]))[0] for i in some]
    assert alone == [together[i] for i in some]
    # A resume asks for what is missing, in another process and with other neighbors.
    assert texts(run(RefillCore(model, max_rows=17), requests[23:])) == together[23:]


def test_every_way_of_drawing_gives_the_same_text_in_any_batch(llama: LoadedModel) -> None:
    requests = work(sampling=MIXED, prompts=2, rollouts=8)

    together = texts(run(RefillCore(llama), requests))
    apart = [text for request in requests for text in texts(run(RefillCore(llama), [request]))]

    assert together == apart


def test_temperature_zero_equals_greedy_generate(llama: LoadedModel) -> None:
    request = GenerationRequest((20, 30, 40, 50), 5, Sampling(12, temperature=0.0))

    (made,) = run(build_engine(llama), [request])

    out = llama.model.generate(
        torch.tensor([request.prompt_ids]),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=sorted(llama.stop_ids),
    )
    expected = tuple(token for token in out[0, 4:].tolist() if token not in llama.stop_ids)
    assert made.response_ids == expected


def test_a_prompt_is_prefilled_once_for_all_its_rollouts_and_for_later_ones(
    llama: LoadedModel,
) -> None:
    prompt = tuple(range(20, 50))
    requests = [GenerationRequest(prompt, i, Sampling(5)) for i in range(30)]
    engine = build_engine(llama, max_rows=4)

    run(engine, requests[:20])
    run(engine, requests[20:])

    assert engine.stats.prefilled_tokens == len(prompt) - 1


def test_keys_of_running_prompts_are_held_once_and_given_back_for_later_rollouts(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of prompts are most of what a worker holds where each prompt has few rollouts."""
    monkeypatch.setattr("workers.engine.prefix_cache.BATCH_TOKENS_CPU", 40)
    shared = [GenerationRequest(tuple(range(20, 50)), i, Sampling(8)) for i in range(30)]
    # 20 rollouts are more than one place takes
    requests = work(prompts=24, rollouts=1) + shared[:20]
    core = RefillCore(llama, max_rows=60)
    core.add(requests)

    made = core.step()
    prefixes = {row.place.prefix for row in core.running()}
    assert sum(len(prefix.keys) + len(prefix.values) for prefix in prefixes) == 0
    while core.has_work:
        made += core.step()

    # two batches are kept for later, and the newest is never left out
    kept = [prefix for prefix in prefixes if prefix.keys]
    assert 0 < sum(prefix.tokens for prefix in kept) <= 3 * 40
    prompts_run = core.stats.prefilled_tokens
    made += run(core, shared[20:])
    assert core.stats.prefilled_tokens == prompts_run
    expected = run(build_engine(llama), [*requests, *shared[20:]])
    found = {one.request: one.response_ids for one in made}
    assert found == {one.request: one.response_ids for one in expected}


def test_caches_hold_no_memory_once_nothing_runs(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, caches = SlotCache.__init__, []

    def noting(cache: SlotCache, n_layers: int, *, on_cpu: bool) -> None:
        caches.append(cache)
        made(cache, n_layers, on_cpu=on_cpu)

    monkeypatch.setattr(SlotCache, "__init__", noting)
    core = RefillCore(llama, max_rows=30)
    core.add(work())
    like = torch.zeros(1, 1, 1)

    core.step()
    in_use = [cache.layer(0, like, like).slots for cache in caches]
    while core.has_work:
        core.step()

    assert max(in_use) >= 30
    assert [cache.layer(0, like, like).slots for cache in caches] == [0] * len(caches)


def test_a_prompt_whose_keys_find_no_memory_any_more_runs_again_for_later_rollouts(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = tuple(range(20, 50))
    requests = [GenerationRequest(prompt, i, Sampling(5)) for i in range(30)]
    expected = texts(run(build_engine(llama), requests))
    core = RefillCore(llama, max_rows=8)

    def failing(cache: SlotCache, slot: int, columns: int) -> tuple[Any, Any]:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as without_memory:
        without_memory.setattr(SlotCache, "read", failing)
        made = run(core, requests[:20])
    made += run(core, requests[20:])

    assert texts(made) == expected
    assert core.stats.prefilled_tokens == 2 * (len(prompt) - 1)
    assert core.stats.halvings == 0


@pytest.mark.parametrize("fails", ["_resized", "shrink"])
def test_memory_that_ends_while_caches_grow_or_are_cut_loses_nothing(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """The prompt of the last request is longer than the places of those that run are wide."""
    long = GenerationRequest(tuple(range(20, 250)), 1, Sampling(9))
    requests = [*work(prompts=20, rollouts=2), long]
    expected = texts(run(build_engine(llama), requests))
    core = RefillCore(llama, max_rows=41)
    core.add(requests[:-1])
    made = core.step()
    core.add([long])
    resized, shrink, failed = SlotCache._resized, SlotCache.shrink, []

    def full(cache: SlotCache, held: Any, kept: int) -> Any:
        if cache._columns > 200 and len(cache.layer(0, held.keys, held.values).values) > 8:
            failed.append("_resized")
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return resized(cache, held, kept)

    def full_again(cache: SlotCache, slots: int, columns: int) -> None:
        if fails == "shrink" and slots:
            failed.append("shrink")
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        shrink(cache, slots, columns)

    monkeypatch.setattr(SlotCache, "_resized", full)
    monkeypatch.setattr(SlotCache, "shrink", full_again)
    while not failed:
        made += core.step()
    assert any(True for _ in core.running()) == (fails == "_resized")
    while core.has_work:
        made += core.step()

    assert {"_resized", fails} == set(failed)
    found = {one.request: one.response_ids for one in made}
    assert len(made) == len(requests)
    assert list(map(found.get, requests)) == expected


def test_a_response_that_stops_at_once_is_empty_with_zero_means(llama: LoadedModel) -> None:
    mute = replace(llama, stop_ids=frozenset(range(272)))

    (made,) = run(build_engine(mute), work(prompts=1, rollouts=1))

    assert made.response_ids == ()
    assert made.finish == "stop"
    assert not made.response_avg.any()
    assert made.prompt_last.any()


def test_stop_tokens_never_appear_and_limits_are_kept(llama: LoadedModel) -> None:
    requests = work()

    for request, made in zip(requests, run(build_engine(llama), requests), strict=True):
        assert not llama.stop_ids & set(made.response_ids)
        assert len(made.response_ids) <= request.sampling.max_new_tokens
        full = len(made.response_ids) == request.sampling.max_new_tokens
        assert full or made.finish == "stop"


def test_a_batch_that_does_not_fit_is_halved_and_every_sample_comes_once(
    llama: LoadedModel,
) -> None:
    requests = work(prompts=4, rollouts=10)
    expected = texts(run(build_engine(llama), requests))
    engine = build_engine(llama, max_rows=32)
    handle = llama.model.register_forward_pre_hook(_full_beyond(rows=9), with_kwargs=True)

    try:
        made = run(engine, requests)
    finally:
        handle.remove()

    assert texts(made) == expected
    assert engine.stats.halvings == 2
    assert (
        worst_error(
            np.stack([m.response_avg for m in made]),
            np.stack([m.response_avg for m in run(build_engine(llama), requests)]),
        )
        < 1e-5
    )


def test_running_out_of_memory_in_mid_flight_loses_no_finished_response(
    llama: LoadedModel,
) -> None:
    requests = work(prompts=4, rollouts=10)
    engine = build_engine(llama, max_rows=32)
    engine.add(requests)
    early: list[Generation] = []
    while len(early) < 5:
        early += engine.step()
    handle = llama.model.register_forward_pre_hook(_full_beyond(rows=9), with_kwargs=True)

    try:
        while engine.has_work:
            early += engine.step()
    finally:
        handle.remove()

    assert len(early) == len(requests)
    assert {made.request for made in early} == set(requests)


def test_one_response_that_does_not_fit_is_an_error_a_person_can_act_on(
    llama: LoadedModel,
) -> None:
    engine = build_engine(llama)
    handle = llama.model.register_forward_pre_hook(_full_beyond(rows=0), with_kwargs=True)

    try:
        with pytest.raises(ModelError, match="does not fit"):
            run(engine, work(prompts=1))
    finally:
        handle.remove()


def test_other_errors_are_not_taken_for_full_memory(llama: LoadedModel) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    engine = build_engine(llama)
    handle = llama.model.register_forward_pre_hook(broken)

    try:
        with pytest.raises(RuntimeError, match="shapes differ"):
            run(engine, work(prompts=1))
    finally:
        handle.remove()


def test_the_model_is_left_as_it_was(llama: LoadedModel) -> None:
    ids = torch.tensor([[20, 30, 40]])
    implementation = llama.model.config._attn_implementation

    run(build_engine(llama), work(prompts=2))

    assert llama.model.config._attn_implementation == implementation
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in llama.model.modules())
    assert not any("forward" in vars(part) for part in llama.model.modules())
    assert torch.isfinite(llama.model(ids).logits).all()


def test_packed_layers_multiply_like_the_model_s_own(llama: LoadedModel) -> None:
    ids = torch.tensor([[20, 30, 40]])
    expected = llama.model(ids).logits

    with PackedLinears(llama.model).in_use():
        packed = llama.model(ids).logits

    assert torch.allclose(packed, expected, atol=1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's maps")
def test_packed_weights_hold_no_pages_of_their_file(mapped: LlamaForCausalLM) -> None:
    """The weights are there twice only for whoever reads them in the model's own layout."""
    layers = [layer for layer in mapped.modules() if isinstance(layer, torch.nn.Linear)]
    expected = [layer.weight.double().sum().item() for layer in layers]
    held = resident_of_files(mapped)

    PackedLinears(mapped)

    assert resident_of_files(mapped) < 0.2 * held
    assert [layer.weight.double().sum().item() for layer in layers] == expected


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's maps")
def test_weights_that_were_changed_in_place_stay_changed(mapped: LlamaForCausalLM) -> None:
    """A page that was written to is this process's own: the file no longer has it."""
    weight = mapped.model.layers[1].mlp.up_proj.weight.detach()
    weight[7] = 3.0

    unmap_clean(mapped.parameters())

    assert (weight[7] == 3.0).all()


@pytest.fixture
def mapped(tmp_path: Path) -> LlamaForCausalLM:
    """A model whose weights, all read once, lie in its file."""
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=256,
        intermediate_size=4096,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path)
    for weight in model.parameters():
        weight.sum()
    return model


def resident_of_files(model: LlamaForCausalLM) -> int:
    """Bytes of the model's file that this process holds."""
    maps = psutil.Process().memory_maps(grouped=False)
    return sum(m.rss for m in maps if m.path.startswith(f"{model.name_or_path}/"))


def test_the_fallback_gives_the_same_texts_and_means(llama: LoadedModel) -> None:
    requests = work(sampling=MIXED, prompts=3, rollouts=8)

    fast = run(RefillCore(llama), requests)
    plain = run(GenerateCore(llama, max_rows=7), requests)

    assert texts(plain) == texts(fast)
    assert [m.finish for m in plain] == [m.finish for m in fast]
    for ours, theirs in zip(fast, plain, strict=True):
        assert worst_error(ours.response_avg, theirs.response_avg) < 1e-5
        assert worst_error(ours.prompt_last, theirs.prompt_last) < 1e-5


def test_a_model_the_engine_cannot_carry_falls_back_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny(tmp_path, "bloom", n_stops=1)

    with caplog.at_level(logging.WARNING, logger="workers.engine.engine"):
        engine = build_engine(model)
        made = run(engine, work(prompts=2, longest=10))

    assert engine.path == "fallback"
    assert len(caplog.records) == 1
    assert "attention cannot be exchanged" in caplog.text
    assert all(m.response_avg.any() for m in made if m.response_ids)


def test_the_fallback_survives_a_batch_that_does_not_fit(llama: LoadedModel) -> None:
    requests = work(prompts=2, rollouts=5)
    expected = texts(run(GenerateCore(llama), requests))
    core = GenerateCore(llama, max_rows=10)
    handle = llama.model.register_forward_pre_hook(_full_beyond(rows=3), with_kwargs=True)

    try:
        made = run(core, requests)
    finally:
        handle.remove()

    assert texts(made) == expected
    assert core.stats.halvings == 2


def _full_beyond(*, rows: int) -> Any:
    def hook(_: torch.nn.Module, __: tuple[Any, ...], named: dict[str, Any]) -> None:
        if named["input_ids"].shape[0] > rows:
            raise torch.OutOfMemoryError("out of memory")

    return hook
