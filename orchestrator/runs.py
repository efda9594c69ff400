"""A run's place, and the versions that it is planned with."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from domain.errors import UsageError
from domain.redaction import without_password
from storage.record.store import LocalStore, Store, open_store


def runs_place(runs_dir: str) -> Store:
    """The place of --runs-dir, which need not be there yet; raises UsageError for a file."""
    place = open_store(runs_dir)
    if isinstance(place, LocalStore) and place.root.is_file():
        raise UsageError(
            f"--runs-dir {runs_dir} is a file", advice="give the folder that holds the runs"
        )
    return place


def run_store(runs_dir: str, name: str) -> Store:
    """The store of a run below --runs-dir; raises UsageError for a run's path where its name is
    asked."""
    # as a shell completes it
    name = name.rstrip("/")
    place, path = runs_place(runs_dir), Path(name)
    if "/" in name and (path / "run.json").is_file() and not place.exists(f"{name}/run.json"):
        raise UsageError(
            f"{name} is the path of a run",
            advice=f"give its name, {path.name}, and the folder by --runs-dir {path.parent}",
        )
    return place.at(name)


def run_provenance() -> dict[str, object]:
    """When a run is planned (UTC), by which command, and with which versions."""
    packages = ("torch", "transformers", "accelerate", "celery", "redis", "openai", "numpy")
    return {
        "planned_at": datetime.now(UTC).isoformat(timespec="seconds"),
        # a URL may carry a password, the record is for everybody
        "command": ["orchestrate", *(without_password(text) for text in sys.argv[1:])],
        "orchestrate": _version("trait-vector-orchestrator"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
