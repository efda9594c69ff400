"""A trait's results, the files that people read: its samples, metrics.json, and their manifest.

Results are replaced when a trait is assembled again, so their checksums cannot be in their names
as those of the artifacts are: the manifest holds them.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors

from domain.errors import StoreError
from domain.plan.samples import Polarity
from domain.plan.steering_search import Cell
from domain.scoring.scores import score_value
from domain.scoring.thresholds import Judged, Outcome
from domain.verdict.record import VERSION, TraitMetrics
from domain.verdict.sentences import fall_text
from storage.record.json_bytes import checksum, decode_checked, encode_checked, json_bytes
from storage.record.responses import Response
from storage.record.store import Store
from storage.record.tables import parquet_bytes, spreadsheet_text

# the name that it had when the first runs were made
MANIFEST = "seal.json"

MEND = "run the same extract command again to assemble it anew"
_FILES = ("responses.parquet", "evaluation.parquet", "steering.parquet", "metrics.json")
_FOLDERS = ("responses", "vectors")
_CSV_NAMES: dict[Polarity, str] = {"positive": "pos", "negative": "neg"}

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
        ("thought", pa.string()),
        ("thought_token_ids", pa.list_(pa.int32())),
        ("trait_score", pa.float64()),
        ("coherence_score", pa.float64()),
        ("trait_bounds", pa.list_(pa.float64())),
        ("coherence_bounds", pa.list_(pa.float64())),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("fall", pa.string()),
        ("limit", pa.float64()),
    ]
)

_PUSH = [("layer", pa.int32()), ("strength", pa.float64()), ("direction", pa.string())]


@dataclass(frozen=True)
class SampleResult(Judged):
    """A judged sample with its texts."""

    response: Response
    instruction: str
    question: str


Results = Sequence[tuple[SampleResult, Outcome]]


def write_samples(store: Store, folder: str, trait: str, results: Results) -> None:
    """responses.parquet below a folder, by question, instruction and rollout, and two CSVs with the
    columns and order of persona_vectors, which have an empty score where it has None."""
    place = attrgetter("question", "instruction", "rollout")
    ordered = sorted(results, key=lambda pair: place(pair[0].sample))
    ordered.sort(key=lambda pair: pair[0].sample.polarity == "negative")
    table = pa.Table.from_pylist([_row(*pair) for pair in ordered], schema=_SCHEMA)
    store.write(f"{folder}/responses.parquet", parquet_bytes(table))
    for polarity, name in _CSV_NAMES.items():
        buffer = io.StringIO(newline="")
        # texts are always quoted: readers take a lone carriage return for the end of a row
        writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["question", "prompt", "answer", "question_id", trait, "coherence"])
        for one, _ in ordered:
            sample = one.sample
            if sample.polarity == polarity:
                question_id = f"{trait}_{sample.question}_{name}_{sample.instruction}"
                texts = [one.question, one.response.prompt, one.response.response, question_id]
                texts = [*map(spreadsheet_text, texts)]
                scores = [score_value(scoring) for scoring in (one.trait, one.coherence)]
                writer.writerow([*texts, *("" if score is None else score for score in scores)])
        store.write(f"{folder}/responses/{name}.csv", buffer.getvalue().encode())


def write_tested(store: Store, key: str, results: Results, cells: Sequence[Cell] = ()) -> None:
    """The samples that vectors were tested on, as responses.parquet; steered ones with the push
    that `sample.cell` counts into."""
    rows = []
    for one, outcome in results:
        push = {} if one.sample.cell is None else asdict(cells[one.sample.cell])
        rows.append({**_row(one, outcome), "part": one.sample.part, **push})
    columns = [("part", pa.string())] + (_PUSH if cells else [])
    schema = pa.schema([*_SCHEMA, *(pa.field(name, kind) for name, kind in columns)])
    store.write(key, parquet_bytes(pa.Table.from_pylist(rows, schema=schema)))


def _row(one: SampleResult, outcome: Outcome) -> dict[str, object]:
    sample = one.sample
    return {
        **vars(one.response),
        "trait": sample.trait,
        "polarity": sample.polarity,
        "instruction": one.instruction,
        "instruction_index": None if sample.polarity == "plain" else sample.instruction,
        "question": one.question,
        "question_index": sample.question,
        "rollout": sample.rollout,
        "trait_score": score_value(one.trait),
        "coherence_score": score_value(one.coherence),
        "trait_bounds": getattr(one.trait, "bounds", None),
        "coherence_bounds": getattr(one.coherence, "bounds", None),
        "status": outcome.status,
        "reason": fall_text(outcome),
        "fall": outcome.fall,
        "limit": outcome.limit,
    }


def kept_keys(store: Store, folder: str) -> frozenset[str]:
    """The keys of the samples that the vectors below a folder are made from."""
    data = store.read(f"{folder}/responses.parquet")
    rows = pq.ParquetFile(io.BytesIO(data)).read(["key", "status"]).to_pylist()
    return frozenset(row["key"] for row in rows if row["status"] == "kept")


def read_response_vectors(store: Store, trait: str, method: str) -> NDArray[np.float32]:
    """A trait's response_avg vectors [L+1, d_model]; raises KeyError when it has none."""
    data = store.read(f"traits/{trait}/vectors/{method}.safetensors")
    vectors: NDArray[np.float32] = load_safetensors(data)["response_avg"]
    return vectors


def finished_metrics(store: Store, traits: Iterable[str]) -> list[TraitMetrics]:
    """The metrics of those of the traits that are reduced."""
    found = []
    for trait in traits:
        with contextlib.suppress(KeyError):
            found.append(read_metrics(store, trait))
    return found


def write_metrics(store: Store, folder: str, metrics: TraitMetrics) -> None:
    """metrics.json below a folder, replaced whole."""
    store.write(f"{folder}/metrics.json", metrics_bytes(metrics))


def read_metrics(store: Store, trait: str) -> TraitMetrics:
    """A trait's metrics; raises KeyError before the trait is reduced, StoreError when damaged or
    written by a later version."""
    key = f"traits/{trait}/metrics.json"
    try:
        found = TraitMetrics.model_validate_json(_read_result(store, key))
    except ValueError as error:
        raise StoreError(f"{key} in {store.url} cannot be read ({error}): {MEND}") from error
    if found.version is not None and found.version > VERSION:
        raise StoreError(
            f"{key} in {store.url} is of version {found.version}, this program reads up to "
            f"{VERSION}: update it"
        )
    return found


def metrics_bytes(metrics: TraitMetrics) -> bytes:
    """The metrics as metrics.json holds them."""
    return json_bytes(metrics.model_dump(mode="json"))


@contextlib.contextmanager
def writing_results(store: Store, folder: str, *, anew: bool = False) -> Iterator[None]:
    """Write or replace results below a folder: they have no manifest until all are there.

    `anew` removes those of before first, so that a writer who is killed leaves none beside its own.
    """
    store.delete(f"{folder}/{MANIFEST}")
    if anew:
        # the metrics go first: without them nobody takes the rest for a finished trait
        for key in reversed(_result_keys(store, folder)):
            store.delete(key)
    yield
    write_manifest(store, folder)


def write_manifest(store: Store, folder: str) -> None:
    """Note the checksums of the results below a folder, once they are all written."""
    keys = _result_keys(store, folder)
    files = {key.removeprefix(f"{folder}/"): _sha256(store, key) for key in keys}
    store.write(f"{folder}/{MANIFEST}", encode_checked({"files": files}))


def _result_keys(store: Store, folder: str) -> list[str]:
    below = [key for name in _FOLDERS for key in sorted(store.list(f"{folder}/{name}"))]
    return below + [f"{folder}/{name}" for name in _FILES if store.exists(f"{folder}/{name}")]


def has_manifest(store: Store, folder: str) -> bool:
    """Whether the results below a folder were all written, and nobody lost their checksums."""
    return store.exists(f"{folder}/{MANIFEST}")


def damaged_results(store: Store, folder: str) -> list[str]:
    """Keys of results that are not what was written, or gone; the manifest itself when it is.

    Empty for a folder without a manifest: its results are not finished.
    """
    try:
        data = store.read(f"{folder}/{MANIFEST}")
    except KeyError:
        return []
    try:
        files = decode_checked(data)["files"]
        keys = {f"{folder}/{name}": sha for name, sha in files.items()}
        return [key for key, sha in keys.items() if _sha256(store, key) != sha]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [f"{folder}/{MANIFEST}"]


def _read_result(store: Store, key: str) -> bytes:
    """A result's bytes; raises KeyError when it is not there, StoreError when its folder's manifest
    disagrees. A result without a manifest is taken as it is.
    """
    data = store.read(key)
    while not _agrees(store, key, data):
        # replaced and listed between our two looks: then the next look finds both
        again = store.read(key)
        if again == data:
            raise StoreError(f"{key} in {store.url} is not what was written: {MEND}")
        data = again
    return data


def _agrees(store: Store, key: str, data: bytes) -> bool:
    folder, _, name = key.rpartition("/")
    try:
        sha = decode_checked(store.read(f"{folder}/{MANIFEST}"))["files"].get(name)
    except (KeyError, ValueError, TypeError, AttributeError):
        return True
    return sha is None or checksum(data) == sha


def _sha256(store: Store, key: str) -> str:
    try:
        return checksum(store.read(key))
    except KeyError:
        return ""
