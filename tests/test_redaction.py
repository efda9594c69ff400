"""Protects that a key leaves what is printed and stored in every form that servers quote it in."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.redaction import Redactor, visible

KEY = "sk-proj-AbC/dEf+GhI=0123456789xyz"
HIDE = Redactor.of([KEY])


@pytest.mark.parametrize(
    "quoted",
    [
        KEY,
        KEY[:8] + "***",
        KEY[:20] + "...",
        quote(KEY, safe=""),
        quote(KEY, safe="").replace("%2F", "%2f"),
        KEY.encode().hex(),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(f"Bearer {KEY}".encode()).decode(),
        base64.b64encode(f"user:{KEY}".encode()).decode()[:30],
    ],
)
def test_a_key_is_hidden_however_it_is_quoted(quoted: str) -> None:
    shown = HIDE(f"The key {quoted}, which you sent, is wrong.")

    assert quoted[4:12] not in shown
    assert shown.startswith("The key ")
    assert shown.endswith(", which you sent, is wrong.")


@given(st.text(min_size=16, max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_no_key_is_left_whole(key: str, before: str, after: str) -> None:
    shown = Redactor.of([key])(before + key + after)

    assert key not in shown or key in before + after or key in "..."


def test_a_part_of_a_password_may_be_any_word() -> None:
    hide = Redactor.from_environment(
        {
            "ORCHESTRATE_BROKER_URL": "redis://:orchestrate%2F1234@h/0",
            "ORCHESTRATE_FLOWER_AUTH": "orchestrate:orchestrated",
        }
    )

    assert hide("orchestrate resume demo") == "orchestrate resume demo"
    assert hide("orchestrate/1234 orchestrate%2F1234 orchestrated") == "... ... ..."


def test_a_key_of_a_few_letters_is_a_placeholder() -> None:
    for word in ("no-key", "orchestrate", ""):
        assert Redactor.of([word])(f"there is {word} here") == f"there is {word} here"


def test_what_steers_a_terminal_is_written_out() -> None:
    clipboard, title, clear = "\x1b]52;c;aGk=\x07", "\x1b]0;x\x9c", "\x9b2J\r"

    shown = visible(f"a{clipboard}{title}{clear}\u202eb\tc\nd\ud800")

    assert shown.isascii()
    assert set(shown) & set(map(chr, [*range(9), *range(11, 32), 127])) == set()
    assert shown.startswith("a\\x1b]52;c;aGk=\\x07")
    assert shown.endswith("\\u202eb\tc\nd\\ud800")
