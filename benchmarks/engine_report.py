"""Figures of the engine benchmark: rates, their ratios, and how near the machine's limit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.engine_models import parameters
from benchmarks.engine_roofline import measure_roofline
from benchmarks.engine_ways import Outcome
from workers.engine.generation import EngineStats, GenerationRequest
from workers.models.model import LoadedModel


@dataclass(frozen=True)
class Measured:
    """One way, once: seconds of the clock that counts, wall seconds, peak bytes, what came out."""

    seconds: float
    wall: float
    peak: int
    outcome: Outcome


def engine_facts(stats: EngineStats, busy: float) -> dict[str, float]:
    """Where the engine's seconds went, and how full it was."""
    capture = stats.capture_seconds + stats.prefill_capture_seconds
    return {
        "capture_share": capture / stats.forward_seconds,
        "prefill_share": stats.prefill_seconds / stats.forward_seconds,
        "decode_share": stats.decode_seconds / stats.forward_seconds,
        "sample_share": stats.sample_seconds / stats.forward_seconds,
        "busy_share": busy,
        "mean_rows": stats.row_steps / stats.steps,
        "peak_rows": stats.peak_rows,
        "recorded_share": stats.recorded_steps / stats.steps,
        "prompt_tokens_run_of_asked": stats.prefilled_tokens / stats.prompt_tokens,
    }


def make_report(
    model: LoadedModel,
    requests: Sequence[GenerationRequest],
    runs: Mapping[str, Sequence[Measured]],
    engine: dict[str, float],
    *,
    lengths: str,
    failed: Sequence[str],
) -> dict[str, object]:
    """Everything that is printed, as JSON values; rates are over the median of a way's runs."""
    wanted = [request.sampling.max_new_tokens for request in requests]
    ways = {name: _way_facts(measured, wanted) for name, measured in runs.items() if measured}
    return {
        "model": model.model_id,
        "device": _device_name(model),
        "parameters": parameters(model),
        "responses": len(requests),
        "lengths": {
            "kind": lengths,
            "mean": statistics.mean(wanted),
            "median": statistics.median(wanted),
            "max": max(wanted),
            "at_max": wanted.count(max(wanted)),
        },
        "ways": ways,
        "engine": engine,
        "roofline": _roofline_facts(model, requests, ways),
        "failed_gates": list(failed),
    }


def print_report(report: dict[str, object]) -> None:
    """A Markdown table and two lines of figures, on stdout."""
    ways: dict[str, dict[str, float]] = report["ways"]  # type: ignore[assignment]
    ours_rate = ways["ours"]["responses_per_second"]
    print(f"\n{report['model']} on {report['device']}, {report['responses']} responses,")
    print(f"lengths {report['lengths']}\n")
    print("| way | responses/s | tokens/s | ours is | wasted rows | peak MiB | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, way in ways.items():
        rate = way["responses_per_second"]
        print(
            f"| {name} | {rate:.2f} | {way['tokens_per_second']:.0f} | {ours_rate / rate:.2f}x "
            f"| {way['wasted_rows']:.0%} | {way['peak_mib']} | {way['seconds']} |"
        )
    for part in ("engine", "roofline"):
        facts: dict[str, float] = report[part]  # type: ignore[assignment]
        print(f"\n{part}: " + ", ".join(f"{name} {value:.3g}" for name, value in facts.items()))
    print(f"\ngates: {report['failed_gates'] or 'all passed'}")


def _way_facts(measured: Sequence[Measured], wanted: Sequence[int]) -> dict[str, object]:
    median = statistics.median(run.seconds for run in measured)
    return {
        "responses_per_second": len(wanted) / median,
        "tokens_per_second": sum(wanted) / median,
        "seconds": [round(run.seconds, 2) for run in measured],
        "wall_seconds": [round(run.wall, 2) for run in measured],
        "peak_mib": max(run.peak for run in measured) >> 20,
        "wasted_rows": measured[-1].outcome.waste,
    }


def _roofline_facts(
    model: LoadedModel,
    requests: Sequence[GenerationRequest],
    ways: Mapping[str, Mapping[str, object]],
) -> dict[str, float]:
    # The least work: every distinct prompt once, every response token once, through every weight.
    prompts = {request.prompt_ids for request in requests}
    fed = sum(map(len, prompts)) + sum(request.sampling.max_new_tokens for request in requests)
    flops = 2.0 * parameters(model) * fed
    roofline = measure_roofline(model)
    facts = {
        "matrix_gflops": roofline.matrix_flops / 1e9,
        "copy_gb_per_second": roofline.copy_bytes / 1e9,
    }
    for name, way in ways.items():
        rate = flops * float(str(way["responses_per_second"])) / len(requests)
        facts[f"{name}_share_of_matrix_rate"] = rate / roofline.matrix_flops
    return facts


def _device_name(model: LoadedModel) -> str:
    if model.device.type == "cuda":
        return str(torch.cuda.get_device_name(model.device))
    return f"{model.device.type}, one thread"
