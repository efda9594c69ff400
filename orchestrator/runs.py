"""The run that settings describe: its specification, its name and its record."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import uuid
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from domain.errors import UsageError
from domain.plan.spec import (
    ChecksSpec,
    FilterSpec,
    JudgeSpec,
    ModelSpec,
    RunSpec,
    SamplingSpec,
    TraitRef,
)
from domain.redaction import without_password
from domain.traits.definition import TraitDefinition
from storage.files.trait_files import load_traits
from storage.record.run import Run, create_run
from storage.record.store import Store, open_store

EMBEDDED_JUDGE = "embedded-judge"


def describe(options: RunOptions) -> tuple[RunSpec, dict[str, TraitDefinition]]:
    """The specification and the definitions; raises UsageError or TraitFileError."""
    definitions = {d.name: d for d in load_traits(options.traits)}
    try:
        spec = RunSpec(
            traits=tuple(_trait_ref(d, options) for d in definitions.values()),
            model=ModelSpec(
                model_id=options.model,
                revision=options.revision,
                dtype=options.dtype,  # type: ignore[arg-type]
                trust_remote_code=options.trust_remote_code,
            ),
            judge=judge_spec(options),
            rollouts=options.rollouts,
            sampling=SamplingSpec(
                max_new_tokens=options.max_new_tokens,
                temperature=options.temperature,
                top_p=options.top_p,
                top_k=options.top_k,
            ),
            seed=options.seed,
            filter=FilterSpec(
                threshold=options.threshold,
                coherence=options.coherence,
                pairing=options.filter,  # type: ignore[arg-type]
            ),
            methods=parse_methods(options.methods),
            checks=ChecksSpec(evaluation=options.evaluation, causal=options.causal),
            until=options.until,  # type: ignore[arg-type]
            converged_degrees=options.converged_degrees,
            shard_samples=options.shard_samples,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"setting {where}: {first['msg']}") from error
    return spec, definitions


def judge_spec(options: RunOptions) -> JudgeSpec:
    """Which judge the settings mean; raises UsageError for one that cannot judge this model."""
    url, model = options.judge_url, options.judge_model
    how: dict[str, Any] = {"scale": options.judge_scale, "votes": options.judge_votes}
    if url is None and model is None:
        if options.model != DEMO_MODEL:
            raise UsageError(
                f"a judge is needed to score {options.model}: give --judge-model NAME, and "
                "--judge-url for an endpoint other than OpenAI's; the embedded judge reads "
                "only texts of the demo model"
            )
        return JudgeSpec(model=EMBEDDED_JUDGE, **how)
    if url == "embedded":
        return JudgeSpec(model=EMBEDDED_JUDGE, **how)
    if model is None:
        raise UsageError(
            "--judge-url needs --judge-model, the name the endpoint knows the judge by"
        )
    return JudgeSpec(
        model=model,
        url=url or os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        **how,
    )


def run_name(options: RunOptions, spec: RunSpec) -> str:
    """The run's folder: as given, else the model's short name and the settings' hash."""
    if options.run is None:
        short = re.sub(r"[^A-Za-z0-9.-]+", "-", options.model.rstrip("/").rpartition("/")[2])
        return f"{short}-{spec.digest()[:8]}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", options.run):
        raise UsageError(
            f"--run {options.run!r} is not a folder name: use letters, digits, '.', '_' and '-'"
        )
    return options.run


def run_store(runs_dir: str, name: str) -> Store:
    """The store of a run below --runs-dir."""
    return open_store(runs_dir).at(name)


def record_run(options: RunOptions) -> Run:
    """Write the run's record, or open the one that is there when its settings are the same."""
    spec, definitions = describe(options)
    store = run_store(options.runs_dir, run_name(options, spec))
    return create_run(
        store, spec, run_id=uuid.uuid4().hex[:12], definitions=definitions, provenance=provenance()
    )


def provenance() -> dict[str, object]:
    """The versions a run was planned with, and the command that planned it."""
    packages = ("torch", "transformers", "accelerate", "celery", "redis", "openai", "numpy")
    return {
        # a URL may carry a password, the record is for everybody
        "command": ["orchestrate", *(without_password(text) for text in sys.argv[1:])],
        "orchestrate": _version("trait-vector-orchestrator"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _trait_ref(definition: TraitDefinition, options: RunOptions) -> TraitRef:
    n_instructions, n_questions = len(definition.instruction), len(definition.questions)
    n_eval = len(definition.eval_questions)
    return TraitRef(
        name=definition.name,
        fingerprint=definition.fingerprint(),
        n_instructions=min(n_instructions, options.instructions or n_instructions),
        n_questions=min(n_questions, options.questions or n_questions),
        n_eval_questions=min(n_eval, options.questions or n_eval),
    )


def parse_methods(text: str) -> tuple[str, ...]:
    """The methods of a comma-separated list; raises UsageError for an unknown one."""
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in chosen if name not in METHODS]
    if unknown or not chosen:
        raise UsageError(f"--methods {text!r}: choose from {', '.join(METHODS)}")
    return chosen


DEMO_MODEL = "demo"

METHODS = ("mean_diff", "probe", "ica", "gradient")


@dataclass(frozen=True)
class RunOptions:
    """The settings as given on the command line."""

    traits: str
    model: str
    revision: str | None
    dtype: str
    trust_remote_code: bool
    judge_model: str | None
    judge_url: str | None
    judge_scale: str
    judge_votes: int | None
    rollouts: int
    questions: int | None
    instructions: int | None
    evaluation: int
    causal: int
    until: str
    converged_degrees: float
    threshold: float
    coherence: float
    filter: str
    methods: str
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    shard_samples: int
    run: str | None
    runs_dir: str
