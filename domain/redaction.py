"""What is secret leaves a text before it is printed, logged, recorded or put on the broker.

Passwords are found by their place in a URL, keys by their value: whole, cut short, URL-encoded,
in base64 or in hexadecimal digits, as servers quote what they refuse.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote_plus

JUDGE_KEYS = ("ORCHESTRATE_JUDGE_API_KEY", "OPENAI_API_KEY")
"""Where a judge's key is looked for, in this order."""

STORAGE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
HUB_KEYS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
KEY_VARIABLES = ("OPENAI_API_KEY", *HUB_KEYS, *STORAGE_KEYS)
"""The keys of others that we and what we build on read from the environment."""

FLOWER_AUTH = "ORCHESTRATE_FLOWER_AUTH"
SECRETS = (
    *JUDGE_KEYS,
    *("ORCHESTRATE_JUDGE_SERVER_KEY", FLOWER_AUTH),
    *HUB_KEYS,
    *STORAGE_KEYS[1:],
)

# A shorter one is a placeholder, and part of many words; so is a shorter rest of a key.
SHORTEST = 8

HIDDEN = "..."

# Before an @ in these is a part of a name.
_STORES = frozenset(
    ["s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "file", "local", "memory"]
)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(\S*)")
_PART = re.compile(r"([?&;#])([^=&;#\s]*)=([^&;#\s\"')\]}>]*)")
# A host with its port, and nobody's name before it.
_PLACE = re.compile(r"[^@:]*(:\d*)?|\[[^@]*")
_SECRET_NAME = re.compile(
    r"pass|pwd|secret|token|api.?key|access.?key|auth|credential|signature|^(key|sig|pw|user(name)?)$",
    re.IGNORECASE,
)


def without_password(text: str) -> str:
    """A URL as it may be printed, or a text with URLs in it: user and password are left out, and
    the values of what is called like a secret in a query."""
    return _URL.sub(_shown_url, text)


def _shown_url(url: re.Match[str]) -> str:
    scheme, rest = url.groups()
    rest = _PART.sub(_shown_part, rest)
    if scheme.lower() not in _STORES:
        place = re.split("[/?#]", rest, maxsplit=1)[0]
        is_page = scheme.lower() in ("http", "https") and _PLACE.fullmatch(place)
        # up to the last @: a password may hold one too, and a slash; in a page's path it is a name
        rest = rest if is_page else rest.rpartition("@")[2]
    return f"{scheme}://{rest}"


def _shown_part(part: re.Match[str]) -> str:
    mark, name, value = part.groups()
    return f"{mark}{name}={HIDDEN if value and _SECRET_NAME.search(unquote_plus(name)) else value}"


def _password_in_query(url: str) -> str:
    parts = (part.groups() for part in _PART.finditer(url))
    return next((value for _, name, value in parts if _SECRET_NAME.search(unquote_plus(name))), "")


@dataclass(frozen=True)
class Redactor:
    """Takes known secrets, and passwords in URLs, out of a text."""

    # each form of each secret, with how much of it has to stand there to be taken for it
    forms: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, keys: Iterable[str], *, passwords: Iterable[str] = ()) -> Redactor:
        """One for keys, which may stand there cut short, and for passwords, of which a part may be
        any word; those too short to be one are left out."""
        found = {form for one in keys if _is_key(one) for form in _forms(one)}
        found |= {
            (form, max(least, len(form)))
            for one in passwords
            if len(one) >= SHORTEST
            for form, least in _forms(one)
        }
        return cls(tuple(sorted(found, key=lambda form: -len(form[0]))))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Redactor:
        """One for the secrets that a process was given."""
        login = environment.get(FLOWER_AUTH, "")
        broker = environment.get("ORCHESTRATE_BROKER_URL", "").partition("://")[2]
        named = broker.rpartition("@")[0].partition(":")[2] or _password_in_query(broker)
        keys = (environment.get(name, "") for name in SECRETS if name != FLOWER_AUTH)
        return cls.of(keys, passwords=(login.partition(":")[2], named, unquote_plus(named)))

    def __call__(self, text: str) -> str:
        """The text without them."""
        text = self.without_secrets(text)
        return without_password(text) if "://" in text else text

    def without_secrets(self, text: str) -> str:
        """The text without them; its URLs stay as they are."""
        kept, done = [], 0
        for at in self._starts(text):
            if at >= done:
                kept += [text[done:at], HIDDEN]
                done = at + max(_alike(text, at, form) for form, _ in self.forms)
        return "".join((*kept, text[done:]))

    def _starts(self, text: str) -> list[int]:
        """Where a form begins, in order."""
        found = set()
        for start in {form[:least] for form, least in self.forms}:
            at = text.find(start)
            while at >= 0:
                found.add(at)
                at = text.find(start, at + 1)
        return sorted(found)


def _is_key(text: str) -> bool:
    """Whether it is more than the word that servers without keys are given in one's place."""
    return len(text) >= SHORTEST and not (text.isalpha() and len(text) < 2 * SHORTEST)


def _alike(text: str, at: int, form: str) -> int:
    """How many characters of a form stand in a text from a place on."""
    n = 0
    while n < len(form) and text.startswith(form[n], at + n):
        n += 1
    return n


def _forms(secret: str) -> Iterator[tuple[str, int]]:
    raw = secret.encode("utf-8", "surrogatepass")
    encoded = {quote(secret, safe=""), quote_plus(secret), quote(secret)}
    lower = {re.sub("%..", lambda digits: digits[0].lower(), one) for one in encoded}
    for plain in {secret} | encoded | lower:
        yield plain, SHORTEST
    for digits in (raw.hex(), raw.hex().upper()):
        yield digits, 2 * SHORTEST
    # what stands before it decides on which of three bits its first letter begins
    for n_before in range(3):
        head = -(-n_before * 8 // 6)
        n_whole = (n_before + len(raw)) * 8 // 6
        coded = base64.b64encode(b"\0" * n_before + raw).decode()[head:n_whole]
        for one in {coded, coded.replace("+", "-").replace("/", "_")}:
            yield one, min(len(one), SHORTEST * 8 // 6)


_CONTROL = re.compile(
    # all but tab and line feed; those that change the direction of writing; lone surrogates
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """A text as a terminal may be given it: what would steer the terminal is written out."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
