"""Protects interchange: other tools' files and objects steer a model as our own vectors do."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from traitlens.errors import LayerError, VectorFileError
from traitlens.vectors.formats import (
    block_directions,
    from_block_directions,
    from_gguf,
    from_neuronpedia_json,
    to_gguf_bytes,
    to_neuronpedia_json,
    to_steering_vectors,
)
from traitlens.vectors.trait_vector import Provenance, TraitVector

WIDTH, BLOCKS = 16, 4
IDS = torch.tensor([[5, 6, 7, 8]])
FACTS = Provenance(trait="refusal", method="mean_diff", counts={"positive": 3, "negative": 4})


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def vector() -> TraitVector:
    tensor = torch.randn(BLOCKS + 1, WIDTH, generator=torch.Generator().manual_seed(1))
    return TraitVector({"response_avg": tensor}, FACTS)


@pytest.fixture
def repeng(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The installed package. repeng 0.4 uses one name that numpy 2 removed; it gets it back."""
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    return pytest.importorskip("repeng")


def our_logits(model: LlamaForCausalLM, vector: TraitVector, layer: int) -> torch.Tensor:
    with torch.no_grad(), vector.steer(model, layer=layer, coefficient=2.0):
        logits: torch.Tensor = model(IDS).logits
    return logits


def test_block_directions_are_one_lower_than_our_layers(vector: TraitVector) -> None:
    directions = block_directions(vector)

    assert list(directions) == [0, 1, 2, 3]
    assert torch.equal(directions[2], vector.at("block:2"))
    with pytest.raises(LayerError, match="embeddings"):
        block_directions(vector, layers=[0])


def test_directions_come_back_at_their_layers(vector: TraitVector) -> None:
    back = from_block_directions(
        block_directions(vector, layers=[2, 4]), n_blocks=BLOCKS, provenance=FACTS
    )

    assert torch.equal(back.tensor[[2, 4]], vector.tensor[[2, 4]])
    assert back.norms[[0, 1, 3]].tolist() == [0, 0, 0]


def test_neuronpedia_json_names_block_and_hook(vector: TraitVector) -> None:
    body = json.loads(to_neuronpedia_json(vector, layer=3, model_id="tiny"))
    embeddings = json.loads(to_neuronpedia_json(vector, layer=0, model_id="tiny"))

    assert (body["layerNumber"], body["hookType"]) == (2, "hook_resid_post")
    assert (embeddings["layerNumber"], embeddings["hookType"]) == (0, "hook_resid_pre")
    back = from_neuronpedia_json(json.dumps(body), n_blocks=BLOCKS)
    assert torch.equal(back.at(3), vector.at(3))


def test_a_gguf_file_starts_at_direction_one_and_comes_back(
    vector: TraitVector, tmp_path: Path
) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "refusal.gguf"
    path.write_bytes(to_gguf_bytes(vector, model_type="llama"))

    names = [tensor.name for tensor in gguf.GGUFReader(str(path)).tensors]
    back = from_gguf(path.read_bytes())

    assert names == ["direction.1", "direction.2", "direction.3"]
    assert torch.equal(back.tensor[2:], vector.tensor[2:])
    assert back.norms[:2].tolist() == [0, 0]
    assert back.provenance == vector.provenance


def gguf_bytes(n_values: int, *values: bytes, tensors: Sequence[bytes] = ()) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), n_values)
    return head + b"".join(values) + b"".join(tensors)


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gguf_tensor(name: str, *shape: int, kind: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return gguf_text(name) + sizes + struct.pack("<IQ", kind, 0)


MANY = 2**62


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"nonsense" * 100,
        gguf_bytes(MANY),
        gguf_bytes(1, struct.pack("<Q", MANY)),
        gguf_bytes(1, gguf_text("a"), struct.pack("<IIQ", 9, 0, MANY)),
        gguf_bytes(1, gguf_text("a"), struct.pack("<IIQ", 9, 9, 1)),
        gguf_bytes(1, gguf_text("general.alignment"), struct.pack("<II", 4, 0)),
        gguf_bytes(0, tensors=[gguf_tensor("direction.1", MANY)]) + bytes(64),
        gguf_bytes(0, tensors=[gguf_tensor("direction.1", 4, kind=12)]) + bytes(64),
        gguf_bytes(0, tensors=[gguf_tensor("output", 4)]) + bytes(64),
        gguf_bytes(0, tensors=[gguf_tensor("direction.1", 2, 2)]) + bytes(64),
        gguf_bytes(0, tensors=[gguf_tensor("direction." + "9" * 5000, 4)]) + bytes(64),
        gguf_bytes(0, tensors=[gguf_tensor(f"direction.{k}", 4 - k) for k in (1, 2)]) + bytes(64),
        gguf_bytes(0, tensors=[gguf_tensor(f"direction.{k}", 3 - k) for k in (1, 2)]) + bytes(64),
    ],
)
def test_a_gguf_file_that_lies_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(VectorFileError):
        from_gguf(data)


@pytest.mark.parametrize("name", ["direction.100000", "direction.1"])
def test_a_small_gguf_file_fills_no_memory(name: str) -> None:
    count = gguf_text("controlvector.layer_count") + struct.pack("<II", 4, 2**32 - 1)

    with pytest.raises(LayerError, match="no model is that large"):
        from_gguf(gguf_bytes(1, count, tensors=[gguf_tensor(name, 4)]) + bytes(64))


def test_a_gguf_file_of_the_first_block_alone_is_refused(vector: TraitVector) -> None:
    pytest.importorskip("gguf")

    with pytest.raises(LayerError, match="layer 2"):
        to_gguf_bytes(vector, model_type="llama", layers=[1])


def test_repeng_reads_our_gguf_and_steers_to_the_same_logits(
    model: LlamaForCausalLM, vector: TraitVector, tmp_path: Path, repeng: Any
) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "refusal.gguf"
    path.write_bytes(to_gguf_bytes(vector, model_type="llama"))
    ours = our_logits(model, vector, 3)

    control = repeng.ControlVector.import_gguf(path)
    wrapped = repeng.ControlModel(model, [2])
    wrapped.set_control(control, 2.0)

    with torch.no_grad():
        assert torch.allclose(wrapped(IDS).logits, ours, atol=1e-4)


def test_a_steering_vectors_object_steers_to_the_same_logits(
    model: LlamaForCausalLM, vector: TraitVector
) -> None:
    pytest.importorskip("steering_vectors")
    ours = our_logits(model, vector, 2)

    steering = to_steering_vectors(vector, layers=[2])

    with torch.no_grad(), steering.apply(model, multiplier=2.0):
        assert torch.allclose(model(IDS).logits, ours, atol=1e-4)


@pytest.mark.parametrize(
    ("package", "export"),
    [
        ("gguf", lambda v: to_gguf_bytes(v, model_type="llama")),
        ("steering-vectors", to_steering_vectors),
    ],
)
def test_a_missing_package_is_named(
    package: str,
    export: Callable[[TraitVector], Any],
    vector: TraitVector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package.replace("-", "_"), None)

    with pytest.raises(ImportError, match=f"pip install {package}"):
        export(vector)
