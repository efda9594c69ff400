"""A run's place among others: priority and pause, in its record, so that a lost broker forgets
neither."""

from __future__ import annotations

from pydantic import Field, ValidationError

from orchestrator.errors import StoreError
from orchestrator.fleet import HIGHEST, LOWEST
from orchestrator.run_spec import Frozen
from storage.store import Store

KEY = "schedule.json"


class Schedule(Frozen):
    """Changes no result; runs of a higher priority go first, equal ones share."""

    priority: int = Field(default=0, ge=LOWEST, le=HIGHEST)
    paused: bool = False


def read_schedule(store: Store) -> Schedule:
    """The recorded one; none recorded means priority 0 and not paused."""
    try:
        return Schedule.model_validate_json(store.read(KEY))
    except KeyError:
        return Schedule()
    except ValidationError as error:
        raise StoreError(f"{store.url}/{KEY} cannot be read: {error}; delete it") from error


def write_schedule(store: Store, schedule: Schedule) -> None:
    """Record it."""
    store.write(KEY, schedule.model_dump_json(indent=2).encode())
