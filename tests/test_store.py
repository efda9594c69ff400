"""Protects the record: whole or nothing, first complete one wins, found damage, closed keys."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import fsspec
import pytest

from orchestrator.errors import StoreError
from orchestrator.plan import Job
from storage.artifacts import (
    DamagedArtifactError,
    done_jobs,
    load_record,
    publish,
    read_file,
    record_key,
    set_aside,
)
from storage.store import Store, open_store

JOB = Job("generate", "refusal", "positive", 3)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "runs"))
    fsspec.filesystem("memory").store.clear()
    return open_store("memory://runs")


def test_what_is_written_is_read_listed_and_replaced(store: Store) -> None:
    store.write("a/b.txt", b"one")
    store.write("a/b.txt", b"two")
    store.write("a/c/d.txt", b"three")

    assert store.read("a/b.txt") == b"two"
    assert store.list("a") == {"a/b.txt", "a/c/d.txt"}
    assert store.at("a").list("") == {"b.txt", "c/d.txt"}


def test_a_missing_key_is_a_key_error_and_an_empty_folder_lists_nothing(store: Store) -> None:
    with pytest.raises(KeyError):
        store.read("nothing/here")
    assert store.list("nothing") == set()
    assert not store.exists("nothing/here")


def test_the_first_create_wins(store: Store) -> None:
    assert store.create("k", b"first")
    assert not store.create("k", b"second")
    assert store.read("k") == b"first"


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a//b", "", "a\\..\\b", "a/\0"])
def test_a_key_cannot_leave_the_store(store: Store, key: str) -> None:
    with pytest.raises(StoreError):
        store.write(key, b"")


def test_of_many_writers_at_once_exactly_one_creates(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    won: list[int] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        barrier.wait()
        if store.create("k", bytes([number])):
            won.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert store.read("k") == bytes(won)


def test_a_full_disk_leaves_what_was_there_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    store.write("k", b"before")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="free some"):
        store.write("k", b"after")

    monkeypatch.undo()
    assert store.read("k") == b"before"
    assert store.list("") == {"k"}


def test_a_job_is_done_only_when_its_record_exists(store: Store) -> None:
    assert done_jobs(store, ["refusal"]) == set()

    publish(store, JOB, files={"responses.parquet": b"data"}, info={"n": 1})

    assert done_jobs(store, ["refusal"]) == {JOB.key}
    assert read_file(store, load_record(store, JOB), "responses.parquet") == b"data"


def test_a_second_worker_finds_the_first_ones_artifact_and_leaves_no_files(store: Store) -> None:
    first = publish(store, JOB, files={"responses.parquet": b"first"}, info={})
    before = store.list("")

    second = publish(store, JOB, files={"responses.parquet": b"second"}, info={})

    assert second == first
    assert store.list("") == before


def test_a_changed_data_file_is_found(store: Store) -> None:
    record = publish(store, JOB, files={"responses.parquet": b"data"}, info={})
    key, _ = record.files["responses.parquet"]
    store.write(key, b"dbta")

    with pytest.raises(DamagedArtifactError):
        read_file(store, load_record(store, JOB), "responses.parquet")


@pytest.mark.parametrize("position", [0, 30, 60, -3])
def test_a_changed_record_is_found_and_can_be_set_aside(store: Store, position: int) -> None:
    publish(store, JOB, files={"responses.parquet": b"data"}, info={"n": 1})
    data = bytearray(store.read(record_key(JOB)))
    data[position] ^= 1
    store.write(record_key(JOB), bytes(data))

    with pytest.raises(DamagedArtifactError):
        load_record(store, JOB)
    set_aside(store, JOB)

    assert done_jobs(store, ["refusal"]) == set()
    assert any(key.startswith("set-aside/") for key in store.list(""))
