"""`orchestrate steer`: the change that was asked for, on the tokens that were asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cli.main import orchestrate
from domain.errors import UsageError
from domain.plan.steering_term import SteeringTerm, parse_steering_term
from storage.record.results import read_metrics, write_manifest, write_metrics
from tests.planted_model import PlantedModel
from tests.planted_vectors import PlantedRun, planted_run
from tests.quality_records import steered as steered_at_3
from traitlens.vectors.files import load_vectors
from workers.monitor.layer_vectors import LayerVector, layer_vectors_steering

torch.set_num_threads(1)
NEUTRAL = ("--system", "Please write letters.")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    return planted_run(tmp_path_factory.mktemp("planted"))


def steered(made: PlantedRun, *arguments: str) -> list[dict[str, Any]]:
    prompts = [a for text in made.planted.questions for a in ("--prompt", text)]
    result = CliRunner().invoke(
        orchestrate,
        ["steer", *made.arguments, *prompts, *NEUTRAL, "--json", *arguments],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    records: list[dict[str, Any]] = json.loads(result.stdout)
    return records


def capitals(texts: list[str]) -> float:
    return PlantedModel.positive_share("".join(texts))


def test_the_planted_trait_rises_and_falls_with_the_multiple(made: PlantedRun) -> None:
    # a vector of 4 directions: 0.5 of it is the size that the model itself writes
    records = steered(made, "--add", "capitals=0.5", "--times", "-1,1,2")

    by_multiple = [[r["steered"][k]["response"] for r in records] for k in range(3)]
    shares = [capitals(texts) for texts in by_multiple]
    assert shares[0] < 0.25 < 0.75 < shares[1]
    assert shares[2] > shares[1] - 0.05
    assert [r["steered"][0]["coefficient"] for r in records] == [-0.5] * len(records)
    assert records[0]["steered"][1]["metadata"]["steering"] == "capitals +0.5"


def test_the_unit_of_the_residual_stream_counts_its_norm(made: PlantedRun) -> None:
    vector = load_vectors(made.run.store.url + "/traits/capitals")
    one = LayerVector("capitals", 2, vector)

    raw = layer_vectors_steering(
        [(SteeringTerm("capitals", "add", 2.0), one)], positions="all", unit="raw"
    )
    share = layer_vectors_steering(
        [(SteeringTerm("capitals", "add", 0.5), one)], positions="all", unit="residual"
    )

    # the vector has length 4 and the stream 8: half the stream is once the vector
    assert raw.interventions[0].coefficient == 2.0
    assert share.interventions[0].coefficient == pytest.approx(1.0)


def test_ablating_removes_the_direction_from_every_token(made: PlantedRun) -> None:
    marked = ["--system", "Write with ^ please."]
    prompts = [a for text in made.planted.questions for a in ("--prompt", text)]
    result = CliRunner().invoke(
        orchestrate,
        ["steer", *made.arguments, *prompts, *marked, "--json", "--ablate", "capitals"],
        catch_exceptions=False,
    )

    for record in json.loads(result.stdout):
        free, without = record["trait_scores"], record["steered"][0]["trait_scores"]
        assert all(score > 1 for score in free["capitals"])
        assert np.abs(without["capitals"]).max(initial=0) < 1e-5


def test_steering_the_response_leaves_the_prompt_as_it_was(made: PlantedRun) -> None:
    response = steered(made, "--add", "capitals=1", "--at", "response")
    everywhere = steered(made, "--add", "capitals=1", "--at", "all")

    for record in response:
        prompt = record["prompt_scores"]["capitals"]
        assert record["steered"][0]["prompt_scores"]["capitals"] == prompt
    for record in everywhere:
        change = np.subtract(
            record["steered"][0]["prompt_scores"]["capitals"], record["prompt_scores"]["capitals"]
        )
        np.testing.assert_allclose(change, 4.0, rtol=1e-4)  # the vector's length, at every token


def test_a_cap_holds_at_every_token(made: PlantedRun) -> None:
    records = steered(made, "--add", "capitals=1@1", "--cap", "capitals=1@2")

    for record in records:
        scores = record["steered"][0]["trait_scores"]["capitals"]
        assert max(scores, default=0) <= 1 + 1e-4


def test_a_trait_is_steered_where_the_run_found_that_it_works(tmp_path: Path) -> None:
    made = planted_run(tmp_path)
    metrics = read_metrics(made.run.store, "capitals")
    assert metrics.quality is not None and steered_at_3().layer == 3
    quality = metrics.quality.model_copy(update={"causal": steered_at_3()})
    changed = metrics.model_copy(update={"quality": quality})
    write_metrics(made.run.store, "traits/capitals", changed)
    write_manifest(made.run.store, "traits/capitals")

    found = steered(made, "--add", "capitals=1", "--add", "noise=1", "--add", "capitals=1@1")
    asked = steered(made, "--add", "capitals=1", "--layer", "2")

    assert found[0]["steered"][0]["metadata"]["steering_layers"] == [3, 2, 1]
    assert asked[0]["steered"][0]["metadata"]["steering_layers"] == [2]


def test_the_terminal_shows_the_texts_beside_one_another(made: PlantedRun, tmp_path: Path) -> None:
    out = tmp_path / "steered.json"
    arguments = ["--prompt", "Why?", *NEUTRAL, "--add", "capitals=1", "--output", str(out)]

    shown = CliRunner().invoke(orchestrate, ["steer", *made.arguments, *arguments])

    assert shown.exit_code == 0, shown.output
    assert "unsteered" in shown.output and "capitals +1" in shown.output
    assert len(json.loads(out.read_text())[0]["steered"]) == 1


def test_a_term_is_a_trait_a_strength_and_a_layer() -> None:
    assert parse_steering_term("evil=-2.5@block:15", "add") == SteeringTerm(
        "evil", "add", -2.5, "block:15"
    )
    assert parse_steering_term("refusal", "ablate") == SteeringTerm("refusal", "ablate", 1.0)


@pytest.mark.parametrize(
    ("text", "mode"), [("evil=", "add"), ("=2", "add"), ("evil=2@", "add"), ("evil", "cap")]
)
def test_a_term_that_is_none_is_refused_with_an_example(text: str, mode: Any) -> None:
    with pytest.raises(UsageError, match="write "):
        parse_steering_term(text, mode)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to steer with"),
        (["--add", "rudeness=1"], "no vector of 'rudeness' is loaded: use one of capitals, noise"),
        (["--add", "capitals=1@99"], "no layer '99'"),
        (["--add", "capitals", "--times", "a"], "no list of numbers"),
    ],
)
def test_a_wrong_request_is_refused(made: PlantedRun, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        steered(made, *arguments)
