"""The dead-letter list of a run: jobs given up because they kept killing their workers.

Part of the run's record, so that it outlives the broker. Knows nothing of queues.
"""

from __future__ import annotations

from dataclasses import asdict

from storage.broker_state import Failure
from storage.checked_json import decode_checked, encode_checked
from storage.store import Store

FOLDER = "dead"


def bury(store: Store, failure: Failure) -> None:
    """Note that a job is given up."""
    store.write(f"{FOLDER}/{failure.job}.json", encode_checked(asdict(failure)))


def dead_letters(store: Store) -> list[Failure]:
    """The jobs that were given up, by name; an unreadable note counts as none."""
    found = []
    for key in sorted(store.list(FOLDER)):
        try:
            found.append(Failure(**decode_checked(store.read(key))))
        except (KeyError, ValueError, TypeError):
            continue
    return found


def revive(store: Store) -> list[str]:
    """Empty the list, so that its jobs are tried again; returns their keys."""
    jobs = [failure.job for failure in dead_letters(store)]
    for key in store.list(FOLDER):
        store.delete(key)
    return jobs
