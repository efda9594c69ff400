"""Asks a judge through OpenAI's Batch API: a file of requests in, a file of replies out, in hours.

Whoever calls it remembers the batch's id, so that a restart waits for the same batch instead of
paying for another.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import openai
from openai.types import Batch

from domain.errors import JudgeError, StoppedError
from domain.scoring.prices import Price
from domain.scoring.reply_shapes import read_reply_body
from domain.scoring.scores import LostReply, Reply
from workers.judge.client import JudgeClient

POLL_S = 15.0

# The API's own limit on requests in one file.
MAX_REQUESTS = 50_000
OVER = ("completed", "failed", "expired", "cancelled")
Requests = Mapping[str, Mapping[str, object]]
"""custom_id -> the request's body."""

Answers = dict[str, Reply | LostReply]
"""custom_id -> what came back."""


class LostBatchError(JudgeError):
    """A batch that nobody answers, now or later, and nobody is paid for."""


# Statuses of an endpoint that knows no such batch; others, as of a wrong key, can be mended.
GONE = (404, 410)


async def submit_batch(client: JudgeClient, bodies: Requests) -> str:
    """Upload the requests by custom_id and start the batch; returns its id. Raises JudgeError."""
    if len(bodies) > MAX_REQUESTS:
        raise JudgeError(f"{len(bodies)} requests do not fit in a batch: use a smaller shard")
    lines = [
        json.dumps(
            {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        )
        for key, body in bodies.items()
    ]
    try:
        file = ("verdicts.jsonl", "\n".join(lines).encode())
        uploaded = await client.api.files.create(file=file, purpose="batch")
        batch = await client.api.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    except openai.APIError as error:
        said = client.words(error)
        raise JudgeError(
            f"the judge at {client.url} takes no batch ({said}): leave --judge-batch out"
        ) from None
    return batch.id


async def wait_for_batch(
    client: JudgeClient,
    batch_id: str,
    bodies: Requests,
    *,
    price: Price | None,
    is_leaving: Callable[[], bool],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Answers:
    """The batch's answers once it is over.

    Raises LostBatchError where there will be none, JudgeError where the endpoint refuses to tell,
    and StoppedError when the process has to leave.
    """
    while True:
        try:
            batch = await client.api.batches.retrieve(batch_id)
            if batch.status in OVER:
                return await _answers(client, batch, bodies, price)
        except openai.APIConnectionError:
            # the batch goes on without us
            pass
        except openai.APIStatusError as error:
            if error.status_code < 500 and error.status_code != 429:
                failure = LostBatchError if error.status_code in GONE else JudgeError
                said = f"batch {batch_id} at {client.url} cannot be read: {client.words(error)}"
                raise failure(said) from None
        if is_leaving():
            raise StoppedError("the judge worker is leaving")
        await sleep(POLL_S)


async def _answers(
    client: JudgeClient, batch: Batch, bodies: Requests, price: Price | None
) -> Answers:
    found: Answers = {}
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id is None:
            continue
        content = await client.api.files.content(file_id)
        # str.splitlines would also part lines at U+2028 and others that stand inside replies
        for line in content.text.split("\n"):
            row = _row(line)
            if row is not None and row["custom_id"] in bodies:
                found[row["custom_id"]] = _answer(client, row, bodies[row["custom_id"]], price)
    if not found and batch.status == "failed":
        errors = batch.errors.data or [] if batch.errors else []
        words = "; ".join(one.message or "" for one in errors)
        words = words or "no reason given"
        raise LostBatchError(f"batch {batch.id} at {client.url} failed: {words}")
    return found


def _row(line: str) -> dict[str, Any] | None:
    """A line of the replies; None for one that is damaged, whose question counts as unanswered, so
    that the others, which are paid for, are kept."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("custom_id"), str) else None


def _answer(
    client: JudgeClient, row: Mapping[str, object], asked: Mapping[str, object], price: Price | None
) -> Reply | LostReply:
    response = row.get("response")
    status, body = 500, row.get("error")
    if isinstance(response, dict):
        status, body = int(response.get("status_code") or 500), response.get("body")
    found = read_reply_body(status, body, asked=asked, hide=client.hide)
    if isinstance(found, Reply):
        return found.model_copy(update={"usd": price and price.of(found)})
    reason = found.reason if found.kind in ("text", "form") else "http"
    return LostReply(reason=reason, detail=found.words, usd=0.0, attempts=1)
