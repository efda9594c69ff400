"""Dead letters: jobs given up because they kept killing their workers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from storage.record.json_bytes import decode_checked, encode_checked
from storage.record.store import Store

DEAD = "dead"


@dataclass(frozen=True)
class Failure:
    """A job that ended in an error; a fatal one would meet every other job too."""

    job: str
    error: str
    message: str
    fatal: bool


def write_dead_letter(store: Store, failure: Failure) -> None:
    """Note that a job is given up."""
    store.write(f"{DEAD}/{failure.job}.json", encode_checked(asdict(failure)))


def dead_letters(store: Store) -> list[Failure]:
    """The jobs that were given up, by name; an unreadable note counts as none."""
    found = []
    for key in sorted(store.list(DEAD)):
        try:
            found.append(Failure(**decode_checked(store.read(key))))
        except (KeyError, ValueError, TypeError):
            continue
    return found


def revive_dead(store: Store) -> list[str]:
    """Empty the list, so that its jobs are tried again; returns their keys."""
    jobs = [failure.job for failure in dead_letters(store)]
    for key in store.list(DEAD):
        store.delete(key)
    return jobs
