"""`orchestrate dynamics`: the documents' measures, a step that is told from drift, and averages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from cli.main import orchestrate
from domain.errors import UsageError
from storage.files.scored import read_scored_responses
from tests.page_data import record, save
from traitlens.dynamics.trajectory import analyze

N = 40


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(orchestrate, ["dynamics", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def drifting(seed: int, *, step_at: int | None = None) -> list[float]:
    """Scores that resemble their neighbors, with a step of six deviations where one is asked."""
    random = np.random.default_rng(seed)
    x = np.zeros(N)
    for t in range(1, N):
        x[t] = 0.5 * x[t - 1] + random.normal()
    if step_at is not None:
        x[step_at:] += 6
    return list(map(float, x))


def stepping(n: int) -> list[dict[str, Any]]:
    places = np.random.default_rng(1).integers(8, 30, n)
    return [
        record({"evil": drifting(k, step_at=int(at)), "calm": drifting(1000 + k)}, at=int(at))
        for k, at in enumerate(places)
    ]


def test_the_records_are_written_in_the_seeds_form(tmp_path: Path) -> None:
    one = record()

    run(save(tmp_path / "s.json", one), "--output", tmp_path / "d.json")

    (written,) = json.loads((tmp_path / "d.json").read_text())
    assert written["dynamics"] == analyze(one["tokens"], one["trait_scores"])["dynamics"]
    assert {k: v for k, v in written.items() if k != "dynamics"} == one


def test_a_response_may_hold_what_else_parts_lines(tmp_path: Path) -> None:
    lines, one = tmp_path / "scores.jsonl", {"tokens": ["a\u2028", "\x85b"]}
    row = json.dumps(one | {"trait_scores": {"evil": [0.0, 1.0]}}, ensure_ascii=False)
    lines.write_text(f"{row}\n{row}\n", encoding="utf-8")

    found = read_scored_responses(lines)

    assert [one.tokens for one in found] == [("a\u2028", "\x85b")] * 2


def test_steps_are_found_where_they_are_and_drift_is_not_called_one(tmp_path: Path) -> None:
    file = save(tmp_path / "s.json", stepping(40))

    found = json.loads(run(file, "--json"))["traits"]

    assert found["evil"]["committed"] >= 36
    assert found["calm"]["committed"] <= 6


def test_averages_line_up_at_the_step(tmp_path: Path) -> None:
    file = save(tmp_path / "s.json", stepping(40))

    run(file, "--traits", "evil", "--averages", tmp_path / "a.csv", "--before", "4", "--after", "8")

    rows = pd.read_csv(tmp_path / "a.csv").set_index("offset")
    assert rows.index.tolist() == list(range(-4, 9))
    assert rows["high"][-1] < rows["low"][0]
    assert rows["mean"][4] - rows["mean"][-4] == pytest.approx(6, abs=1)


def test_an_event_may_be_what_the_text_says(tmp_path: Path) -> None:
    tokens = ["I", " can", "not", " help", ".", " I", " cannot", "."]
    scores = {"refusal": [0.0, 0, 5, 0, 0, 0, 0, 0]}
    file = save(tmp_path / "s.json", record(scores, tokens=tokens))

    run(file, "--align", "not", "--before", "1", "--after", "1", "--averages", tmp_path / "a.csv")

    rows = pd.read_csv(tmp_path / "a.csv")
    assert rows["mean"].tolist() == [0.0, 5.0, 0.0]


def test_an_event_behind_the_last_token_does_not_happen(tmp_path: Path) -> None:
    file = save(tmp_path / "s.json", record({"refusal": [0.0, 5.0]}, tokens=["I", " can"]))

    run(file, "--align", "$", "--averages", tmp_path / "a.csv")

    assert set(pd.read_csv(tmp_path / "a.csv")["count"]) == {0}


def test_neutral_responses_may_be_the_null(tmp_path: Path) -> None:
    file = save(tmp_path / "s.json", stepping(20))
    calm = save(tmp_path / "n.json", [record({"evil": drifting(k)}) for k in range(500, 560)])
    # neutral responses that step as often leave nothing to find
    wild = save(tmp_path / "w.json", stepping(30))

    with_calm = json.loads(run(file, "--traits", "evil", "--null", calm, "--json"))
    with_wild = json.loads(run(file, "--traits", "evil", "--null", wild, "--json"))

    assert with_calm["traits"]["evil"]["committed"] >= 18
    assert with_wild["traits"]["evil"]["committed"] <= 4


def test_the_table_shows_each_trait_and_the_averages_as_bars(tmp_path: Path) -> None:
    shown = run(save(tmp_path / "s.json", stepping(12)))

    assert "evil" in shown and "calm" in shown
    assert "▁" in shown and "|" in shown


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("{", [], "is not JSON"),
        ('{"event": "start"}', [], "--output scores.json"),
        (record({"evil": [1.0, 2.0]}, tokens=["a"]), [], "one score for each"),
        (record({"evil": [None]}, tokens=["a"]), [], "lacks the score"),
        (record({"evil": [1.0]}, tokens=["a"]), ["--traits", "x"], "scores of evil"),
        (
            record({"evil": [1.0]}, tokens=["a"]),
            ["--align", "("],
            "regular expression",
        ),
    ],
)
def test_what_cannot_be_analyzed_is_named(
    tmp_path: Path, content: Any, arguments: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(save(tmp_path / "s.json", content), *arguments)
