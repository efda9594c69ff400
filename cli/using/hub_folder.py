"""A folder for the hub: safetensors, definitions, figures, and a card that says what they are, how
they were made, how far to trust them.

Imported by commands when they run, because it loads torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files as packaged

from cli.screens.tables import number_text
from cli.using.loaded_run import load_run_vectors
from cli.using.private import HUB_ID, Private, public_name
from domain.plan.spec import DEFAULT_POSITION, RunSpec
from domain.verdict.record import Quality, TraitMetrics
from domain.verdict.sentences import check_text
from domain.verdict.uses import use_layers
from storage.record.results import metrics_bytes, read_metrics
from storage.record.run import Run
from traitlens.layers import LAYER_CONVENTION
from traitlens.vectors.files import to_safetensors_bytes
from traitlens.vectors.trait_vector import Provenance, TraitVector

NO_BASE = "# base_model: name it, the model was a local folder"


def hub_files(
    run: Run,
    private: Private,
    *,
    traits: str = "all",
    method: str | None = None,
    position: str = DEFAULT_POSITION,
) -> dict[str, bytes]:
    """File name -> bytes, of the traits that have vectors; nothing private is in them."""
    loaded, _ = load_run_vectors(run, traits, method=method, position=position)
    metrics = [public_metrics(read_metrics(run.store, one.trait), private) for one in loaded]
    files = {"README.md": private.without(model_card(run.spec, metrics)).encode()}
    for one, figures in zip(loaded, metrics, strict=True):
        trait = one.trait.replace(" ", "_")
        is_usual = DEFAULT_POSITION in one.vector.vectors
        name = trait if is_usual else f"{trait}_{one.vector.position}"
        files[f"{name}.safetensors"] = to_safetensors_bytes(public_vector(one.vector, private))
        files[f"{trait}.definition.json"] = run.store.read(f"traits/{one.trait}/definition.json")
        files[f"{trait}.json"] = metrics_bytes(figures)
    return files


def public_metrics(metrics: TraitMetrics, private: Private) -> TraitMetrics:
    """The same figures, without what is private."""
    return TraitMetrics.model_validate(private.without(metrics.model_dump(mode="json")))


def public_vector(vector: TraitVector, private: Private) -> TraitVector:
    """The same vectors, their provenance without what is private."""
    facts = Provenance(**private.without(asdict(vector.provenance)))
    return TraitVector(vector.vectors, facts, vector.position)


def model_card(spec: RunSpec, metrics: Sequence[TraitMetrics]) -> str:
    """Markdown with the hub's header; one row per trait, whatever its verdict."""
    facts, first = metrics[0].generation, metrics[0].trait
    qualities = {one.trait: one.quality for one in metrics if one.quality is not None}
    best = qualities[first].best
    layers = use_layers(qualities[first], best.method)
    rows = "\n".join(_row(one, qualities[one.trait]) for one in metrics)
    name = public_name(spec.model.model_id)
    template = packaged("cli").joinpath("using", "model_card.md").read_text(encoding="utf-8")
    return template.format(
        name=name,
        base=f"base_model: {name}" if HUB_ID.fullmatch(name) else NO_BASE,
        facts=facts,
        revision=facts.revision or "unknown",
        n_traits=len(metrics),
        rows=rows,
        layers=layers,
        first=first,
        convention=LAYER_CONVENTION,
        spec=spec,
        below=100 - spec.filter.threshold,
        methods=", ".join(spec.methods),
    )


def _row(one: TraitMetrics, quality: Quality) -> str:
    layer, left_out = quality.best.layer, quality.mean_difference.leave_one_question_out_auroc
    counts = f"{one.n_kept.positive} / {one.n_kept.negative}"
    reads, steers = use_layers(quality, quality.best.method)
    uses = f"{one.uses.reads.state} | {reads} | {one.uses.steers.state} | {steers}"
    contrast, auroc = number_text(one.contrast), number_text(left_out.value[layer], ".3f")
    verdict = f"{one.verdict}{check_text(one)}"
    return f"| {one.trait} | {verdict} | {counts} | {contrast} | {auroc} | {uses} |"
