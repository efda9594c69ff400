"""One self-contained HTML page from data: template, style and scripts of cli/report_page inlined.

Knows nothing of what the data mean.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

# in the order that they use one another
SCRIPTS = (
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
    style = _part("page.css")
    script = "\n".join(['"use strict";', *(_part(name) for name in SCRIPTS)])
    # `<` never appears in the data block, so nothing in it can end it
    body = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    values = {
        "TITLE": html.escape(title),
        "POLICY": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        "STYLE": style,
        "SCRIPT": script,
        "DATA": body,
    }
    parts = _part("page.html").split("%%")
    return "".join(values[p] if k % 2 else p for k, p in enumerate(parts)).encode()


def _part(name: str) -> str:
    return (files("cli") / "report_page" / name).read_text(encoding="utf-8")


def _hash(block: str) -> str:
    digest = hashlib.sha256(block.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
