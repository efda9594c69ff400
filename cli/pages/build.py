"""Pages as one self-contained file each: template, style, scripts and data put into each other."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files as packaged
from typing import Any

from cli.pages.carried_files import CarriedFile

# One scope, top to bottom: a file uses only what stands before it when it is loaded. What lies in
# shared/ knows neither page.
VIEW_SCRIPTS = (
    "shared/elements.js",
    "shared/theme.js",
    "shared/address.js",
    "shared/rows.js",
    "view/numbers.js",
    "view/records.js",
    "view/stream.js",
    "view/state.js",
    "view/colors.js",
    "view/elements.js",
    "view/choices.js",
    "view/list.js",
    "view/place.js",
    "view/alternatives.js",
    "view/slider.js",
    "view/text.js",
    "view/bars.js",
    "view/lines.js",
    "view/labels.js",
    "view/chart.js",
    "view/stats.js",
    "view/png.js",
    "view/files.js",
    "view/live.js",
    "view/main.js",
)

LIVE_SCRIPTS = ("shared/elements.js", "shared/theme.js", "live/page.js")

REPORT_SCRIPTS = (
    "shared/theme.js",
    "shared/address.js",
    "shared/rows.js",
    "shared/save.js",
    "report/dom.js",
    "report/chart.js",
    "report/trait_charts.js",
    "report/trait_view.js",
    "report/cards.js",
    "report/answers.js",
    "report/answer_list.js",
    "report/answer_view.js",
    "report/run_view.js",
    "report/compare_view.js",
    "report/start.js",
)

# Compressed, in base64 a third more: the page stays under 25 MB.
MOST_BYTES = 17_000_000

# The shortest that long responses are cut to for the page's sake.
LEAST_CHARACTERS = 400


def build_page(files: Sequence[CarriedFile] = (), *, live: str | None = None) -> str:
    """The viewer as HTML, with `files` inside it.

    `live` is the address of a stream of events, relative to the page.
    """
    carried = {"files": [{"name": file.name, "text": file.text} for file in files], "live": live}
    blocks = {
        "FILES": json.dumps(carried, ensure_ascii=False),
        "EXAMPLE": _part("view/example.json"),
    }
    return _built("view", VIEW_SCRIPTS, blocks, connects=live is not None)


def report_page(title: str, data: Mapping[str, Any]) -> bytes:
    """A run's report, or the comparison of two, as HTML in UTF-8.

    A run's answers are a block of their own, compressed; the other block holds all but them.
    """
    traits = [dict(one) for one in data["traits"]]
    tables = [one.pop("answers") for one in traits if "answers" in one]
    rest = json.dumps({**data, "traits": traits}, ensure_ascii=False, allow_nan=False)
    blocks = {"DATA": rest, "ANSWERS": packed_into_page(tables) if tables else ""}
    return _built("report", REPORT_SCRIPTS, blocks, title=title).encode()


def packed_into_page(tables: Sequence[Mapping[str, Any]]) -> str:
    """The tables as gzip of JSON in base64; responses are cut where they would be too large
    whole, the longest first."""
    limit = max((len(text) for one in tables for text in one["response"]), default=0)
    while True:
        cut = [{**one, **_cut(one["response"], limit)} for one in tables]
        body = json.dumps(cut, ensure_ascii=False, allow_nan=False)
        data = gzip.compress(body.encode(), 6, mtime=0)
        if len(data) <= MOST_BYTES or limit <= LEAST_CHARACTERS:
            return base64.b64encode(data).decode("ascii")
        limit = max(LEAST_CHARACTERS, int(limit * min(0.8, MOST_BYTES / len(data))))


def _cut(texts: Sequence[str], limit: int) -> dict[str, Any]:
    """The columns of texts that are no longer, and of how long they were."""
    lengths = [len(text) if len(text) > limit else None for text in texts]
    return {"response": [text[:limit] for text in texts], "cut": lengths}


def live_page(title: str) -> str:
    """The page of a run that is being made; it asks its own server for `state`."""
    return _built("live", LIVE_SCRIPTS, {}, title=title, connects=True)


def plain_page(title: str, body: str) -> str:
    """A page of `body`, which is HTML, without a script."""
    return _built("index", (), {}, title=title, body=body)


def _built(
    folder: str,
    scripts: Sequence[str],
    blocks: Mapping[str, str],
    *,
    title: str = "",
    body: str = "",
    connects: bool = False,
) -> str:
    """The page of a folder's template, style.css and scripts; `blocks` are JSON texts by name.

    Its policy allows the two inlined blocks alone, by their hashes, so text that a model wrote
    cannot run even if it got into the markup; only a page that `connects` may ask its own server.
    """
    style = _part(f"{folder}/style.css")
    parts = "\n".join(map(_part, scripts))
    script = f'(() => {{\n"use strict";\n{parts}}})();\n'
    policy = (
        "default-src 'none'",
        f"script-src {_hash(script)}",
        f"style-src {_hash(style)}",
        "img-src data:",
        "connect-src 'self'" if connects else "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
    values = {
        "TITLE": html.escape(title),
        "BODY": body,
        "POLICY": "; ".join(policy),
        "STYLE": style,
        "SCRIPT": script,
        # `<` never appears in a data block, so nothing in it can end it
        **{name: text.replace("<", "\\u003c") for name, text in blocks.items()},
    }
    # One pass, so that data which looks like a placeholder stays data.
    template = _part(f"{folder}/template.html")
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda found: values[found[1]], template)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _part(name: str) -> str:
    return (packaged("cli.pages") / name).read_text(encoding="utf-8")
