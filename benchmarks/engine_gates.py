"""What must hold in every run of the engine benchmark, or its figures mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from benchmarks.engine_report import Measured
from benchmarks.engine_ways import Outcome, ours
from workers.engine.engine import build_engine
from workers.engine.engine_thread import EngineThread
from workers.engine.generation import GenerationRequest, Sampling
from workers.engine.sampler import RowSampling, draw, tree_levels, uniforms
from workers.engine.teacher_forced import teacher_forced
from workers.models.model import LoadedModel

CHECKED = 16
# Four prompts' rollouts are generated again with another number of rows.
REPEATED = 40


def failed_gates(
    model: LoadedModel,
    requests: Sequence[GenerationRequest],
    runs: Mapping[str, Sequence[Measured]],
    rows: int,
) -> list[str]:
    """What does not hold, in words: lengths, means, the same text in other batches, the sampler."""
    wanted = [request.sampling.max_new_tokens for request in requests]
    failed = [
        f"{name}: a response has not its forced length"
        for name, measured in runs.items()
        if any([len(r) for r in run.outcome.responses] != wanted for run in measured)
    ]
    failed += [
        f"{name}: means differ from the teacher-forced pass"
        for name in ("ours", "A+", "B+", "V+")
        if runs.get(name) and not _parity(model, requests, runs[name][-1].outcome)
    ]
    if runs.get("ours") and model.dtype == torch.float32:
        some = list(requests[:REPEATED])
        again = ours(EngineThread(lambda: build_engine(model, max_rows=rows // 7)), some).responses
        if again != runs["ours"][-1].outcome.responses[: len(some)]:
            failed.append("ours: another batch size gives another text")
    return failed + _sampler_gate()


def _parity(model: LoadedModel, requests: Sequence[GenerationRequest], outcome: Outcome) -> bool:
    some = np.random.default_rng(1).choice(
        len(requests), min(CHECKED, len(requests)), replace=False
    )
    prompts = [requests[i].prompt_ids for i in some]
    expected = teacher_forced(model, prompts, [outcome.responses[i] for i in some])[0]
    ours = outcome.response_avg[some]
    error = np.linalg.norm(ours - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    return bool(error.max() <= (1e-5 if model.dtype == torch.float32 else 3e-2))


def _sampler_gate() -> list[str]:
    n, vocabulary = 20_000, 1000
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(1))
    tokens = draw(
        logits.expand(n, -1),
        uniforms(5, n, tree_levels(vocabulary)),
        RowSampling.of([Sampling(1)] * n),
    )
    expected = torch.softmax(logits.double(), 0).numpy() * n
    counts = np.bincount(tokens.numpy(), minlength=vocabulary)
    # Chi-square with 999 degrees of freedom: mean 999, standard deviation 45.
    square = float(((counts - expected) ** 2 / expected).sum())
    return [] if square < 999 + 5 * 45 else [f"sampler: chi-square {square:.0f}"]
