"""Protects the slow core: nothing of a checkpoint or of a neighbor in the batch changes a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine_work import compared, run, texts, tiny, work
from tests.tiny_families import EVERY_FAMILY
from tests.tiny_models import PADDING_FAMILIES, save_tiny_model
from workers.engine.engine import build_engine
from workers.engine.fallback import GenerateCore
from workers.models.model import LoadedModel, load_model

SETTINGS: list[dict[str, object]] = [
    {"repetition_penalty": 5.0},
    {"no_repeat_ngram_size": 1},
    {"suppress_tokens": list(range(100, 250))},
    {"bad_words_ids": [[token] for token in range(100, 250)]},
    {"forced_eos_token_id": 2},
    {"max_time": 1e-6},
    {"num_beams": 3},
    {"stop_strings": ["a"]},
]


def loaded(folder: Path, recommended: dict[str, object]) -> LoadedModel:
    save_tiny_model(folder, "llama")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2} | recommended))
    return load_model(str(folder), device="cpu")


@pytest.mark.parametrize("recommended", SETTINGS, ids=lambda one: next(iter(one)))
def test_what_a_checkpoint_recommends_changes_no_token_and_is_recorded(
    recommended: dict[str, object], tmp_path: Path
) -> None:
    requests = work(3, 2, longest=12)
    plain = loaded(tmp_path / "plain", {})
    model = loaded(tmp_path / "recommending", recommended)

    made = texts(run(GenerateCore(model), requests))

    assert made == texts(run(GenerateCore(plain), requests))
    assert model.ignored == recommended
    assert plain.ignored == {}
    assert model.stop_ids == plain.stop_ids


@pytest.mark.parametrize("family", PADDING_FAMILIES)
def test_a_response_is_the_same_beside_longer_prompts_as_alone(family: str, tmp_path: Path) -> None:
    model = tiny(tmp_path, family)
    requests = work(4, 2, longest=10)

    together = texts(run(build_engine(model), requests))

    alone = [texts(run(GenerateCore(model), [request]))[0] for request in requests]
    assert together == alone


def test_a_model_whose_states_are_off_by_more_than_is_promised_runs_on_the_plain_core(
    tmp_path: Path,
) -> None:
    """By 2e-4 on the fast one: in a cosine that is not to be seen."""
    model = tiny(tmp_path, "nemotron_h", changes=EVERY_FAMILY["nemotron_h"])

    found = compared(model, work(2, 2, longest=8))

    assert found.path == "fallback"
    assert found.error < 1e-5


def test_prompts_of_one_length_are_batched_wherever_they_wait(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    core = GenerateCore(model, company="alike")
    requests = work(2, 6, longest=4)
    mixed = [requests[k // 2 + 6 * (k % 2)] for k in range(12)]

    run(core, mixed)

    assert core.stats.steps == 2
