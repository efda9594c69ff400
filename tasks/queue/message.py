"""What a job's message says, checked: whoever can reach the broker may have written it.

Celery takes what lies on its queues for its own: an odd type in a header raises in the worker's
main loop and ends the worker. So the envelope is checked too, before Celery opens it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from domain.errors import OrchestrateError
from domain.plan.spec import WIRE_VERSION

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

    The four fields stay in every wire version, so that a decline can be noted under its run.
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


MAX_BODY = 64 * 1024

# What would delay, expire, reply to or chain a job: we send none of it.
_UNUSED = ("eta", "expires", "group", "chord", "replaced_task_nesting", "stamps", "compression")


def envelope_fault(message: object) -> str:
    """What is wrong with a raw message from a job queue; empty when nothing is."""
    if not isinstance(message, dict):
        return f"it is a {type(message).__name__}, not an object"
    headers, properties, body = (message.get(k) for k in ("headers", "properties", "body"))
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        return "it has no headers or no properties"
    if not isinstance(body, str) or not 0 < len(body) <= MAX_BODY:
        return f"its body is not a text of at most {MAX_BODY} bytes"
    if message.get("content-type") != "application/json":
        return f"its content is {message.get('content-type')!r:.60}, not JSON"
    if message.get("content-encoding") != "utf-8":
        return f"its encoding is {message.get('content-encoding')!r:.60}, not utf-8"
    return _headers_fault(headers) or _properties_fault(properties) or _body_fault(body)


def _headers_fault(headers: Mapping[str, object]) -> str:
    for name in ("task", "id"):
        if not isinstance(headers.get(name), str):
            return f"its header {name} is not a text"
    for name in _UNUSED:
        if headers.get(name):
            return f"it has a header {name}, which no job of ours has"
    if headers.get("timelimit", [None, None]) != [None, None]:
        return "it has a time limit, which no job of ours has"
    if headers.get("retries", 0) != 0 or headers.get("lang", "py") != "py":
        return "it is not of our kind of task"
    texts = ("root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "run_id", "job")
    odd = [n for n in texts if not isinstance(headers.get(n), str | None)]
    return f"its headers {odd} are not texts" if odd else ""


def _properties_fault(properties: Mapping[str, object]) -> str:
    where = properties.get("delivery_info")
    if not isinstance(where, dict):
        return "it does not say where it was delivered"
    route = [properties.get("delivery_tag"), where.get("exchange"), where.get("routing_key")]
    if not all(isinstance(text, str) for text in route) or not route[0]:
        return "its delivery tag, exchange or routing key is not a text"
    if properties.get("body_encoding") != "base64":
        return "its body is not in base64"
    if not isinstance(properties.get("priority", 0), int):
        return "its priority is not a number"
    odd = [
        n for n in ("correlation_id", "reply_to") if not isinstance(properties.get(n), str | None)
    ]
    return f"its properties {odd} are not texts" if odd else ""


def _body_fault(body: str) -> str:
    try:
        parts = json.loads(base64.b64decode(body, validate=True))
    except (ValueError, RecursionError) as error:
        return f"its body cannot be read: {error}"
    kinds = (list, dict, dict)
    if not isinstance(parts, list) or [type(p) for p in parts] != list(kinds):
        return "its body is not [positional, named, embedded]"
    # callbacks, chains and chords would have the worker send further tasks
    return "it has tasks to follow it, which no job of ours has" if any(parts[2].values()) else ""
