"""The front page of a published run: a card a trait, and where everything lies; no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from cli.pages.build import plain_page
from cli.screens.tables import number_text
from cli.screens.verdicts import verdict_use_texts
from domain.verdict.record import TraitMetrics
from domain.verdict.sentences import check_text

MARKS = {"usable": "✓", "usable with a doubt": "✓", "weak": "~", "do not use": "✗"}


def index_page(
    name: str,
    facts: str,
    metrics: Sequence[TraitMetrics],
    files: Mapping[str, Sequence[str]],
    *,
    snippet: str,
) -> bytes:
    """HTML in UTF-8; `files` are each trait's, with paths relative to the page."""
    ways = (
        ("report.html", "Report: every figure and the responses"),
        ("viewer.html", "Viewer: scores token by token"),
        ("hub/README.md", "Model card"),
    )
    body = [
        f"<h1>{escape(name)}: trait vectors</h1>",
        f'<p class="facts">{escape(facts)}</p>',
        '<ul class="ways">',
        *(f'<li><a href="{where}">{escape(text)}</a></li>' for where, text in ways),
        "</ul>",
        '<ul class="cards">',
        *(_card(one, files.get(one.trait, ())) for one in metrics),
        "</ul>",
        "<h2>Use them</h2>",
        f"<pre>{escape(snippet)}</pre>",
    ]
    return plain_page(f"{name}: trait vectors", "\n".join(body)).encode()


def _card(one: TraitMetrics, files: Sequence[str]) -> str:
    reads, steers = (text.replace("@", "@ ") for text in verdict_use_texts(one))
    verdict = f"{MARKS.get(one.verdict, '')} {one.verdict}{check_text(one)}".strip()
    figures = (
        ("reads, AUROC @ layer", reads),
        ("steers, rise @ layer", steers),
        ("contrast", number_text(one.contrast)),
        ("kept + / -", f"{one.n_kept.positive} / {one.n_kept.negative} of {one.n_generated}"),
    )
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in figures)
    links = "".join(
        f'<li><a href="{quote(file)}">{escape(file.rpartition("/")[2])}</a></li>' for file in files
    )
    why = "".join(f"<p>{escape(reason)}</p>" for reason in one.reasons)
    kind = one.verdict.replace(" ", "-")
    title = f'<a href="report.html#{quote(one.trait)}">{escape(one.trait)}</a>'
    return (
        f'<li class="card"><h2>{title}</h2><span class="verdict {kind}">{escape(verdict)}</span>'
        f'{why}<dl>{rows}</dl><ul class="files">{links}</ul></li>'
    )
