"""What must hold on a device: parity with a plain pass, steering, memory, going on when full."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmarks.engine_models import build_model
from domain.errors import OrchestrateError
from traitlens.arrays import Float32
from workers.engine.engine import build_engine
from workers.engine.fallback import GenerateCore
from workers.engine.generation import (
    Generation,
    GenerationRequest,
    Intervention,
    Sampling,
    Steering,
    UnitVectors,
)
from workers.engine.refill import RefillCore
from workers.engine.teacher_forced import project_tokens, teacher_forced
from workers.models.model import LoadedModel

Found = tuple[dict[str, object], list[str]]
MODELS = ("demo", "llama32m", "gemma2-32m")
SMALL_MODELS = ("demo", "llama3m", "gemma2-3m")
# Largest relative distance of a row from the plain pass: rounding of float32, of bfloat16.
ALLOWED = {torch.float32: 2e-5, torch.bfloat16: 4e-2}
GROWTH_BYTES = 1 << 20


def requests(
    model: LoadedModel,
    prompts: int = 8,
    rollouts: int = 4,
    *,
    longest: int = 60,
    steering: Steering | None = None,
    directions: UnitVectors | None = None,
) -> list[GenerationRequest]:
    """Rollouts of random prompts of 1 to 90 tokens with limits of 1 to `longest` tokens; on a CPU
    few short ones."""
    if model.device.type == "cpu":
        prompts, longest = min(prompts, 6), min(longest, 24)
    random = np.random.default_rng(5)
    vocabulary = model.model.config.get_text_config().vocab_size
    made = []
    for prompt in range(prompts):
        ids = tuple(
            map(int, random.integers(3, vocabulary, 1 if not prompt else random.integers(2, 90)))
        )
        for rollout in range(rollouts):
            limit = Sampling(int(random.integers(1, longest + 1)))
            seed = 100 * prompt + rollout
            made.append(GenerationRequest(ids, seed, limit, steering, directions))
    return made


def generated(
    core: RefillCore | GenerateCore, work: Sequence[GenerationRequest]
) -> list[Generation]:
    """All generations, in the requests' order."""
    core.add(work)
    made: dict[GenerationRequest, Generation] = {}
    while core.has_work:
        made |= {done.request: done for done in core.step()}
    return [made[request] for request in work]


def parity(device: torch.device, names: Sequence[str]) -> Found:
    """Means of every row beside a plain pass over the same ids; the share of texts that are the
    same in other batches, which rounding bounds.
    """
    facts: dict[str, object] = {}
    failed: list[str] = []
    for dtype in ALLOWED:
        for name in names:
            model = _model(name, device, dtype)
            core = build_engine(model)
            what = f"{name}, {str(dtype).removeprefix('torch.')}"
            if core.path != "engine":
                failed.append(f"{what}: the trial refused the fast core")
            work = requests(model)
            made = generated(core, work)
            error = _worst(model, work, made, None)
            facts[f"{what}: worst row"] = error
            if not error <= ALLOWED[dtype]:
                failed.append(f"{what}: a row is {error:.1e} from the plain pass")
            again = generated(build_engine(model, max_rows=7), [replace(one) for one in work])
            same = np.mean(
                [a.response_ids == b.response_ids for a, b in zip(made, again, strict=True)]
            )
            facts[f"{what}: same text with 7 rows"] = float(same)
    return facts, failed


def steering(device: torch.device) -> Found:
    """Steered generations and projections beside steered plain passes over the same ids."""
    facts: dict[str, object] = {}
    failed: list[str] = []
    for dtype, allowed in ALLOWED.items():
        model = _model("demo", device, dtype)
        random = np.random.default_rng(3)
        units = random.normal(size=(3, model.d_model)).astype(np.float32)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        layers = (1, model.n_layers // 2, model.n_layers)
        directions = UnitVectors(layers, units)
        push = Steering(
            (
                Intervention(1, units[0], 2.0),
                Intervention(2, units[1], 1.0, "ablate"),
                Intervention(2, units[2], 0.5, "cap"),
            )
        )
        core = build_engine(model)
        work = requests(model, steering=push, directions=directions)
        made = generated(core, work)
        plain = generated(core, requests(model))
        name = str(dtype).removeprefix("torch.")
        if all(a.response_ids == b.response_ids for a, b in zip(made, plain, strict=True)):
            failed.append(f"{name}: steering changed nothing")
        error = _worst(model, work, made, push)
        prompts, texts = [r.prompt_ids for r in work], [g.response_ids for g in made]
        expected = dict(project_tokens(model, prompts, texts, directions, steering=push))
        scale = max(float(np.abs(one).max()) for one in expected.values())
        off = max(
            float(np.abs(one.projections[: len(expected[i])] - expected[i]).max())
            for i, one in enumerate(made)
            if one.projections is not None
        )
        facts |= {
            f"{name}: worst row": error,
            f"{name}: worst projection of its scale": off / scale,
        }
        failed += [
            f"{name}: {what} off by {value:.1e}"
            for what, value in (("states", error), ("projections", off / scale))
            if not value <= allowed
        ]
    return facts, failed


def memory(device: torch.device) -> Found:
    """Bytes allocated after each of several equal batches of work: the later ones add nothing."""
    if device.type != "cuda":
        return {"bytes": "counted on CUDA only"}, []
    model = _model("llama32m", device, torch.bfloat16)
    core = build_engine(model)
    held = []
    for _ in range(6):
        generated(core, requests(model, 40, 5))
        gc.collect()
        held.append(torch.cuda.memory_allocated(device))
    growth = held[-1] - held[2]
    facts: dict[str, object] = {"MiB after each": ", ".join(f"{one / 2**20:.1f}" for one in held)}
    return facts, [] if growth <= GROWTH_BYTES else [f"grew by {growth} bytes"]


def out_of_memory(device: torch.device, name: str) -> Found:
    """A device that fills up on the way: the same texts come out, with fewer rows."""
    model = _model(name, device, torch.float32)
    work = requests(model, 30, 8, longest=60)
    calm = generated(build_engine(model), work)
    core = build_engine(model)
    filled = _filled(device) if device.type == "cuda" else _fails_twice(core)
    made = generated(core, [replace(one) for one in work])
    halvings = core.stats.halvings
    del filled
    _empty(device)
    same = float(
        np.mean([a.response_ids == b.response_ids for a, b in zip(calm, made, strict=True)])
    )
    error = _worst(model, work, made, None)
    failed = [] if halvings else ["no out-of-memory error was met"]
    failed += [] if error <= ALLOWED[torch.float32] else [f"a row is {error:.1e} off after it"]
    after = generated(core, [replace(one) for one in work[:8]])
    failed += [] if len(after) == 8 else ["it does not go on afterwards"]
    return {"halvings": halvings, "same texts": same, "worst row": error}, failed


def _filled(device: torch.device) -> torch.Tensor:
    # All but a little: the engine plans by what is free, then its own growth meets the wall.
    _empty(device)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(device) + (192 << 20)) / total, device
    )
    return torch.zeros(1, device=device)


def _empty(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()


def _fails_twice(core: RefillCore | GenerateCore) -> object:
    # A CPU has no limit of its own to meet: two steps end as a full device's do.
    steps = iter(range(10_000))

    def full(*_: object) -> None:
        if next(steps) in (5, 9):
            raise torch.OutOfMemoryError("out of memory, on purpose")

    return core.model.model.register_forward_pre_hook(full)


def _model(name: str, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    built = build_model(name, str(device))
    return replace(built, model=built.model.to(dtype), dtype=dtype)


def _worst(
    model: LoadedModel,
    work: Sequence[GenerationRequest],
    made: Sequence[Generation],
    push: Steering | None,
) -> float:
    prompts = [request.prompt_ids for request in work]
    forced = teacher_forced(model, prompts, [one.response_ids for one in made], steering=push)
    plain = forced[:3]
    ours = [[g.response_avg, g.prompt_avg, g.prompt_last] for g in made]
    return max(_distance(np.stack([row[k] for row in ours]), plain[k]) for k in range(3))


def _distance(a: Float32, b: Float32) -> float:
    if not np.isfinite(a).all():
        raise OrchestrateError("a state is not finite")
    lengths = np.linalg.norm(b, axis=-1)
    distance = np.linalg.norm(a - b, axis=-1)
    return float((distance / np.where(lengths == 0, 1, lengths)).max())
