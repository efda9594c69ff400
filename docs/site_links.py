"""For the site: links to files outside docs/ lead nowhere there, so their words stand alone."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs for every page."""
    return OUTSIDE.sub(r"\1", markdown)
