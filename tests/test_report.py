"""Protects the report: it shows what metrics.json says, opens alone, and runs no model's text."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cli.pages.answers import Answer
from cli.pages.build import report_page as build_page
from cli.pages.report_data import report_funnel, report_histograms, reported_command
from domain.plan.spec import (
    ChecksSpec,
    FilterSpec,
    JudgeSpec,
    ModelSpec,
    RunSpec,
    SamplingSpec,
    TraitRef,
)
from domain.scoring.thresholds import Fall
from tests.chromium import chromium_or_skip, running_chromium
from tests.fleet import run_command
from tests.stored_run import HOSTILE, PLANNED_AT, stored_run
from traitlens.vectors.files import load_vectors

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
NO_VALUE = "\u2013"
OFFLINE = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    checks = ChecksSpec(evaluation=1, causal=4)
    # the best method is the mean difference, here not the first
    stored_run(folder / "one", methods=("probe", "mean_diff"), checks=checks)
    # enough to be read in other contexts, and not tested in any other way
    untested = ChecksSpec(evaluation=0, causal=0)
    stored_run(folder / "two", seed=1, rollouts=7, checks=untested)
    return folder


@pytest.fixture(scope="module")
def page(runs: Path) -> Path:
    ended = run_command("report", "one", "--runs-dir", str(runs), "--json")
    assert ended.returncode == 0, ended.stderr
    return Path(json.loads(ended.stdout)["report"])


@pytest.fixture(scope="module")
def comparison(runs: Path) -> Path:
    ended = run_command("compare", "one", "two", "--runs-dir", str(runs), "--json")
    assert ended.returncode == 0, ended.stderr
    return Path(json.loads(ended.stdout)["compare"])


def embedded(page: Path) -> Any:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL
    )
    assert found
    data = json.loads(found.group(1))
    if data["kind"] == "run":
        for trait, table in zip(data["traits"], answer_tables(page), strict=True):
            trait["answers"] = table
    return data


def answer_tables(page: Path) -> list[Any]:
    """The answers of each trait, as the page unpacks them."""
    found = re.search(r'<script type="text/plain" id="answers-data">(.*?)<', page.read_text())
    assert found
    tables: list[Any] = json.loads(gzip.decompress(base64.b64decode(found.group(1))))
    return tables


def metrics(runs: Path, run: str, trait: str) -> Any:
    return json.loads((runs / run / "traits" / trait / "metrics.json").read_text())


def test_its_dates_are_those_of_the_run_and_no_clock_or_copy_moves_them(
    runs: Path, tmp_path: Path
) -> None:
    """Planned as the run recorded, ended when its last trait's record was made, in UTC."""
    shutil.copytree(runs / "one", tmp_path / "one")
    records = list((tmp_path / "one").glob("traits/*/verify.json"))
    written = max(path.stat().st_mtime for path in records)
    ended = max(json.loads(path.read_text())["ended_at"] for path in records)
    assert 0 <= written - datetime.fromisoformat(ended).timestamp() < 2
    for path in records:
        os.utime(path, (0, 0))
    for zone in ("Asia/Tokyo", "America/Los_Angeles"):
        before = datetime.now(UTC).replace(microsecond=0)
        where = ["report", "one", "--runs-dir", str(tmp_path)]
        made = run_command(*where, environment={"TZ": zone})
        assert made.returncode == 0, made.stderr
        times = embedded(tmp_path / "one/report.html")["times"]
        assert times["planned"] == PLANNED_AT
        assert times["ended"] == ended
        assert before <= datetime.fromisoformat(times["written"]) <= datetime.now(UTC)


def test_the_page_holds_each_trait_s_metrics_as_they_are_stored(runs: Path, page: Path) -> None:
    data = embedded(page)

    assert [t["metrics"]["trait"] for t in data["traits"]] == ["evil", "refusal"]
    for trait in data["traits"]:
        assert trait["metrics"] == metrics(runs, "one", trait["metrics"]["trait"])
    stored = json.loads((runs / "one" / "metrics.json").read_text())
    assert data["cosine_between_traits"] == stored["cosine_between_traits"]


def test_the_comparison_holds_both_runs_metrics_as_they_are_stored(
    runs: Path, comparison: Path
) -> None:
    data = embedded(comparison)

    assert "seed: 0 in the first, 1 in the second" in data["differences"]
    for one in data["traits"]:
        assert one["metrics"] == [metrics(runs, run, one["trait"]) for run in ("one", "two")]
    stored = json.loads((runs / "one" / "compare-two.json").read_text())
    assert {one["trait"]: one["cosine"] for one in data["traits"]} == stored["cosine"]
    for trait, cosine in stored["cosine"].items():
        pair = [load_vectors(runs / run / "traits" / trait) for run in ("one", "two")]
        assert cosine["method"] == "mean_diff"
        assert cosine["value"] == pytest.approx(pair[0].cosine(pair[1]).tolist(), abs=1e-6)
        for value, (low, high) in zip(cosine["value"], cosine["interval"], strict=True):
            assert low <= value <= high


def test_counts_of_funnel_and_histograms_agree_with_the_metrics(page: Path) -> None:
    for trait in embedded(page)["traits"]:
        m = trait["metrics"]
        for polarity, steps in trait["funnel"].items():
            by_step = {step["step"]: step["n"] for step in steps}
            assert by_step["kept"] == m["n_kept"][polarity]
        generated = sum(steps[0]["n"] for steps in trait["funnel"].values())
        scored = sum(steps[1]["n"] for steps in trait["funnel"].values())
        assert (generated, scored) == (m["n_generated"], m["n_scored"])
        both = [sum(trait["histograms"][p]["trait"]) for p in ("positive", "negative")]
        assert sum(both) == m["n_generated"] - m["n_unscored"]["refused"]


def test_the_page_is_one_file_that_may_fetch_nothing(page: Path, comparison: Path) -> None:
    for file in (page, comparison):
        text = file.read_text()

        assert "default-src 'none'" in text
        assert "unsafe-inline" not in text
        markup = re.sub(r"<script.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
        assert not re.search(r"(src|href)\s*=", markup)
        assert "innerHTML" not in text.replace(HOSTILE, "")


def test_what_a_model_wrote_stays_inside_the_data(page: Path) -> None:
    text = page.read_text()

    assert "<img src=x" not in text
    assert text.count("</script>") == 3
    assert any(HOSTILE in table["response"] for table in answer_tables(page))


class Shown(HTMLParser):
    """The numbers a drawn page shows: (where it is in the data, digits, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[tuple[str, int, str]] = []
        self._open: tuple[str, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if named.get("data-from"):
            self._open = str(named["data-from"]), int(str(named["data-digits"]))

    def handle_data(self, data: str) -> None:
        if self._open:
            self.numbers.append((*self._open, data))
            self._open = None


def drawn(page: Path, profile: Path, fragment: str = "") -> tuple[str, list[tuple[str, int, str]]]:
    assert CHROMIUM
    arguments = [*QUIET, *OFFLINE, f"--user-data-dir={profile}", "--dump-dom"]
    budget = "--virtual-time-budget=3000"
    ended = subprocess.run(
        [CHROMIUM, *arguments, budget, f"file://{page}{fragment}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    shown = Shown()
    shown.feed(ended.stdout)
    return ended.stdout, shown.numbers


def metrics_of(data: Any, trait: str) -> Any:
    return next(t["metrics"] for t in data["traits"] if t["metrics"]["trait"] == trait)


def at(data: Any, path: str) -> Any:
    for key in path.split("/"):
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("name", ["page", "comparison"])
def test_every_number_that_a_browser_shows_is_the_stored_one(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    file = request.getfixturevalue(name)
    data = embedded(file)

    dom, numbers = drawn(file, tmp_path, "#refusal" if name == "page" else "")

    assert len(numbers) > 100
    for path, digits, text in numbers:
        value = at(data, path)
        assert (
            (text == NO_VALUE)
            if value is None
            else abs(float(text) - value) <= 0.5001 * 10**-digits
        )
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title and "owned" not in title.group(1)
    assert "<svg" in dom
    if name == "page":
        best = metrics_of(data, "refusal")["quality"]["best"]
        assert f"The {best['method']} vector at layer {best['layer']}." in dom


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_claims_every_gate_only_where_every_test_was_made(
    runs: Path, page: Path, tmp_path: Path
) -> None:
    ended = run_command("report", "two", "--runs-dir", str(runs), "--json")
    untested = Path(json.loads(ended.stdout)["report"])

    whole, _ = drawn(page, tmp_path / "one")
    partly, _ = drawn(untested, tmp_path / "two")

    assert metrics(runs, "one", "evil")["verdict"] == "usable"
    assert "<p>Every gate passed.</p>" in whole
    assert metrics(runs, "two", "evil")["verdict"] == "usable"
    assert "<p>Every gate that could be measured passed.</p>" in partly
    assert "<li>nothing was steered with these vectors (--causal 0)</li>" in partly


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_does_without_a_confound_that_was_not_measured(page: Path, tmp_path: Path) -> None:
    data = embedded(page)
    for trait in data["traits"]:
        del trait["metrics"]["quality"]["confounds"]["prompt_difference"]
    (tmp_path / "page.html").write_bytes(build_page("without", data))

    dom, _ = drawn(tmp_path / "page.html", tmp_path / "profile")

    headings = re.findall(r"<h\d[^>]*>([^<]+)<", dom)
    assert {"What else could it be?", "Read the data", "Provenance"} <= set(headings)
    assert "prompt_difference" in page.read_text()
    assert ">difference between the prompts<" not in dom


SCROLLING = (
    "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    ".map(e => e.firstChild.className)"
)


@pytest.mark.parametrize("name", ["page", "comparison"])
def test_the_verdicts_fit_on_a_laptop_and_on_a_phone(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    browser = chromium_or_skip()
    wide = tmp_path / "wide.html"
    text = request.getfixturevalue(name).read_text()
    wide.write_text(
        text.replace('"evil"', '"manipulativeness"').replace('"usable"', '"do not use"')
    )

    with running_chromium(browser, tmp_path / "profile") as tab:
        tab.open(wide.as_uri())
        tab.size(1280, 900)
        on_a_laptop = tab.evaluate(SCROLLING)
        tab.size(390, 844, mobile=True)
        on_a_phone = tab.evaluate(SCROLLING)
        page_width = tab.evaluate("document.documentElement.scrollWidth")

    assert on_a_laptop == []
    assert "strip" not in on_a_phone
    assert page_width <= 390


def row(key: str, **changes: Any) -> Answer:
    empty = dict.fromkeys(Answer.__dataclass_fields__)
    scores = {"trait_score": 80.0, "coherence_score": 90.0}
    return Answer(**{**empty, "key": key, "polarity": "positive", **scores, **changes})


def test_scores_fall_into_bins_whose_last_one_holds_a_hundred() -> None:
    scores = (100.0, 0.0, None)

    found = report_histograms([row(f"k{score}", trait_score=score) for score in scores])

    assert found["positive"]["trait"] == [1, *[0] * 18, 1]
    assert sum(found["positive"]["coherence"]) == 3


def test_the_funnel_loses_each_row_at_the_step_where_it_fell() -> None:
    rows = [
        row("a"),
        *(row(fall, fall=fall) for fall in Fall if fall != Fall.TRAIT_HIGH),
    ]

    assert [step["n"] for step in report_funnel(rows)["positive"]] == [7, 5, 3, 2, 1]


def test_the_command_that_repeats_a_run_names_all_that_is_not_a_default() -> None:
    ref = TraitRef(name="evil", fingerprint="f", n_instructions=5, n_questions=8)
    spec = RunSpec(
        traits=(ref,),
        model=ModelSpec(model_id="org/m", revision="abc", dtype="bfloat16"),
        judge=JudgeSpec(model="gpt", url="https://x/v1", votes=3),
        rollouts=4,
        sampling=SamplingSpec(temperature=0.7, max_new_tokens=64),
        filter=FilterSpec(threshold=60, pairing="paired"),
        methods=("mean_diff", "probe"),
        checks=ChecksSpec(causal=0),
        until="converged",
        seed=5,
    )

    command = reported_command(spec, traits="my traits/evil.json", full={"evil": (5, 20)})

    assert command == (
        "orchestrate extract --traits 'my traits/evil.json' --questions 8 --model org/m "
        "--revision abc --dtype bfloat16 --judge-model gpt --judge-url https://x/v1 "
        "--judge-votes 3 --rollouts 4 --max-new-tokens 64 --temperature 0.7 --seed 5 "
        "--threshold 60 --filter paired --methods mean_diff,probe --causal 0 --until converged"
    )


def test_the_repeated_command_describes_the_same_run(runs: Path, page: Path) -> None:
    recorded = json.loads((runs / "one" / "run.json").read_text())["spec_sha256"]
    repeated = embedded(page)["repeat"].split()[2:]

    # a fleet has the model
    fleet = {"ORCHESTRATE_BROKER_URL": "redis://127.0.0.1:9/0"}
    ended = run_command("extract", *repeated, "--dry-run", "--json", environment=fleet)

    assert ended.returncode == 0, ended.stderr
    # a run without a name is called after its model and the hash of its settings
    assert json.loads(ended.stdout)["run"] == f"m-{recorded[:8]}"
