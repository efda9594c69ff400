"""What an endpoint announces of a model in its list: the day it will be shut down.

Knows nothing of how a judge is asked.
"""

from __future__ import annotations

import openai

from workers.judge_call import JudgeClient


async def shutdown_date(client: JudgeClient, model: str) -> str | None:
    """The `shutdown_date` of /v1/models; None when the endpoint has no list or states none."""
    try:
        listed = await client.api.models.list()
    except openai.APIError:
        return None
    for one in listed.data:
        if one.id == model:
            # not in the client's own type: most endpoints do not say it
            date = getattr(one, "shutdown_date", None)
            return str(date) if date else None
    return None
