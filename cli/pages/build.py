"""The page as one self-contained file: template, style, scripts and data put into each other.

Knows nothing of what the data mean; the page itself checks them.

One self-contained HTML page from data: template, style and scripts of cli/report_page inlined.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

PARTS = Path(__file__).with_name("view")

# One scope, top to bottom: a file uses only what stands before it when it is loaded.
SCRIPTS = (
    "numbers.js",
    "records.js",
    "stream.js",
    "state.js",
    "theme.js",
    "elements.js",
    "choices.js",
    "slider.js",
    "text.js",
    "bars.js",
    "lines.js",
    "labels.js",
    "chart.js",
    "stats.js",
    "png.js",
    "files.js",
    "live.js",
    "main.js",
)


@dataclass(frozen=True)
class CarriedFile:
    """A data file the page opens with: the name people see, and its JSON text."""

    name: str
    text: str


def build_page(files: Sequence[CarriedFile] = (), *, live: str | None = None) -> str:
    """The page as HTML, with `files` inside it.

    `live` is the address of a stream of events, relative to the page; without one the page's
    policy forbids every connection.
    """
    style = _part("style.css")
    script = '(() => {\n"use strict";\n' + "\n".join(map(_part, SCRIPTS)) + "})();\n"
    carried = {"files": [{"name": file.name, "text": file.text} for file in files], "live": live}
    values = {
        "POLICY": _policy(style=style, script=script, connects=live is not None),
        "STYLE": style,
        "SCRIPT": script,
        "FILES": _in_script(json.dumps(carried, ensure_ascii=False)),
        "EXAMPLE": _in_script(_part("example.json")),
    }
    # One pass, so that data which looks like a placeholder stays data.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda found: values[found[1]], _part("template.html"))


def _policy(*, style: str, script: str, connects: bool) -> str:
    """What the page may do: run and look as written here, and at most ask its own server."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "connect-src 'self'" if connects else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _in_script(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c")


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


# in the order that they use one another
REPORT_SCRIPTS = (
    "dom.js",
    "chart.js",
    "trait_charts.js",
    "trait_view.js",
    "run_view.js",
    "compare_view.js",
    "start.js",
)


def page(title: str, data: Mapping[str, Any]) -> bytes:
    """The page as UTF-8. Nothing in it may fetch: its policy allows the two inlined blocks alone,
    by their hashes, so text that a model wrote cannot run even if it got into the markup."""
    style = _report_part("page.css")
    script = "\n".join(['"use strict";', *(_report_part(name) for name in REPORT_SCRIPTS)])
    # `<` never appears in the data block, so nothing in it can end it
    body = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    values = {
        "TITLE": html.escape(title),
        "POLICY": f"default-src 'none'; style-src {_sha256(style)}; script-src {_sha256(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        "STYLE": style,
        "SCRIPT": script,
        "DATA": body,
    }
    parts = _report_part("page.html").split("%%")
    return "".join(values[p] if k % 2 else p for k, p in enumerate(parts)).encode()


def _report_part(name: str) -> str:
    return (files("cli") / "pages" / "report" / name).read_text(encoding="utf-8")


def _sha256(block: str) -> str:
    digest = hashlib.sha256(block.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
