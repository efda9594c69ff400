"""Where a judge is asked: what its URL must be, and whose it is where none is given."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import click

from cli.options.working_folder import OPENAI_URL
from domain.errors import UsageError
from domain.plan.spec import NO_JUDGE

VARIABLE = "OPENAI_BASE_URL"
# without the URL itself, which may hold a key
WRONG = "must begin with http:// or https://, as http://127.0.0.1:8011/v1 does"


class JudgeUrl(click.ParamType[str]):
    """A URL over HTTP, or one of the words that stand in its place."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As it is; fails in words for what nobody can be asked at."""
        if value not in ("embedded", NO_JUDGE) and not _is_over_http(value):
            self.fail(f"it {WRONG}", param, ctx)
        return value


def default_judge_url() -> str:
    """The endpoint of a judge that is named without one; raises UsageError where the environment
    names what is none."""
    url = os.environ.get(VARIABLE) or OPENAI_URL
    if not _is_over_http(url):
        raise UsageError(f"{VARIABLE} {WRONG}")
    return url


def _is_over_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
