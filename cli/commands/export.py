"""`orchestrate export`: vectors as files of other tools, and other tools' files as ours."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options.settings import json_option, runs_dir_option
from cli.options.using import position_option
from cli.using.private import Private
from domain.errors import OrchestrateError, UsageError
from domain.plan.spec import DEFAULT_POSITION
from orchestrator.runs import run_store
from storage.files.reading import as_text, read_bytes
from storage.record.run import Run, open_run
from traitlens.errors import LayerError, MissingPackageError, MissingVectorError, VectorFileError

if TYPE_CHECKING:
    from traitlens.vectors.trait_vector import TraitVector

FORMATS = (
    "safetensors",
    "pt",
    "gguf",
    "repeng",
    "steering-vectors",
    "neuronpedia",
    "hub-folder",
    "layer-files",
)

SUFFIXES = (".safetensors", ".pt", ".gguf", ".json")
# What a file of the right ending and other contents makes its reader raise.
UNREADABLE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)


@click.command()
@click.argument("source", metavar="RUN|FILE")
@runs_dir_option
@click.option(
    "--format",
    "--to",
    "kind",
    required=True,
    type=click.Choice(FORMATS),
    help="What to write; hub-folder is a folder with a model card, and uploads nothing; "
    "layer-files are TRAIT/vectors/METHOD_layerN.pt, one for each method and layer.",
)
@click.option(
    "--output",
    default=Path("vectors"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files.",
)
@click.option("--traits", default="all", show_default=True, metavar="LIST")
@click.option("--method", metavar="NAME", help="Extraction method.  [default: the best]")
@position_option
@click.option(
    "--layers",
    metavar="LIST",
    help="For gguf, steering-vectors and neuronpedia: 16 or 14,16.  [default: the best]  For "
    "layer-files  [default: all].",
)
@click.option("--model-type", metavar="NAME", help="For gguf and repeng: llama, gemma2 ...")
@click.option("--n-blocks", type=click.IntRange(1), help="The model's blocks, for a FILE.")
@json_option
def export(**values: Any) -> None:
    """Write trait vectors in the format of another tool, or read such a file and write ours.

    Layers are converted: those tools count blocks, one less than layers here, and a GGUF file
    cannot hold layers 0 and 1. llama.cpp adds every direction of a file, so gguf holds the best
    layer alone unless --layers says otherwise; repeng holds all.

    \b
    orchestrate export demo --format gguf --traits evil --output vectors
    orchestrate export demo --format neuronpedia --layers 16
    orchestrate export demo --to hub-folder --output demo-vectors
    orchestrate export demo --format layer-files --output experiments/my_exp
    orchestrate export evil.gguf --format safetensors --n-blocks 26      # the way in
    """
    path = Path(values["source"])
    if path.suffix in SUFFIXES and path.is_file():
        files = _of_file(path, values)
    else:
        files = _of_run(open_run(run_store(values["runs_dir"], values["source"])), values)
    written = _write(values["output"], files)
    if values["as_json"]:
        click.echo(json.dumps({"written": written}))
    else:
        for name in written:
            click.echo(name)


def _of_run(run: Run, values: dict[str, Any]) -> dict[str, bytes]:
    if values["kind"] == "layer-files":
        return _layer_files(run, values)
    # torch is not loaded for --help
    from cli.using.hub_folder import hub_files
    from cli.using.loaded_run import load_run_vectors
    from traitlens.vectors.formats import GGUF_FIRST_LAYER
    from workers.models.model import model_type

    method, position = values["method"], values["position"]
    if values["kind"] == "hub-folder":
        private = Private.of(run, os.environ)
        return hub_files(run, private, traits=values["traits"], method=method, position=position)
    loaded, steering_layers = load_run_vectors(
        run, values["traits"], method=method, position=position
    )
    family = values["model_type"]
    if family is None and values["kind"] in ("gguf", "repeng"):
        family = model_type(run.spec.model.model_id)
    files: dict[str, bytes] = {}
    left_out = []
    for one in loaded:
        # who reads a file of these kinds steers with it
        best = steering_layers[one.trait]
        if values["kind"] == "gguf" and not values["layers"] and best < GGUF_FIRST_LAYER:
            left_out.append(f"{one.trait} is best at layer {best}, which a GGUF file cannot hold")
            continue
        layers = _layers(values["layers"]) or [best]
        files |= _encoded(one.vector, values["kind"], name=one.trait, layers=layers, family=family)
    advice = f"--layers {GGUF_FIRST_LAYER} writes the next one"
    if left_out and not files:
        raise UsageError("; ".join(left_out), advice=advice)
    for words in left_out:
        click.echo(f"Note: {words}, so it is left out: {advice}.", err=True)
    return files


def _layer_files(run: Run, values: dict[str, Any]) -> dict[str, bytes]:
    """One tensor [d_model] a file, for each trait, method and layer of a run."""
    # torch is not loaded for --help
    from cli.using.loaded_run import load_run_vectors
    from traitlens.vectors.files import to_persona_vectors_pt_bytes

    files: dict[str, bytes] = {}
    for method in [values["method"]] if values["method"] else run.spec.methods:
        loaded, _ = load_run_vectors(
            run, values["traits"], method=method, position=values["position"]
        )
        for one in loaded:
            try:
                asked = [one.vector.layer(layer) for layer in _layers(values["layers"])]
            except (LayerError, ValueError) as error:
                raise UsageError(f"{one.trait}: {error}") from error
            for layer in asked or range(len(one.vector.tensor)):
                name = f"{one.trait}/vectors/{method}_layer{layer}.pt"
                files[name] = to_persona_vectors_pt_bytes(one.vector.tensor[layer])
    return files


def _of_file(path: Path, values: dict[str, Any]) -> dict[str, bytes]:
    if values["kind"] == "hub-folder":
        raise UsageError("a hub folder is made of a run, whose record its card tells: name a run")
    if values["kind"] == "layer-files":
        raise UsageError("layer files are of all methods and layers of a run: name a run")
    vector = _loaded(path, values["n_blocks"])
    if values["position"] in vector.vectors:
        vector = vector.at_position(values["position"])
    layers = _layers(values["layers"])
    if not layers and values["kind"] in ("gguf", "steering-vectors", "neuronpedia"):
        raise UsageError(f"{path} does not say which layer is best: give --layers")
    if values["kind"] in ("gguf", "repeng") and values["model_type"] is None:
        raise UsageError("give --model-type, for example llama or gemma2")
    # two files may speak of one trait, or of none: the source's own name tells them apart
    name = path.stem.removesuffix("_diff").removesuffix(f"_{vector.position}")
    if not vector.provenance.trait:
        vector = replace(vector, provenance=replace(vector.provenance, trait=name))
    made = _encoded(vector, values["kind"], name=name, layers=layers, family=values["model_type"])
    taken = next((file for file in made if (values["output"] / file).exists()), None)
    if taken is not None:
        raise UsageError(
            f"{values['output'] / taken} is there already: choose another --output, or delete it"
        )
    return made


def _loaded(path: Path, n_blocks: int | None) -> TraitVector:
    """The vector in a file of ours or of another tool.

    `n_blocks` is the model's number of blocks, which a .gguf may not know and a .json does not.
    """
    from traitlens.vectors import files, formats

    data = read_bytes(path)
    try:
        if path.suffix == ".gguf":
            return formats.from_gguf(data, n_blocks=n_blocks)
        if path.suffix == ".pt":
            return files.from_persona_vectors_pt_bytes(data, name=path.name)
        if path.suffix == ".safetensors":
            return files.from_safetensors_bytes(data)
        if n_blocks is None:
            raise UsageError(f"{path} does not say how deep the model is: give --n-blocks")
        return formats.from_neuronpedia_json(as_text(data, str(path)), n_blocks=n_blocks)
    except (VectorFileError, MissingVectorError, LayerError) as error:
        raise UsageError(f"{path}: {error}") from error
    except UNREADABLE as error:
        raise UsageError(f"{path} cannot be read as a vector: {error}") from error


def _encoded(
    vector: TraitVector, kind: str, *, name: str, layers: Sequence[int | str], family: str | None
) -> dict[str, bytes]:
    """File name -> bytes of one trait in one of FORMATS, at the vector's current position, which
    the name says where it is not the usual one.

    `layers` matter to the formats that hold some of them: gguf, steering-vectors and neuronpedia (a
    file each); `family` is the model's type, which gguf and repeng want.
    """
    from traitlens.vectors import formats
    from traitlens.vectors.files import to_persona_vectors_pt_bytes, to_safetensors_bytes

    trait = name.replace(" ", "_")
    try:
        if kind == "pt":
            file = f"{trait}_{vector.position}_diff.pt"
            return {file: to_persona_vectors_pt_bytes(vector.tensor)}
        holds_all = kind == "safetensors" and DEFAULT_POSITION in vector.vectors
        if not holds_all and vector.position != DEFAULT_POSITION:
            trait = f"{trait}_{vector.position}"
        if kind == "safetensors":
            return {f"{trait}.safetensors": to_safetensors_bytes(vector)}
        if kind in ("gguf", "repeng"):
            chosen = layers if kind == "gguf" else None
            data = formats.to_gguf_bytes(vector, model_type=family or "", layers=chosen)
            return {f"{trait}.gguf": data}
        if kind == "steering-vectors":
            return {f"{trait}.blocks.pt": formats.to_blocks_pt_bytes(vector, layers=layers)}
        model_id = vector.provenance.model_id.rpartition("/")[2]
        return {
            f"{trait}.layer{vector.layer(layer)}.json": formats.to_neuronpedia_json(
                vector, layer=layer, model_id=model_id
            ).encode()
            for layer in layers
        }
    except (LayerError, ValueError) as error:
        raise UsageError(f"{trait}: {error}") from error
    except MissingPackageError as error:
        raise OrchestrateError(str(error)) from error


def _layers(text: str | None) -> list[int | str]:
    return [] if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _write(folder: Path, files: dict[str, bytes]) -> Sequence[str]:
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            written.append(str(path))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from error
    return written
