"""Where a run's record lives: bytes under slash-separated keys, on any fsspec URL.

A value appears whole or not at all, and the first complete one created under a key wins.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from domain.errors import StoreError, StoreNotHereError
from domain.redaction import without_password

# What a run's record may lie on. Others are no stores, or open further places that a URL names:
# archives, references, plain web servers, and whatever is chained with `::`.
PROTOCOLS = frozenset(
    [
        *("file", "local", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"),
        *("oci", "oss", "hf", "dropbox", "sftp", "ssh", "smb", "hdfs", "webhdfs", "dbfs"),
    ]
)
T = TypeVar("T")

# A network folder says ESTALE where a file was replaced under a handle: the next look finds it.
_PAUSES_S = (0.05, 0.5, 2.0)

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True)
class Content:
    """Of one key: its bytes, and the second when it was written, where the storage tells."""

    size: int
    modified: float | None = None


class Store(Protocol):
    """Bytes under keys. Keys are relative, slash-separated, and cannot leave the store."""

    url: str

    def read(self, key: str) -> bytes:
        """The bytes under a key; raises KeyError when there are none."""

    def write(self, key: str, data: bytes) -> None:
        """Put bytes under a key, replacing what was there in one step."""

    def create(self, key: str, data: bytes) -> bool:
        """Put bytes under a key that has none; False when another writer was first."""

    def exists(self, key: str) -> bool:
        """Whether a key has bytes."""

    def list(self, prefix: str) -> set[str]:
        """All keys directly or indirectly under a folder-like prefix."""

    def folders(self) -> set[str]:
        """The first parts of all keys that have several; what lies deeper is not looked at."""

    def delete(self, key: str) -> None:
        """Remove a key; nothing happens when it is absent."""

    def at(self, prefix: str) -> Store:
        """The store below a prefix."""

    def contents(self) -> dict[str, Content]:
        """What lies under each key."""

    def remove_all(self, *, last: str) -> None:
        """Remove every key, `last` after the others: until then the store is what it was."""


def open_store(url: str) -> Store:
    """The store of an fsspec URL or a local path; creates nothing yet.

    Raises StoreError for what is no such place, and for a URL with a password in it: messages and
    logs hold the URL.
    """
    if without_password(url) != url:
        raise StoreError(
            f"{without_password(url)} was given with a user or password",
            advice="leave them out, credentials of a storage come from its own environment "
            "variables or files",
        )
    _protocol(url)
    with _in_words("open", url):
        try:
            # other hosts write here too: what was listed a while ago is no answer
            fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise StoreNotHereError(f"cannot open {url!r} as a place for runs: {error}") from error
    if isinstance(fs, LocalFileSystem):
        return LocalStore(Path(root))
    return ObjectStore(fs, root, url.rstrip("/"))


def is_below(url: str, folder: str) -> bool:
    """Whether a store lies in a folder or is it; links and `..` are followed first.

    Opens neither of them. Raises StoreNotHereError for what is no place for runs.
    """
    if _protocol(url) in _LOCAL and _protocol(folder) in _LOCAL:
        inner, outer = (Path(LocalFileSystem._strip_protocol(one)) for one in (url, folder))
        return inner.resolve().is_relative_to(outer.resolve())
    if set(url.replace("\\", "/").split("/")) & {".", ".."}:
        return False
    return f"{url.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


_LOCAL = ("file", "local")


def _protocol(url: str) -> str:
    """What a URL is opened with; raises StoreNotHereError for what holds no runs."""
    scheme, mark, _ = url.partition("://")
    protocol = scheme.lower() if mark else "file"
    if "::" in url or "\0" in url or protocol not in PROTOCOLS:
        raise StoreNotHereError(
            f"{without_password(url)[:200]!r} is no place for runs",
            advice=f"give a folder, or a URL of {', '.join(sorted(PROTOCOLS))}",
        )
    return protocol


class LocalStore:
    """A folder, local or shared: temporary name, fsync, then rename or hard link. What a link in it
    leads to outside is neither read nor written.

    Below a folder with the setgid bit, all that is made is for its group to read and write,
    whatever the umask: workers and those who start runs may be different users.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(self.root)

    def read(self, key: str) -> bytes:
        try:
            return _again(self._path(key).read_bytes)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise KeyError(key) from error
        except OSError as error:
            raise StoreNotHereError(f"cannot read {self._path(key)}: {error.strerror}") from error

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)

        def replace() -> None:
            with _temporary(path, data) as temporary:
                temporary.replace(path)
                _sync_folder(path.parent)

        _written(path, replace)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)

        def link() -> bool:
            with _temporary(path, data) as temporary:
                try:
                    # link fails when the name exists, also between two hosts on a shared folder
                    os.link(temporary, path)
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    # a file system without hard links: two writers in the same instant may both
                    # succeed here, and either's value is whole
                    if path.exists():
                        return False
                    temporary.replace(path)
                _sync_folder(path.parent)
                return True

        return _written(path, link)

    def exists(self, key: str) -> bool:
        with _in_words("read", str(self._path(key))):
            return _again(self._path(key).is_file)

    def list(self, prefix: str) -> set[str]:
        folder = self._path(prefix) if prefix else self.root

        def files() -> set[str]:
            found = (p for p in folder.rglob("*") if not p.name.startswith(".tmp-") and p.is_file())
            return {p.relative_to(self.root).as_posix() for p in found}

        with _in_words("list", str(folder)):
            return _again(files)

    def folders(self) -> set[str]:
        with _in_words("list", self.url):
            try:
                return _again(lambda: {one.name for one in os.scandir(self.root) if one.is_dir()})
            except FileNotFoundError:
                return set()

    def delete(self, key: str) -> None:
        with _in_words("delete", str(self._path(key))):
            _again(lambda: self._path(key).unlink(missing_ok=True))

    def contents(self) -> dict[str, Content]:
        found = {}
        for key in self.list(""):
            with contextlib.suppress(FileNotFoundError):
                seen = (self.root / key).stat()
                found[key] = Content(seen.st_size, seen.st_mtime)
        return found

    def remove_all(self, *, last: str) -> None:
        if self.root.is_symlink():
            raise StoreError(f"{self.root} is a link: remove it and what it leads to by hand")
        going = self.root.with_name(f".removed-{uuid.uuid4().hex}")
        with _in_words("remove", self.url):
            # in one step for whoever looks: what follows may take long
            self.root.rename(going)
            shutil.rmtree(going)

    def at(self, prefix: str) -> LocalStore:
        # a run may lie elsewhere and be linked here; what is in it may not
        return LocalStore(self.root / _checked_key(prefix))

    def _path(self, key: str) -> Path:
        path = self.root / _checked_key(key)
        # realpath: a loop of links is no error of its own here
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root)):
            raise StoreError(f"{path} leads outside of {self.root}: remove the link")
        return path


class ObjectStore:
    """An object store through fsspec: a put is whole by nature, a create is a conditional put."""

    def __init__(self, fs: fsspec.AbstractFileSystem, root: str, url: str) -> None:
        self._fs, self._root, self.url = fs, root.rstrip("/"), url

    def read(self, key: str) -> bytes:
        with _in_words("read", f"{self.url}/{key}"):
            try:
                return bytes(self._fs.cat_file(self._path(key)))
            except FileNotFoundError:
                pass
        raise KeyError(key)

    def write(self, key: str, data: bytes) -> None:
        with _in_words("write", f"{self.url}/{key}"):
            self._fs.pipe_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        with _in_words("write", f"{self.url}/{key}"):
            try:
                self._fs.pipe_file(self._path(key), data, mode="create")
            except FileExistsError:
                return False
            return True

    def exists(self, key: str) -> bool:
        with _in_words("read", f"{self.url}/{key}"):
            return bool(self._fs.exists(self._path(key)))

    def list(self, prefix: str) -> set[str]:
        with _in_words("list", f"{self.url}/{prefix}"):
            found = self._fs.find(self._path(prefix) if prefix else self._root)
            return {str(p)[len(self._root) :].lstrip("/") for p in found}

    def folders(self) -> set[str]:
        with _in_words("list", self.url):
            try:
                found = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return set()
        names = (str(one["name"]) for one in found if one["type"] == "directory")
        return {name.rstrip("/").rpartition("/")[2] for name in names}

    def delete(self, key: str) -> None:
        with _in_words("delete", f"{self.url}/{key}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def contents(self) -> dict[str, Content]:
        with _in_words("list", self.url):
            found = self._fs.find(self._root, detail=True)
        return {
            str(path)[len(self._root) :].lstrip("/"): Content(int(about["size"]), _modified(about))
            for path, about in found.items()
        }

    def remove_all(self, *, last: str) -> None:
        for key in sorted(self.list(""), key=lambda one: (one == last, one)):
            self.delete(key)

    def at(self, prefix: str) -> ObjectStore:
        return ObjectStore(self._fs, self._path(prefix), f"{self.url}/{_checked_key(prefix)}")

    def _path(self, key: str) -> str:
        return f"{self._root}/{_checked_key(key)}"


def _modified(about: Mapping[str, Any]) -> float | None:
    """When a storage says that it was written, by whichever of fsspec's words it says it."""
    for word in ("LastModified", "last_modified", "mtime", "updated", "created"):
        when = about.get(word)
        if isinstance(when, datetime):
            return when.timestamp()
        if isinstance(when, int | float):
            return float(when)
    return None


def _checked_key(key: str) -> str:
    """The key itself; raises StoreError for one that could leave the store."""
    parts = key.split("/")
    if any(p in ("", ".", "..") or "\\" in p or "\0" in p for p in parts):
        raise StoreError(f"{key!r} is not a key inside a run")
    return key


@contextlib.contextmanager
def _in_words(action: str, place: str) -> Iterator[None]:
    """Any error of a storage's library, as a StoreError that says what to do."""
    try:
        yield
    except StoreError:
        raise
    # each library has a family of errors of its own: no credentials, refused, not reached
    except Exception as error:
        raise StoreNotHereError(
            f"cannot {action} {place} from {socket.gethostname()} "
            f"({type(error).__name__}: {error})",
            advice="check the place, this machine's credentials for it and the way there, then run "
            "the same command again",
        ) from error


def _again(step: Callable[[], T]) -> T:
    """What a step gives, tried a few times more where a network folder had lost its handle."""
    for pause_s in _PAUSES_S:
        try:
            return step()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(pause_s)
    return step()


def _written(path: Path, step: Callable[[], T]) -> T:
    try:
        return _again(step)
    except OSError as error:
        raise _write_error(path, error) from error


@contextlib.contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A file with the data beside a path, gone when the context ends."""
    temporary = path.parent / f".tmp-{uuid.uuid4().hex}"
    try:
        _make_folder(path.parent)
        with temporary.open("wb") as file:
            _share(temporary, stat.S_IRGRP | stat.S_IWGRP)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_error(path: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"no space left to write {path}",
            advice="free some and run the same command again, what is stored already is kept",
        )
    why = f"{error.strerror}; check the folder's permissions"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        why = "what should be its folder is a file"
    return StoreNotHereError(f"cannot write {path}: {why}")


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _share(folder, stat.S_IRWXG)


def _share(made: Path, rights: int) -> None:
    """Give the group these rights to what was just made in a folder, if that is meant for one."""
    mode = made.stat().st_mode
    if made.parent.stat().st_mode & stat.S_ISGID and mode & rights != rights:
        # another user's, made in the same instant: that one sees to it
        with contextlib.suppress(PermissionError):
            made.chmod(stat.S_IMODE(mode) | rights)


def _sync_folder(folder: Path) -> None:
    # a rename is durable only once its folder is; some file systems refuse to sync a folder
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
