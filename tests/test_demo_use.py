"""The demo model: its vectors tell prompts apart, and steering moves the judge's score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cli.main import orchestrate
from demo.scorer import demo_trait_score
from domain.plan.samples import Polarity
from domain.traits.definition import BUNDLED_TRAITS, system_instruction
from storage.files.trait_files import load_trait
from tests.fleet import run_command
from traitlens.stats.separation import auroc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
QUESTIONS, STRENGTHS = 8, (1, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = str(tmp_path_factory.mktemp("runs"))
    where = ["--run", "demo", "--runs-dir", folder]
    # what is checked here is not checked by the run as well
    small = ["--rollouts", "1", "--questions", "8", "--evaluation", "0", "--causal", "0"]
    run_command("extract", "--traits", "all", *small, *where)
    return ["demo", "--runs-dir", folder]


def answered(command: str, run: list[str], rows: list[dict[str, str]], *options: str) -> Any:
    file = Path(run[-1]) / "prompts.json"
    file.write_text(json.dumps(rows))
    arguments = [command, *run, "--prompts", str(file), "--json", *options]
    result = CliRunner().invoke(orchestrate, arguments, catch_exceptions=False)
    return json.loads(result.stdout)


def asked(trait: str, polarity: Polarity | None) -> list[dict[str, str]]:
    """Held-out questions, under the trait's instructions in turn or under none."""
    definition = load_trait(trait)
    rows = []
    for k, question in enumerate(definition.eval_questions[:QUESTIONS]):
        row = {"question": question, "trait": trait, "side": polarity or "none"}
        if polarity is not None:
            pair = definition.instruction[k % len(definition.instruction)]
            text = pair.positive if polarity == "positive" else pair.negative
            row["system"] = system_instruction(trait, polarity, text)
        rows.append(row)
    return rows


def separations(run: list[str]) -> dict[str, float]:
    """Trait -> AUROC of the mean projection, positive against negative prompts."""
    sides: tuple[Polarity, ...] = ("positive", "negative")
    rows = [row for trait in BUNDLED_TRAITS for side in sides for row in asked(trait, side)]
    means: dict[tuple[str, str], list[float]] = {}
    for record in answered("monitor", run, rows):
        trait, side = (record["metadata"][name] for name in ("trait", "side"))
        if record["tokens"]:
            means.setdefault((trait, side), []).append(record["summary"][trait]["mean"])
    return {
        trait: float(auroc(*(np.array(means[trait, side])[:, None] for side in sides))[0])
        for trait in BUNDLED_TRAITS
    }


def steered_scores(run: list[str], trait: str) -> list[float]:
    """The judge's mean score at minus and plus each strength and at none, from low to high."""
    factors = sorted({0.0, *(sign * s for s in STRENGTHS for sign in (-1, 1))} - {0.0})
    times = ",".join(f"{factor:g}" for factor in factors)
    steering = ["--add", f"{trait}=1", "--times", times]
    records = answered("steer", run, asked(trait, None), *steering)
    columns = [[r["steered"][k]["response"] for r in records] for k in range(len(factors))]
    at = sum(factor < 0 for factor in factors)
    columns.insert(at, [r["response"] for r in records])
    return [
        float(np.mean([demo_trait_score(trait, question="", answer=text) for text in texts]))
        for texts in columns
    ]


def moves_the_right_way(scores: list[float]) -> bool:
    """Both positive strengths over unsteered, and no negative one over it."""
    low, none, high = scores[: len(STRENGTHS)], scores[len(STRENGTHS)], scores[-len(STRENGTHS) :]
    return min(high) > none and max(low) <= none


def test_positive_and_negative_prompts_separate_for_every_trait(run: list[str]) -> None:
    found = separations(run)

    assert {trait: value for trait, value in found.items() if value <= 0.9} == {}


def test_steering_moves_the_judges_score_the_right_way_for_most_traits(run: list[str]) -> None:
    found = {trait: steered_scores(run, trait) for trait in BUNDLED_TRAITS}

    right = [trait for trait, scores in found.items() if moves_the_right_way(scores)]
    assert len(right) >= 8, {trait: np.round(scores, 1).tolist() for trait, scores in found.items()}


def test_steered_against_a_trait_the_answers_read_lower(run: list[str]) -> None:
    """Of one prompt the difference may be chance: a z varies by about 1."""
    records = answered("steer", run, asked("evil", None), "--add", "evil=-2")

    both = [(r["summary"]["evil"], r["steered"][0]["summary"]["evil"]) for r in records]
    unsteered, steered = (np.mean([pair[k]["z"] for pair in both]) for k in range(2))
    assert steered < unsteered - 0.5


torch.set_num_threads(1)
