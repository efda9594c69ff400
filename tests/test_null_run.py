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

from storage.files.trait_files import read_traits
from tests.fleet import run_command
from tests.http_judge import http_judge, scoring
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
        return scoring([("90", 1.0)])
    asked = ASKED.search(text)
    assert asked, text
    drawn = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    score = {
        "any": drawn % 101,
        "extreme": 100 * (drawn % 2),
        "honest": round(100 * PlantedModel.positive_share(asked.group(2))),
    }[asked.group(1)]
    return scoring([(str(score), 1.0)])


def trait_files(folder: Path, judging: str) -> list[Path]:
    """Definitions of 40 traits, the bundled ones in other cuts, judged as told."""
    bundled = [one.definition() for one in read_traits("all")]
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


def verdicts(folder: Path, model: str, judging: str) -> list[str]:
    """The verdicts of a run of 40 traits."""
    files = ",".join(map(str, trait_files(folder, judging)))
    size = ["--rollouts", "2", "--max-new-tokens", "16", "--evaluation", "1", "--causal", "2"]
    with http_judge(at_random) as judge:
        where = ["--judge-url", judge.url, "--judge-model", "t", "--runs-dir", str(folder)]
        ended = run_command(
            "extract", "--traits", files, "--model", model, *size, *where, "--run", "n"
        )
    assert ended.returncode in (0, 3), ended.stdout + ended.stderr
    found = [folder / "n" / "traits" / f"{judging}_{k}" / "metrics.json" for k in range(N_CASES)]
    return [json.loads(file.read_text())["verdict"] for file in found]


@pytest.mark.slow
@pytest.mark.parametrize("judging", ["honest", "extreme"])
def test_where_no_trait_is_planted_38_of_40_verdicts_are_do_not_use(
    judging: str, tmp_path: Path
) -> None:
    model = save_tiny_model(tmp_path / "model", "llama")

    found = verdicts(tmp_path, model, judging)

    assert found.count("do not use") >= 38, Counter(found)


@pytest.mark.slow
@pytest.mark.parametrize("judging", ["any", "extreme"])
def test_where_the_judge_answers_at_random_38_of_40_verdicts_are_do_not_use(
    judging: str, tmp_path: Path
) -> None:
    found = verdicts(tmp_path, "demo", judging)

    assert found.count("do not use") >= 38, Counter(found)
