"""Tokens per second of the ways to the same responses and means on a device; a step's profile."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import GenerationConfig

from benchmarks.engine_models import build_model, parameters
from benchmarks.engine_roofline import measure_roofline
from workers.engine.engine import build_engine
from workers.engine.fallback import GenerateCore, left_padded
from workers.engine.generation import GenerationRequest, Sampling
from workers.engine.refill import RefillCore
from workers.engine.teacher_forced import teacher_forced
from workers.models.model import LoadedModel

T = TypeVar("T")
OURS = "ours, every layer captured"
PEERS_BATCH = 20
ROLLOUTS = 10
PROFILED_STEPS = 4
CUDA = torch._C._autograd.DeviceType.CUDA
# Kernels shown of a step.
SHOWN = 8


@dataclass(frozen=True)
class Work:
    """Prompts, with ROLLOUTS responses each, all cut at `tokens`; the rivals take fewer responses:
    `peers` in batches of 20, `packed` with transformers' own continuous batching (0 on a CPU, where
    it takes minutes)."""

    prompts: int
    tokens: int
    peers: int
    packed: int


SHAPES = {
    "gemma2-2b": Work(51, 128, 60, 160),
    "llama8b": Work(51, 128, 60, 160),
    "hybrid2b": Work(10, 48, 40, 40),
}
SMALL_SHAPES = {
    "llama3m": Work(3, 24, 20, 0),
    "gemma2-3m": Work(3, 24, 20, 0),
    "hybrid3m": Work(2, 8, 20, 0),
}


def shapes(*, small: bool) -> list[str]:
    """The models to measure, by name."""
    return list(SMALL_SHAPES if small else SHAPES)


def measured(name: str, device: torch.device) -> tuple[dict[str, object], list[str]]:
    """Rates of each way in tokens per second, their ratios, the roofline, the profile of a step."""
    work = {**SHAPES, **SMALL_SHAPES}[name]
    model = build_model(name, str(device))
    requests = _requests(model, work)
    core = build_engine(model)
    _all(core, [replace(one, sampling=Sampling(4)) for one in requests[: 2 * ROLLOUTS]])
    rates = {OURS: _rate(device, requests, partial(_all, core))[0]}
    facts: dict[str, object] = {"core": core.path, "mean rows": _mean_rows(core)}
    facts["recorded steps of all"] = f"{core.stats.recorded_steps} of {core.stats.steps}"
    if core.stats.recorded_steps:
        single = RefillCore(model)
        rates["ours, launched singly"] = _rate(device, requests, partial(_all, single))[0]
        facts |= {f"launched singly: {k}": v for k, v in _profile(single, requests, device).items()}
        del single
    for way, generate, count in (
        ("generate, batches of 20", _generate, work.peers),
        ("generate_batch", _generate_batch, work.packed),
    ):
        if not (some := requests[:count]):
            continue
        try:
            generate(model, [replace(one, sampling=Sampling(4)) for one in some[:ROLLOUTS]])
            rates[way], texts = _rate(device, some, partial(generate, model))
            second, _ = _rate(device, some, partial(_second, model, texts))
            rates[f"{way}, and a second pass"] = 1 / (1 / rates[way] + 1 / second)
        except Exception as error:  # a rival that cannot run this model is a result, not a failure
            facts[way] = f"does not run here: {type(error).__name__}: {str(error)[:120]}"
    ours = rates[OURS]
    facts |= _roofline(model, requests, core, ours)
    facts["tokens per second"] = [
        {"way": way, "tokens/s": rate, "ours is": f"{ours / rate:.2f}x"}
        for way, rate in rates.items()
    ]
    if isinstance(core, RefillCore):
        facts |= _profile(core, requests, device)
    return facts, []


def _requests(model: LoadedModel, work: Work) -> list[GenerationRequest]:
    random = np.random.default_rng(0)
    vocabulary = model.model.config.get_text_config().vocab_size
    made = []
    for prompt in range(work.prompts):
        ids = tuple(map(int, random.integers(3, vocabulary, random.integers(100, 126))))
        sampling = Sampling(work.tokens)
        made += [GenerationRequest(ids, 10 * prompt + i, sampling) for i in range(ROLLOUTS)]
    return made


def _all(core: RefillCore | GenerateCore, requests: Sequence[GenerationRequest]) -> None:
    core.add([replace(one) for one in requests])
    while core.has_work:
        core.step()


def _rate(
    device: torch.device,
    requests: Sequence[GenerationRequest],
    run: Callable[[Sequence[GenerationRequest]], T],
) -> tuple[float, T]:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    _wait(device)
    started = time.perf_counter()
    made = run(requests)
    _wait(device)
    seconds = time.perf_counter() - started
    return sum(one.sampling.max_new_tokens for one in requests) / seconds, made


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _settings(requests: Sequence[GenerationRequest]) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=requests[0].sampling.max_new_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=-1,
        pad_token_id=0,
    )


def _generate(model: LoadedModel, requests: Sequence[GenerationRequest]) -> list[list[int]]:
    made: list[list[int]] = []
    for start in range(0, len(requests), PEERS_BATCH):
        batch = requests[start : start + PEERS_BATCH]
        ids, real = left_padded([one.prompt_ids for one in batch])
        with torch.no_grad():
            out: Any = model.model.generate(
                ids.to(model.device),
                attention_mask=real.to(model.device),
                generation_config=_settings(batch),
            )
        made += out[:, ids.shape[1] :].tolist()
    return made


def _generate_batch(model: LoadedModel, requests: Sequence[GenerationRequest]) -> list[list[int]]:
    before = model.model.config._attn_implementation
    try:
        outputs = model.model.generate_batch(
            inputs=[list(one.prompt_ids) for one in requests],
            generation_config=_settings(requests),
            progress_bar=False,
        )
    finally:
        model.model.set_attn_implementation(before)
    # Requests are numbered in their order: req_0, req_1 ...
    numbered = sorted(outputs, key=lambda name: int(name.rpartition("_")[2]))
    made = [list(outputs[name].generated_tokens) for name in numbered]
    if len(made) != len(requests) or not all(made):
        raise RuntimeError(f"{sum(map(bool, made))} of {len(requests)} responses came back")
    return made


def _second(
    model: LoadedModel, texts: Sequence[Sequence[int]], requests: Sequence[GenerationRequest]
) -> None:
    teacher_forced(model, [one.prompt_ids for one in requests], texts)


def _mean_rows(core: RefillCore | GenerateCore) -> float:
    stats = core.stats
    return stats.row_steps / max(1, stats.steps)


def _roofline(
    model: LoadedModel,
    requests: Sequence[GenerationRequest],
    core: RefillCore | GenerateCore,
    rate: float,
) -> dict[str, object]:
    roofline = measure_roofline(model)
    tokens = sum(one.sampling.max_new_tokens for one in requests)
    fed = sum(map(len, {one.prompt_ids for one in requests})) + tokens
    products = 2.0 * parameters(model) * fed / roofline.matrix_flops
    # Each decode step reads every weight once; a copy reads and writes each byte.
    steps = tokens / max(1.0, _mean_rows(core))
    reads = steps * parameters(model) * model.dtype.itemsize / (2 * roofline.copy_bytes)
    return {
        "matrix rate, TFLOP/s": roofline.matrix_flops / 1e12,
        "memory rate, TB/s": 2 * roofline.copy_bytes / 1e12,
        "roofline, tokens/s": tokens / max(products, reads),
        "share of the roofline": rate * max(products, reads) / tokens,
    }


def _profile(
    core: RefillCore, requests: Sequence[GenerationRequest], device: torch.device
) -> dict[str, object]:
    core.add([replace(one) for one in requests])
    for _ in range(8):
        core.step()
    _wait(device)
    started = time.perf_counter()
    for _ in range(PROFILED_STEPS):
        core.step()
    _wait(device)
    step = (time.perf_counter() - started) / PROFILED_STEPS
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_gpu = device.type == "cuda"
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(PROFILED_STEPS):
            core.step()
        _wait(device)
    events = profile.key_averages()

    def spent(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    on_device = [e for e in events if not on_gpu or e.device_type == CUDA]
    total = sum(spent(event) for event in on_device)
    top = sorted(on_device, key=spent, reverse=True)[:SHOWN]
    return {
        "rows of the profiled step": len(list(core.running())),
        "ms a step": 1e3 * step,
        "ms of a step in kernels": total / 1e3 / PROFILED_STEPS,
        "kernels a step": sum(event.count for event in on_device) / PROFILED_STEPS,
        "largest kernels": [
            {
                "kernel": str(event.key)[:60].replace("|", "/"),
                "share": spent(event) / total,
                "calls a step": event.count / PROFILED_STEPS,
            }
            for event in top
        ],
    }
