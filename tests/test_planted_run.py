"""Protects the whole chain by a truth: a direction planted in a model comes out of a real run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from starlette.responses import Response

from tests.fleet import run_command
from tests.http_judge import http_judge, verdict
from tests.planted_model import PlantedModel, save_planted_model
from traitlens import load_vectors

JUDGE_PROMPT = (
    "How much of this is in **capitals**? [QUESTION START]\n{question}\n[QUESTION END]\n"
    "[ANSWER START]\n{answer}\n[ANSWER END]\nGive a number from 0 to 100."
)


def by_capitals(body: dict[str, Any], call: int) -> Response:
    text = body["messages"][0]["content"]
    if "**coherence**" in text:
        return verdict([("90", 1.0)])
    answer = re.search(r"\[ANSWER START\]\n(.*)\n\[ANSWER END\]", text, re.DOTALL)
    share = PlantedModel.positive_share(answer.group(1) if answer else "")
    return verdict([(str(round(100 * share)), 1.0)])


def test_a_run_recovers_the_planted_direction_at_its_layer(tmp_path: Path) -> None:
    planted = save_planted_model(tmp_path / "model", block=1)
    trait = {
        "instruction": [{"pos": pos, "neg": neg} for pos, neg in planted.instructions],
        "questions": list(planted.questions),
        "eval_prompt": JUDGE_PROMPT,
    }
    file = tmp_path / "capitals.json"
    file.write_text(json.dumps(trait))

    with http_judge(by_capitals) as judge:
        where = ["--judge-url", judge.url, "--judge-model", "t", "--runs-dir", str(tmp_path)]
        model = ["--model", planted.folder, "--max-new-tokens", "60", "--rollouts", "4"]
        ended = run_command("extract", "--traits", str(file), *model, *where, "--run", "planted")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    vector = load_vectors(tmp_path / "planted" / "traits" / "capitals")
    direction = torch.from_numpy(planted.direction)
    cosines = torch.cosine_similarity(vector.tensor, direction[None], dim=1)
    assert cosines[planted.layer] > 0.95
    assert vector.norms[planted.layer] > 5 * vector.norms[: planted.layer].max()
