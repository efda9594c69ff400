"""Artifacts of jobs: data files named by their content, and a record that makes them count.

A job is done when its record exists. The record is created last, once every data file was read
back and decoded, carries their SHA-256, and the first complete one wins; a second worker's files
are removed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from domain.errors import StoreError
from domain.plan.jobs import FORMER_NEGOTIATE, Job, Stage
from domain.plan.spec import WIRE_VERSION
from storage.record.json_bytes import checksum, decode_checked, encode_checked
from storage.record.store import Store

T = TypeVar("T")
Decoders = Mapping[str, Callable[[bytes], object]]
"""How the data file of a role is read; each raises one of UNDECODABLE."""

OF_A_TRAIT: tuple[Stage, ...] = ("reduce", "contexts", "verify")
"""The stages with one job a trait."""

# What reading damaged bytes raises.
UNDECODABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Record:
    """What a finished job left: role -> (key, sha256), facts about the work, and when it ended in
    UTC, which records of before do not say."""

    job: str
    files: dict[str, tuple[str, str]]
    info: dict[str, object] = field(default_factory=dict)
    ended_at: str | None = None


class DamagedArtifactError(StoreError):
    """An artifact's bytes are not those that were stored: its job has to run again."""

    def __init__(self, message: str, job: str) -> None:
        super().__init__(message)
        self.job = job


def record_key(job: Job) -> str:
    """Where a job's record lies: `negotiate.json`, `traits/refusal/judge/positive-003.json`."""
    return f"{job.key}.json" if job.trait is None else f"traits/{job.key}.json"


def publish_artifact(
    store: Store,
    job: Job,
    *,
    files: Mapping[str, bytes],
    info: Mapping[str, object],
    decoders: Decoders | None = None,
) -> Record:
    """Store a job's files and its record; returns the record that counts (ours or an earlier one).

    `files` maps a role with its ending (`responses.parquet`) to bytes. Raises StoreError, and makes
    no record, when a file cannot be read back, or its role's decoder does not read it.
    """
    stored: dict[str, tuple[str, str]] = {}
    for role, data in files.items():
        digest = checksum(data)
        stem, _, ending = role.rpartition(".")
        key = f"{record_key(job).removesuffix('.json')}.{stem}-{digest[:12]}.{ending}"
        store.write(key, data)
        _check_readable(store, key, digest, decoders[role] if decoders else None)
        stored[role] = (key, digest)
    ended_at = datetime.now(UTC).isoformat(timespec="seconds")
    record = Record(job.key, stored, dict(info), ended_at)
    if store.create(record_key(job), encode_checked({"wire": WIRE_VERSION, **asdict(record)})):
        return record
    winner = load_record(store, job)
    winning = {key for key, _ in winner.files.values()}
    for key, _ in stored.values():
        if key not in winning:
            store.delete(key)
    return winner


def _check_readable(
    store: Store, key: str, digest: str, decode: Callable[[bytes], object] | None
) -> None:
    try:
        data = store.read(key)
        if checksum(data) != digest:
            raise ValueError("other bytes come back")
        if decode is not None:
            decode(data)
    except UNDECODABLE as error:
        raise StoreError(
            f"{key} was written to {store.url} and cannot be read back ({error})",
            advice="check the storage, then run the same command again",
        ) from error


def load_record(store: Store, job: Job) -> Record:
    """A job's record; KeyError when the job is not done, DamagedArtifactError when unreadable."""
    key = _stored_key(store, job)
    data = store.read(key)
    try:
        body = decode_checked(data)
        if body["job"] not in (job.key, key.removesuffix(".json")):
            raise ValueError("it is another job's")
        files = {role: (str(file), str(sha)) for role, (file, sha) in body["files"].items()}
        return Record(body["job"], files, body["info"], body.get("ended_at"))
    except UNDECODABLE as error:
        raise DamagedArtifactError(
            f"the record of {job.key} is damaged: {error}", job.key
        ) from error


def read_artifact(store: Store, record: Record, role: str, decode: Callable[[bytes], T]) -> T:
    """What a record's data file holds; raises DamagedArtifactError when it is missing, is not what
    was stored, or cannot be decoded."""
    if role not in record.files:
        raise DamagedArtifactError(f"the record of {record.job} names no {role}", record.job)
    key, digest = record.files[role]
    try:
        data = store.read(key)
    except KeyError as error:
        raise DamagedArtifactError(f"{key} is missing from {store.url}", record.job) from error
    if checksum(data) != digest:
        raise DamagedArtifactError(f"{key} in {store.url} is not what was stored", record.job)
    try:
        return decode(data)
    except UNDECODABLE as error:
        raise DamagedArtifactError(
            f"{role} of {record.job} cannot be read ({error})", record.job
        ) from error


SET_ASIDE = "set-aside/"
"""How the keys of what was moved out of the way begin."""


def set_artifact_aside(store: Store, job: Job) -> None:
    """Move a job's damaged record out of the way so that the job runs again; nothing is deleted."""
    key = _stored_key(store, job)
    try:
        data = store.read(key)
    except KeyError:
        return
    store.write(f"{SET_ASIDE}{key}-{checksum(data)[:12]}", data)
    store.delete(key)


def jobs_with_artifacts(
    store: Store, traits: Iterable[str], *, judgement: str | None = None
) -> set[str]:
    """Keys of all jobs whose record exists, by listing; of the negotiations only that of a
    judgement."""
    negotiate = Job("negotiate", judgement=judgement)
    done = {negotiate.key} if store.exists(_stored_key(store, negotiate)) else set()
    for trait in traits:
        for key in store.list(f"traits/{trait}"):
            relative = key.removeprefix("traits/")
            # data files carry a role between the job's name and the ending
            if key.endswith(".json") and _is_record(relative):
                done.add(relative.removesuffix(".json"))
    return done


def _stored_key(store: Store, job: Job) -> str:
    """Where the record is, which in a run made before negotiate had its name is another place."""
    key = record_key(job)
    former = key.replace("negotiate", FORMER_NEGOTIATE)
    is_former = job.stage == "negotiate" and not store.exists(key) and store.exists(former)
    return former if is_former else key


def _is_record(relative: str) -> bool:
    parts = relative.split("/")
    if len(parts) == 2:
        return parts[1].removesuffix(".json").partition("@")[0] in OF_A_TRAIT
    stage = parts[1].partition("@")[0]
    is_stage = stage in ("generate", "judge", "converge")
    return len(parts) == 3 and is_stage and parts[2].count(".") == 1
