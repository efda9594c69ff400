"""Protects the whole chain by a truth: a direction planted in a model comes out of a real run,
holds on questions that it was not made from, and steers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.responses import Response

from tests.fleet import run_command
from tests.http_judge import http_judge, scoring
from tests.planted_model import PlantedModel, Shape, save_planted_model
from traitlens.vectors.files import load_vectors

JUDGE_PROMPT = (
    "How much of this is in **capitals**? [QUESTION START]\n{question}\n[QUESTION END]\n"
    "[ANSWER START]\n{answer}\n[ANSWER END]\nGive a number from 0 to 100."
)
HELD_OUT = ["Where is it?", "What is snow?", "Name 2 birds.", "How so?", "Is it late?", "Who won?"]
SMALLEST_COSINE = {"mean_diff": 0.95, "probe": 0.95, "gradient": 0.95, "ica": 0.9}


def by_capitals(body: dict[str, Any], call: int) -> Response:
    text = body["messages"][0]["content"]
    if "**coherence**" in text:
        return scoring([("90", 1.0)])
    answer = re.search(r"\[ANSWER START\]\n(.*)\n\[ANSWER END\]", text, re.DOTALL)
    share = PlantedModel.positive_share(answer.group(1) if answer else "")
    return scoring([(str(round(100 * share)), 1.0)])


def planted_run(folder: Path, planted: PlantedModel, *options: str) -> Path:
    """The trait's folder after a run of the planted model."""
    trait = {
        "instruction": [{"pos": pos, "neg": neg} for pos, neg in planted.instructions],
        "questions": list(planted.questions),
        "eval_questions": HELD_OUT,
        "eval_prompt": JUDGE_PROMPT,
    }
    file = folder / "capitals.json"
    file.write_text(json.dumps(trait))
    with http_judge(by_capitals) as judge:
        where = ["--judge-url", judge.url, "--judge-model", "t", "--runs-dir", str(folder)]
        model = ["--model", planted.folder, "--max-new-tokens", "80", *options]
        ended = run_command("extract", "--traits", str(file), *model, *where, "--run", "planted")
    assert ended.returncode in (0, 3), ended.stdout + ended.stderr
    return folder / "planted" / "traits" / "capitals"


def cosines(trait: Path, planted: PlantedModel, method: str) -> torch.Tensor:
    vector = load_vectors(trait, method=method)
    return torch.cosine_similarity(vector.tensor, torch.from_numpy(planted.direction)[None], dim=1)


def test_a_run_recovers_the_planted_direction_at_its_layer(tmp_path: Path) -> None:
    planted = save_planted_model(tmp_path / "model", block=1)

    trait = planted_run(tmp_path, planted, "--rollouts", "8", "--evaluation", "1", "--causal", "6")

    metrics = json.loads((trait / "metrics.json").read_text())
    # four questions show that it steers, and not surely that it reads
    assert metrics["verdict"] in ("usable", "usable with a doubt"), metrics["reasons"]
    assert metrics["uses"]["steers"]["state"] == "yes"
    assert cosines(trait, planted, "mean_diff")[planted.layer] > 0.95
    vector = load_vectors(trait)
    assert vector.norms[planted.layer] > 5 * vector.norms[: planted.layer].max()
    causal = metrics["quality"]["causal"]
    assert causal["layer"] >= planted.layer
    assert causal["vector"]["rise"]["interval"][0] > 20
    likelihood = metrics["quality"]["likelihood"]
    assert likelihood["p"] <= 0.05 and likelihood["layer"] >= planted.layer
    assert likelihood["gain"]["interval"][planted.layer][0] > 0
    damage = {one["strength"]: one["damage"] for one in likelihood["pushes"]}
    assert 0 < damage[0.5] < damage[1.0]
    low, high = causal["random"]["slope"]["interval"]
    assert low < 5 and high > -5


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["llama", "gemma2"])
def test_every_method_finds_it_and_the_length_that_goes_with_it_is_reported(
    shape: Shape, tmp_path: Path
) -> None:
    planted = save_planted_model(tmp_path / "model", block=1, shape=shape, length_confound=0.7)
    methods = ["--methods", ",".join(SMALLEST_COSINE), "--rollouts", "20"]

    trait = planted_run(tmp_path, planted, *methods, "--evaluation", "2", "--causal", "6")

    metrics = json.loads((trait / "metrics.json").read_text())
    quality = metrics["quality"]
    found = {m: float(cosines(trait, planted, m)[planted.layer]) for m in SMALLEST_COSINE}
    assert all(found[method] > least for method, least in SMALLEST_COSINE.items()), found
    assert set(quality["best"]["by_method"].values()) == {planted.layer}
    assert quality["confounds"]["response_length"]["auroc"]["interval"][0] > 0.6
    named = [note for note in metrics["notes"] if "responses are longer than negative" in note]
    assert len(named) == 1 and "this alone tells the sides apart (AUROC 0." in named[0]
    assert quality["causal"]["vector"]["rise"]["interval"][0] > 20
