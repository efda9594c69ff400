"""Protects the device check: on a CPU, in small, every part of it runs and holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(540)
def test_the_check_holds_on_a_cpu(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "benchmarks/gpu_check.py", "--device", "cpu", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )

    parts = json.loads((tmp_path / "report.json").read_text())
    failed = {name: part["failed"] for name, part in parts.items() if part["failed"]}
    assert failed == {}
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert {"parity", "steering", "out of memory", "run"} < set(parts)
    assert parts["run"]["facts"]["ran on"] == "cpu"
    # the trial must let the models of known families on the fast core, or the speeds say nothing
    assert parts["speed of llama3m"]["facts"]["core"] == "engine"
