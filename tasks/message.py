"""What a job's message says, checked: whoever can reach the broker may have written it.

Knows nothing of Celery; what a message names is looked up in the run's own plan later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import OrchestrateError
from orchestrator.run_spec import WIRE_VERSION

FIELDS = ("wire", "run_id", "run", "job")
# A run's id becomes part of Redis keys.
_RUN_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
MAX_TEXT = 4096


class MessageError(OrchestrateError):
    """The message is not one of ours: nothing was done; see the worker's log for who sent it."""


class WireError(OrchestrateError):
    """Sender and worker are of different versions: use the same one on every machine."""


@dataclass(frozen=True)
class JobMessage:
    """A job of a run: the run's id on the broker, its store and the job's key."""

    run_id: str
    run_url: str
    job: str
    wire: int = WIRE_VERSION

    def to_fields(self) -> dict[str, object]:
        """What is sent."""
        return {"wire": self.wire, "run_id": self.run_id, "run": self.run_url, "job": self.job}

    def check_wire(self) -> None:
        """Raise WireError unless this program speaks the message's version."""
        if self.wire != WIRE_VERSION:
            raise WireError(
                f"this worker speaks wire version {WIRE_VERSION}, the message has {self.wire}: "
                "use the same version of orchestrate on every machine"
            )


def read_message(fields: Mapping[str, object]) -> JobMessage:
    """The message in these fields; raises MessageError saying what is wrong with them.

    The four fields stay in every wire version, so that a refusal can be noted under its run.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    missing = [name for name in FIELDS if name not in fields]
    wire = fields.get("wire")
    if missing or (unknown and wire == WIRE_VERSION):
        raise MessageError(f"it lacks {missing} and has unknown {unknown[:5]!r:.200}")
    if type(wire) is not int:
        raise MessageError(f"its wire version is {wire!r:.80}, not a whole number")
    texts = {name: _text(fields, name) for name in FIELDS[1:]}
    if not _RUN_ID.fullmatch(texts["run_id"]):
        raise MessageError(f"{texts['run_id']!r:.80} cannot be the id of a run")
    return JobMessage(texts["run_id"], texts["run"], texts["job"], wire)


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not _is_plain(value):
        raise MessageError(f"its {name} is {value!r:.80}, not a text of 1 to {MAX_TEXT} characters")
    return value


def _is_plain(text: str) -> bool:
    # half a surrogate pair is a text in JSON and none in UTF-8
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
