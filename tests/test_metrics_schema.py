"""Protects who reads metrics.json with other programs: the published schema is that of the record.

`python -m tests.test_metrics_schema` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path

from domain.verdict.record import TraitMetrics

PUBLISHED = Path(__file__).parent.parent / "docs" / "metrics.schema.json"


def schema() -> str:
    """The record's JSON schema, as it is published."""
    body = TraitMetrics.model_json_schema(mode="serialization")
    draft = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps({"$schema": draft, **body}, indent=1) + "\n"


def test_the_published_schema_is_that_of_the_record() -> None:
    assert PUBLISHED.read_text() == schema()


if __name__ == "__main__":
    PUBLISHED.write_text(schema())
