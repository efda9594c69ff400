"""Protects the architecture: which folder may import what, and that --help and reports
stay quick."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from domain.plan.spec import ChecksSpec
from tests.source_trees import parsed
from tests.stored_run import stored_run

ROOT = Path(__file__).parent.parent
OURS = ("domain", "traitlens", "storage", "workers", "tasks", "orchestrator", "cli", "demo")
MAY_IMPORT = {
    "domain": {"domain"},
    "traitlens": {"traitlens"},
    "storage": {"storage", "domain"},
    "workers": {"workers", "traitlens", "domain", "demo"},
    "tasks": {"tasks", "workers", "traitlens", "storage", "domain"},
    "orchestrator": {"orchestrator", "tasks", "storage", "domain"},
    "cli": {"cli", "orchestrator", "tasks", "workers", "traitlens", "storage", "domain"},
    "demo": {"demo", "domain"},
}
# A room imports the rooms before it. A folder's own files stand where its name stands; the
# __init__ of a folder may name everything in it.
ROOMS = {
    "domain": ["domain", "plan", "traits", "scoring", "verdict", "fleet"],
    "traitlens": [
        "traitlens",
        "stats",
        "methods",
        "capture",
        "steering",
        "vectors",
        "assess",
        "dynamics",
    ],
    "storage": ["record", "broker", "files"],
    "workers": ["models", "engine", "judge", "monitor"],
    "tasks": ["stages", "fleet"],
    "orchestrator": ["orchestrator"],
    "cli": ["options", "screens", "pages", "doctor", "using", "commands", "cli"],
    "demo": ["demo", "train"],
}
ONLY_IN = {
    "torch": {"workers", "traitlens", "demo"},
    "transformers": {"workers", "traitlens", "demo"},
    "accelerate": {"workers"},
    "openai": {"workers"},
    "tenacity": {"workers"},
    "celery": {"tasks", "orchestrator"},
    "redis": {"storage", "tasks"},
    "fsspec": {"storage", "traitlens"},
    "click": {"cli"},
    "rich": {"cli"},
    "sklearn": {"traitlens", "demo"},
}


def is_left_over(file: Path) -> bool:
    """Whether Python or an install of ./traitlens left it."""
    folders = file.relative_to(ROOT).parts[:-1]
    return any(name in ("__pycache__", "build") or ".egg-info" in name for name in folders)


def python_files(folder: str) -> list[Path]:
    """The sources of a top-level folder."""
    found = sorted((ROOT / folder).rglob("*.py"))
    return [file for file in found if not is_left_over(file)]


def imported_modules(file: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def room_of(module: str) -> str:
    """`storage.record.run` stands in `record`, `traitlens.steering` in `traitlens` itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / parts[0] / parts[1]).is_dir() else parts[0]


@pytest.mark.parametrize("folder", OURS)
def test_a_folder_imports_only_what_the_architecture_allows(folder: str) -> None:
    wrong = []
    for file in python_files(folder):
        names = {module.partition(".")[0] for module in imported_modules(file)}
        wrong += [f"{file}: {n}" for n in names & set(OURS) - MAY_IMPORT[folder]]
        wrong += [f"{file}: {n}" for n in names & set(ONLY_IN) if folder not in ONLY_IN[n]]

    assert wrong == []


@pytest.mark.parametrize("folder", OURS)
def test_a_room_imports_only_the_rooms_before_it(folder: str) -> None:
    order = {name: place for place, name in enumerate(ROOMS[folder])}
    wrong = []
    for file in python_files(folder):
        own = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        if file == ROOT / folder / "__init__.py":
            continue
        wrong += [
            f"{file.relative_to(ROOT)}: {module}"
            for module in sorted(imported_modules(file))
            if module.partition(".")[0] == folder and order[room_of(module)] > order[own]
        ]

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
        if file.is_file() and not is_left_over(file)
    }

    assert present == listed


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["worker", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert heavy_imports_of(arguments) == "[]"


def test_a_report_is_made_without_torch(tmp_path: Path) -> None:
    """Which takes seconds to import, and computes nothing there."""
    stored_run(tmp_path / "r", checks=ChecksSpec(evaluation=1, causal=4))

    assert heavy_imports_of(["report", "r", "--runs-dir", str(tmp_path)]) == "[]"


def heavy_imports_of(arguments: list[str]) -> str:
    code = (
        "import sys\nfrom cli.main import orchestrate\n"
        f"orchestrate.main({arguments!r}, standalone_mode=False)\n"
        "print([m for m in ('torch', 'transformers', 'openai', 'sklearn') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    return shown.stdout.splitlines()[-1]
