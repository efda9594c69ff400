"""The generation engine beside the peers' way, in one run: same model, prompts, sampling and
lengths.

    python benchmarks/engine.py --model llama32m --lengths wide
    python benchmarks/engine.py --model demo --lengths cut
    python benchmarks/engine.py --model real --order A,ours,B+,V+,ours
    python benchmarks/engine.py --model llama8b --device cuda

A is generate in batches of 20 and one forward pass a response; A+ is generate at our batch, B+
transformers' continuous batching (generate_batch) and V+ vLLM's CPU build, each with a batched
second pass; ours is the worker's path with its writes. Lengths are forced: `wide` is
lognormal with a cap, `cut` ends every response at the cap. On a CPU one pinned thread and its CPU
seconds count, on a GPU wall seconds. Ends with 1 when a gate fails: lengths, parity, same text in
other batches, the sampler.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import engine_vllm
from benchmarks.engine_gates import failed_gates
from benchmarks.engine_models import build_model, model_names
from benchmarks.engine_report import Measured, engine_facts, make_report, print_report
from benchmarks.engine_ways import (
    PEERS_BATCH,
    Outcome,
    by_vllm,
    continuous,
    ours,
    peers,
    plain_best,
)
from workers.engine.engine import build_engine
from workers.engine.engine_thread import EngineThread
from workers.engine.generation import EngineStats, GenerationRequest, Sampling
from workers.engine.refill import MOST_ROWS_CPU, MOST_ROWS_GPU
from workers.models.model import LoadedModel

ROLLOUTS = 10
SIDES = 2
PROMPT_TOKENS = (100, 125)


@dataclass(frozen=True)
class Lengths:
    """Median and sigma of a lognormal, its cap, and the length to which `cut` cuts all."""

    median: int
    sigma: float
    cap: int
    cut: int


CPU_LENGTHS = Lengths(60, 0.6, 192, 80)
GPU_LENGTHS = Lengths(170, 0.6, 1000, 200)


def main() -> int:
    """Run the benchmark and print its table; 1 when a gate fails."""
    given = _arguments()
    torch.set_num_threads(1)
    if given.device == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    model = build_model(given.model, given.device)
    requests = _requests(model, given, seed=given.seed)
    rows = given.rows or (MOST_ROWS_CPU if given.device == "cpu" else MOST_ROWS_GPU)
    thread = EngineThread(lambda: build_engine(model, max_rows=rows))
    ways: dict[str, Callable[[Sequence[GenerationRequest]], Outcome]] = {
        "A": lambda work: peers(model, work),
        "ours": lambda work: ours(thread, work),
        "A+": lambda work: plain_best(model, work, rows),
        "B+": lambda work: continuous(model, work, rows),
        "V+": lambda work: by_vllm(model, work),
    }
    order = given.order.split(",")
    if "V+" in order and not engine_vllm.is_made():
        print("V+ is skipped: python benchmarks/engine_vllm.py --make", file=sys.stderr)
        order = [name for name in order if name != "V+"]
    # Other prompts: those that are measured shall be in no cache. Ours first: its thread is done
    # with the model when it has answered.
    warm = _requests(model, given, seed=given.seed + 1)[: 2 * PEERS_BATCH]
    for name in sorted({*order} - {"V+"}, reverse=True):
        ways[name](warm)
    before = _snapshot(thread)
    runs: dict[str, list[Measured]] = {name: [] for name in ways}
    for name in order:
        runs[name].append(_measured(ways[name], requests, model))
        seconds = runs[name][-1].seconds
        print(f"{name}: {len(requests) / seconds:.2f} responses per second", file=sys.stderr)
    stats = _since(before, _snapshot(thread))
    failed = failed_gates(model, requests, runs, rows)
    report = make_report(
        model,
        requests,
        runs,
        engine_facts(stats, thread.busy_share()),
        lengths=given.lengths,
        failed=failed,
    )
    thread.close()
    print_report(report)
    if given.json:
        Path(given.json).write_text(json.dumps(report, indent=2))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="llama32m", choices=model_names())
    parser.add_argument("--lengths", default="wide", choices=["wide", "cut"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--instructions", type=int, default=2)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--rows", type=int, default=0, help="our batch (the engine's own limit)")
    parser.add_argument("--order", default="A,ours,A+,ours,A", help="ways in the order they run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="write the figures to this file as well")
    return parser.parse_args()


def _requests(
    model: LoadedModel, given: argparse.Namespace, *, seed: int
) -> list[GenerationRequest]:
    random = np.random.default_rng(seed)
    shape = CPU_LENGTHS if given.device == "cpu" else GPU_LENGTHS
    n = given.instructions * SIDES * given.questions * ROLLOUTS
    spread = np.exp(random.normal(np.log(shape.median), shape.sigma, n))
    lengths = np.clip(np.round(spread), 1, shape.cap).astype(int)
    if given.lengths == "cut":
        lengths[:] = shape.cut
    vocabulary = model.model.config.vocab_size
    requests: list[GenerationRequest] = []
    for i, length in enumerate(lengths):
        if i % ROLLOUTS == 0:
            tokens = random.integers(*PROMPT_TOKENS)
            prompt = tuple(int(t) for t in random.integers(3, vocabulary, tokens))
        requests.append(GenerationRequest(prompt, i, Sampling(int(length))))
    return requests


def _measured(
    way: Callable[[Sequence[GenerationRequest]], Outcome],
    requests: Sequence[GenerationRequest],
    model: LoadedModel,
) -> Measured:
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(model.device)
        torch.cuda.synchronize(model.device)
    with _PeakMemory() as memory:
        cpu, wall = time.process_time(), time.perf_counter()
        outcome = way(requests)
        if on_gpu:
            torch.cuda.synchronize(model.device)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    cpu += outcome.elsewhere_seconds
    peak = torch.cuda.max_memory_allocated(model.device) if on_gpu else memory.peak
    peak = max(peak, outcome.elsewhere_peak)
    return Measured(wall if on_gpu else cpu, wall, peak, outcome)


class _PeakMemory:
    """Watches this process' resident memory a few times a second."""

    def __enter__(self) -> _PeakMemory:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.2):
            self.peak = max(self.peak, process.memory_info().rss)


def _snapshot(thread: EngineThread) -> EngineStats:
    assert thread.engine is not None
    return EngineStats(**asdict(thread.engine.stats))


def _since(before: EngineStats, after: EngineStats) -> EngineStats:
    earlier = asdict(before)
    fields = {name: value - earlier[name] for name, value in asdict(after).items()}
    return EngineStats(**{**fields, "peak_rows": after.peak_rows})


if __name__ == "__main__":
    sys.exit(main())
