"""Numbers in token alternatives: whole ("85") or written digit by digit ("8", "5").

Pure. A digit-splitting judge shows the alternatives of a later digit only along the digits it
took. So each reply opens one branch; what no reply took is put where the seen numbers make it
likeliest, and `unseen_mass` says how much probability that is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from orchestrator.scores import Candidate, Position, Reply

Branch = dict[float, float]  # number -> probability, given the branch's first digit


def number_masses(
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
        value = integer(one.token, top=top)
        if value is None:
            continue
        spread = {value: 1.0}
        if branches is not None and _is_digit(one.token):
            spread = branches.get(int(value), {_unseen_number(value, centre): 1.0})
        for number, share in spread.items():
            found[number] = found.get(number, 0.0) + one.probability * share
    return found


def unseen_mass(replies: Sequence[Reply], *, top: int) -> float:
    """Share of the first digit's mass whose branch no reply of a digit-splitting judge opened."""
    branches = _branches(replies, top)
    numbers = [(c, integer(c.token, top=top)) for c in replies[0].candidates]
    masses = [(value, c.probability) for c, value in numbers if value is not None]
    # 0 has no longer number behind it
    unseen = math.fsum(p for v, p in masses if 0 < v < 10 and int(v) not in branches)
    return unseen / max(math.fsum(p for _, p in masses), 1e-12) if top >= 10 else 0.0


def integer(token: str, *, top: int) -> float | None:
    """The integer 0..top that a token spells, None for anything else."""
    text = token.strip()
    # isdecimal alone accepts other scripts' digits, which int() would read as numbers too
    if not (text.isascii() and text.isdecimal()):
        return None
    value = int(text)
    return float(value) if value <= top else None


def goes_on(first: str, following: Iterable[Position]) -> bool:
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
    return reply.text.strip()[:1]


def _is_digit(token: str) -> bool:
    text = token.strip()
    return len(text) == 1 and text.isascii() and text.isdecimal()
