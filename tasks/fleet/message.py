"""What a job's message says, checked: whoever can reach the broker may have written it.

Celery takes what lies on its queues for its own: an odd type in a header raises in the worker's
main loop and ends the worker. So the envelope is checked too, before Celery opens it.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, TypeAdapter, ValidationError

from domain.errors import OrchestrateError
from domain.plan.spec import Frozen

# no system opens a file with a zero in its name
Text = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]+$")]


class WireError(OrchestrateError):
    """Sender and worker are of different versions: use the same one on every machine."""


class JobMessage(Frozen):
    """A job of a run: the run's id on the broker, its store and the job's key.

    These fields stay in every wire version, so that a decline can be noted under its run.
    """

    wire: StrictInt
    # it becomes part of Redis keys
    run_id: Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
    run: Text
    job: Text


class _Headers(BaseModel):
    task: str
    id: str
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    run_id: str | None = None
    job: str | None = None
    # what would delay, expire, limit, try again or chain a job: we send none of it
    eta: None = None
    expires: None = None
    group: None = None
    chord: None = None
    compression: None = None
    replaced_task_nesting: Literal[0, None] = 0
    stamps: Annotated[dict[str, object], Field(max_length=0)] | None = None
    timelimit: Annotated[list[None], Field(min_length=2, max_length=2)] = [None, None]
    retries: Literal[0] = 0
    lang: Literal["py"] = "py"


class _Route(BaseModel):
    exchange: str
    routing_key: str


class _Properties(BaseModel):
    delivery_info: _Route
    delivery_tag: Annotated[str, Field(min_length=1)]
    body_encoding: Literal["base64"]
    priority: StrictInt = 0
    correlation_id: str | None = None
    reply_to: str | None = None


class _Envelope(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    headers: _Headers
    properties: _Properties
    body: Annotated[str, Field(max_length=64 * 1024)]
    content_type: Literal["application/json"]
    content_encoding: Literal["utf-8"]


# Positional, named, embedded; the last would have the worker send further tasks.
_BODY = TypeAdapter(tuple[list[Any], dict[str, Any], dict[str, None]])


def envelope_fault(message: object) -> str:
    """What is wrong with a raw message from a job queue; empty when nothing is."""
    try:
        envelope = _Envelope.model_validate(message)
        _BODY.validate_python(json.loads(base64.b64decode(envelope.body, validate=True)))
    except ValidationError as error:
        return message_faults(error)
    except (ValueError, RecursionError) as error:
        return f"its body cannot be read: {error}"
    return ""


def message_faults(error: ValidationError) -> str:
    """What does not fit, by its place in the message."""
    found = [f"{one['loc']}: {one['msg']}, not {one['input']!r:.80}" for one in error.errors()]
    return "; ".join(found)[:500]
