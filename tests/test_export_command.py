"""`orchestrate export`: files that the other tools read, and theirs read back."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from click.testing import CliRunner, Result

from cli.main import orchestrate
from cli.using import loaded_run
from domain.errors import UsageError
from tests.planted_vectors import PlantedRun, planted_run
from traitlens.vectors.files import load_vectors
from traitlens.vectors.formats import to_gguf_bytes
from traitlens.vectors.trait_vector import Provenance, TraitVector


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    return planted_run(tmp_path_factory.mktemp("planted"))


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(
        orchestrate, ["export", *map(str, arguments)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result


def of(made: PlantedRun) -> list[str]:
    return [made.name, "--runs-dir", made.runs_dir, "--traits", "capitals"]


def test_safetensors_and_pt_hold_all_layers(made: PlantedRun, tmp_path: Path) -> None:
    original = load_vectors(f"{made.run.store.url}/traits/capitals")

    run(*of(made), "--format", "safetensors", "--output", tmp_path)
    run(*of(made), "--format", "pt", "--output", tmp_path)

    again = load_vectors(tmp_path / "capitals.safetensors")
    assert torch.equal(again.tensor, original.tensor)
    assert again.provenance == original.provenance
    plain = torch.load(tmp_path / "capitals_response_avg_diff.pt", weights_only=True)
    assert torch.equal(plain, original.tensor)


def test_a_gguf_file_holds_the_best_layer_and_comes_back(made: PlantedRun, tmp_path: Path) -> None:
    original = load_vectors(f"{made.run.store.url}/traits/capitals")

    run(*of(made), "--format", "gguf", "--output", tmp_path)
    file = tmp_path / "capitals.gguf"
    run(file, "--format", "safetensors", "--n-blocks", "4", "--output", tmp_path / "back")

    names = [tensor.name for tensor in gguf.GGUFReader(str(file)).tensors]
    assert names == [f"direction.{made.planted.layer - 1}"]
    back = load_vectors(tmp_path / "back" / "capitals.safetensors")
    assert torch.equal(back.at(made.planted.layer), original.at(made.planted.layer))


def test_a_trait_that_is_best_before_a_gguf_begins_is_left_out_with_a_note(
    made: PlantedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = loaded_run.load_run_vectors(made.run, "all", method=None, position="response_avg")
    layers = {"capitals": 1, "noise": 2}
    monkeypatch.setattr(loaded_run, "load_run_vectors", lambda *_, **__: (found[0], layers))
    whole = [made.name, "--runs-dir", made.runs_dir, "--format", "gguf", "--output"]

    said = run(*whole, tmp_path).stderr
    run(*whole, tmp_path / "all", "--layers", "2")

    assert "capitals" in said and "--layers 2" in said
    assert [path.name for path in tmp_path.glob("*.gguf")] == ["noise.gguf"]
    assert len(list((tmp_path / "all").glob("*.gguf"))) == 2
    layers["noise"] = 0
    ended = CliRunner().invoke(orchestrate, ["export", *whole, str(tmp_path)])
    assert isinstance(ended.exception, UsageError)


def test_repengs_file_holds_every_block_that_a_gguf_may(made: PlantedRun, tmp_path: Path) -> None:
    run(*of(made), "--format", "repeng", "--output", tmp_path)

    reader = gguf.GGUFReader(str(tmp_path / "capitals.gguf"))
    assert [tensor.name for tensor in reader.tensors] == [f"direction.{k}" for k in (1, 2, 3)]
    hint = reader.fields["controlvector.model_hint"]
    assert bytes(hint.parts[hint.data[0]]).decode() == "llama"


def test_the_file_for_steering_vectors_is_blocks_by_number(
    made: PlantedRun, tmp_path: Path
) -> None:
    original = load_vectors(f"{made.run.store.url}/traits/capitals")

    run(*of(made), "--format", "steering-vectors", "--layers", "2,block:2", "--output", tmp_path)

    blocks = torch.load(tmp_path / "capitals.blocks.pt", weights_only=True)
    assert sorted(blocks) == [1, 2]
    assert torch.equal(blocks[1], original.at(2))


def test_neuronpedias_file_comes_back(made: PlantedRun, tmp_path: Path) -> None:
    original = load_vectors(f"{made.run.store.url}/traits/capitals")

    run(*of(made), "--format", "neuronpedia", "--output", tmp_path)
    file = tmp_path / f"capitals.layer{made.planted.layer}.json"
    run(file, "--format", "pt", "--n-blocks", "4", "--output", tmp_path)

    assert json.loads(file.read_text())["layerNumber"] == made.planted.layer - 1
    stem = f"capitals.layer{made.planted.layer}"
    back = torch.load(tmp_path / f"{stem}_response_avg_diff.pt", weights_only=True)
    assert torch.allclose(back[made.planted.layer], original.at(made.planted.layer))


def test_a_hub_folder_has_a_card_and_holds_no_path_of_this_machine(
    made: PlantedRun, tmp_path: Path
) -> None:
    run(made.name, "--runs-dir", made.runs_dir, "--to", "hub-folder", "--output", tmp_path)

    names = sorted(path.name for path in tmp_path.iterdir())
    card = (tmp_path / "README.md").read_text()
    assert names == sorted(
        ["README.md"]
        + [f"{t}{end}" for t in ("capitals", "noise") for end in (".safetensors", ".json")]
        + [f"{t}.definition.json" for t in ("capitals", "noise")]
    )
    assert "| capitals | usable | 12 / 12 | 70.0 | 0.990 | untested | 2 | untested | 2 |" in card
    for path in tmp_path.iterdir():
        assert str(Path(made.planted.folder).parent).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "gguf", "--layers", "1"], "starts at layer 2"),
        (["--format", "neuronpedia", "--layers", "50"], "no layer '50'"),
        (["--format", "pt", "--traits", "evil"], "has no trait 'evil'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    made: PlantedRun, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(*of(made), *arguments, "--output", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.json", "{}", "cannot be read as a vector"),
        ("v.pt", "nonsense", "cannot be read as a plain tensor"),
        ("v.safetensors", "nonsense", "not a safetensors file"),
        ("v.gguf", "nonsense", "not a GGUF file"),
        ("v.json", "[" * 100_000, "cannot be read as a vector"),
        ("v.json", "9" * 5_000_000, "cannot be read as a vector"),
    ],
)
def test_a_file_that_is_no_vector_is_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(UsageError, match=message):
        run(tmp_path / name, "--format", "pt", "--n-blocks", "4", "--output", tmp_path)


def test_five_imports_leave_five_files_and_a_sixth_of_a_taken_name_is_refused(
    tmp_path: Path,
) -> None:
    out = tmp_path / "ours"
    # as repeng writes them: of no trait
    nameless = Provenance(trait="", method="")
    sources = [tmp_path / name for name in ("a.gguf", "b.gguf")]
    for source in sources:
        vector = TraitVector({"response_avg": torch.randn(5, 8)}, nameless)
        source.write_bytes(to_gguf_bytes(vector, model_type="llama"))
    for position in ("response_avg", "prompt_avg", "prompt_last"):
        sources.append(tmp_path / f"evil_{position}_diff.pt")
        torch.save(torch.randn(5, 8), sources[-1])

    for source in sources:
        run(source, "--format", "safetensors", "--n-blocks", "4", "--output", out)

    names = ["a", "b", "evil", "evil_prompt_avg", "evil_prompt_last"]
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.safetensors" for name in names]
    assert load_vectors(out / "a.safetensors").provenance.trait == "a"
    before = (out / "a.safetensors").read_bytes()
    sources[1].replace(sources[0])
    with pytest.raises(UsageError, match="is there already"):
        run(sources[0], "--format", "safetensors", "--n-blocks", "4", "--output", out)
    assert (out / "a.safetensors").read_bytes() == before
