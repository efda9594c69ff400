"""What a run's record holds that is nobody else's business, and what stands in its place when it
is published: paths of this machine, names of machines, addresses of servers, keys."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

from cli.options.run import EMBEDDED_JUDGE
from cli.options.working_folder import OPENAI_URL
from domain.redaction import Redactor
from storage.broker.job_log import kept_log_lines
from storage.record.run import Run, read_recorded_run

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# What a judge's address may be without being somebody's own.
KNOWN_JUDGES = (OPENAI_URL, "embedded", EMBEDDED_JUDGE)


def public_name(model_id: str) -> str:
    """A model's name on the hub; of a local folder or file the last part, for a path is private."""
    name = model_id.rstrip("/\\")
    return name if HUB_ID.fullmatch(name) else _last_part(name)


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name


@dataclass(frozen=True)
class Private:
    """Private texts with what replaces each, and the secrets of this process."""

    replaced: Mapping[str, str]
    secrets: Redactor

    @classmethod
    def of(cls, run: Run, environment: Mapping[str, str]) -> Private:
        """What is private of a run, and of the process that publishes it."""
        found = dict(_private_texts(run))
        found |= _address(environment.get("ORCHESTRATE_BROKER_URL", ""), "broker")
        # a plain word is a word in many texts
        kept = {one: public for one, public in found.items() if re.search(r"[/\\:@.\d-]", one)}
        return cls(kept, Redactor.from_environment(environment))

    def without(self, value: Any) -> Any:
        """A value that JSON can hold, its keys and texts without what is private."""
        if isinstance(value, str):
            if self.replaced:
                value = self._pattern.sub(lambda found: self.replaced[found[0]], value)
            return self.secrets.without_secrets(value)
        if isinstance(value, Mapping):
            return {self.without(key): self.without(one) for key, one in value.items()}
        if isinstance(value, tuple):
            return tuple(map(self.without, value))
        if isinstance(value, list):
            return list(map(self.without, value))
        return value

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """The longest first, each whole: /work is no part of /workers."""
        ordered = sorted(self.replaced, key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)")


def _private_texts(run: Run) -> Iterator[tuple[str, str]]:
    places = [run.store.url, run.store.url.removeprefix("file://")]
    for place in places + [str(Path(one).absolute()) for one in places if "://" not in one]:
        yield place, run.name
        yield place.rpartition("/")[0], "runs"
    for path in (Path.home(), Path.cwd()):
        if len(path.parts) > 1:
            yield str(path), "~" if path == Path.home() else "."
    for model in (run.spec.model.model_id, run.spec.judge.model):
        if not HUB_ID.fullmatch(model) or Path(model).exists():
            yield from _path(model)
    if run.spec.judge.url not in KNOWN_JUDGES:
        yield run.spec.judge.url, "http://judge/v1"
        yield from _address(run.spec.judge.url, "judge").items()
    yield from _machines(run)
    command = read_recorded_run(run)["provenance"].get("command", [])
    for word in (part for one in command for part in re.split("[,=]", one)):
        if "://" in word and word not in KNOWN_JUDGES:
            yield word, _last_part(urlsplit(word).path) or "server"
            yield from _address(word, "server").items()
        elif not HUB_ID.fullmatch(word) or Path(word).exists():
            yield from _path(word)


def _machines(run: Run) -> Iterator[tuple[str, str]]:
    """This machine and those whose workers left a line in the run's log, with those workers."""
    workers = dict.fromkeys(line.worker for line in kept_log_lines(run.store) if line.worker)
    hosts = dict.fromkeys([*(one.rpartition("@")[2] for one in workers), socket.gethostname()])
    numbered = {host: f"machine-{n}" for n, host in enumerate(hosts, 1)}
    yield from numbered.items()
    for worker in workers:
        name, _, host = worker.rpartition("@")
        yield worker, f"{name}@{numbered[host]}"


def _address(url: str, public: str) -> dict[str, str]:
    """A server with its port, and its name alone where that is not every machine's."""
    netloc, name = urlsplit(url).netloc.rpartition("@")[2], urlsplit(url).hostname
    return {netloc: public} | ({} if name is None or name in LOOPBACK else {name: public})


def _path(text: str) -> Iterator[tuple[str, str]]:
    """A path as it was written and whole, where it says more than a name."""
    if "/" in text or "\\" in text:
        yield text, _last_part(text)
        yield str(Path(text).expanduser().absolute()), _last_part(text)
