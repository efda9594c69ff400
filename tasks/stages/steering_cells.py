"""Which pushes a steering job adds, from the vectors and the scores of earlier rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors

from domain.plan.jobs import Job
from domain.plan.samples import CONFIRMATION, ROUND_CELLS, ROUNDS
from domain.plan.steering_search import (
    N_LAYERS,
    Cell,
    CellAnswer,
    confirmed_steering_cells,
    first_steering_cells,
    steering_cell_from_json,
    steering_layers,
    steering_layers_apart,
    surviving_steering_cells,
)
from domain.scoring.scores import score_value
from domain.verdict.record import LikelihoodFigures, Quality
from storage.record.artifacts import load_record, read_artifact
from storage.record.responses import decode_arrays
from storage.record.run import Run
from storage.record.scorings import load_scorings
from traitlens.assess.random_directions import covariance_matched
from traitlens.layers import candidate_layers

DIRECTIONS = "directions.safetensors"
LIKELIHOOD = "likelihood.json"
"""The role of the test's figures in a contexts record."""

# As many as answers to a push by default.
N_RANDOM = 40
Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Directions:
    """What may be added: for each of `layers` a unit vector [d_model] and the distance between the
    means of the two sides, which is the push of strength 1.

    `random` [k, layers, d_model] are unit vectors with the covariance of the responses; None in
    runs that did not draw them."""

    method: str
    layers: list[int]
    units: Vectors
    steps: list[float]
    random: Vectors | None = None

    def push(self, cell: Cell) -> Vectors:
        """The vector of a cell, [d_model]."""
        step = self.steps[self.layers.index(cell.layer)]
        return np.asarray(cell.strength * step * self.unit(cell.layer), dtype=np.float32)

    def unit(self, layer: int) -> Vectors:
        """The unit vector of one of `layers`, [d_model]."""
        return np.asarray(self.units[self.layers.index(layer)])

    def random_push(self, cell: Cell, number: int, *, name: str) -> Vectors:
        """A random direction as long as the push of a cell, another one for each number; where
        none were drawn from the responses, one that is the same for the same name."""
        push = self.push(cell)
        if self.random is None:
            return _isotropic_like(push, name=name)
        unit = self.random[number % len(self.random), self.layers.index(cell.layer)]
        return np.asarray(np.linalg.norm(push) * unit, dtype=np.float32)


def encode_directions(
    vectors: Vectors,
    quality: Quality,
    *,
    ranked: Sequence[int] = (),
    within: Vectors | None = None,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Files and facts for a record, from the best method's vectors [L+1, d_model]; the layers are
    the best of `ranked`, random directions have the covariance of `within` [n, L+1, d_model].

    A layer where the vector is zero pushes nowhere and is left out.
    """
    best, norm = quality.best, quality.mean_difference.norm
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    usable = [i for i in candidate_layers(len(vectors)) if norms[i] > 0 and norm[i]]
    layers = steering_layers(best.layer, usable) if usable else []
    if ranked:
        layers = steering_layers_apart([layer for layer in ranked if layer in usable], N_LAYERS)
    arrays = {"units": (vectors[layers] / norms[layers, None]).astype(np.float32)}
    if within is not None and layers:
        arrays["random"] = covariance_matched(within[:, layers], N_RANDOM)
    facts = {"method": best.method, "layers": layers, "steps": [norm[i] for i in layers]}
    return {DIRECTIONS: bytes(save_safetensors(arrays))}, facts


def load_directions(run: Run, trait: str) -> Directions | None:
    """What the run itself left to steer with, its contexts job before its reduce; None when there
    is nothing worth steering."""
    own = run.plan.own
    for job in (*own.contexts_jobs(run.spec.trait(trait)), own.trait_job("reduce", trait)):
        record = load_record(run.store, job)
        facts: Any = record.info.get("steering")
        if facts and facts["layers"]:
            arrays = read_artifact(run.store, record, DIRECTIONS, decode_arrays)
            found = (facts["method"], facts["layers"], arrays["units"], facts["steps"])
            return Directions(*found, random=arrays.get("random"))
    return None


def load_likelihood(run: Run, trait: str) -> LikelihoodFigures | None:
    """The test of the run's own vectors; None where it was not made."""
    for job in run.plan.own.contexts_jobs(run.spec.trait(trait)):
        record = load_record(run.store, job)
        if LIKELIHOOD in record.files:
            decode = LikelihoodFigures.model_validate_json
            return read_artifact(run.store, record, LIKELIHOOD, decode)
    return None


def job_cells(run: Run, job: Job, directions: Directions) -> list[Cell]:
    """The cells of a steering round or of the confirmation; sample.cell counts into them."""
    assert job.trait is not None and job.part is not None
    if job.part == ROUNDS[0]:
        return first_steering_cells(directions.layers)
    rounds = ROUNDS if job.part == CONFIRMATION else ROUNDS[: ROUNDS.index(job.part)]
    shown = [one for part in rounds for one in shown_in_cells(run, job.trait, part)]
    n = 1 if job.part == CONFIRMATION else ROUND_CELLS[len(rounds)]
    best = surviving_steering_cells(shown, among=recorded_cells(run, job.trait, rounds[-1]), n=n)
    if job.part != CONFIRMATION:
        return best
    return confirmed_steering_cells(best[0], doses=run.spec.checks.doses)


def recorded_cells(run: Run, trait: str, part: str) -> list[Cell]:
    """The cells of a part that is generated already; empty when nothing was steered."""
    (job,) = run.plan.own.part_jobs(run.spec.trait(trait), "generate", part)
    found: Any = load_record(run.store, job).info.get("cells", [])
    return [steering_cell_from_json(one) for one in found]


def cells_json(cells: Sequence[Cell]) -> list[dict[str, object]]:
    """The cells as a record holds them."""
    return [asdict(cell) for cell in cells]


def shown_in_cells(run: Run, trait: str, part: str) -> Iterator[CellAnswer]:
    """What the responses of a part were scored in the run's own judgement."""
    own, cells = run.plan.own, recorded_cells(run, trait, part)
    for job in own.part_jobs(run.spec.trait(trait), "judge", part):
        scorings = load_scorings(run.store, job)
        for sample in own.samples(job):
            if sample.cell is not None and sample.cell < len(cells):
                both = (scorings[sample.key, metric] for metric in ("trait", "coherence"))
                yield CellAnswer(cells[sample.cell], *map(score_value, both))


def _isotropic_like(vector: Vectors, *, name: str) -> Vectors:
    """A direction drawn at random, as long as the vector; the same for the same name."""
    digest = hashlib.sha256(name.encode()).digest()
    drawn = np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(len(vector))
    return np.asarray(drawn * (np.linalg.norm(vector) / np.linalg.norm(drawn)), dtype=np.float32)
