"""What the machine can do at best, measured in the same run: matrix rate and copying rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from workers.engine.forward import PackedLinears
from workers.models.model import LoadedModel

# Rows and sides of the product, and bytes of the copy: past every cache, past a launch's cost.
SIZES = {"cpu": (1024, 1024, 4096, 64 << 20), "cuda": (8192, 8192, 8192, 2 << 30)}
REPEATS = 8


@dataclass(frozen=True)
class Roofline:
    """Floating-point operations and bytes copied (read and written once) per second, in the
    model's dtype.
    """

    matrix_flops: float
    copy_bytes: float


def measure_roofline(model: LoadedModel) -> Roofline:
    """The best of torch's own and the packed product at many rows, and a copy beyond the caches."""
    place, dtype = model.device, model.dtype
    rows, taken, given, copied_bytes = SIZES.get(place.type, SIZES["cpu"])
    layer = torch.nn.Linear(taken, given, bias=False, device=place, dtype=dtype)
    states = torch.randn(rows, taken, device=place, dtype=dtype)
    flops = 2.0 * rows * taken * given
    with torch.inference_mode():
        plain = _seconds(lambda: layer(states), place)
        with PackedLinears(layer).in_use():
            packed = _seconds(lambda: layer(states), place)
        source = torch.zeros(copied_bytes, dtype=torch.uint8, device=place)
        target = torch.empty_like(source)
        copied = _seconds(lambda: target.copy_(source), place)
    return Roofline(flops / min(plain, packed), source.numel() / copied)


def _seconds(work: Callable[[], object], place: torch.device) -> float:
    # The clock of the benchmark: CPU seconds where other processes may share the core.
    clock = time.process_time if place.type == "cpu" else time.perf_counter
    best = float("inf")
    for _ in range(REPEATS):
        started = clock()
        work()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        best = min(best, clock() - started)
    return best
