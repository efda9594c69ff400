"""Replies as servers send them, written after their shapes: what each is, and what it leaves.

`SHAPES` maps a name to (status, body, class); that of an answer is what becomes of the scoring.
"""

from __future__ import annotations

from typing import Any

from tests.lean_judge import completion

FILTERED = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": True}}
INNER = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": FILTERED}
USAGE = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}


def openai_error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, **more}}


def chat(
    message: Any, *, finish: str = "stop", logprobs: Any = None, **more: Any
) -> dict[str, Any]:
    """A completion around a message, in the few fields that all servers have."""
    choice = {"index": 0, "finish_reason": finish, "message": message, "logprobs": logprobs}
    return {"id": "x", "model": "m", "choices": [{**choice, **more}], "usage": USAGE}


def said(text: Any) -> dict[str, Any]:
    return chat({"role": "assistant", "content": text})


def impossible(logprob: Any) -> dict[str, Any]:
    """A first token 70, certain, beside one that cannot come, as servers write that."""
    tops = [{"token": "70", "logprob": -0.01}, {"token": "10", "logprob": logprob}]
    content = [{"token": "70", "logprob": -0.01, "top_logprobs": tops}]
    return chat({"role": "assistant", "content": "70"}, logprobs={"content": content})


SHAPES: dict[str, tuple[int, Any, str]] = {
    # answers
    "a number with its alternatives": (200, completion([[("70", -0.01), ("x", -5.0)]]), "70"),
    "null for an impossible token": (200, impossible(None), "70"),
    "-9999 for an impossible token": (200, impossible(-9999.0), "70"),
    "-Infinity for an impossible token": (200, impossible(float("-inf")), "70"),
    "NaN for an impossible token": (200, impossible(float("nan")), "70"),
    "words for an impossible token": (200, impossible("-inf"), "70"),
    "a refusal": (200, chat({"content": None, "refusal": "I will not"}), "refused"),
    "an answer cut by a filter": (200, chat({"content": ""}, finish="content_filter"), "refused"),
    "a filter by its maker's name": (200, chat({"content": None}, finish="SAFETY"), "refused"),
    "nothing": (200, chat({"role": "assistant"}), "empty"),
    "words": (200, said("It depends"), "unparseable"),
    # objections to one text
    "azure's filter": (
        400,
        openai_error("The prompt was filtered", code="content_filter", innererror=INNER),
        "filtered",
    ),
    "openai's invalid_prompt": (400, openai_error("flagged", code="invalid_prompt"), "filtered"),
    "a router's moderation": (
        403,
        {"error": {"code": 403, "message": "moderated", "metadata": {"flagged_input": "kill"}}},
        "filtered",
    ),
    "openai's context length": (
        400,
        openai_error("8200 tokens are too many", code="context_length_exceeded"),
        "too_long",
    ),
    "vllm's context length": (
        400,
        {"error": {"message": "too many", "type": "BadRequestError", "param": "input_tokens"}},
        "too_long",
    ),
    "llama.cpp's context size": (
        400,
        {"error": {"code": 400, "message": "too large", "type": "exceed_context_size_error"}},
        "too_long",
    ),
    "an old llama.cpp's context size": (
        500,
        {"error": {"code": 500, "message": "too large", "type": "exceed_context_size_error"}},
        "too_long",
    ),
    "a text too large for the gateway": (413, "<html>Payload Too Large</html>", "too_long"),
    # objections of which the server does not say what they are to
    "anthropic's length": (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "too long"}},
        "form",
    ),
    "an older vllm": (400, {"object": "error", "message": "no", "type": "BadRequestError"}, "form"),
    "gemini's list": (
        400,
        [{"error": {"code": 400, "message": "Multiple candidates", "status": "INVALID_ARGUMENT"}}],
        "form",
    ),
    "a validation error": (422, {"detail": [{"loc": ["body"], "msg": "no such field"}]}, "form"),
    "a wall": (403, "<html>Forbidden</html>", "form"),
    # what heals
    "too many requests": (429, openai_error("slow down", code="rate_limit_exceeded"), "heals"),
    "gemini's quota": (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], "heals"),
    "anthropic's overload": (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        "heals",
    ),
    "llama.cpp loads": (
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        "heals",
    ),
    "a gateway's page": (502, "<html>Bad Gateway</html>", "heals"),
    "an error under 200": (
        200,
        {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "boo"}}},
        "heals",
    ),
    "a router's 400 under 200": (
        200,
        {"error": {"message": "Provider returned error", "code": 400}, "user_id": "u"},
        "heals",
    ),
    "a text for an error under 200": (200, {"error": "model runner has stopped"}, "heals"),
    "no choices": (200, {"id": "x", "choices": [], "usage": USAGE}, "heals"),
    "null for choices": (200, {"id": "x", "choices": None}, "heals"),
    "a choice with an error": (
        200,
        chat({"role": "assistant", "content": ""}, error={"code": 502, "message": "lost it"}),
        "heals",
    ),
    "finish_reason error": (200, chat({"content": "7"}, finish="error"), "heals"),
    "finish_reason abort": (200, chat({"content": "7"}, finish="abort"), "heals"),
    "a choice without a message": (200, {"choices": [{"index": 0}]}, "heals"),
    "a proxy's page under 200": (200, "<html>Sign in</html>", "heals"),
    "nothing under 200": (200, "", "heals"),
    "too deep": (200, "[" * 200_000, "heals"),
    # what does not
    "a wrong key": (401, openai_error("Incorrect API key", code="invalid_api_key"), "lasts"),
    "gemini's wrong key": (
        400,
        [{"error": {"code": 400, "message": "no", "details": [{"reason": "API_KEY_INVALID"}]}}],
        "lasts",
    ),
    "no credit": (402, {"error": {"code": 402, "message": "Insufficient credits"}}, "lasts"),
    "an empty account": (429, openai_error("quota", code="insufficient_quota"), "lasts"),
    "no such model": (404, openai_error("no model x", code="model_not_found"), "lasts"),
    "a redirect": (307, "", "lasts"),
}
