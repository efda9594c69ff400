"""The envelope around a job's message, checked before Celery opens it.

Celery takes what lies on its queues for its own: an odd type in a header raises in the worker's
main loop and ends the worker. Ours are all alike, so anything else is refused first.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

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
