"""Protects runs made before metrics were a typed record: they are reported, refiltered, loaded."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cli.main import orchestrate
from storage.record.results import read_metrics
from storage.record.store import open_store
from traitlens.vectors.files import load_vectors

OLD = Path(__file__).parent / "old_run"
REFUSAL = "traits/refusal"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the old run."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(OLD, folder / "old")
    return folder


def invoke(runs: Path, *words: str) -> Any:
    arguments = [*words, "--runs-dir", str(runs), "--json"]
    ended = CliRunner().invoke(orchestrate, arguments, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def stored(runs: Path) -> Any:
    return json.loads((runs / "old" / REFUSAL / "metrics.json").read_text())


# Figures that were wrong and are made in another way since, and what is said of them.
MADE_OTHERWISE = {
    *("random_vector_auroc", "shuffled_labels_auroc", "split_half_cosine", "effective_n"),
    *("interval", "contrast_interval", "angle_degrees", "angle_upper_degrees"),
    *("best", "verdict", "reasons", "notes", "untested"),
}


def without(names: set[str], body: Any) -> Any:
    if isinstance(body, dict):
        return {k: without(names, value) for k, value in body.items() if k not in names}
    return [without(names, one) for one in body] if isinstance(body, list) else body


def assert_same(old: Any, new: Any, *, at: str = "") -> None:
    """Every figure of the old record stands in the new one, to 1e-6."""
    if isinstance(old, dict):
        for name, value in old.items():
            assert_same(value, new[name], at=f"{at}/{name}")
    elif isinstance(old, list):
        assert len(old) == len(new), at
        for k, (one, other) in enumerate(zip(old, new, strict=True)):
            assert_same(one, other, at=f"{at}/{k}")
    else:
        assert new == (pytest.approx(old, abs=1e-6) if isinstance(old, float) else old), at


def test_its_metrics_are_read_as_they_stand(runs: Path) -> None:
    found = read_metrics(open_store(str(runs / "old")), "refusal")

    assert found.version is None and found.findings == ()
    assert_same(stored(runs), found.model_dump(mode="json"))


def test_it_is_reported_and_compared(runs: Path) -> None:
    page = Path(invoke(runs, "report", "old")["report"]).read_text()
    compared = invoke(runs, "compare", "old", "old")

    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    (trait,) = json.loads(found.group(1))["traits"]
    assert [step["n"] for step in trait["funnel"]["negative"]] == [4, 4, 3, 3, 3]
    assert trait["metrics"]["reasons"] == stored(runs)["reasons"]
    assert compared["traits"][0]["cosine"]["value"] == pytest.approx([1.0] * 7)


def test_made_again_with_its_own_settings_it_gives_the_same_figures_and_vectors(runs: Path) -> None:
    (again,) = invoke(runs, "refilter", "old")["traits"]

    old = stored(runs)
    assert again["findings"]
    assert_same(without(MADE_OTHERWISE, old), again)
    folder = runs / "old" / REFUSAL / "refiltered" / "t50-c60-unpaired-mean_diff"
    own, made = (load_vectors(one) for one in (runs / "old" / REFUSAL, folder))
    for position, vectors in own.vectors.items():
        np.testing.assert_allclose(made.vectors[position], vectors, atol=1e-6)


def test_other_thresholds_make_other_vectors_of_it(runs: Path) -> None:
    (found,) = invoke(runs, "refilter", "old", "--threshold", "60", "--coherence", "0")["traits"]

    assert found["n_kept"]["negative"] > stored(runs)["n_kept"]["negative"]
    assert found["filter"]["threshold"] == 60
