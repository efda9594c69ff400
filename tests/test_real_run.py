"""Protects what no stand-in can show: a run on a real language model, with measured traits.

Takes about a minute on two idle cores, and another one where the model was never dequantised.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from demo.real_model import real_model
from domain.errors import ModelError
from storage.files.trait_files import load_trait
from tests.fleet import run_command
from traitlens.vectors.files import load_vectors
from workers.judge.measures import score_by
from workers.models.files import file_sha256
from workers.models.model import load_model

TRAITS = ("cheerful", "wordy")


@pytest.fixture(scope="module")
def model_file() -> Path:
    try:
        return real_model()
    except ModelError as error:
        pytest.skip(f"no real model here: {error}")


@pytest.fixture(scope="module")
def run_folder(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    # dequantised before, so that what is timed out is the run
    load_model(str(model_file), device="cpu")
    size = ["--questions", "4", "--instructions", "2", "--rollouts", "1", "--max-new-tokens", "24"]
    ended = run_command(
        *("extract", "--traits", ",".join(TRAITS), "--model", str(model_file), *size),
        *("--runs-dir", str(folder), "--run", "real", "--contexts", "0"),
        mark=str(folder),
        timeout_s=600,
    )
    assert ended.returncode in (0, 3), ended.stdout + ended.stderr
    return folder / "real"


def responses(run_folder: Path, trait: str) -> pd.DataFrame:
    return pd.read_parquet(run_folder / "traits" / trait / "responses.parquet")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("trait", TRAITS)
def test_scores_are_what_the_formula_says(run_folder: Path, trait: str) -> None:
    rows, measure = responses(run_folder, trait), load_trait(trait).measure
    assert measure is not None

    expected = [score_by(measure, text) for text in rows["response"]]

    assert rows["trait_score"].tolist() == pytest.approx(expected)
    assert rows["coherence_score"].notna().all()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("trait", TRAITS)
def test_vectors_are_those_of_a_plain_second_pass(
    run_folder: Path, model_file: Path, trait: str
) -> None:
    metrics = json.loads((run_folder / "traits" / trait / "metrics.json").read_text())
    rows = responses(run_folder, trait)
    rows = rows[rows["status"] == "kept"]
    if not {"positive", "negative"} <= set(rows["polarity"]):
        assert metrics["verdict"] == "do not use"
        return
    model = load_model(str(model_file), device="cpu")

    means = {}
    for polarity, group in rows.groupby("polarity"):
        tokens = zip(group["prompt_token_ids"], group["response_token_ids"], strict=True)
        states = [second_pass(model.model, [*prompt], [*response]) for prompt, response in tokens]
        means[polarity] = torch.stack(states).double().mean(dim=0)
    expected = means["positive"] - means["negative"]

    # what the model gives out last is after its norm, which ours is not
    found = load_vectors(run_folder / "traits" / trait).tensor.double()[:-1]
    assert torch.linalg.norm(found - expected[:-1]) <= 1e-4 * torch.linalg.norm(expected[:-1])


def second_pass(model: torch.nn.Module, prompt: list[int], response: list[int]) -> torch.Tensor:
    """The mean state of a response's tokens at each layer, [L+1, d_model]."""
    with torch.no_grad():
        out = model(torch.tensor([prompt + response]), output_hidden_states=True)
    return torch.stack(out.hidden_states)[:, 0, len(prompt) :].mean(dim=1)


@pytest.mark.timeout(900)
def test_the_record_names_the_file_by_its_checksum(run_folder: Path, model_file: Path) -> None:
    metrics = json.loads((run_folder / "traits" / "wordy" / "metrics.json").read_text())

    assert metrics["generation"]["revision"] == f"sha256:{file_sha256(model_file)}"
    assert metrics["verdict"] in {"usable", "usable with a doubt", "weak", "do not use"}
