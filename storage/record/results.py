"""What a trait's reduce leaves for people: the samples table, persona_vectors' CSVs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from domain.plan.samples import Polarity
from domain.plan.steering import Cell
from domain.scoring.scores import Score
from domain.scoring.thresholds import Judged, Outcome
from domain.verdict.sentences import fall_text
from storage.record.responses import Response, parquet_bytes
from storage.record.store import Store

CSV_NAMES: dict[Polarity, str] = {"positive": "pos", "negative": "neg"}


@dataclass(frozen=True)
class SampleResult:
    """One sample with everything that is known of it."""

    judged: Judged
    outcome: Outcome
    response: Response
    instruction: str
    question: str

    @property
    def trait_score(self) -> float | None:
        """The trait score, None when unscored."""
        return self.judged.trait.value if isinstance(self.judged.trait, Score) else None

    @property
    def coherence_score(self) -> float | None:
        """The coherence score, None when unscored."""
        scoring = self.judged.coherence
        return scoring.value if isinstance(scoring, Score) else None


_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("seed", pa.int64()),
        ("trait", pa.string()),
        ("polarity", pa.string()),
        ("instruction", pa.string()),
        ("instruction_index", pa.int32()),
        ("question", pa.string()),
        ("question_index", pa.int32()),
        ("rollout", pa.int32()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("response_token_ids", pa.list_(pa.int32())),
        ("finish", pa.string()),
        ("trait_score", pa.float64()),
        ("coherence_score", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("fall", pa.string()),
        ("limit", pa.float64()),
    ]
)

_PUSH = [("layer", pa.int32()), ("strength", pa.float64()), ("direction", pa.string())]


def write_samples(store: Store, folder: str, trait: str, results: Sequence[SampleResult]) -> None:
    """responses.parquet and the two CSVs below a folder; rows go question, instruction, rollout."""
    ordered = sorted(results, key=_order)
    table = pa.Table.from_pylist([_row(one) for one in ordered], schema=_SCHEMA)
    store.write(f"{folder}/responses.parquet", parquet_bytes(table))
    for polarity, name in CSV_NAMES.items():
        chosen = [one for one in ordered if one.judged.sample.polarity == polarity]
        store.write(f"{folder}/responses/{name}.csv", _csv(trait, name, chosen))


def write_tested(
    store: Store, key: str, results: Sequence[SampleResult], cells: Sequence[Cell] = ()
) -> None:
    """The samples that vectors were tested on, as responses.parquet; steered ones with the push
    that `sample.cell` counts into."""
    rows = []
    for one in results:
        cell = None if one.judged.sample.cell is None else cells[one.judged.sample.cell]
        push = {} if cell is None else asdict(cell)
        rows.append({**_row(one), "part": one.judged.sample.part, **push})
    columns = [("part", pa.string())] + (_PUSH if cells else [])
    schema = pa.schema([*_SCHEMA, *(pa.field(name, kind) for name, kind in columns)])
    store.write(key, parquet_bytes(pa.Table.from_pylist(rows, schema=schema)))


def _order(one: SampleResult) -> tuple[bool, int, int, int]:
    sample = one.judged.sample
    return (sample.polarity == "negative", sample.question, sample.instruction, sample.rollout)


def _row(one: SampleResult) -> dict[str, object]:
    sample, response = one.judged.sample, one.response
    return {
        **vars(response),
        "trait": sample.trait,
        "polarity": sample.polarity,
        "instruction": one.instruction,
        "instruction_index": None if sample.polarity == "plain" else sample.instruction,
        "question": one.question,
        "question_index": sample.question,
        "rollout": sample.rollout,
        "trait_score": one.trait_score,
        "coherence_score": one.coherence_score,
        "status": one.outcome.status,
        "reason": fall_text(one.outcome),
        "fall": one.outcome.fall,
        "limit": one.outcome.limit,
    }


def _csv(trait: str, name: str, results: Sequence[SampleResult]) -> bytes:
    """persona_vectors' columns and order; an unscored sample has an empty score, as its None."""
    buffer = io.StringIO(newline="")
    # texts are always quoted: readers take a lone carriage return for the end of a row
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["question", "prompt", "answer", "question_id", trait, "coherence"])
    for one in results:
        sample = one.judged.sample
        question_id = f"{trait}_{sample.question}_{name}_{sample.instruction}"
        texts = [one.question, one.response.prompt, one.response.response, question_id]
        scores = (one.trait_score, one.coherence_score)
        writer.writerow([*texts, *("" if score is None else score for score in scores)])
    return buffer.getvalue().encode()
