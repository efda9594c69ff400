"""What passes over given texts cost a CPU: at the batches that workers take, and at 4096 tokens.

    python benchmarks/readings.py --model real

16 texts of prompt and response, as many as a worker reads between two steps of generation. A way
is measured in a process of its own, one thread: CPU seconds, and the peak of its memory. Ends with
1 where the two disagree by more than rounding.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 20))

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.engine_models import build_model, model_names
from workers.engine import likelihood, teacher_forced
from workers.engine.generation import Intervention, Steering
from workers.engine.resident import TEXTS_AT_ONCE
from workers.models.model import LoadedModel

Array = np.ndarray[Any, np.dtype[Any]]
Ids = list[tuple[int, ...]]
WAYS = ("states", "gradients", "pushes")
BEFORE = 4096


def main() -> int:
    """Measure and print; 1 where the batches change the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="real", choices=model_names())
    given = parser.parse_args()
    print(f"{given.model}, {TEXTS_AT_ONCE} texts, one thread\n")
    print("| pass | CPU s | at 4096 | ratio | peak MiB | at 4096 |")
    print("|---|--:|--:|--:|--:|--:|")
    is_same = True
    spawn = multiprocessing.get_context("spawn")
    for way in WAYS:
        with spawn.Pool(1, maxtasksperchild=1) as pool:
            (seconds, peak, found), (seconds_before, peak_before, found_before) = (
                pool.apply(measured, (way, given.model, most)) for most in (0, BEFORE)
            )
        is_same &= np.allclose(found, found_before, rtol=1e-3, atol=1e-4)
        print(
            f"| {way} | {seconds:.1f} | {seconds_before:.1f} "
            f"| {seconds_before / seconds:.2f} | {peak} | {peak_before} |",
            flush=True,
        )
    return 0 if is_same else 1


def measured(way: str, model_name: str, most: int) -> tuple[float, int, Array]:
    """(CPU seconds, peak MiB, what was found) with `most` tokens at once, 0 for what workers
    take."""
    model = build_model(model_name, "cpu")
    module: Any = teacher_forced if way == "states" else likelihood
    if most:
        module.BATCH_TOKENS_CPU, module.BATCH_BYTES_CPU = most, sys.maxsize
    work = _work(way, model)
    began = time.process_time()
    found = work()
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return seconds, peak, found


def _work(way: str, model: LoadedModel) -> Callable[[], Array]:
    random = np.random.default_rng(0)
    prompts = _texts(random, model, (100, 125))
    responses = _texts(random, model, (20, 120))
    vector = random.normal(size=model.d_model).astype(np.float32)
    push = Steering((Intervention(model.n_layers // 2, vector / np.linalg.norm(vector), 2.0),))
    works: dict[str, Callable[[], Array]] = {
        "states": lambda: teacher_forced.teacher_forced(model, prompts, responses).response_avg,
        "gradients": lambda: likelihood.text_gradients(model, prompts, responses)[1],
        "pushes": lambda: likelihood.pushed_texts(model, prompts, responses, [push])[0],
    }
    return works[way]


def _texts(random: np.random.Generator, model: LoadedModel, between: tuple[int, int]) -> Ids:
    vocabulary = model.model.config.vocab_size
    return [
        tuple(int(token) for token in random.integers(3, vocabulary, random.integers(*between)))
        for _ in range(TEXTS_AT_ONCE)
    ]


if __name__ == "__main__":
    sys.exit(main())
