"""How far the demo's vectors can be trusted, and what `--until converged` saves, from two runs.

    orchestrate extract --traits all --run whole
    orchestrate extract --traits all --run enough --until converged
    python benchmarks/trust.py runs whole enough

Everything that is generated and judged counts: what vectors are made from, what was generated ahead
and not needed, and the 312 responses a trait that test the vectors, which neither run saves. Ends
with 1 when a stated bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from domain.plan.jobs import Job
from domain.plan.samples import POLARITIES
from domain.verdict.record import Estimate, UseState
from storage.record.artifacts import jobs_with_artifacts
from storage.record.results import read_metrics, read_response_vectors
from storage.record.run import Run, open_run
from storage.record.store import open_store

# The bars that the project set itself.
MOST_SHARE, LEAST_COSINE, LEAST_MET = 0.4, 0.99, 8


def main() -> None:
    """Print the tables and whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs_dir")
    parser.add_argument("whole")
    parser.add_argument("enough", nargs="?", help="left out: the first table alone")
    options = parser.parse_args()
    store = open_store(options.runs_dir)
    whole = open_run(store.at(options.whole))
    is_met = [_print_tests(whole)]
    if options.enough:
        is_met.append(_print_savings(whole, open_run(store.at(options.enough))))
    sys.exit(0 if all(is_met) else 1)


def _print_tests(run: Run) -> bool:
    """What each trait's vector reads and causes; whether both are shown of enough traits."""
    print(
        "| trait | verdict | reads: AUROC, layer | p | in its own context | texts' share ", end=""
    )
    print("| likelihood p | push | rise | over random | backwards | coherence there |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    n_met = 0
    for trait in run.spec.traits:
        metrics = read_metrics(run.store, trait.name)
        quality = metrics.quality
        assert (
            quality is not None and quality.reading is not None and quality.likelihood is not None
        )
        reading, causal, likelihood = quality.reading, quality.causal, quality.likelihood
        assert reading.auroc and reading.in_context_auroc and reading.text_share
        assert causal is not None and reading.layer is not None
        curve, at = causal.vector, causal.vector.strength.index(causal.vector.rise_at or 0.0)
        cells = [
            trait.name,
            metrics.verdict,
            f"{_with_ends(reading.auroc.at(reading.layer), 2)}, {reading.layer}",
            f"{reading.p:.4f}",
            f"{reading.in_context_auroc.value[reading.layer]:.2f}",
            f"{reading.text_share[reading.layer]:.0%}",
            f"{likelihood.p:.3f}, {likelihood.layer}",
            f"{curve.rise_at:g} at layer {causal.layer}",
            _with_ends(curve.rise, 0),
            _with_ends(causal.rise_over_random, 0),
            f"{causal.backwards.value or 0:.0%}",
            f"{curve.coherence.value[at]:.0f}",
        ]
        print(f"| {' | '.join(cells)} |")
        n_met += metrics.uses.reads.state == metrics.uses.steers.state == UseState.YES
    n = len(run.spec.traits)
    print(f"\n{n_met} of {n} read and steer (asked: {LEAST_MET} of 11)\n")
    return n_met >= LEAST_MET / 11 * n


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
    done = jobs_with_artifacts(run.store, [trait])
    return sum(run.plan.n_samples_of(job) for job in jobs if job.key in done)


def _with_ends(found: Estimate, digits: int) -> str:
    low, high = found.interval
    return f"{found.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
