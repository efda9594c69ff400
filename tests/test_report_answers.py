"""Protects the report's answers: every response is there, is what the record holds, sorts, and has
an address that leads back to it. In a real Chromium where it says so."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cli.commands.report import write_report
from cli.pages import build
from cli.pages.build import report_page
from domain.plan.spec import ChecksSpec
from storage.files.transcripts import read_transcripts
from storage.record.responses import load_activations, load_responses
from storage.record.run import Run, load_definition
from tests.chromium import Tab, chromium_or_skip, running_chromium
from tests.stored_run import HOSTILE, stored_run
from traitlens.vectors.files import load_vectors

STEERED = "#view=answers&of=evil&part=steering&push=vector&order=coherence_score"
# Tall enough to hold what it must, and no more of a phone's screens than a person scrolls.
PHONE_HEIGHT = 8000
NUMBERS = """[...document.querySelectorAll('#panel-answers [data-from]')].map(
    e => [e.dataset.from, Number(e.dataset.digits), e.textContent])"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "one"
    checks = ChecksSpec(evaluation=1, causal=4)
    return stored_run(folder, checks=checks, rollouts=7, model=f"/models/{'longname' * 8}.gguf")


@pytest.fixture(scope="module")
def page(run: Run) -> Path:
    return Path(write_report(run))


@pytest.fixture(scope="module")
def tables(page: Path) -> list[Any]:
    return unpacked(page.read_text())


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    path = chromium_or_skip()
    with running_chromium(path, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab) -> Iterator[Tab]:
    browser.size(1280, 900)
    browser.errors.clear()
    yield browser
    assert browser.errors == []


def unpacked(text: str) -> list[Any]:
    found = re.search(r'id="answers-data">(.*?)<', text)
    assert found
    tables: list[Any] = json.loads(gzip.decompress(base64.b64decode(found.group(1))))
    return tables


def rows_of(table: Any) -> list[dict[str, Any]]:
    """One dictionary an answer."""
    names = [name for name in table if name not in ("n", "projected_onto")]
    columns = [
        one if isinstance(one, list) else [one["values"][k] for k in one["of"]]
        for one in (table[name] for name in names)
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def opened(tab: Tab, page: Path, place: str) -> None:
    tab.open_anew(page.as_uri() + place)
    tab.wait("document.body.dataset.ready")
    tab.frame()


def test_every_response_of_every_part_is_there(run: Run, tables: list[Any]) -> None:
    for ref, table in zip(run.spec.traits, tables, strict=True):
        rows = rows_of(table)

        jobs = run.plan.part_jobs(ref, "generate")
        made = [one.key for job in jobs for one in load_responses(run.store, job)]
        assert sorted(row["key"] for row in rows) == sorted(made)
        assert table["n"] == len(rows) == len(made)
        assert all((row["direction"] is None) == (row["strength"] is None) for row in rows)
    parts = {"extraction", "evaluation", "steering-1", "steering-2", "steering-3", "confirmation"}
    assert set(tables[0]["part"]["values"]) == parts


def test_answers_are_those_of_the_parquet_files(run: Run, tables: list[Any]) -> None:
    rows = {row["key"]: row for row in rows_of(tables[0])}
    folder = Path(run.store.url) / "traits" / "evil"
    same = ("response", "question", "instruction", "trait_score", "coherence_score", "status")

    for name, count in (("responses", 252), ("evaluation", 18), ("steering", 12)):
        stored = pq.read_table(folder / f"{name}.parquet").to_pylist()
        assert len(stored) == count
        for one in stored:
            shown = rows[one["key"]]
            steered = ("layer", "strength", "direction") if name == "steering" else ()
            for column in (*same, "reason", "fall", "finish", *steered):
                assert shown[column] == one[column]
            assert shown["n_tokens"] == len(one["response_token_ids"])


def test_the_judge_s_reply_stands_beside_each_score(tables: list[Any]) -> None:
    rows = rows_of(tables[0])

    scored = [row for row in rows if row["trait_score"] is not None]
    assert len(scored) < len(rows)
    for row in scored:
        (reply,) = row["judge_trait"]["replies"]
        assert float(reply["text"]) == pytest.approx(row["trait_score"], abs=30)
        assert reply["tokens"] == [["8", 0.9]]
    unscored = [row["judge_trait"] for row in rows if row["trait_score"] is None]
    assert all("I cannot rate this" in one["unscored"] for one in unscored)


def test_projections_are_onto_the_vector_at_the_reading_layer(run: Run, tables: list[Any]) -> None:
    rows = {row["key"]: row for row in rows_of(tables[0])}
    onto = tables[0]["projected_onto"]
    metrics = json.loads(run.store.read("traits/evil/metrics.json"))
    vector = load_vectors(Path(run.store.url) / "traits" / "evil", method=onto["method"])
    unit = vector.tensor.numpy()[onto["layer"]].astype(np.float64)
    unit /= np.linalg.norm(unit)

    assert onto["layer"] == metrics["uses"]["reads"]["layer"]
    job = run.plan.part_jobs(run.spec.traits[0], "generate", "positive")[0]
    expected = load_activations(run.store, job).response_avg[:, onto["layer"]] @ unit
    samples = run.plan.samples(job)
    shown = [rows[sample.key]["projection"] for sample in samples]
    assert shown == pytest.approx(expected.tolist(), rel=1e-5)
    again = [row for row in rows.values() if row["projection_plain"] is not None]
    assert len(again) == metrics["quality"]["reading"]["n_read"]
    assert all(row["projection"] is None for row in rows.values() if row["direction"])


def test_what_is_too_large_is_cut_and_says_how_long_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = random.Random(0)
    long = ["".join(letters.choices("abcdefgh ", k=20_000)) for _ in range(20)]
    monkeypatch.setattr(build, "MOST_BYTES", 60_000)

    (found,) = unpacked(
        f'id="answers-data">{build.packed_into_page([{"response": ["short", *long]}])}"<'
    )

    assert found["response"][0] == "short" and found["cut"][0] is None
    assert found["cut"][1:] == [20_000] * 20
    for whole, shown in zip(long, found["response"][1:], strict=True):
        assert whole.startswith(shown) and len(shown) >= build.LEAST_CHARACTERS


def test_the_least_coherent_steered_answer_is_found_and_its_address_leads_to_it(
    tab: Tab, page: Path, tables: list[Any]
) -> None:
    steered = [row for row in rows_of(tables[0]) if row["direction"] == "vector"]
    lowest = min(steered, key=lambda row: row["coherence_score"])
    opened(tab, page, "")
    tab.click("#tab-answers")
    for label, value in (("trait", "evil"), ("part", "steering"), ("push", "vector")):
        choose(tab, label, value)
    choose(tab, "sort by", "coherence_score")

    tab.click("#answers [role=option]")
    tab.evaluate(
        "navigator.clipboard.writeText = text => (window.copied = text, Promise.resolve())"
    )
    tab.click("#answer button")
    address = tab.evaluate("window.copied")

    tab.open_anew(address)
    tab.wait("document.querySelector('#answer')")
    assert tab.evaluate("document.querySelector('#answer').dataset.key") == lowest["key"]
    assert lowest["response"] in tab.text("#answer .response")
    chosen = "document.querySelector('#answers [aria-selected=true]')"
    assert tab.evaluate(f"{chosen}.getAttribute('aria-posinset')") == "1"
    assert tab.evaluate(f"{chosen}.getAttribute('aria-setsize')") == str(len(steered))
    assert not tab.evaluate("document.querySelector('#panel-answers').hidden")


def choose(tab: Tab, label: str, value: str) -> None:
    tab.evaluate(
        "(([label, value]) => { const one = [...document.querySelectorAll('#panel-answers label')]"
        ".find(e => e.firstChild.textContent === label).querySelector('select'); one.value = value;"
        f" one.dispatchEvent(new Event('change')); }})({json.dumps([label, value])})"
    )


def test_every_number_of_list_and_answer_is_the_stored_one(
    tab: Tab, page: Path, tables: list[Any]
) -> None:
    key = next(row["key"] for row in rows_of(tables[0]) if row["direction"] == "vector")
    opened(tab, page, f"{STEERED}&answer={key}")

    numbers = tab.evaluate(NUMBERS)

    assert len(numbers) > 40
    for path, digits, text in numbers:
        _, trait, _, name, at = path.split("/")[:5]
        stored = tables[int(trait)][name][int(at)]
        assert float(text) == pytest.approx(stored, abs=0.5001 * 10**-digits)


def test_steered_answers_stand_beside_unsteered_ones_by_strength(
    tab: Tab, page: Path, tables: list[Any]
) -> None:
    rows = [row for row in rows_of(tables[0]) if row["part"] != "extraction"]
    confirmed = [row for row in rows if row["part"] == "confirmation"]
    one = next(row for row in confirmed if row["direction"] == "vector")
    opened(tab, page, f"#view=answers&answer={one['key']}")

    shown = tab.evaluate(
        "[...document.querySelectorAll('.compared tbody th')].map(e => e.innerText)"
    )

    same = [row for row in rows if row["question"] == one["question"]]
    assert len(shown) == min(len(same), 60)
    strengths = [float(text.split()[-1]) for text in shown if "vector, layer" in text[:16]]
    layers = [
        int(re.findall(r"layer (\d+)", text)[0]) for text in shown if "vector, layer" in text[:16]
    ]
    assert [*zip(layers, strengths, strict=True)] == sorted(zip(layers, strengths, strict=True))
    assert shown[0].endswith("no push")


def test_the_whole_list_sorts_searches_and_is_saved_as_csv(
    tab: Tab, page: Path, tables: list[Any]
) -> None:
    opened(tab, page, "#view=answers&order=trait_score&down=1&status=kept&find=/positive/%20Q03")
    tab.evaluate("URL.createObjectURL = blob => { window.saved = blob.text(); return 'data:,'; }")
    tab.evaluate(
        "[...document.querySelectorAll('button')]"
        ".find(e => e.textContent === 'CSV of these').click()"
    )

    saved = [*csv.DictReader(io.StringIO(tab.evaluate("window.saved")))]

    rows = [row for table in tables for row in rows_of(table)]
    kept = [row for row in rows if row["status"] == "kept"]
    fitting = [row for row in kept if "/positive/" in row["key"] and "q03" in row["key"]]
    assert 10 < len(fitting) < len(kept)
    by_score = sorted(fitting, key=lambda row: -row["trait_score"])
    assert [one["key"] for one in saved] == [row["key"] for row in by_score]
    assert [float(one["projection"]) for one in saved] == [row["projection"] for row in by_score]


def test_an_answer_is_saved_as_a_transcript_that_a_reader_of_chats_takes(
    tab: Tab, page: Path, tables: list[Any], run: Run, tmp_path: Path
) -> None:
    row = next(row for row in rows_of(tables[0]) if row["polarity"] == "positive")
    opened(tab, page, f"#view=answers&answer={row['key']}")
    tab.evaluate("URL.createObjectURL = blob => { window.saved = blob.text(); return 'data:,'; }")
    tab.evaluate(
        "[...document.querySelectorAll('#answer button')]"
        ".find(e => e.textContent === 'JSON').click()"
    )
    saved = tmp_path / "answer.jsonl"
    saved.write_text(tab.evaluate("window.saved"))

    (one,) = read_transcripts(saved).read

    jobs = [job for job in run.plan.jobs() if job.stage == "generate"]
    (sample,) = (s for job in jobs for s in run.plan.samples(job) if s.key == row["key"])
    system = load_definition(run, sample.trait).system_turn(sample.instruction, "positive")
    assert [turn.content for turn in one.turns] == [system, row["question"]]
    assert one.response == row["response"]


def test_what_a_model_wrote_is_text_and_no_request_leaves_the_page(
    tab: Tab, page: Path, tables: list[Any]
) -> None:
    row = next(row for row in rows_of(tables[0]) if row["response"] == HOSTILE)
    tab.requests.clear()

    opened(tab, page, f"#view=answers&answer={row['key']}")

    assert tab.evaluate("document.querySelector('#answer .response').textContent") == HOSTILE
    assert tab.evaluate("document.querySelectorAll('main img').length") == 0
    assert "owned" not in tab.evaluate("document.title")
    asked = {url.partition("#")[0] for url in tab.requests if not url.startswith("data:")}
    assert asked <= {page.as_uri(), "about:blank"}


def test_a_table_is_saved_with_the_stored_numbers_and_a_plot_as_a_picture(
    tab: Tab, page: Path, run: Run
) -> None:
    opened(tab, page, "#view=trait&trait=evil")
    tab.evaluate(
        "window.saved = [];"
        "URL.createObjectURL = blob => (window.saved.push(blob.type, blob.text()), 'data:,')"
    )
    for label in ("CSV of covariate", "SVG of Where", "PNG of Where"):
        tab.evaluate(f"document.querySelector('[aria-label^={json.dumps(label)}]').click()")
    tab.wait("window.saved.length === 6")
    kinds = tab.evaluate("window.saved.filter((_, k) => k % 2 === 0)")

    table = [*csv.reader(io.StringIO(tab.evaluate("window.saved[1]")))]
    picture = tab.evaluate("window.saved[3]")

    metrics = json.loads(run.store.read("traits/evil/metrics.json"))["quality"]
    alone = metrics["confounds"]["response_length"]["auroc"]
    assert [float(cell) for cell in table[1][1:4]] == [alone["value"], *alone["interval"]]
    assert kinds == ["text/csv", "image/svg+xml", "image/png"]
    assert "var(--" not in picture and picture.count("<path") >= 2


@pytest.mark.parametrize("view", ["verdicts", "trait", "answers", "between", "run"])
def test_a_phone_shows_each_view_without_scrolling_sideways_or_for_ever(
    tab: Tab, page: Path, view: str
) -> None:
    tab.size(390, 844, mobile=True)

    opened(tab, page, f"#view={view}&answer=evil/positive/i0/q01/r2")

    width, height = tab.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    assert width <= 390
    assert height < PHONE_HEIGHT


def test_a_list_of_any_length_draws_only_the_rows_in_view(
    tab: Tab, tmp_path: Path, page: Path
) -> None:
    text = page.read_text()
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data, tables = json.loads(found.group(1)), unpacked(text)
    for trait, table in zip(data["traits"], tables, strict=True):
        n = math.ceil(3000 / table["n"])
        longer: dict[str, Any] = {}
        for name, column in table.items():
            if isinstance(column, list):
                longer[name] = column * n
            elif isinstance(column, dict) and "of" in column:
                longer[name] = {**column, "of": column["of"] * n}
            else:
                longer[name] = column
        trait["answers"] = {**longer, "n": table["n"] * n}
    large = tmp_path / "large.html"
    large.write_bytes(report_page("large", data))

    opened(tab, large, "#view=answers&order=projection")

    assert tab.evaluate("document.querySelectorAll('#answers [role=option]').length") < 60
    assert (
        int(
            tab.evaluate(
                "document.querySelector('#answers [role=option]').getAttribute('aria-setsize')"
            )
        )
        >= 6000
    )
