"""Protects against a vector that means nothing: where no trait is planted, or where the judge
answers at random, a real run says `do not use`."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from storage.trait_files import load_traits
from tests.fleet import run_command
from tests.http_judge import http_judge, verdict
from tests.planted_model import PlantedModel
from tests.tiny_models import save_tiny_model

N_CASES, N_INSTRUCTIONS, N_QUESTIONS, N_EVAL_QUESTIONS = 40, 2, 4, 6
ASKED = re.compile(r"\*\*(\w+) \d+\*\*.*\[ANSWER START\]\n(.*)\n\[ANSWER END\]", re.DOTALL)
PROMPT = (
    "How much of **{name}** is there? [QUESTION START]\n{{question}}\n[QUESTION END]\n"
    "[ANSWER START]\n{{answer}}\n[ANSWER END]\nGive a number from 0 to 100."
)


def at_random(body: dict[str, Any], call: int) -> Response:
    """A score by the judging's name and the text: any of 0 to 100, 0 or 100, or the honest share
    of capitals, which is noise where no instruction changes it."""
    text = body["messages"][0]["content"]
    if "**coherence**" in text:
        return verdict([("90", 1.0)])
    asked = ASKED.search(text)
    assert asked, text
    drawn = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    score = {
        "any": drawn % 101,
        "extreme": 100 * (drawn % 2),
        "honest": round(100 * PlantedModel.positive_share(asked.group(2))),
    }[asked.group(1)]
    return verdict([(str(score), 1.0)])


def trait_files(folder: Path, judging: str) -> list[Path]:
    """Definitions of 40 traits, the bundled ones in other cuts, judged as told."""
    bundled = load_traits("all")
    files = []
    for case in range(N_CASES):
        trait, turn = bundled[case % len(bundled)], case // len(bundled)
        pairs = trait.instruction[turn : turn + N_INSTRUCTIONS]
        at = N_QUESTIONS * turn
        body = {
            "instruction": [{"pos": p.positive, "neg": p.negative} for p in pairs],
            "questions": trait.questions[at : at + N_QUESTIONS],
            "eval_questions": trait.eval_questions[at : at + N_EVAL_QUESTIONS],
            "eval_prompt": PROMPT.format(name=f"{judging} {case}"),
        }
        files.append(folder / f"{judging}_{case}.json")
        files[-1].write_text(json.dumps(body))
    return files


def verdicts(folder: Path, model: str, *judgings: str) -> dict[str, list[str]]:
    """The verdicts of one run of 40 traits a judging."""
    files = [str(file) for judging in judgings for file in trait_files(folder, judging)]
    size = ["--rollouts", "2", "--max-new-tokens", "16", "--evaluation", "1", "--causal", "2"]
    with http_judge(at_random) as judge:
        where = ["--judge-url", judge.url, "--judge-model", "t", "--runs-dir", str(folder)]
        ended = run_command(
            "extract", "--traits", ",".join(files), "--model", model, *size, *where, "--run", "n"
        )
    assert ended.returncode == 3, ended.stdout + ended.stderr
    traits = folder / "n" / "traits"
    return {
        judging: [
            json.loads((traits / f"{judging}_{case}" / "metrics.json").read_text())["verdict"]
            for case in range(N_CASES)
        ]
        for judging in judgings
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("has_traits", "judgings"), [(False, ("honest", "extreme")), (True, ("any", "extreme"))]
)
def test_what_means_nothing_is_not_to_be_used_in_38_of_40_cases(
    has_traits: bool, judgings: tuple[str, ...], tmp_path: Path
) -> None:
    model = "demo" if has_traits else save_tiny_model(tmp_path / "model", "llama")

    found = verdicts(tmp_path, model, *judgings)

    for judging, names in found.items():
        assert names.count("do not use") >= 38, (judging, Counter(names))
