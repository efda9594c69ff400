"""Protects the architecture: which folder may import what, and that --help stays quick."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("orchestrator", "workers", "tasks", "storage", "cli", "traitlens", "demo")
MAY_IMPORT = {
    "orchestrator": {"orchestrator"},
    "storage": {"storage", "orchestrator"},
    "traitlens": {"traitlens"},
    "workers": {"workers", "traitlens", "orchestrator", "demo"},
    "tasks": {"tasks", "workers", "traitlens", "storage", "orchestrator"},
    "cli": {"cli", "tasks", "workers", "storage", "orchestrator"},
    "demo": {"demo", "orchestrator"},
}
ONLY_IN = {
    "torch": {"workers", "traitlens", "demo"},
    "transformers": {"workers", "traitlens", "demo"},
    "accelerate": {"workers"},
    "openai": {"workers"},
    "tenacity": {"workers"},
    "celery": {"tasks", "cli"},
    "redis": {"storage", "tasks"},
    "fsspec": {"storage", "traitlens"},
    "click": {"cli"},
    "rich": {"cli"},
    "sklearn": {"traitlens", "demo"},
}


def imported_names(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("folder", OURS)
def test_a_folder_imports_only_what_the_architecture_allows(folder: str) -> None:
    wrong = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        names = imported_names(file)
        wrong += [f"{file}: {n}" for n in names & set(OURS) - MAY_IMPORT[folder]]
        wrong += [f"{file}: {n}" for n in names & set(ONLY_IN) if folder not in ONLY_IN[n]]

    assert wrong == []


def test_no_other_distribution_owns_one_of_our_top_level_names() -> None:
    owners = importlib.metadata.packages_distributions()

    taken = {name: set(owners.get(name, [])) - {"trait-vector-orchestrator"} for name in OURS}

    assert {name: who for name, who in taken.items() if who} == {}


def test_every_folder_with_code_or_data_is_listed_for_installation() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )

    present = {
        file.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for name in OURS
        for file in (ROOT / name).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    assert present == listed


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["worker", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom cli.main import orchestrate\n"
        f"orchestrate.main({arguments!r}, standalone_mode=False)\n"
        "print([m for m in ('torch', 'transformers', 'openai', 'sklearn') if m in sys.modules])"
    )

    shown = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )

    assert shown.stdout.splitlines()[-1] == "[]"
