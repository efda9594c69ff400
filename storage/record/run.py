"""A run's own files: run.json, the trait definitions, its place among others."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from domain.errors import StoreError, TraitFileError, UsageError
from domain.fleet.heartbeats import HIGHEST, LOWEST
from domain.plan.jobs import Plan
from domain.plan.spec import WIRE_VERSION, Frozen, RunSpec, settings_differences
from domain.traits.definition import TraitDefinition
from storage.record.artifacts import jobs_with_artifacts
from storage.record.json_bytes import checksum, decode_checked, encode_checked
from storage.record.store import Store

log = logging.getLogger(__name__)
RUN = "run.json"

# What run.json and the definitions were written as: damaged, they are restored from it.
COPY = "run.copy.json"

# What is written at a run's end.
REPORT = "report.html"
RUN_METRICS = "metrics.json"


@dataclass(frozen=True)
class Run:
    """A run as recorded: where it is stored, what it is, and its id on the broker; `planned_at` in
    UTC, ISO 8601, None for runs made before that was written down."""

    store: Store
    run_id: str
    spec: RunSpec
    judgement: str | None = None
    planned_at: str | None = None

    @property
    def name(self) -> str:
        """What people call the run: the last part of its place."""
        return run_name(self.store.url)

    @property
    def plan(self) -> Plan:
        """The plan that follows from the specification, for the judgement worked on."""
        return Plan(self.spec, self.judgement)

    def done(self, *traits: str) -> set[str]:
        """Keys of the jobs whose artifacts exist, of these traits or of all."""
        named = traits or [trait.name for trait in self.spec.traits]
        return jobs_with_artifacts(self.store, named, judgement=self.judgement)


def run_name(url: str) -> str:
    """The name of the run at this place."""
    return url.rstrip("/").rpartition("/")[2]


def create_run(
    store: Store,
    spec: RunSpec,
    *,
    run_id: str,
    definitions: Mapping[str, TraitDefinition],
    provenance: Mapping[str, object],
) -> Run:
    """Record a run, or continue the recorded one when its settings are the same.

    Raises UsageError naming each setting that differs from the recorded run.
    """
    for name, definition in definitions.items():
        store.create(_definition_key(name), _definition_bytes(definition))
    body_run = {
        "wire": WIRE_VERSION,
        "run_id": run_id,
        "spec_sha256": spec.digest(),
        "spec": spec.model_dump(mode="json"),
        "provenance": dict(provenance),
    }
    store.create(RUN, encode_checked(body_run))
    run = open_run(store)
    differences = settings_differences(run.spec, spec)
    if differences:
        raise UsageError(
            f"{store.url} belongs to another run's settings ({'; '.join(differences)}): "
            "choose another --run name, or repeat the recorded settings"
        )
    files = {_definition_key(name): _definition_bytes(one) for name, one in definitions.items()}
    for key, data in files.items():
        if store.read(key) != data:  # of the same fingerprint, so damaged
            _replace_damaged(store, key, data)
    texts = {key: data.decode() for key, data in {RUN: store.read(RUN), **files}.items()}
    store.create(COPY, encode_checked({"files": texts}))
    return run


def _copied(store: Store, key: str) -> bytes | None:
    """What the copy holds of a damaged file, which it replaces; None without one."""
    try:
        data = str(decode_checked(store.read(COPY))["files"][key]).encode()
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    # who only reads the run has it mended for themselves
    with contextlib.suppress(StoreError):
        _replace_damaged(store, key, data)
    return data


def _replace_damaged(store: Store, key: str, data: bytes) -> None:
    log.warning(
        "%s/%s is not what was written: restored, what was there is set aside.", store.url, key
    )
    with contextlib.suppress(KeyError):
        was = store.read(key)
        store.write(f"set-aside/{key}-{checksum(was)[:12]}", was)
    store.write(key, data)


def open_run(store: Store) -> Run:
    """The recorded run; raises UsageError when there is none, StoreError when it is unreadable and
    there is no copy of it."""
    try:
        data = store.read(RUN)
        try:
            body = decode_checked(data)
        except (ValueError, RecursionError):
            copy = _copied(store, RUN)
            if copy is None:
                raise
            body = decode_checked(copy)
        wire = body["wire"]
        if wire != WIRE_VERSION:
            raise StoreError(
                f"{store.url} was written with wire version {wire}, this program speaks "
                f"{WIRE_VERSION}: use the same version of orchestrate on every machine"
            )
        return Run(
            store,
            str(body["run_id"]),
            RunSpec.recorded(body["spec"]),
            planned_at=body.get("provenance", {}).get("planned_at"),
        )
    except KeyError as error:
        if error.args == (RUN,):
            raise UsageError(
                f"there is no run at {store.url}: check --runs-dir and the name"
            ) from error
        raise StoreError(f"{store.url}/{RUN} lacks {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"{store.url}/run.json is not what was written ({error}): restore it from a copy, or "
            "start a new run"
        ) from error


def read_recorded_run(run: Run) -> dict[str, Any]:
    """run.json as it was written, with the versions the run was planned with."""
    body: dict[str, Any] = json.loads(run.store.read(RUN))
    return body


def load_definition(run: Run, trait: str) -> TraitDefinition:
    """The definition a trait was planned with; raises StoreError when it changed since and there is
    no copy of it."""
    key = _definition_key(trait)
    try:
        return _planned(run, trait, run.store.read(key))
    except (KeyError, ValueError, RecursionError, TraitFileError) as error:
        copy = _copied(run.store, key)
        if copy is not None:
            return _planned(run, trait, copy)
        raise StoreError(
            f"the definition of {trait} in {run.store.url} is not what the run was planned with "
            f"({error}): run the same extract command again to restore it"
        ) from error


def _planned(run: Run, trait: str, data: bytes) -> TraitDefinition:
    definition = TraitDefinition.from_json(trait, json.loads(data))
    known = definition.fingerprint() == run.spec.trait(trait).fingerprint
    if not known or _definition_bytes(definition) != data:
        raise ValueError("it was changed")
    return definition


def _definition_key(trait: str) -> str:
    return f"traits/{trait}/definition.json"


def _definition_bytes(definition: TraitDefinition) -> bytes:
    return json.dumps(definition.to_json(), indent=2, ensure_ascii=False).encode()


SCHEDULE = "schedule.json"


class Schedule(Frozen):
    """Changes no result; runs of a higher priority go first, equal ones share."""

    priority: int = Field(default=0, ge=LOWEST, le=HIGHEST)
    paused: bool = False


def read_run_schedule(store: Store) -> Schedule:
    """The recorded one; none recorded means priority 0 and not paused."""
    try:
        return Schedule.model_validate_json(store.read(SCHEDULE))
    except KeyError:
        return Schedule()
    except ValidationError as error:
        raise StoreError(f"{store.url}/{SCHEDULE} cannot be read: {error}; delete it") from error


def write_run_schedule(store: Store, schedule: Schedule) -> None:
    """Record it."""
    store.write(SCHEDULE, schedule.model_dump_json(indent=2).encode())
