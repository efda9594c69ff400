"""The files of a published run, and the folder that they go into.

Imported by commands when they run, because it loads torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cli.pages.build import build_page, report_page
from cli.pages.carried_files import CarriedFile
from cli.pages.index_page import index_page
from cli.pages.report_data import report_snippet
from cli.using.hub_folder import hub_files, public_metrics, public_vector
from cli.using.private import Private, public_name
from domain.errors import UsageError
from domain.verdict.record import TraitMetrics
from storage.files.scored import json_or_lines
from storage.record.results import finished_metrics, metrics_bytes
from storage.record.run import Run
from traitlens.vectors.files import PUBLISHED, from_safetensors_bytes, to_safetensors_bytes

HUB = "hub"
MARKER = PUBLISHED
"""Lists what was written with a checksum each: only that is ever replaced."""


def published_files(
    run: Run, report: Mapping[str, Any], private: Private, scores: Sequence[CarriedFile]
) -> dict[str, bytes]:
    """Relative path -> bytes: index, report, viewer with `scores` in it, each trait's vectors and
    figures where `load_vectors` looks for them, and the folder for the hub."""
    found = [public_metrics(m, private) for m in finished_metrics(run.store, _names(run))]
    files: dict[str, bytes] = {}
    for one in found:
        files |= _trait_files(run, one, private)
    title = f"{run.name}: trait vectors"
    by_trait = {m.trait: [f for f in files if f.startswith(f"traits/{m.trait}/")] for m in found}
    first = next((m for m in found if m.quality is not None), None)
    snippet = report_snippet(".", first.trait, first.quality) if first and first.quality else ""
    files["index.html"] = index_page(run.name, _facts(run), found, by_trait, snippet=snippet)
    files["report.html"] = report_page(title, private.without(report))
    carried = [
        CarriedFile(
            private.without(one.name),
            json.dumps(private.without(json_or_lines(one.text, one.name))),
        )
        for one in scores
    ]
    files["viewer.html"] = build_page(carried).encode()
    if first is not None:
        files |= {f"{HUB}/{name}": data for name, data in hub_files(run, private).items()}
        files[f"{HUB}/{MARKER}"] = _marker(_below(files, HUB))
    # a static host of one kind would leave out files that begin with an underscore
    files[".nojekyll"] = b""
    return files


def write_published(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files and a marker into a folder that is not there, is empty, or holds what this
    wrote before; what else lies there is left alone. Raises UsageError for every other folder."""
    before = _written_before(folder)
    taken = [name for name in files if name not in before and (folder / name).exists()]
    if taken:
        raise UsageError(
            f"{folder / taken[0]} is there already and was not published from here",
            advice="choose another --to, or move it away",
        )
    for name in before:
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    try:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (folder / MARKER).write_bytes(_marker(files))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from error


def _written_before(folder: Path) -> set[str]:
    """What an earlier publication wrote into the folder."""
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return set()
        listed = json.loads((folder / MARKER).read_bytes())["files"]
        inside = {str(name): str(sha) for name, sha in listed.items() if _is_inside(str(name))}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{folder} is not empty and was not published from here",
            advice="choose another --to, or empty it",
        ) from error
    for name, sha in inside.items():
        path = folder / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != sha:
            raise UsageError(
                f"{path} was changed since it was published",
                advice="choose another --to, or move the changed file away",
            )
    return set(inside)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _marker(files: Mapping[str, bytes]) -> bytes:
    listed = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    return json.dumps({"published_by": "orchestrate", "files": listed}, indent=1).encode()


def _below(files: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    start = f"{folder}/"
    return {name.removeprefix(start): d for name, d in files.items() if name.startswith(start)}


def _trait_files(run: Run, metrics: TraitMetrics, private: Private) -> dict[str, bytes]:
    trait = metrics.trait
    place = f"traits/{trait}"
    files = {
        f"{place}/metrics.json": metrics_bytes(metrics),
        f"{place}/definition.json": run.store.read(f"{place}/definition.json"),
    }
    for key in sorted(run.store.list(f"{place}/vectors")):
        data = run.store.read(key)
        if key.endswith(".safetensors"):
            data = to_safetensors_bytes(public_vector(from_safetensors_bytes(data), private))
        files[key] = data
    return files


def _names(run: Run) -> list[str]:
    return [trait.name for trait in run.spec.traits]


def _facts(run: Run) -> str:
    when = f"planned {run.planned_at[:10]}" if run.planned_at else ""
    model, judge = public_name(run.spec.model.model_id), public_name(run.spec.judge.model)
    return ", ".join(filter(None, [f"model {model}", f"judge {judge}", when]))
