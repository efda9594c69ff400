"""How far the demo's vectors can be trusted, and what `--until converged` saves, from two runs.

    orchestrate extract --traits all --run whole
    orchestrate extract --traits all --run enough --until converged
    python benchmarks/trust.py runs whole enough

Everything that is generated and judged counts: what vectors are made from, what was generated ahead
and not needed, and the 300 responses a trait that test the vectors, which neither run saves. Ends
with 1 when a stated bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from scipy import stats

from domain.plan.jobs import Job
from domain.plan.samples import POLARITIES
from storage.record.artifacts import done_jobs
from storage.record.results import read_metrics, read_response_vectors
from storage.record.run import Run, open_run
from storage.record.store import open_store

# The bars that the project set itself. Any push does something; beside the vector's it is flat.
MOST_SHARE, LEAST_COSINE, LEAST_AUROC, LEAST_COHERENCE = 0.4, 0.99, 0.9, 50.0
MOST_RANDOM = 0.1


def main() -> None:
    """Print both tables and whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs_dir")
    parser.add_argument("whole")
    parser.add_argument("enough")
    options = parser.parse_args()
    whole, enough = (
        open_run(open_store(options.runs_dir).at(name)) for name in (options.whole, options.enough)
    )
    is_met = [_print_tests(whole), _print_savings(whole, enough)]
    sys.exit(0 if all(is_met) else 1)


def _print_tests(run: Run) -> bool:
    print(
        "| trait | verdict | AUROC, held out | push | rise | coherence there "
        "| slope | slope, random |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    n_met = 0
    slopes, random = [], []
    for trait in run.spec.traits:
        metrics = read_metrics(run.store, trait.name).model_dump(mode="json")
        quality = metrics["quality"]
        best, causal = quality["best"], quality["causal"]
        auroc = quality["evaluation"]["methods"][best["method"]]["separation"]["auroc"]
        curve, layer = causal["vector"], best["layer"]
        at = curve["strength"].index(curve["rise_at"])
        curves = (curve, causal["random"])
        coherence = curve["coherence"]["value"][at]
        cells = [
            trait.name,
            metrics["verdict"],
            _with_ends(auroc["value"][layer], auroc["interval"][layer], 3),
            f"{curve['rise_at']:g} at layer {causal['layer']}",
            _with_ends(curve["rise"]["value"], curve["rise"]["interval"], 0),
            f"{coherence:.0f}",
            *(_with_ends(c["slope"]["value"], c["slope"]["interval"], 1) for c in curves),
        ]
        slopes.append(curves[0]["slope"])
        random.append(curves[1]["slope"])
        print(f"| {' | '.join(cells)} |")
        rises = curve["rise"]["interval"][0] > 0 and coherence > LEAST_COHERENCE
        n_met += auroc["value"][layer] > LEAST_AUROC and rises
    means = [_mean_with_ends([one["value"] for one in each]) for each in (slopes, random)]
    n_over = [
        sum(r["interval"][0] > share * v["value"] for v, r in zip(slopes, random, strict=True))
        for share in (0.0, MOST_RANDOM)
    ]
    print(
        f"\n{n_met} of {len(run.spec.traits)} hold and cause (asked: 8 of 11). Slopes are "
        f"{_with_ends(*means[0], 1)} on average over the traits, random vectors' "
        f"{_with_ends(*means[1], 1)} (asked: holds 0); of these {n_over[0]} are surely over 0, "
        f"{n_over[1]} surely over {MOST_RANDOM:.0%} of the vector's (asked: none)\n"
    )
    is_flat = means[1][1][0] <= 0 and not n_over[1]
    return n_met >= 8 / 11 * len(run.spec.traits) and is_flat


def _print_savings(whole: Run, enough: Run) -> bool:
    print("| trait | generated | judged | of | for the vector | of | cosine at the best layer |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    rows, n_near = [], 0
    for trait in whole.spec.traits:
        row = [
            _n_done(enough, trait.name, enough.plan.part_jobs(trait, "generate")),
            _n_done(enough, trait.name, enough.plan.part_jobs(trait, "judge")),
            _n_done(whole, trait.name, whole.plan.part_jobs(trait, "generate")),
            _n_done(enough, trait.name, enough.plan.part_jobs(trait, "generate", *POLARITIES)),
            whole.plan.n_samples(trait),
        ]
        rows.append(row)
        quality = read_metrics(whole.store, trait.name).quality
        assert quality is not None
        layer = quality.best.layer
        pair = [
            read_response_vectors(run.store, trait.name, "mean_diff")[layer].astype(np.float64)
            for run in (whole, enough)
        ]
        cosine = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
        n_near += cosine > LEAST_COSINE
        print(f"| {trait.name} | {' | '.join(map(str, row))} | {cosine:.4f} |")
    generated, judged, of, made_from, of_these = np.sum(rows, axis=0)
    shares = np.array([generated / of, judged / of])
    print(
        f"\n{shares[0]:.0%} of all generations, {shares[1]:.0%} of all verdicts (asked: at most "
        f"{MOST_SHARE:.0%}), {made_from / of_these:.0%} of the generations for the vectors; "
        f"{n_near} of {len(whole.spec.traits)} with a cosine over {LEAST_COSINE} (asked: 10 of 11)"
    )
    return bool((shares <= MOST_SHARE).all() and n_near >= 10 / 11 * len(whole.spec.traits))


def _n_done(run: Run, trait: str, jobs: Sequence[Job]) -> int:
    done = done_jobs(run.store, [trait])
    return sum(run.plan.n_samples_of(job) for job in jobs if job.key in done)


def _mean_with_ends(values: list[float]) -> tuple[float, list[float]]:
    """The mean and its 95 % interval by Student's t."""
    mean, error = np.mean(values), stats.sem(values)
    return float(mean), [float(x) for x in stats.t.interval(0.95, len(values) - 1, mean, error)]


def _with_ends(value: float, ends: list[float], digits: int) -> str:
    return f"{value:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


if __name__ == "__main__":
    main()
