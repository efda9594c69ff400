"""Monitoring beside plain generation and beside one prompt at a time, in one run.

    python benchmarks/monitor.py                      # the demo model, one thread
    python benchmarks/monitor.py --model llama32m
    python benchmarks/monitor.py --model llama8b --device cuda

Every response has the same forced length. `plain` generates 64 prompts in one batch, `monitored`
the same with 11 directions on three layers, projected token by token and handed out as
trajectories, `streamed` hands every token out as it is read, `single` monitors prompt after prompt.
The ways take turns; on a CPU one pinned thread and its CPU seconds count, on a GPU wall seconds.
Ends with 1 when a batch is less than 5 times as fast per token as single prompts, or when
monitoring adds 10 % or more to generation.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.engine_models import build_model, model_names
from workers.engine.engine import Engine, build_engine
from workers.engine.generation import GenerationRequest, Sampling, UnitVectors
from workers.models.chat import Prompt
from workers.models.model import LoadedModel, load_model
from workers.monitor.monitor import OpenPrompt, monitor

N_TRAITS = 11
LEAST_SPEEDUP = 5.0
LARGEST_OVERHEAD = 0.10


def main() -> None:
    """Run the rounds, print the figures, and exit by the gates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", choices=model_names())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--singles", type=int, default=8, help="prompts that run one at a time")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # nothing ends a response but its length
    model = replace(
        build_model(options.model, options.device),
        stop_ids=frozenset(),
        tokenizer=words_tokenizer(options.model, options.device),
    )
    directions, sampling = make_directions(model), Sampling(options.tokens)
    engine = build_engine(model)
    turns = itertools.count()

    def prompts() -> list[OpenPrompt]:
        # new ones each turn, so that none is prefilled already
        return make_prompts(model, options.prompts, seed=next(turns))

    ways: dict[str, Callable[[], None]] = {
        "plain": lambda: generate(engine, prompts(), sampling),
        "monitored": lambda: watch(engine, prompts(), directions, sampling, streams=False),
        "streamed": lambda: watch(engine, prompts(), directions, sampling, streams=True),
        "single": lambda: one_at_a_time(engine, prompts()[: options.singles], directions, sampling),
    }
    n_prompts = dict.fromkeys(ways, options.prompts) | {"single": options.singles}
    n_tokens = {name: n * options.tokens for name, n in n_prompts.items()}
    for way in ways.values():
        way()  # the first time fills caches of all kinds
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            seconds[name].append(measured(way, on_gpu=model.device.type == "cuda"))
    report(seconds, n_tokens, engine.path)


def words_tokenizer(name: str, device: str) -> PreTrainedTokenizerBase:
    """The demo model's own; for random weights a word for every id."""
    if name == "demo":
        return load_model("demo", device=device).tokenizer
    size = build_model(name, "meta").model.config.vocab_size
    words = {f"word{i} ": i for i in range(size)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="word0 ")))


def make_prompts(model: LoadedModel, n: int, *, seed: int) -> list[OpenPrompt]:
    """Random prompts of 20 to 60 tokens, of the same lengths for every seed."""
    lengths = np.random.default_rng(0).integers(20, 61, n)
    random = np.random.default_rng(1000 + seed)
    vocabulary = model.model.config.get_text_config().vocab_size
    ids = [tuple(map(int, random.integers(10, vocabulary, length))) for length in lengths]
    return [OpenPrompt(f"prompt {i}", Prompt("", one), seed=i) for i, one in enumerate(ids)]


def make_directions(model: LoadedModel) -> UnitVectors:
    """11 directions on three middle layers."""
    random = np.random.default_rng(0)
    middle = model.n_layers // 2
    layers = tuple(middle + k % 3 - 1 for k in range(N_TRAITS))
    units = random.normal(size=(N_TRAITS, model.d_model)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return UnitVectors(layers, units)


def generate(engine: Engine, asked: list[OpenPrompt], sampling: Sampling) -> None:
    """The batch without directions."""
    engine.add(GenerationRequest(one.prompt.token_ids, one.seed, sampling) for one in asked)
    while engine.has_work:
        engine.step()


def watch(
    engine: Engine,
    asked: list[OpenPrompt],
    directions: UnitVectors,
    sampling: Sampling,
    *,
    streams: bool,
) -> None:
    """The batch with every token projected and every trajectory made."""
    for _ in monitor(engine, asked, directions, sampling=sampling, streams=streams):
        pass


def one_at_a_time(
    engine: Engine,
    asked: list[OpenPrompt],
    directions: UnitVectors,
    sampling: Sampling,
) -> None:
    """The prompts one after the other, as the published monitors do."""
    for one in asked:
        watch(engine, [one], directions, sampling, streams=False)


def measured(way: Callable[[], None], *, on_gpu: bool) -> float:
    """Seconds of one turn."""
    if on_gpu:
        torch.cuda.synchronize()
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    way()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started


def report(seconds: dict[str, list[float]], n_tokens: dict[str, int], path: str) -> None:
    """Print medians and ratios within rounds; exit with 1 when a gate fails."""
    print(f"core: {path}")
    for name, values in seconds.items():
        per_token = 1e6 * median(values) / n_tokens[name]
        print(f"{name:10} {median(values):7.3f} s {per_token:9.1f} us a token")
    tokens = n_tokens["monitored"] / n_tokens["single"]
    pairs = zip(seconds["single"], seconds["monitored"], strict=True)
    speedup = median(single * tokens / batch for single, batch in pairs)
    over = {}
    for name in ("monitored", "streamed"):
        ratios = [a / b - 1 for a, b in zip(seconds[name], seconds["plain"], strict=True)]
        over[name] = median(ratios)
        print(
            f"{name} over plain: {over[name]:+.1%} (rounds {min(ratios):+.1%}..{max(ratios):+.1%})"
        )
    print(f"batched over single, per token: {speedup:.1f}x")
    failed = speedup < LEAST_SPEEDUP or over["monitored"] >= LARGEST_OVERHEAD
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
