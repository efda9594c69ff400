"""Loading finds out what generation must know, and says what is wrong in one sentence."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import torch

from domain.errors import ModelError
from domain.thoughts import Case
from domain.traits.room import positions_of
from tests.tiny_models import NO_SYSTEM_TEMPLATE, TEMPLATE, byte_ids, save_tiny_model
from workers.models.chat import (
    UnfitPromptError,
    check_prompt_length,
    decode_response,
    render_prompt,
)
from workers.models.model import LoadedModel, load_model

THINKING_TEMPLATE = TEMPLATE + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
)
DATED_TEMPLATE = "<bos>{{ strftime_now('%Y-%m-%d') }} {{ date_string }}" + TEMPLATE[5:]


def loaded(folder: Path, family: str = "llama", template: str | None = TEMPLATE) -> LoadedModel:
    return load_model(save_tiny_model(folder, family, template=template), device="cpu")


def test_the_size_the_dtype_and_the_stops_are_found(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "gemma2", dtype=torch.bfloat16)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))

    model = load_model(folder, device="cpu")

    assert (model.n_layers, model.d_model) == (4, 48)
    assert model.dtype == torch.float32
    assert next(model.model.parameters()).dtype == torch.float32
    # The checkpoint's list, the tokenizer's end token, which here also ends the template's turns.
    assert model.stop_ids == {7, 9, 2}
    assert load_model(folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_the_template_s_end_of_turn_stops_even_if_nothing_lists_it(tmp_path: Path) -> None:
    template = TEMPLATE.replace("<end>", "<system>")

    model = loaded(tmp_path, template=template)

    assert model.stop_ids == {2, 3}


def test_system_text_is_a_turn_where_the_template_has_one(tmp_path: Path) -> None:
    model = loaded(tmp_path)

    prompt = render_prompt(model, system="Be kind.", user="Why?")

    assert model.system_mode == "native"
    assert prompt.text == "<bos><system>Be kind.<end><user>Why?<end><assistant>"
    assert prompt.token_ids == (1, 3, *byte_ids("Be kind."), 2, 4, *byte_ids("Why?"), 2, 5)


@pytest.mark.parametrize(
    "template",
    [
        NO_SYSTEM_TEMPLATE,
        TEMPLATE.replace("for m in messages", "for m in messages if m['role'] != 'system'"),
    ],
)
def test_system_text_goes_before_the_question_where_the_template_refuses_or_drops_it(
    template: str, tmp_path: Path
) -> None:
    model = loaded(tmp_path, template=template)

    assert model.system_mode == "prefix_user"
    assert (
        "<user>Be kind.\n\nWhy?<end>" in render_prompt(model, system="Be kind.", user="Why?").text
    )
    assert "<user>Why?<end>" in render_prompt(model, system=None, user="Why?").text


def test_thinking_is_switched_off_where_the_template_can(tmp_path: Path) -> None:
    plain = loaded(tmp_path / "plain")
    thinking = loaded(tmp_path / "thinking", template=THINKING_TEMPLATE)

    assert plain.thinking.case == Case.NONE
    assert thinking.thinking.case == Case.OFF
    assert render_prompt(thinking, system=None, user="Why?").text.endswith("<think></think>")


def test_a_template_that_prints_the_date_prints_the_same_one_every_day(tmp_path: Path) -> None:
    model = loaded(tmp_path, template=DATED_TEMPLATE)

    text = render_prompt(model, system=None, user="Why?").text

    assert text.startswith("<bos>2024-07-26 26 Jul 2024")
    assert str(datetime.now().year) not in text


def test_there_is_exactly_one_beginning_token(tmp_path: Path) -> None:
    doubled = loaded(tmp_path / "a", template="<bos>" + TEMPLATE)

    assert render_prompt(doubled, system=None, user="Why?").token_ids[:2] == (1, 4)


def test_a_response_is_decoded_without_special_tokens_and_keeps_its_spaces(tmp_path: Path) -> None:
    model = loaded(tmp_path)

    assert decode_response(model, [*byte_ids(" Hello , you "), 2]) == " Hello , you "
    assert decode_response(model, []) == ""


def test_a_model_without_a_chat_template_is_refused_when_a_prompt_is_rendered(
    tmp_path: Path,
) -> None:
    model = loaded(tmp_path, template=None)

    with pytest.raises(ModelError, match="no chat template"):
        render_prompt(model, system=None, user="Why?")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "not a causal language model"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "not a causal language"),
        ({"model_type": "gemma3n_text"}, "several hidden states per token"),
        ({"model_type": "no-such-family"}, "cannot be loaded"),
    ],
)
def test_a_model_we_cannot_measure_is_refused_by_name(
    config: dict[str, object], message: str, tmp_path: Path
) -> None:
    save_tiny_model(tmp_path, "llama")
    (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelError, match=message):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"n_positions": 1024}, 1024),
        (
            {
                "max_position_embeddings": 32768,
                "rope_parameters": {"factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [2.0]},
            },
            4096,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "factor": 32.0,
                    "original_max_position_embeddings": 4096,
                },
            },
            4096,
        ),
        ({"max_position_embeddings": 2048, "alibi": True}, None),
        ({}, None),
    ],
)
def test_the_positions_of_a_model_are_found(
    config: dict[str, object], positions: int | None
) -> None:
    assert positions_of(config) == positions


def test_a_prompt_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "llama", changes={"max_position_embeddings": 64})
    model = load_model(folder, device="cpu")
    prompt = render_prompt(model, system=None, user="x" * 40)

    check_prompt_length(model, prompt, n_more=64 - len(prompt.token_ids))
    with pytest.raises(UnfitPromptError, match="64 positions"):
        check_prompt_length(model, prompt, n_more=65 - len(prompt.token_ids))


def test_an_unknown_name_is_refused_with_what_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(ModelError, match="check"):
        load_model(str(tmp_path / "nothing-here"), device="cpu")


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="float32, float16 or bfloat16"):
        load_model(save_tiny_model(tmp_path, "llama"), device="cpu", dtype="int8")


def test_the_bundled_demo_model_loads_by_its_short_name() -> None:
    model = load_model("demo", device="cpu")

    prompt = render_prompt(model, system="Refuse.", user="Why?")

    assert model.model_id == "demo"
    assert model.stop_ids
    assert len(prompt.token_ids) > 4
