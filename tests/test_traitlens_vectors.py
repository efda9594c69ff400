"""Protects trait vectors as data: files round-trip, arithmetic adds up, misfits are refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from traitlens.errors import (
    LayerError,
    MissingVectorError,
    NonFiniteError,
    ShapeError,
    VectorFileError,
    VectorMismatchError,
)
from traitlens.layers import layer_label, parse_layer
from traitlens.vectors.files import (
    from_safetensors_bytes,
    load_vectors,
    save_vectors,
    to_persona_vectors_pt_bytes,
    to_safetensors_bytes,
)
from traitlens.vectors.trait_vector import Provenance, TraitVector, model_hash


def tiny_llama(*, width: int = 16, n_blocks: int = 3, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=n_blocks,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def make_vector(
    *, trait: str = "refusal", n_layers: int = 4, width: int = 16, seed: int = 0, model: str = ""
) -> TraitVector:
    generator = torch.Generator().manual_seed(seed)
    positions = ("response_avg", "prompt_avg", "prompt_last")
    return TraitVector(
        {p: torch.randn(n_layers, width, generator=generator) for p in positions},
        Provenance(
            trait=trait,
            method="mean_diff",
            model_id="some/model",
            model_hash=model,
            counts={"positive": 31, "negative": 40},
            thresholds={"trait": 50.0, "coherence": 50.0},
            residual_norms=tuple(float(i + 1) for i in range(n_layers)),
            extra={"code": "0.1.0"},
        ),
    )


@pytest.mark.parametrize(
    ("written", "layer"),
    [(0, 0), (16, 16), ("16", 16), (-1, 26), ("block:15", 16), ("post:15", 16), ("pre:16", 16),
     ("block:-1", 26), ("50%", 13), ("0%", 0), ("100%", 26)],
)  # fmt: skip
def test_every_way_of_writing_a_layer_means_one_row(written: int | str, layer: int) -> None:
    assert parse_layer(written, 26) == layer


@pytest.mark.parametrize("written", [27, "-28", "block:26", "layer 3", "101%", "", True, 1.5])
def test_a_layer_that_does_not_exist_is_refused(written: int | str) -> None:
    with pytest.raises(LayerError, match="26 blocks"):
        parse_layer(written, 26)


def test_layers_are_named_with_their_block() -> None:
    assert [layer_label(i) for i in (0, 16)] == [
        "layer 0 (embeddings)",
        "layer 16 (after block 15)",
    ]


def test_safetensors_keep_every_position_and_fact() -> None:
    vector = make_vector()

    back = from_safetensors_bytes(to_safetensors_bytes(vector))

    assert back.provenance == vector.provenance
    assert back.vectors.keys() == vector.vectors.keys()
    assert all(torch.equal(back.vectors[p], vector.vectors[p]) for p in vector.vectors)


def test_a_stranger_finds_plain_float32_tensors_and_readable_provenance(tmp_path: Path) -> None:
    path = save_vectors(make_vector(), tmp_path / "mean_diff.safetensors")

    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("prompt_last").dtype == torch.float32
        assert file.metadata()["trait"] == '"refusal"'
        assert "row 0 = embedding output" in file.metadata()["layer_convention"]


def test_a_file_of_another_program_may_note_what_is_no_json(tmp_path: Path) -> None:
    noted = {"trait": "evil", "model_id": "google/gemma-2-2b-it", "counts": "5"}
    path = tmp_path / "theirs.safetensors"
    save_file({"response_avg": torch.ones(4, 3)}, path, metadata=noted)

    found = load_vectors(path)

    assert torch.equal(found.tensor, torch.ones(4, 3))


def test_a_run_directory_is_read_by_method(tmp_path: Path) -> None:
    folder = tmp_path / "refusal" / "vectors"
    folder.mkdir(parents=True)
    for method, seed in (("mean_diff", 1), ("probe", 2)):
        save_vectors(make_vector(seed=seed), folder / f"{method}.safetensors")

    default, probe = (
        load_vectors(tmp_path / "refusal"),
        load_vectors(tmp_path / "refusal", method="probe"),
    )

    assert torch.equal(default.tensor, make_vector(seed=1).tensor)
    assert torch.equal(probe.tensor, make_vector(seed=2).tensor)


def test_a_missing_method_names_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    save_vectors(make_vector(), tmp_path / "vectors" / "probe.safetensors")

    with pytest.raises(MissingVectorError, match=r"probe\.safetensors"):
        load_vectors(tmp_path, method="ica")


def test_what_is_no_vector_is_answered_with_where_one_is(tmp_path: Path) -> None:
    (tmp_path / "run" / "traits").mkdir(parents=True)
    (tmp_path / "evil.gguf").write_bytes(b"GGUF")

    with pytest.raises(MissingVectorError, match="run/traits/TRAIT"):
        load_vectors(tmp_path / "run")
    with pytest.raises(VectorFileError, match="orchestrate export"):
        load_vectors(tmp_path / "evil.gguf")
    with pytest.raises(MissingVectorError, match="is it a pack"):
        load_vectors(f"pack:{tmp_path}/nowhere#evil")


def test_a_persona_vectors_file_is_a_plain_tensor_both_ways(tmp_path: Path) -> None:
    vector = make_vector()
    path = tmp_path / "evil_prompt_last_diff.pt"
    path.write_bytes(to_persona_vectors_pt_bytes(vector.at_position("prompt_last").tensor))

    theirs, ours = torch.load(path, weights_only=True), load_vectors(path)

    assert torch.equal(theirs, vector.vectors["prompt_last"])
    assert (ours.provenance.trait, ours.position) == ("evil", "prompt_last")
    assert torch.equal(ours.tensor, theirs)


def test_a_pickle_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    class Malice:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "ran",))

    buffer = io.BytesIO()
    torch.save(Malice(), buffer)
    (tmp_path / "x.pt").write_bytes(buffer.getvalue())
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Malice(), protocol=2))

    for name in ("x.pt", "y.pt"):
        with pytest.raises(VectorFileError):
            load_vectors(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_file_cut_short_is_named_as_such() -> None:
    with pytest.raises(VectorFileError, match="cut short"):
        from_safetensors_bytes(to_safetensors_bytes(make_vector())[:200])


def test_arithmetic_is_that_of_the_tensors_at_every_position() -> None:
    v, w = make_vector(seed=1), make_vector(trait="evil", seed=2)

    mixed = 2 * v - w / 4 + (-v)

    for position in v.vectors:
        assert torch.allclose(
            mixed.vectors[position], v.vectors[position] - w.vectors[position] / 4, atol=1e-6
        )
    assert (v - w).provenance.trait == "refusal - evil"
    assert (v - w).provenance.counts == {}


def test_normalized_layers_have_unit_norm_but_zero_stays_zero() -> None:
    tensor = make_vector().tensor.clone()
    tensor[0] = 0

    norms = TraitVector({"response_avg": tensor}, Provenance("t", "m")).normalized().norms

    assert norms.tolist() == pytest.approx([0, 1, 1, 1])


def test_vectors_of_two_models_do_not_add() -> None:
    with pytest.raises(VectorMismatchError, match="one model"):
        make_vector(model="aaaa") + make_vector(model="bbbb")
    with pytest.raises(VectorMismatchError, match="one model"):
        make_vector(width=16) + make_vector(width=8)


def test_a_vector_of_the_wrong_shape_or_with_nan_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"want \[L\+1, d_model\]"):
        TraitVector({"response_avg": torch.zeros(8)}, Provenance("t", "m"))
    with pytest.raises(NonFiniteError, match=r"layer 1 \(after block 0\)"):
        TraitVector({"response_avg": torch.tensor([[0.0], [torch.nan]])}, Provenance("t", "m"))
    with pytest.raises(MissingVectorError, match="prompt_avg"):
        TraitVector({"prompt_avg": torch.zeros(2, 2)}, Provenance("t", "m"))


def test_a_vector_refuses_a_model_of_another_width_or_depth() -> None:
    vector = make_vector(width=16, n_layers=4)

    vector.check_model(tiny_llama(width=16, n_blocks=3))

    with pytest.raises(VectorMismatchError, match="d_model 16, model has 32"):
        vector.check_model(tiny_llama(width=32))
    with pytest.raises(VectorMismatchError, match=r"layers 0\.\.3, model has 0\.\.2"):
        vector.check_model(tiny_llama(n_blocks=2))


def test_a_vector_refuses_other_weights_unless_told() -> None:
    vector = make_vector(model=model_hash(tiny_llama(seed=0)))

    vector.check_model(tiny_llama(seed=0))

    with pytest.raises(VectorMismatchError, match="allow_other_model"):
        vector.check_model(tiny_llama(seed=1))
    vector.check_model(tiny_llama(seed=1), allow_other_model=True)


def test_the_hash_of_a_model_does_not_depend_on_the_precision_it_is_loaded_in() -> None:
    stored = tiny_llama().to(torch.bfloat16)

    hashes = {
        model_hash(stored.to(dtype)) for dtype in (torch.bfloat16, torch.float16, torch.float32)
    }

    assert len(hashes) == 1


def test_the_hash_of_a_model_changes_with_one_fine_tuned_matrix() -> None:
    model = tiny_llama()
    before = model_hash(model)

    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.05)

    assert model_hash(model) != before
