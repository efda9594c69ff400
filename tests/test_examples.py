"""Protects the notebook: every cell runs, in order, on the real small model, and what is stored of
it is of a whole run and of nobody's machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "trait_vectors.ipynb"
PLOTS = 4
MOST_BYTES = 1_000_000


def cells_of(kind: str) -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def test_the_stored_outputs_are_of_one_whole_run_without_an_error() -> None:
    code = cells_of("code")
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    images = [o for cell in code for o in cell["outputs"] if "image/png" in o.get("data", {})]

    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert "error" not in kinds
    assert len(images) >= PLOTS
    assert NOTEBOOK.stat().st_size < MOST_BYTES


def test_the_notebook_names_no_place_of_the_machine_it_ran_on() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")

    assert not re.findall(r"/(?:home|root|tmp|Users|work)/[^\"\\ ]*", text)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_notebook_runs_on_the_real_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    for cell in cells_of("code"):
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)

    assert {one["trait"] for one in names["result"]["traits"]} == set(names["TRAITS"])
    assert names["z"].shape[0] == len(names["record"]["trait_zscores"])
