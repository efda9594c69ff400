"""The page as one self-contained file: template, style, scripts and data put into each other.

Knows nothing of what the data mean; the page itself checks them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PARTS = Path(__file__).with_name("page_files")
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
