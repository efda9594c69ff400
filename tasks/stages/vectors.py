"""Vectors of a trait: made of kept activations, with their quality, and read from their files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from domain.plan.samples import Polarity
from domain.verdict.record import Layers, Quality
from storage.record.run import Run
from tasks.stages.quality import layer_numbers, vector_quality
from traitlens.assess.kept_rows import FEWEST_QUESTIONS, Array, KeptRows, independent_groups
from traitlens.assess.quality import residual_norms
from traitlens.methods import METHODS
from traitlens.methods.fitting import MethodResult
from traitlens.methods.mean_diff import mean_diff
from traitlens.vectors.files import from_safetensors_bytes
from traitlens.vectors.trait_vector import TraitVector

RESPONSE_POSITION, PROMPT_POSITION = "response_avg", "prompt_avg"
ReadKept = Callable[[str, Polarity], Iterator[Array]]
"""(position, polarity) -> shards of kept activations, each [n, L+1, d_model] float32."""

# One number per layer; larger details (all components, side means) can be had from a notebook.
DETAIL_AXES = 1

# 4 MB of float32, about what stays in a core's caches; larger products are worth sharing.
SMALL = 1 << 20


@dataclass(frozen=True)
class TraitVectors:
    """Vectors, method -> position -> [L+1, d_model] float32, raw; what each method says of its
    fit, method -> position -> name -> one number per layer; the quality at one position; and the
    mean norm of the kept response averages at each layer [L+1]."""

    by_method: Mapping[str, Mapping[str, Array]]
    details: Mapping[str, Mapping[str, Mapping[str, Layers]]]
    quality: Quality
    residual_norms: tuple[float, ...]

    def magnitude(self) -> float:
        """Mean L2 norm over layers of the first method's vector, at the quality's position."""
        first = next(iter(self.by_method.values()))[self.quality.position]
        return float(np.linalg.norm(first.astype(np.float64), axis=1).mean())


def build_vectors(
    read: ReadKept,
    *,
    methods: Sequence[str],
    positions: Sequence[str],
    rows: tuple[KeptRows, KeptRows],
    quality_at: str = RESPONSE_POSITION,
) -> TraitVectors:
    """Run each method at each position and measure the quality at `quality_at`, one of them.

    `rows` describes the kept positives and negatives in the order that `read` gives them. One
    position's activations are in memory at a time.
    """
    groups = independent_groups((rows[0].prompts, rows[1].prompts), fewest=FEWEST_QUESTIONS)
    found: dict[str, dict[str, MethodResult]] = {method: {} for method in methods}
    prompts: Array | None = None
    quality: Quality | None = None
    norms: tuple[float, ...] = ()
    # response_avg last: its quality looks back at the difference between the prompts
    for position in sorted(positions, key=lambda p: p == RESPONSE_POSITION):
        pos, neg = (np.concatenate(list(read(position, p))) for p in ("positive", "negative"))
        with _blas_threads_for((len(pos) + len(neg)) * pos.shape[2]):
            for method in methods:
                found[method][position] = METHODS[method](pos, neg, groups=groups)
            if position == PROMPT_POSITION:
                prompts = mean_diff(pos, neg).vectors
            if position == RESPONSE_POSITION:
                norms = tuple(residual_norms(pos, neg).tolist())
            if position == quality_at:
                vectors = {method: found[method][position].vectors for method in methods}
                # of vectors that are made from prompts their difference is no confound
                before = prompts if position == RESPONSE_POSITION else None
                quality = vector_quality(
                    vectors, pos, neg, rows=rows, prompt_vectors=before, position=position
                )
    assert quality is not None
    return TraitVectors(
        {m: {p: by_position[p].vectors for p in positions} for m, by_position in found.items()},
        {m: {p: _details(by_position[p]) for p in positions} for m, by_position in found.items()},
        quality,
        norms,
    )


def _details(result: MethodResult) -> dict[str, Layers]:
    values = {name: np.asarray(value) for name, value in result.details.items()}
    return {name: layer_numbers(v) for name, v in values.items() if v.ndim == DETAIL_AXES}


@contextlib.contextmanager
def _blas_threads_for(n_values: int) -> Iterator[None]:
    """One thread of BLAS while the context is open if matrices of that many values are small.

    Fits are many products of one layer's activations. Small ones that are shared among threads take
    two to ten times the CPU time, most of it waiting for one another, and longer where other
    processes want the cores.
    """
    if n_values > SMALL:
        yield
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def stored_vectors(run: Run, quality: Quality, folder: str, *parts: str) -> dict[str, TraitVector]:
    """The vectors below a folder and their parts, at the position that their quality is of."""
    files = {name: run.store.read(vector_key(folder, name)) for name in (*quality.methods, *parts)}
    return {
        name: from_safetensors_bytes(data).at_position(quality.position)
        for name, data in files.items()
    }


def vector_key(folder: str, method: str) -> str:
    """Where a method's vector, or a part of one, lies below a folder."""
    return f"{folder}/vectors/{method}.safetensors"
