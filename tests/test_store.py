"""Protects the record: whole or nothing, first complete one wins, found damage, closed keys."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from domain.errors import StoreError
from domain.plan.jobs import Job, Plan
from domain.plan.spec import WIRE_VERSION, JudgeSpec, ModelSpec, RunSpec, TraitRef
from domain.scoring.scores import Evidence, Unscored
from storage.record.artifacts import (
    DamagedArtifactError,
    jobs_with_artifacts,
    load_record,
    publish_artifact,
    read_artifact,
    record_key,
    set_artifact_aside,
)
from storage.record.json_bytes import encode_checked
from storage.record.scorings import SCORINGS, SCORINGS_DECODERS, encode_scorings, load_scorings
from storage.record.spending import recorded_usd
from storage.record.store import Store, is_below, open_store
from storage.record.tables import parquet_bytes
from tests.s3_server import no_credentials, s3_bucket

JOB = Job("generate", "refusal", "positive", 3)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A local S3 server; yields the URL of a bucket."""
    with s3_bucket() as url:
        yield url


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "runs"))
    if request.param == "s3":
        return open_store(f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}")
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


@pytest.mark.parametrize(
    ("folder", "made", "file"), [(0o755, 0o700, 0o600), (0o2775, 0o2770, 0o660)]
)
def test_a_setgid_folder_shares_all_that_is_made_below_with_its_group(
    folder: int, made: int, file: int, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs").chmod(folder)
    before = os.umask(0o077)

    try:
        open_store(str(tmp_path / "runs" / "run")).write("traits/evil/x", b"1")
    finally:
        os.umask(before)

    modes = [stat.S_IMODE(p.stat().st_mode) for p in sorted((tmp_path / "runs").rglob("*"))]
    assert modes == [made, made, made, file]


def test_folders_are_those_at_the_top_and_none_in_an_empty_store(store: Store) -> None:
    before = store.folders()
    for key in ("a/run.json", "b/c/d.txt", "top.txt"):
        store.write(key, b"x")

    assert (before, store.folders()) == (set(), {"a", "b"})
    assert store.at("b").folders() == {"c"}


def test_the_first_create_wins(store: Store) -> None:
    assert store.create("k", b"first")
    assert not store.create("k", b"second")
    assert store.read("k") == b"first"


@pytest.mark.parametrize(
    "do",
    [
        lambda store: store.read("k"),
        lambda store: store.write("k", b""),
        lambda store: store.create("k", b""),
        lambda store: store.exists("k"),
        lambda store: store.list("k"),
        lambda store: store.delete("k"),
    ],
)
def test_a_storage_that_refuses_says_what_to_do(do: Callable[[Store], object]) -> None:
    with no_credentials() as url, pytest.raises(StoreError, match="this machine's credentials"):
        do(open_store(f"{url}/r1"))


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a//b", "", "a\\..\\b", "a/\0"])
def test_a_key_cannot_leave_the_store(store: Store, key: str) -> None:
    with pytest.raises(StoreError):
        store.write(key, b"")


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_of_many_writers_at_once_exactly_one_creates(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    s3 = kind == "s3"
    where = f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}" if s3 else str(tmp_path)
    store = open_store(where)
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


def test_what_another_host_wrote_is_seen_at_once(s3: str) -> None:
    one, other = (open_store(f"{s3}/shared") for _ in range(2))
    one.write("a/x", b"ours")
    one.list("a")  # a listing is not an answer for later

    # by another process: in this one both share what they remember
    code = "import sys; from storage.record.store import open_store\n"
    code += "open_store(sys.argv[1]).write('a/b', b'theirs')"
    subprocess.run([sys.executable, "-c", code, other.url], check=True)

    assert one.read("a/b") == b"theirs"
    assert one.exists("a/b")
    assert one.list("") == {"a/b", "a/x"}
    assert not one.create("a/b", b"ours")
    assert one.read("a/b") == b"theirs"


def test_a_place_with_a_password_in_its_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(StoreError) as refusal:
        open_store("sftp://me:secret@host/runs")

    assert "secret" not in str(refusal.value)


def test_a_folder_without_hard_links_still_has_one_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(_source: object, _target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    store = open_store(str(tmp_path))

    assert store.create("k", b"first")
    assert not store.create("k", b"second")
    assert (store.read("k"), store.list("")) == (b"first", {"k"})


def test_a_handle_that_a_network_folder_lost_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, lost = open_store(str(tmp_path)), []

    def losing_once(step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if step not in lost:
                lost.append(step)
                raise OSError(errno.ESTALE, "Stale file handle")
            return step(*arguments, **named)

        return wrapped

    for owner, name in ((Path, "read_bytes"), (Path, "replace"), (Path, "is_file"), (os, "link")):
        monkeypatch.setattr(owner, name, losing_once(getattr(owner, name)))

    assert store.create("k", b"first")
    store.write("k", b"second")
    assert store.exists("k")
    assert store.read("k") == b"second"
    assert len(lost) == 4
    assert store.list("") == {"k"}


def test_a_folder_that_stays_lost_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(_path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "read_bytes", stale)
    monkeypatch.setattr("storage.record.store._PAUSES_S", (0.0,))

    with pytest.raises(StoreError, match="Stale file handle"):
        open_store(str(tmp_path)).read("k")


def test_two_processes_on_a_shared_folder_leave_one_whole_artifact_a_job(tmp_path: Path) -> None:
    code = (
        "import sys; from domain.plan.jobs import Job\n"
        "from storage.record.artifacts import publish_artifact\n"
        "from storage.record.store import open_store\n"
        "for n in range(40):\n"
        "    job = Job('generate', 'refusal', 'positive', n)\n"
        "    files = {'responses.parquet': sys.argv[2].encode() * 5000}\n"
        "    store, info = open_store(sys.argv[1]), {'by': sys.argv[2]}\n"
        "    publish_artifact(store, job, files=files, info=info)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=Path.cwd())
        for name in ("a", "b")
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]

    store = open_store(str(tmp_path))
    for n in range(40):
        record = load_record(store, Job("generate", "refusal", "positive", n))
        data = read_artifact(store, record, "responses.parquet", bytes)
        assert data == str(record.info["by"]).encode() * 5000
    assert len(store.list("")) == 2 * 40


@pytest.mark.parametrize(
    ("url", "folder", "expected"),
    [
        ("/shared/runs/one", "/shared/runs", True),
        ("/shared/runs", "/shared/runs", True),
        ("/shared/runs/../secret", "/shared/runs", False),
        ("/shared/runs-of-others", "/shared/runs", False),
        ("memory://runs/one", "memory://runs", True),
        ("memory://runs/../one", "memory://runs", False),
        ("memory://runs2", "memory://runs", False),
        ("memory://runs", "/shared/runs", False),
    ],
)
def test_a_worker_can_tell_what_lies_below_a_folder(url: str, folder: str, expected: bool) -> None:
    assert is_below(url, folder) is expected


def test_a_link_out_of_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "out").symlink_to(tmp_path)

    assert not is_below(str(tmp_path / "runs" / "out"), str(tmp_path / "runs"))


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
    assert jobs_with_artifacts(store, ["refusal"]) == set()

    publish_artifact(store, JOB, files={"responses.parquet": b"data"}, info={"n": 1})

    assert jobs_with_artifacts(store, ["refusal"]) == {JOB.key}
    assert read_artifact(store, load_record(store, JOB), "responses.parquet", bytes) == b"data"


@pytest.mark.parametrize("judgement", [None, "second"])
def test_a_run_made_when_negotiate_was_called_probe_is_still_read(
    store: Store, judgement: str | None
) -> None:
    trait = TraitRef(name="evil", fingerprint="f", n_instructions=1, n_questions=1)
    spec = RunSpec(
        traits=(trait,), model=ModelSpec(model_id="demo"), judge=JudgeSpec(model="judge")
    )
    job = Plan(spec, judgement).negotiate_job
    key = "probe" if judgement is None else f"probe@{judgement}"
    body = {"wire": WIRE_VERSION, "job": key, "files": {}, "info": {"mode": "text", "usd": 0.5}}
    store.write(f"{key}.json", encode_checked(body))

    assert jobs_with_artifacts(store, [], judgement=judgement) == {job.key}
    assert load_record(store, job).info["mode"] == "text"
    assert Plan(spec).parse_job(key) == job
    assert recorded_usd(store) == 0.5

    set_artifact_aside(store, job)
    assert jobs_with_artifacts(store, [], judgement=judgement) == set()


@pytest.mark.parametrize("judgement", [None, "second"])
def test_what_scores_cost_that_are_set_aside_stays_spent(
    store: Store, judgement: str | None
) -> None:
    for job in (
        Job("judge", "evil", "positive", 0, judgement),
        Job("negotiate", judgement=judgement),
    ):
        publish_artifact(store, job, files={}, info={"usd": 1.5})
        set_artifact_aside(store, job)
        publish_artifact(store, job, files={}, info={"usd": 0.25})

    assert recorded_usd(store) == 3.5


def test_a_second_worker_finds_the_first_ones_artifact_and_leaves_no_files(store: Store) -> None:
    first = publish_artifact(store, JOB, files={"responses.parquet": b"first"}, info={})
    before = store.list("")

    second = publish_artifact(store, JOB, files={"responses.parquet": b"second"}, info={})

    assert second == first
    assert store.list("") == before


class Torn:
    """A store that keeps only the beginning of what is written."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def write(self, key: str, data: bytes) -> None:
        self._inner.write(key, data[: len(data) // 2])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_an_artifact_that_cannot_be_read_back_never_counts(store: Store) -> None:
    scoring = Unscored(reason="empty", evidence=Evidence())
    good = {SCORINGS: encode_scorings([("k", "trait", scoring)])}
    table = pa.table({"key": ["k"], "metric": ["trait"]})

    with pytest.raises(StoreError, match="read back"):
        publish_artifact(Torn(store), JOB, files=good, info={}, decoders=SCORINGS_DECODERS)
    with pytest.raises(StoreError, match="read back"):
        odd = {SCORINGS: parquet_bytes(table)}
        publish_artifact(store, JOB, files=odd, info={}, decoders=SCORINGS_DECODERS)

    assert jobs_with_artifacts(store, ["refusal"]) == set()
    publish_artifact(store, JOB, files=good, info={}, decoders=SCORINGS_DECODERS)
    assert load_scorings(store, JOB) == {("k", "trait"): scoring}


@pytest.mark.parametrize(
    "evidence", ['{"replies": [{"text": "7", "candidates": [null]}]}', "{", "["]
)
def test_scorings_that_cannot_be_decoded_are_damaged(store: Store, evidence: str) -> None:
    row = {"key": "k", "metric": "trait", "score": 7.0, "reason": None, "detail": ""}
    row |= {"numeric_mass": 1.0, "refusal_mass": 0.0, "evidence": evidence}
    publish_artifact(
        store, JOB, files={SCORINGS: parquet_bytes(pa.Table.from_pylist([row]))}, info={}
    )

    with pytest.raises(DamagedArtifactError) as error:
        load_scorings(store, JOB)

    # which is what makes the job run again
    assert error.value.job == JOB.key


def test_a_changed_data_file_is_found(store: Store) -> None:
    record = publish_artifact(store, JOB, files={"responses.parquet": b"data"}, info={})
    key, _ = record.files["responses.parquet"]
    store.write(key, b"dbta")

    with pytest.raises(DamagedArtifactError):
        read_artifact(store, load_record(store, JOB), "responses.parquet", bytes)


@pytest.mark.parametrize("position", [0, 30, 60, -3])
def test_a_changed_record_is_found_and_can_be_set_aside(store: Store, position: int) -> None:
    publish_artifact(store, JOB, files={"responses.parquet": b"data"}, info={"n": 1})
    data = bytearray(store.read(record_key(JOB)))
    data[position] ^= 1
    store.write(record_key(JOB), bytes(data))

    with pytest.raises(DamagedArtifactError):
        load_record(store, JOB)
    set_artifact_aside(store, JOB)

    assert jobs_with_artifacts(store, ["refusal"]) == set()
    assert any(key.startswith("set-aside/") for key in store.list(""))
