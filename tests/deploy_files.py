"""Reads the files of deploy/ and runs the tools that know them, for the tests of deploy/."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
FILES = sorted(f for f in DEPLOY.rglob("*") if f.is_file())
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
SCRIPTS = [*sorted((DEPLOY / "slurm").iterdir()), DEPLOY / "docker" / "entrypoint.sh"]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def named(path: Path) -> str:
    """A file as the tests' output names it."""
    return path.relative_to(DEPLOY).as_posix()


def needs(tool: str) -> str:
    """The tool's path; skips the test where it is not installed."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed here")
    return found


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a tool in the repository's root."""
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def compose() -> dict[str, Any]:
    """The compose file."""
    body: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    return body


def manifests() -> Iterator[dict[str, Any]]:
    """Every Kubernetes manifest."""
    for file in MANIFESTS:
        yield from yaml.safe_load_all(file.read_text())


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    """The manifests of these kinds."""
    return [one for one in manifests() if one["kind"] in kinds]


def containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers of a workload."""
    found: list[dict[str, Any]] = manifest["spec"]["template"]["spec"]["containers"]
    return found
