"""A finished run of the planted model whose vector is the truth itself: no extraction is needed to
test what uses vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from domain.plan.spec import ChecksSpec, JudgeSpec, ModelSpec, RunSpec, SamplingSpec, TraitRef
from domain.traits.definition import TraitDefinition
from domain.verdict.record import Best, GenerationFacts, PolarityCounts, VerdictName
from storage.record.results import write_manifest, write_metrics
from storage.record.run import Run, create_run
from storage.record.store import open_store
from tests import quality_records
from tests.planted_model import D_MODEL, N_LAYERS, PlantedModel, save_planted_model
from traitlens.vectors.files import to_safetensors_bytes
from traitlens.vectors.trait_vector import Provenance, TraitVector, model_hash
from workers.models.model import load_model

TRAITS = ("capitals", "noise")


@dataclass(frozen=True)
class PlantedRun:
    """The run, and the model it is of; `runs_dir` and `name` are what a command is given."""

    run: Run
    planted: PlantedModel
    runs_dir: str
    name: str = "planted"

    @property
    def arguments(self) -> list[str]:
        """The run as a command takes it."""
        return [self.name, "--runs-dir", self.runs_dir, "--device", "cpu"]


def planted_run(folder: Path, *, longest: int = 40) -> PlantedRun:
    """Two traits: `capitals` along the planted direction, `noise` along one nobody writes to."""
    planted = save_planted_model(folder / "model", block=1)
    definitions = {
        name: TraitDefinition.from_json(
            name,
            {
                "instruction": [{"pos": p, "neg": n} for p, n in planted.instructions],
                "questions": list(planted.questions),
                "eval_prompt": "Rate {question} and {answer} from 0 to 100.",
            },
        )
        for name in TRAITS
    }
    size = {"n_instructions": 3, "n_questions": len(planted.questions)}
    spec = RunSpec(
        traits=tuple(
            TraitRef(name=n, fingerprint=d.fingerprint(), **size) for n, d in definitions.items()
        ),
        model=ModelSpec(model_id=planted.folder),
        judge=JudgeSpec(model="j", url="http://localhost:1/v1"),
        sampling=SamplingSpec(max_new_tokens=longest),
        checks=ChecksSpec(contexts=0),
    )
    runs_dir = str(folder / "runs")
    store = open_store(f"{runs_dir}/planted")
    run = create_run(store, spec, run_id="r", definitions=definitions, provenance={})
    other = np.random.default_rng(8).standard_normal(D_MODEL).astype(np.float32)
    other -= (other @ planted.direction) * planted.direction
    made_for = model_hash(load_model(planted.folder, device="cpu").model)
    for name, direction in zip(TRAITS, (4 * planted.direction, other), strict=True):
        _write(run, name, direction, layer=planted.layer, made_for=made_for)
    return PlantedRun(run, planted, runs_dir)


def _write(run: Run, trait: str, direction: np.ndarray, *, layer: int, made_for: str) -> None:
    tensor = torch.from_numpy(np.tile(direction, (N_LAYERS + 1, 1)))
    facts = Provenance(
        trait=trait,
        method="mean_diff",
        model_id=run.spec.model.model_id,
        model_hash=made_for,
        counts={"positive": 12, "negative": 12},
        residual_norms=tuple([8.0] * (N_LAYERS + 1)),
    )
    folder = f"traits/{trait}"
    vector = TraitVector({"response_avg": tensor}, facts)
    run.store.write(f"{folder}/vectors/mean_diff.safetensors", to_safetensors_bytes(vector))
    best = Best(method="mean_diff", layer=layer, by_method={"mean_diff": layer}, rule="a rule")
    metrics = quality_records.metrics(
        trait=trait,
        verdict=VerdictName.USABLE,
        n_kept=PolarityCounts(positive=12, negative=12),
        quality=quality_records.quality(best=best),
        generation=GenerationFacts(
            model=run.spec.model.model_id, model_hash=made_for, dtype="float32"
        ),
    )
    write_metrics(run.store, folder, metrics)
    write_manifest(run.store, folder)
