"""The four methods beside the published way of each, in one run: time, agreement, memory.

    python benchmarks/methods.py            1000 + 1000 responses, 27 layers of 2304 (Gemma-2-2B)
    python benchmarks/methods.py --small    100 + 100 responses, 5 layers of 256: a quick check

Synthetic residual streams: correlated noise with a falling spectrum, two heavy coordinates, a
planted trait direction. Published ways: mean of each side and a difference, in the input's
precision; scikit-learn's logistic regression at its default tolerance (and at 1e-10 for the
optimum); scikit-learn's FastICA with its own whitening; the seed documents' 100 Adam steps over
all rows, layer by layer. Times are of one thread unless OMP_NUM_THREADS says otherwise. Ends with 1
when a stated bar is missed (without --small).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from traitlens.assess.directions import direction_quality, vector_separation
from traitlens.methods.fitting import working_copy
from traitlens.methods.gradient import gradient
from traitlens.methods.ica import N_COMPONENTS, ica
from traitlens.methods.mean_diff import mean_diff
from traitlens.methods.probe import LogisticFit, fit_logistic, probe

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Size:
    """Responses a side, layers, width."""

    n: int
    layers: int
    width: int


@dataclass(frozen=True)
class Row:
    """One line of the table; `bar` says what was asked and `met` whether it holds."""

    what: str
    published_s: float | None
    ours_s: float
    agreement: str
    bar: str
    met: bool


def synthetic(size: Size) -> tuple[Array, Array]:
    """Positives and negatives [n, layers, width] float32, from one seed."""
    rng = np.random.default_rng(0)
    spectrum = (np.arange(1, size.width + 1) ** -0.5).astype(np.float32)
    sides = np.empty((2, size.n, size.layers, size.width), dtype=np.float32)
    for layer in range(size.layers):
        mixing, _ = np.linalg.qr(rng.standard_normal((size.width, size.width)).astype(np.float32))
        truth = rng.standard_normal(size.width).astype(np.float32)
        truth *= 2 / np.linalg.norm(truth)
        mean = rng.standard_normal(size.width).astype(np.float32)
        mean[:2] = 60  # massive coordinates, as real models have
        # Laplace sources, so that independent components are identified.
        noise = rng.laplace(size=(2 * size.n, size.width)).astype(np.float32) * spectrum * 3
        rows = mean + noise @ mixing.T
        sides[0, :, layer], sides[1, :, layer] = rows[: size.n] + truth, rows[size.n :] - truth
    return sides[0], sides[1]


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of wall time, and what the work returned."""
    start = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - start, result


def cosine(a: Array, b: Array) -> float:
    """Smallest cosine between corresponding rows."""
    a, b = np.atleast_2d(a).astype(float), np.atleast_2d(b).astype(float)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def bench_mean_diff(pos: Array, neg: Array) -> Row:
    """Against a plain read of the same memory, and numpy's float32 means; best of five."""
    works = (
        lambda: (pos.sum(), neg.sum()),
        lambda: pos.mean(axis=0) - neg.mean(axis=0),
        lambda: mean_diff(pos, neg).vectors,
    )
    rounds = [[timed(work) for work in works] for _ in range(5)]
    read_s, published_s, ours_s = (
        min(took for took, _ in column) for column in zip(*rounds, strict=True)
    )
    _, published, ours = (result for _, result in rounds[0])
    gigabytes = (pos.nbytes + neg.nbytes) / 1e9
    return Row(
        "mean_diff",
        published_s,
        ours_s,
        f"cos {cosine(ours, published):.6f}; {gigabytes / ours_s:.1f} GB/s, "
        f"a bare read {gigabytes / read_s:.1f}",
        "at a bare read's speed",
        ours_s <= 1.25 * read_s,
    )


def seed_gradient_objective(
    difference: Array, start: Array, *, num_steps: int = 100, lr: float = 0.01
) -> Array:
    """The gradient method as the seed documents publish it, all layers at once: unit [L+1, d].

    Their loss, -(mean pos.v^ - mean neg.v^) + 0.01 ||v|| with v^ = v / (||v|| + 1e-8), sees the
    rows only through the mean `difference` [L+1, d_model], so num_steps of Adam (rate lr, betas
    0.9 and 0.999, from `start` [L+1, d_model]) need no pass over the data. Kept to reproduce
    published vectors: after 100 steps the result is still mostly its start.
    """
    d, v = difference.astype(np.float32), start.astype(np.float32).copy()
    mean, square = np.zeros_like(v), np.zeros_like(v)
    for t in range(1, num_steps + 1):
        norm = np.linalg.norm(v, axis=1, keepdims=True)
        along = np.einsum("ld,ld->l", d, v)[:, None]
        slope = -d / (norm + 1e-8) + along * v / (norm * (norm + 1e-8) ** 2) + 0.01 * v / norm
        mean += 0.1 * (slope - mean)
        square += 0.001 * (slope * slope - square)
        v -= lr * (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    unit: Array = v / np.linalg.norm(v, axis=1, keepdims=True)
    return unit


def bench_gradient(pos: Array, neg: Array) -> Row:
    """The seeds' objective: their loop over rows, and ours from the mean difference."""
    start = np.random.default_rng(1).standard_normal(pos.shape[1:]).astype(np.float32)
    published_s, published = timed(
        lambda: np.stack([_seed_loop(pos[:, i], neg[:, i], start[i]) for i in range(pos.shape[1])])
    )
    ours_s, ours = timed(lambda: seed_gradient_objective(mean_diff(pos, neg).vectors, start))
    agreement = cosine(ours, published)
    return Row(
        "gradient, the seeds' objective",
        published_s,
        ours_s,
        f"cos {agreement:.7f}",
        ">= 50x, cos > 0.9999",
        published_s >= 50 * ours_s and agreement > 0.9999,
    )


def _seed_loop(pos: Array, neg: Array, start: Array) -> Array:
    """100 steps of Adam at 0.01, every step projecting all rows."""
    positives, negatives = torch.from_numpy(pos.copy()), torch.from_numpy(neg.copy())
    v = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        unit = v / (v.norm() + 1e-8)
        loss = -((positives @ unit).mean() - (negatives @ unit).mean()) + 0.01 * v.norm()
        loss.backward()
        optimizer.step()
    return np.asarray((v / v.norm()).detach())


def bench_own_gradient(pos: Array, neg: Array) -> Row:
    """Our margin objective: that it converges everywhere and is not the mean difference."""
    ours_s, ours = timed(lambda: gradient(pos, neg))
    share = float(ours.details["converged"].mean())
    other = cosine(ours.vectors, mean_diff(pos, neg).vectors)
    return Row(
        "gradient, our margin loss",
        None,
        ours_s,
        f"{share:.0%} of layers converged; cos to mean_diff {other:.3f}",
        "all converged",
        share == 1,
    )


def fit_ours(rows: Array, is_pos: Array) -> LogisticFit:
    """What a layer of the probe method costs; the copy it works on included."""
    return fit_logistic(working_copy(rows), is_pos, c=1.0)


def bench_probe(pos: Array, neg: Array, *, layers: range) -> list[Row]:
    """One C, standardized rows: scikit-learn by default, ours, and the optimum at 1e-10."""
    is_pos = np.arange(len(pos) + len(neg)) < len(pos)
    seconds = {"default": 0.0, "ours": 0.0}
    cosines: dict[str, list[float]] = {"default": [], "ours": []}
    for layer in layers:
        rows = np.concatenate([pos[:, layer], neg[:, layer]])
        rows = ((rows - rows.mean(axis=0)) / rows.std(axis=0)).astype(np.float32)
        took, default = timed(LogisticRegression(max_iter=5000).fit, rows, is_pos)
        seconds["default"] += took
        took, ours = timed(fit_ours, rows, is_pos)
        seconds["ours"] += took
        best = LogisticRegression(tol=1e-10, max_iter=50_000).fit(rows.astype(float), is_pos)
        cosines["default"].append(cosine(default.coef_, best.coef_))
        cosines["ours"].append(cosine(ours.weights, best.coef_))
    worst = min(cosines["ours"])
    row = Row(
        f"probe, C=1, {len(layers)} layers",
        seconds["default"],
        seconds["ours"],
        f"cos to the optimum: ours {worst:.7f}, default {min(cosines['default']):.5f}",
        "<= 2x the time, cos > 0.9999",
        seconds["ours"] <= 2 * seconds["default"] and worst > 0.9999,
    )
    whole_s, whole = timed(lambda: probe(pos, neg))
    share = float(whole.details["converged"].mean())
    chosen = Row(
        "probe with C by validation",
        None,
        whole_s,
        f"{share:.0%} converged; held-out accuracy {whole.details['held_out_acc'].mean():.3f}",
        "all converged",
        share == 1,
    )
    return [row, chosen]


def bench_ica(pos: Array, neg: Array, *, layers: range) -> Row:
    """Ten components: scikit-learn's own whitening, and ours; the subspaces compared."""
    chosen = slice(layers.start, layers.stop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        published_s, published = timed(lambda: [_published_ica(pos, neg, i) for i in layers])
    ours_s, ours = timed(lambda: ica(pos[:, chosen], neg[:, chosen]))
    components = ours.details["all_components"]
    worst = min(
        _smallest_principal_cosine(a, b) for a, b in zip(published, components, strict=True)
    )
    return Row(
        f"ica, 10 components, {len(layers)} layers",
        published_s,
        ours_s,
        f"principal cosines > {worst:.6f}",
        ">= 8x, cosines > 0.9999",
        published_s >= 8 * ours_s and worst > 0.9999,
    )


def _published_ica(pos: Array, neg: Array, layer: int) -> Array:
    model = FastICA(n_components=N_COMPONENTS, random_state=42)
    model.fit(np.concatenate([pos[:, layer], neg[:, layer]]))
    return np.asarray(model.mixing_.T)


def _smallest_principal_cosine(a: Array, b: Array) -> float:
    bases = [np.linalg.qr(x.T.astype(float))[0] for x in (a, b)]
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).min())


def bench_quality(pos: Array, neg: Array) -> Row:
    """Everything that goes beside a vector, ten rollouts a prompt; nothing published to compare."""
    labels = np.arange(len(pos)) // 10
    prompts = (list(zip(labels % 5, labels // 5, strict=True)),) * 2
    folds = {"instruction": (labels % 5, labels % 5), "question": (labels // 5, labels // 5)}
    vectors = mean_diff(pos, neg).vectors

    def everything() -> None:
        direction_quality(pos, neg, prompts=prompts, folds=folds)
        vector_separation(vectors, pos, neg, prompts=prompts)

    ours_s, _ = timed(everything)
    return Row("quality with intervals", None, ours_s, "", "< 60 s", ours_s < 60)


class PeakMemory:
    """Watches this process's resident memory while a block runs; `bytes` is the highest seen."""

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.bytes = max(self.bytes, resident_bytes())


def resident_bytes() -> int:
    """Resident memory now; on systems without /proc the peak so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bench_memory(pos: Array, neg: Array) -> Row:
    """Peak resident memory over all four methods, beyond what was there without the input."""
    size = pos.nbytes + neg.nbytes
    without_input = resident_bytes() - size
    with PeakMemory() as peak:
        took, _ = timed(lambda: [method(pos, neg) for method in (mean_diff, gradient, ica)])
        took += timed(lambda: probe(pos, neg, c=1e-2))[0]
    ratio = (peak.bytes - without_input) / size
    return Row(
        "peak memory, all methods",
        None,
        took,
        f"{ratio:.2f}x the input of {size / 1e6:.0f} MB",
        "< 2x",
        ratio < 2,
    )


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(f"{'':33}{'published':>10}{'ours':>9}{'ratio':>8}  {'bar':30}agreement")
    for row in rows:
        published = f"{row.published_s:.2f} s" if row.published_s is not None else "-"
        ratio = f"{row.published_s / row.ours_s:.1f}x" if row.published_s is not None else "-"
        verdict = ("met: " if row.met else "MISSED: ") + row.bar
        print(
            f"{row.what:33}{published:>10}{row.ours_s:>7.2f} s{ratio:>8}  "
            f"{verdict:38}{row.agreement}"
        )


def main() -> int:
    """Run all of them; 0 when every bar is met or --small was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--small", action="store_true", help="a quick check, bars not judged")
    small = parser.parse_args().small
    size = Size(100, 5, 256) if small else Size(1000, 27, 2304)
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        pos, neg = synthetic(size)
        rows = [
            bench_memory(pos, neg),
            bench_mean_diff(pos, neg),
            bench_gradient(pos, neg),
            bench_own_gradient(pos, neg),
            *bench_probe(pos, neg, layers=range(size.layers)),
            bench_ica(pos, neg, layers=range(size.layers)),
            bench_quality(pos, neg),
        ]
    print(f"{size.n} + {size.n} responses, {size.layers} layers of {size.width}, float32\n")
    show(rows)
    return 0 if small or all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
