"""Judging rules: from a judge's evidence to a score, or to the reason why there is none.

The scales are the seeds': `0_100` is persona_vectors' expected
value over the integer tokens 0..100, `0_10` over the digits 0..9, `binary` P(YES) / (P(YES) +
P(NO)), `binary_text` the word the judge wrote. Every value is then put on 0..100. No score when
the answers carry less than 0.25 of the mass, or less than a refusal does.

Numbers in token alternatives are whole ("85") or written digit by digit ("8", "5"). A digit-
splitting judge shows the alternatives of a later digit only along the digits it took. So each
reply opens one branch, and what no reply took is put where the seen numbers make it likeliest.

An endpoint shows the likeliest alternatives alone. A score's bounds hold for every place that the
rest and the unopened branches could have.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from domain.scoring.scores import (
    MOST_APART,
    Candidate,
    Evidence,
    Position,
    Reply,
    Scale,
    Score,
    Scoring,
    Unscored,
    UnscoredReason,
)

MIN_NUMERIC_MASS = 0.25

# "100" and leading zeros; int() takes long over thousands, and refuses more.
MAX_DIGITS = 20

# Of several votes at least half have to say something, or the mean is that of the odd ones out.
MIN_VOTE_SHARE = 0.5

TOP: dict[Scale, int] = {"0_100": 100, "0_10": 9, "binary": 1, "binary_text": 1}
"""The highest answer of each scale; the seeds' 0_10 reads the ten single digits."""


def scoring(evidence: Evidence) -> Scoring:
    """The scoring that the evidence supports, by its own mode and scale."""
    if not evidence.replies:
        return _lost(evidence)
    if evidence.mode == "logprob" and evidence.scale != "binary_text":
        return _from_masses(evidence)
    return _from_votes(evidence)


def reply_masses(
    candidates: Sequence[Candidate], scale: Scale, *, split: Sequence[Reply] | None = None
) -> tuple[dict[float, float], float]:
    """(answer -> probability, refusal mass) of first-token alternatives, answers as on the scale.

    `split`: the replies of a judge that writes numbers digit by digit.
    """
    refusal = math.fsum(c.probability for c in candidates if is_refusal_token(c.token))
    if scale in ("binary", "binary_text"):
        yes = math.fsum(c.probability for c in candidates if c.token.strip().upper() == "YES")
        no = math.fsum(c.probability for c in candidates if c.token.strip().upper() == "NO")
        return {1.0: yes, 0.0: no}, refusal
    return reply_number_masses(candidates, top=TOP[scale], split=split), refusal


def _from_masses(evidence: Evidence) -> Scoring:
    reply = evidence.replies[0]
    if reply.refusal:
        return _unscored("refused", reply.text, evidence, refusal_mass=1.0)
    if not reply.candidates:
        return _unscored(_words_or_nothing(reply.said), reply.text, evidence)
    split = evidence.replies if evidence.digits == "split" else None
    found, refusal = reply_masses(reply.candidates, evidence.scale, split=split)
    mass = math.fsum(found.values())
    reason = _why_no_score(evidence, found, mass, refusal)
    if reason is not None:
        said = (
            f"answers carry {mass:.2f} of the judge's first token and a refusal {refusal:.2f}; "
            f"{MIN_NUMERIC_MASS} and more than a refusal are needed"
        )
        detail = reply.text if mass == 0 else said
        return _unscored(reason, detail, evidence, numeric_mass=mass, refusal_mass=refusal)
    scale = 100 / TOP[evidence.scale]
    value = math.fsum(v * p for v, p in found.items()) / mass * scale
    low, high = score_bounds(evidence)
    return Score(
        value=value,
        numeric_mass=mass,
        refusal_mass=refusal,
        evidence=evidence,
        bounds=(low, high) if high - low > MOST_APART else None,
    )


def score_bounds(evidence: Evidence) -> tuple[float, float]:
    """The lowest and the highest score, 0 to 100, that the replies of a judge with token
    probabilities leave possible; (0, 100) where they show no answer."""
    candidates, top = evidence.replies[0].candidates, TOP[evidence.scale]
    opened = _opened(evidence)
    whole = [c for c in candidates if not _is_unopened(c, opened)]
    split = None if opened is None else evidence.replies
    # (probability, lowest, highest): what no alternative shows may be any answer
    parts = [(max(0.0, 1 - math.fsum(c.probability for c in candidates)), 0.0, float(top))]
    for value, p in reply_masses(whole, evidence.scale, split=split)[0].items():
        parts.append((p, value, value))
    for one in (c for c in candidates if _is_unopened(c, opened)):
        first = int(one.token)
        parts.append((one.probability, first, 100 if first == 1 else 10 * first + 9))
    mass = math.fsum(p for p, _, _ in parts)
    if not mass:
        return 0.0, 100.0
    low, high = (math.fsum(one[0] * one[end] for one in parts) / mass for end in (1, 2))
    return low * 100 / top, high * 100 / top


def _why_no_score(
    evidence: Evidence, found: dict[float, float], mass: float, refusal: float
) -> UnscoredReason | None:
    text = evidence.replies[0].said
    answers = [mass] if evidence.scale == "0_100" else found.values()
    if refusal > max(answers, default=0.0):
        return "refused"
    if mass >= MIN_NUMERIC_MASS:
        return None
    if is_refusal_text(text):
        return "refused"
    # not even an unlikely number: the judge answered in words
    return "unparseable" if mass == 0 and text.strip() else "low_mass"


def _from_votes(evidence: Evidence) -> Scoring:
    read = [
        "refused" if reply.refusal else score_in_text(reply.said, evidence.scale)
        for reply in evidence.replies
    ]
    values = [v for v in read if isinstance(v, float)]
    asked = len(evidence.replies) + len(evidence.lost)
    numeric, refused = len(values) / asked, read.count("refused") / asked
    if numeric < MIN_VOTE_SHARE:
        reasons = [v for v in read if isinstance(v, str)]
        reason = _commonest([*reasons, *(lost.reason for lost in evidence.lost)])
        detail = next(
            (r.text for r, v in zip(evidence.replies, read, strict=True) if v == reason), ""
        )
        return _unscored(reason, detail, evidence, numeric_mass=numeric, refusal_mass=refused)
    value = math.fsum(values) / len(values) * 100 / TOP[evidence.scale]
    return Score(value=value, numeric_mass=numeric, refusal_mass=refused, evidence=evidence)


def _lost(evidence: Evidence) -> Unscored:
    if not evidence.lost:
        return _unscored("empty", "nothing was asked", evidence)
    reason = _commonest([lost.reason for lost in evidence.lost])
    detail = next(lost.detail for lost in evidence.lost if lost.reason == reason)
    return _unscored(reason, detail, evidence)


def _commonest(reasons: Iterable[UnscoredReason]) -> UnscoredReason:
    return Counter(reasons).most_common(1)[0][0]


def _words_or_nothing(text: str) -> UnscoredReason:
    if not text.strip():
        return "empty"
    return "refused" if is_refusal_text(text) else "unparseable"


def _unscored(
    reason: UnscoredReason,
    detail: str,
    evidence: Evidence,
    *,
    numeric_mass: float = 0.0,
    refusal_mass: float = 0.0,
) -> Unscored:
    return Unscored(
        reason=reason,
        detail=detail[:200],
        numeric_mass=numeric_mass,
        refusal_mass=refusal_mass,
        evidence=evidence,
    )


# Looked for from the end, each once: a pattern of both takes minutes over a long row of one.
_TAG = re.compile(r"<answer>", re.IGNORECASE)
_TAG_END = re.compile(r"</answer>", re.IGNORECASE)

# A number, and out of how many it says it is.
_NUMBER = re.compile(
    r"(?<![\w.,-])(\d{1,3}(?:\.\d+)?)(?:[\s*]*(?:/|out of)[\s*]*(\w+))?(?![\w/]|\.\d)"
)
OUT_OF: dict[Scale, set[str]] = {"0_100": {"", "100"}, "0_10": {"", "9", "10"}}

_WORD = re.compile(r"\b(YES|NO|REFUSAL)\b")

_REFUSAL = re.compile(
    r"^\W*(REFUSAL\b|(I['\u2019]m |I am )?(very )?sorry\b|"
    r"I (can['\u2019]?t|cannot|won['\u2019]?t|will not|must decline|am (not able|unable)))",
    re.IGNORECASE,
)


def score_in_text(text: str, scale: Scale) -> float | Literal["refused", "unparseable", "empty"]:
    """The answer on the scale, or why there is none; nothing is guessed between two numbers."""
    if not text.strip():
        return "empty"
    said = _unwrapped(text)
    if said is None or is_refusal_text(said):
        return "refused"
    if not said.strip():
        return "empty"
    if scale in ("binary", "binary_text"):
        words = set(_WORD.findall(said.upper()))
        if words == {"REFUSAL"}:
            return "refused"
        return {"YES": 1.0, "NO": 0.0}[words.pop()] if len(words) == 1 else "unparseable"
    for part in (said, said.strip().splitlines()[-1]):
        found = set(_NUMBER.findall(part))
        if {of for _, of in found} <= OUT_OF[scale] and len({float(n) for n, _ in found}) == 1:
            value = float(found.pop()[0])
            return value if value <= TOP[scale] else "unparseable"
    return "unparseable"


def is_refusal_text(text: str) -> bool:
    """Whether a reply begins as a refusal."""
    return _REFUSAL.match(text) is not None


def is_refusal_token(token: str) -> bool:
    """Whether a first token begins the word REFUSAL; tokenizers cut it after 2 to 4 letters."""
    text = token.strip().upper()
    return len(text) >= 2 and "REFUSAL".startswith(text)


def _unwrapped(text: str) -> str | None:
    """What stands in the <answer> tags or in the JSON object; None for a null answer."""
    ends = [found.start() for found in _TAG_END.finditer(text)]
    begins = [found.end() for found in _TAG.finditer(text) if ends and found.end() <= ends[-1]]
    if begins:
        return text[begins[-1] : ends[-1]].strip()
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(body, dict) or len(body) != 1:
        return text
    value = next(iter(body.values()))
    return None if value is None else str(value)


Branch = dict[float, float]  # number -> probability, given the branch's first digit


def reply_number_masses(
    candidates: Sequence[Candidate], *, top: int, split: Sequence[Reply] | None = None
) -> dict[float, float]:
    """Number -> probability over the integers 0..top.

    `split` holds the replies of a judge that writes digit by digit; without it a token is a whole
    number, as persona_vectors reads it.
    """
    branches = None if split is None else _branches(split, top)
    centre = _centre(candidates, branches or {})
    found: dict[float, float] = {}
    for one in candidates:
        value = integer_of_token(one.token, top=top)
        if value is None:
            continue
        spread = {value: 1.0}
        if branches is not None and _is_digit(one.token):
            spread = branches.get(int(value), {_unseen_number(value, centre): 1.0})
        for number, share in spread.items():
            found[number] = found.get(number, 0.0) + one.probability * share
    return found


def unseen_mass(evidence: Evidence) -> float:
    """Probability of the first digits whose branch no reply of a digit-splitting judge opened."""
    opened, first = _opened(evidence), evidence.replies[0].candidates
    return math.fsum(c.probability for c in first if _is_unopened(c, opened))


def _opened(evidence: Evidence) -> dict[int, Branch] | None:
    """The branches that replies took; None for a judge whose answers are one token."""
    top = TOP[evidence.scale]
    return _branches(evidence.replies, top) if evidence.digits == "split" and top >= 10 else None


def _is_unopened(one: Candidate, opened: dict[int, Branch] | None) -> bool:
    """Whether a first digit may go on in ways that no reply showed; behind 0 no number goes on."""
    if opened is None or not _is_digit(one.token):
        return False
    return int(one.token) > 0 and int(one.token) not in opened


def integer_of_token(token: str, *, top: int) -> float | None:
    """The integer 0..top that a token spells, None for anything else."""
    text = token.strip()
    # isdecimal alone accepts other scripts' digits, which int() would read as numbers too
    if not (text.isascii() and text.isdecimal()) or len(text) > MAX_DIGITS:
        return None
    value = int(text)
    return float(value) if value <= top else None


def number_goes_on(first: str, following: Iterable[Position]) -> bool:
    """Whether a reply's number goes on in its second token."""
    second = next(iter(following), None)
    return _is_digit(first) and second is not None and _is_digit(second.token)


def _branches(replies: Sequence[Reply], top: int) -> dict[int, Branch]:
    """First digit -> the numbers behind it, for the first digits that a reply took."""
    if top < 10:
        return {}
    branches: dict[int, Branch] = {}
    for reply in replies:
        if _is_digit(_first(reply)):
            branches.setdefault(int(_first(reply)), _numbers_behind(reply, top))
    return branches


def _numbers_behind(reply: Reply, top: int) -> Branch:
    first = int(_first(reply))
    if not reply.following:
        return {float(first): 1.0}
    second = reply.following[0]
    digits = [(c, int(c.token)) for c in second.candidates if _is_digit(c.token)]
    found: Branch = {}
    for one, digit in digits:
        number = 10 * first + digit
        hundred = _hundred_share(reply) if number == 10 and top == 100 else 0.0
        found[float(number)] = one.probability * (1 - hundred)
        if hundred:
            found[100.0] = one.probability * hundred
    # whatever else stood there ends the number after its first digit
    ended = math.fsum(c.probability for c in second.candidates if not _is_digit(c.token))
    found[float(first)] = found.get(float(first), 0.0) + ended
    total = math.fsum(found.values())
    return {number: p / total for number, p in found.items()} if total else {float(first): 1.0}


def _hundred_share(reply: Reply) -> float:
    """Probability that "10" goes on to "100"."""
    if len(reply.following) < 2 or reply.following[0].token.strip() != "0":
        return 0.0
    third = reply.following[1]
    total = math.fsum(c.probability for c in third.candidates)
    zeros = math.fsum(c.probability for c in third.candidates if c.token.strip() == "0")
    return zeros / total if total else 0.0


def _centre(candidates: Sequence[Candidate], branches: dict[int, Branch]) -> float | None:
    """Mean of the numbers that were seen whole, weighted by their first digits."""
    seen = [
        (one.probability, branches[int(one.token)])
        for one in candidates
        if _is_digit(one.token) and int(one.token) in branches
    ]
    total = math.fsum(p for p, _ in seen)
    if not total:
        return None
    return math.fsum(p * n * q for p, branch in seen for n, q in branch.items()) / total


def _unseen_number(first: float, centre: float | None) -> float:
    """What a first digit stands for whose second was not seen: the digit itself, the middle of its
    decade, or 100, whichever lies nearest to the numbers that were seen."""
    if first == 0:
        return 0.0
    choices = [first * 10 + 4.5, first, *([100.0] if first == 1 else [])]
    return choices[0] if centre is None else min(choices, key=lambda n: abs(n - centre))


def _first(reply: Reply) -> str:
    """The token where the answer begins, as it was taken."""
    return reply.said.strip()[:1]


def _is_digit(token: str) -> bool:
    text = token.strip()
    return len(text) == 1 and text.isascii() and text.isdecimal()
