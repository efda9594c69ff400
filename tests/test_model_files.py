"""Protects models that people have as files: GGUF and LoRA load as what they are, and are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from cli.doctor.machine import GIB, Device
from cli.doctor.model import check_model_fits
from domain.errors import ModelError, ModelNotHereError
from tests.tiny_models import TEMPLATE, byte_tokenizer, save_tiny_model
from workers.models import files
from workers.models.model import LoadedModel, load_model

IDS = torch.tensor([[1, 40, 41, 42, 43, 44]])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "gguf_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr("workers.models.gguf.gguf_cache", lambda: tmp_path / "cache")


def states_of(model: torch.nn.Module) -> torch.Tensor:
    """The states of all layers, [L+1, tokens, d_model]."""
    with torch.no_grad():
        return torch.cat(model(IDS, output_hidden_states=True).hidden_states)


def permuted(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of a query or key matrix in the order that llama.cpp's files keep them."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def write_gguf(folder: Path, target: Path) -> Path:
    """A tiny llama's folder as a GGUF file with its byte tokenizer."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), byte_tokenizer()
    config = model.config
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    # a merge is what files always have
    tokens += ["xq", *(f"<unused{n}>" for n in range(config.vocab_size - len(tokens) - 1))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [3 if token.startswith("<") and len(token) > 1 else 1 for token in tokens]
    )
    writer.add_token_merges(["x q"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        weight = tensor.numpy()
        for part, n_heads in heads.items():
            if part in name:
                weight = permuted(weight, n_heads)
        writer.add_tensor(str(names.get_name(name, try_suffixes=(".weight",))), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_a_gguf_file_is_its_dequantised_folder_and_the_model_it_was_made_from(
    tmp_path: Path,
) -> None:
    original = save_tiny_model(tmp_path / "tiny", "llama")
    file = write_gguf(Path(original), tmp_path / "tiny.gguf")

    first = load_model(str(file), device="cpu")
    folder = files.dequantised_folder(file)
    second = load_model(str(folder), device="cpu")

    assert torch.equal(states_of(first.model), states_of(second.model))
    expected = states_of(AutoModelForCausalLM.from_pretrained(original))
    assert torch.allclose(states_of(first.model), expected, atol=1e-5)
    assert first.stop_ids == {2}
    assert first.revision == second.revision == f"sha256:{files.file_sha256(file)}"


def test_a_changed_gguf_file_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    file = write_gguf(Path(save_tiny_model(tmp_path / "a", "llama")), tmp_path / "x.gguf")
    before = load_model(str(file), device="cpu")
    other = save_tiny_model(tmp_path / "b", "llama", changes={"rms_norm_eps": 0.01})
    write_gguf(Path(other), file)

    after = load_model(str(file), device="cpu")

    assert before.revision != after.revision


def lora(base: str, folder: Path) -> LoadedModel:
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return load_model(str(folder), device="cpu")


def test_a_lora_adapter_is_merged_as_peft_merges_it(tmp_path: Path) -> None:
    base = str(save_tiny_model(tmp_path / "tiny", "llama"))

    found = lora(base, tmp_path / "adapter")

    peft_model = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    merged = states_of(peft_model.merge_and_unload())
    assert torch.allclose(states_of(found.model), merged, atol=1e-5)
    assert not torch.allclose(merged, states_of(load_model(base, device="cpu").model), atol=1e-3)
    assert found.adapter is not None
    assert (found.model_id, found.adapter.base) == (str(tmp_path / "adapter"), base)
    assert (
        found.revision
        == f"sha256:{files.file_sha256(tmp_path / 'adapter/adapter_model.safetensors')}"
    )


def test_a_lora_adapter_of_a_gguf_file_records_both_checksums(tmp_path: Path) -> None:
    file = write_gguf(Path(save_tiny_model(tmp_path / "tiny", "llama")), tmp_path / "tiny.gguf")
    load_model(str(file), device="cpu")
    lora(str(files.dequantised_folder(file)), tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(file)})
    )

    found = load_model(str(tmp_path / "adapter"), device="cpu")

    assert found.adapter is not None
    assert found.adapter.base_revision == f"sha256:{files.file_sha256(file)}"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"GGUF\x03\0\0\0", None])
def test_a_wrong_model_file_is_refused_by_name(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ModelError, match=r"x\.gguf"):
        load_model(str(path), device="cpu")


def test_the_doctor_names_an_adapter_and_weighs_the_gguf_file_that_it_changes(
    tmp_path: Path,
) -> None:
    file = write_gguf(Path(save_tiny_model(tmp_path / "tiny", "llama")), tmp_path / "tiny.gguf")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(file)}))

    before = list(check_model_fits(str(adapter), [Device("cpu", "cpu", GIB, GIB)]))
    load_model(str(file), device="cpu")
    after = list(check_model_fits(str(adapter), [Device("cpu", "cpu", GIB, GIB)]))

    assert [one.check for one in before] == ["adapter", "model"]
    assert [one.check for one in after] == ["adapter", "model", "model on cpu"]
    assert {one.state for one in (*before, *after)} == {"ok"}


def test_an_adapter_that_names_no_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")

    with pytest.raises(ModelError, match="base_model_name_or_path"):
        load_model(str(tmp_path), device="cpu")


Weights = dict[str, torch.Tensor]


def change_weights(file: Path, change: Callable[[Weights], Weights]) -> None:
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without_a_block(weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if ".layers.1." not in name}


def with_a_narrow_one(weights: Weights) -> Weights:
    """One of them by a row too narrow."""
    name = next(name for name in weights if "q_proj" in name)
    return {**weights, name: weights[name][1:].contiguous()}


def with_other_names(weights: Weights) -> Weights:
    """Named as those of a model that sees pictures are."""
    return {name.replace("model.layers", "language_model.layers"): w for name, w in weights.items()}


@pytest.mark.parametrize("change", [without_a_block, with_a_narrow_one])
def test_a_checkpoint_without_all_of_its_weights_is_not_measured(
    change: Callable[[Weights], Weights], tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path, "llama")
    change_weights(tmp_path / "model.safetensors", change)

    with pytest.raises(ModelError, match="q_proj"):
        load_model(folder, device="cpu")


def test_a_reward_model_is_not_measured(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "llama")
    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(folder)

    with pytest.raises(ModelError, match="lm_head"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("change", [without_a_block, with_a_narrow_one, with_other_names])
def test_an_adapter_that_does_not_fit_its_base_is_not_measured_as_that(
    change: Callable[[Weights], Weights], tmp_path: Path
) -> None:
    lora(save_tiny_model(tmp_path / "tiny", "llama"), tmp_path / "adapter")
    change_weights(tmp_path / "adapter/adapter_model.safetensors", change)

    with (
        pytest.warns(UserWarning),
        pytest.raises(ModelError, match=r"does not fit .*q_proj"),
    ):
        load_model(str(tmp_path / "adapter"), device="cpu")


def test_an_adapter_that_changes_no_weights_is_refused(tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "tiny", "llama"))
    prompt = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    peft.get_peft_model(base, prompt).save_pretrained(tmp_path / "adapter")

    with pytest.raises(ModelError, match="PROMPT_TUNING"):
        load_model(str(tmp_path / "adapter"), device="cpu")


@pytest.mark.parametrize("cut", ["tiny/model", "adapter/adapter_model"])
def test_weights_that_were_cut_off_are_named(cut: str, tmp_path: Path) -> None:
    lora(save_tiny_model(tmp_path / "tiny", "llama"), tmp_path / "adapter")
    file = tmp_path / f"{cut}.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(ModelNotHereError, match=str(file.parent)):
        load_model(str(tmp_path / "adapter"), device="cpu")
