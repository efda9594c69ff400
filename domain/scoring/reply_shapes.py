"""What a judge's server sent, told apart: the one table of reply shapes, and the gate behind which
every value is finite, bounded, clean text, and free of our key.

| shape | examples | what follows |
|---|---|---|
| an answer (`Reply`) | a choice with a message, were it empty or a refusal | scored or unscored by what it says; the only shape that is cached |
| an objection to one `text` | 400 content_filter, invalid_prompt, context_length_exceeded, 413 | that scoring has none, for this reason; the others go on |
| an objection, perhaps to the `form` | other 4xx | negotiating: another form is tried; judging: the same, unless the judge objects to a harmless question too, which ends the run |
| it `heals` | 408, 409, 425, 429, 5xx, an error under status 200, no choice, finish_reason error, no JSON | asked again; never an answer |
| it `lasts` | 401, 402, no such model, an empty account, a redirect | the run ends with the server's words |

Decided on statuses, codes, types and parameters; never on the words, which are shown as they are.
"""  # noqa: E501 a table

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from domain.redaction import SHORTEST
from domain.scoring.prices import TOKENS_PER_CHARACTER
from domain.scoring.replies import integer_of_token
from domain.scoring.reply_limits import (
    MAX_ALTERNATIVES,
    MAX_TEXT,
    MAX_TOKEN,
    MAX_TOKENS_STATED,
    MAX_WORDS,
)
from domain.scoring.scores import (
    REASONING_ENDS,
    Position,
    Reply,
    UnscoredReason,
    candidates_from_logprobs,
)

TEXT_CODES: dict[str, UnscoredReason] = {
    "content_filter": "filtered",
    "content_policy_violation": "filtered",
    "responsibleaipolicyviolation": "filtered",
    "invalid_prompt": "filtered",
    "data_inspection_failed": "filtered",
    "flagged_input": "filtered",
    "context_length_exceeded": "too_long",
    "exceed_context_size_error": "too_long",
    "string_above_max_length": "too_long",
    "input_tokens": "too_long",
    "request_too_large": "too_long",
}
"""What servers call an objection to a text; some say it with status 500, some under 200."""

LASTING_CODES = frozenset(
    {
        *(
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_error",
            "billing_not_active",
        ),
        *("account_deactivated", "invalid_api_key", "api_key_invalid", "authentication_error"),
        *("model_not_found", "not_found_error", "deploymentnotfound"),
    }
)
LIMIT_CODES = frozenset({"rate_limit_exceeded", "rate_limit_error", "resource_exhausted"})

# A provider behind the endpoint broke while the answer was written.
FAULT_FINISHES = frozenset({"error", "network_error", "abort", "timeout"})

# The last ones in words of their maker, which its compatible endpoint passes on.
FILTER_FINISHES = frozenset(
    {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
)

# Half a character, which can be stored nowhere.
_SURROGATE = re.compile("[\ud800-\udfff]")

Hide = Callable[[str], str]
"""Takes our key out of a text."""

Clean = Callable[[object, int], str]
"""A text without our key and half characters, its last so many characters; empty for no text."""


@dataclass(frozen=True)
class NoAnswer:
    """What came instead of an answer, in the server's words; `reason` is why a scoring has none
    when it is an objection to one text."""

    kind: Literal["text", "form", "heals", "lasts"]
    words: str
    status: int = 200
    reason: UnscoredReason = "objected"
    parameter: str = ""
    is_limit: bool = False


def read_reply(
    status: int, content: bytes, *, asked: Mapping[str, object], hide: Hide = str
) -> Reply | NoAnswer:
    """What a chat completion request `asked` was answered with; total over all bytes."""
    return read_reply_body(status, _parsed(content), asked=asked, hide=hide)


def read_reply_body(
    status: int, body: object, *, asked: Mapping[str, object], hide: Hide = str
) -> Reply | NoAnswer:
    """The same of a body that is JSON already.

    An answer that states no usage, or one that cannot be, is taken to have the most that the
    request could use.
    """

    def clean(text: object, most: int) -> str:
        if not isinstance(text, str):
            return ""
        # most texts are tokens, which are shorter than what a key is known by
        hidden = hide(text) if len(text) >= SHORTEST else text
        return _SURROGATE.sub("\ufffd", hidden if len(hidden) <= most else hidden[-most:])

    if not 200 <= status < 300:
        return _objection(status, body, clean)
    choice = _first(body.get("choices")) if isinstance(body, Mapping) else None
    error = _error_in(body) or _error_in(choice)
    finish = clean(choice.get("finish_reason"), MAX_TOKEN) if choice else ""
    if error or finish.lower() in FAULT_FINISHES:
        return _fault(error or {"message": f"finish_reason {finish}"}, clean)
    message = choice.get("message") if choice else None
    if not isinstance(body, Mapping) or choice is None or not isinstance(message, Mapping):
        words = _shown(body, clean)
        return NoAnswer("heals", f"the reply is no chat completion ({words or 'it is empty'})")
    refusal = message.get("refusal")
    positions = list(_positions(choice.get("logprobs"), clean))
    start = _answer_starts(positions)
    stated = _usage(body.get("usage"))
    prompt_tokens, completion_tokens = stated or most_usage(asked)
    return Reply(
        text=clean(_text(message.get("content")) or refusal, MAX_TEXT),
        candidates=positions[start].candidates if positions else (),
        # a number has three digits at most
        following=tuple(positions[start + 1 : start + 3]),
        refusal=bool(refusal) or finish.lower() in FILTER_FINISHES,
        finish=finish,
        model=clean(body.get("model"), MAX_TOKEN),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        usage_stated=stated is not None,
    )


def most_usage(asked: Mapping[str, object]) -> tuple[int, int]:
    """(prompt tokens, completion tokens) that a request may use at most."""
    messages = asked.get("messages")
    texts = [_text(one.get("content")) for one in _mappings(messages)]
    most = asked.get("max_completion_tokens", asked.get("max_tokens"))
    characters = sum(map(len, texts))
    return math.ceil(characters * TOKENS_PER_CHARACTER), most if isinstance(most, int) else 0


def _objection(status: int, body: object, clean: Clean) -> NoAnswer:
    """What a status other than success means, with the codes that came along."""
    error = _error_in(body) or (body if isinstance(body, Mapping) else {})
    words = _shown(body, clean) or "it gives no reason"
    codes, parameter = _codes(error), clean(error.get("param"), MAX_TOKEN)
    reason = next((TEXT_CODES[code] for code in codes if code in TEXT_CODES), None)
    if status in (401, 402) or codes & LASTING_CODES:
        return NoAnswer("lasts", words, status)
    if status == 429:
        return NoAnswer("heals", words, status, is_limit=True)
    if status == 413 or reason is not None:
        return NoAnswer("text", words, status, reason or "too_long", parameter)
    if status in (408, 409, 425) or status >= 500:
        return NoAnswer("heals", f"{status}: {words}", status)
    if status < 400:
        said = f"it redirects elsewhere ({status}), and neither key nor texts follow"
        return NoAnswer("lasts", said, status)
    return NoAnswer("form", words, status, parameter=parameter)


def _fault(error: Mapping[str, object], clean: Clean) -> NoAnswer:
    """An error under status 200: what stands behind the endpoint broke, unless a code says more."""
    words, codes = _shown({"error": error}, clean), _codes(error)
    reason = next((TEXT_CODES[code] for code in codes if code in TEXT_CODES), None)
    if codes & LASTING_CODES:
        return NoAnswer("lasts", words)
    if reason is not None:
        return NoAnswer("text", words, reason=reason)
    return NoAnswer("heals", words, is_limit=bool(codes & LIMIT_CODES) or "429" in codes)


def _parsed(content: bytes) -> object:
    """The JSON of a body; its text when it is none or too deep."""
    text = content.decode("utf-8", "replace")
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return parsed


def _error_in(body: object) -> Mapping[str, object] | None:
    """The error object of a body or a choice, also of a body that is a list of one, or None."""
    one = _first(body) if isinstance(body, list) else body
    error = one.get("error") if isinstance(one, Mapping) else None
    if isinstance(error, Mapping) and error:
        return error
    return {"message": error} if isinstance(error, str) and error else None


def _codes(error: Mapping[str, object]) -> set[str]:
    """Everything by which a server names an error, in lower case."""
    inner = [error, *_mappings([error.get("innererror"), error.get("metadata")])]
    details = error.get("details")
    found = [one.get(name) for one in inner for name in ("code", "type", "status")]
    found += [one.get("reason") for one in _mappings(details)]
    found += [name for one in inner for name in ("flagged_input",) if one.get(name)]
    parameter = error.get("param")
    found += parameter.split(", ") if isinstance(parameter, str) else []
    return {str(one).lower() for one in found if isinstance(one, str | int)}


def _shown(body: object, clean: Clean) -> str:
    return clean(_words(body), 4 * MAX_WORDS)[:MAX_WORDS]


def _words(body: object) -> str:
    """What a server says to people, whichever way it puts it."""
    one = _first(body) if isinstance(body, list) else body
    if not isinstance(one, Mapping):
        return _on_one_line([one])
    error = one.get("error")
    inner = error if isinstance(error, Mapping) else one
    # details of what is wrong with a request, and what the provider behind a router said
    parts = [part.get("msg") for part in _mappings(inner.get("detail"))]
    raw = [part.get("raw") for part in _mappings([inner.get("metadata")])]
    return _on_one_line([error, inner.get("message"), inner.get("detail"), *parts, *raw])


def _on_one_line(said: Sequence[object]) -> str:
    found = (" ".join(text.split()) for text in said if isinstance(text, str))
    return ": ".join(text for text in found if text)[: 4 * MAX_WORDS]


def _usage(usage: object) -> tuple[int, int] | None:
    """Prompt and completion tokens, when both are stated and can be."""
    if not isinstance(usage, Mapping):
        return None
    stated = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    counts = [
        int(one) for one in stated if isinstance(one, int | float) and 0 <= one <= MAX_TOKENS_STATED
    ]
    return (counts[0], counts[1]) if len(counts) == 2 and counts[0] > 0 else None


def _text(content: object) -> str:
    """A message's text, also where it comes in parts."""
    if isinstance(content, str):
        return content
    parts = [one.get("text") for one in _mappings(content)]
    return "".join(part for part in parts if isinstance(part, str))


def _positions(logprobs: object, clean: Clean) -> Iterator[Position]:
    for one in _mappings(logprobs.get("content") if isinstance(logprobs, Mapping) else None):
        tops = list(_mappings(one.get("top_logprobs")))[:MAX_ALTERNATIVES]
        pairs = [(clean(top.get("token"), MAX_TOKEN), top.get("logprob")) for top in tops]
        yield Position(
            token=clean(one.get("token"), MAX_TOKEN), candidates=candidates_from_logprobs(pairs)
        )


def _answer_starts(positions: Sequence[Position]) -> int:
    """Index of the first token of the answer: past reasoning and white space, at a number where
    there is one."""
    thought = [k + 1 for k, one in enumerate(positions) if one.token.strip() in REASONING_ENDS]
    after = thought[-1] if thought else 0
    words = [k for k, one in enumerate(positions) if k >= after and one.token.strip()]
    numbers = [k for k in words if integer_of_token(positions[k].token, top=100) is not None]
    if not words:
        return 0
    # "**85**" and "Score: 85" hold their number later; a number seen first stays the answer
    first = positions[words[0]].candidates
    starts_with_one = any(integer_of_token(c.token, top=100) is not None for c in first)
    return numbers[0] if numbers and not starts_with_one else words[0]


def _first(found: object) -> Mapping[str, object] | None:
    one = found[0] if isinstance(found, list) and found else None
    return one if isinstance(one, Mapping) else None


def _mappings(found: object) -> Iterator[Mapping[str, object]]:
    if isinstance(found, list):
        yield from (one for one in found if isinstance(one, Mapping))
