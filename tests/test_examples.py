"""Protects the notebook: every cell runs, in order, on the demo model, and shows what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "trait_vectors.ipynb"


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]

    assert all(not cell.get("outputs") for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_on_the_demo_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict[str, Any] = {}

    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)

    assert {one["trait"] for one in names["result"]["traits"]} == {"refusal", "verbosity"}
    assert names["plain"] != names["steered"]
    # steering towards refusal is seen by the vector that steered
    read = {kind: float(names["scores"](names[kind]).mean()) for kind in ("plain", "steered")}
    assert read["steered"] > read["plain"]
