"""The settings of a run as options, and the run they describe.

`extract` and `plan` take the same ones. Knows nothing of workers or queues.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import click
from pydantic import ValidationError

from cli.settings import option, runs_dir_option
from orchestrator.errors import UsageError
from orchestrator.run_spec import (
    CONVERGED_DEGREES,
    ChecksSpec,
    FilterSpec,
    JudgeSpec,
    ModelSpec,
    RunSpec,
    SamplingSpec,
    TraitRef,
)
from orchestrator.traits import TraitDefinition
from storage.connection import without_password
from storage.run_record import Run, create_run
from storage.store import Store, open_store
from storage.trait_files import load_traits

DEMO_MODEL = "demo"
EMBEDDED_JUDGE = "embedded-judge"
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


_OPTIONS = [
    option(
        "--traits",
        default="all",
        metavar="LIST",
        help="all, or names and paths to trait files, comma-separated.",
    ),
    option(
        "--model",
        default=DEMO_MODEL,
        metavar="ID",
        help="Hub id or folder of a chat model; demo is the small one shipped here.",
    ),
    option("--revision", metavar="REV", help="Commit, tag or branch of the model on the hub."),
    option(
        "--dtype", default="auto", type=click.Choice(["auto", "float32", "bfloat16", "float16"])
    ),
    option(
        "--trust-remote-code",
        is_flag=True,
        help="Let the model's repository run its own code on the workers: trusted sources only.",
    ),
    option(
        "--judge-model",
        metavar="NAME",
        help="Model that scores; without it the embedded judge of the demo traits.",
    ),
    option(
        "--judge-url",
        metavar="URL",
        help="OpenAI-compatible endpoint of the judge; OpenAI's when only --judge-model is given.",
    ),
    option(
        "--judge-scale",
        default="0_100",
        type=click.Choice(["0_100", "0_10", "binary", "binary_text"]),
        help="What the judge answers with; every answer is put on 0 to 100.",
    ),
    option(
        "--judge-votes",
        type=click.IntRange(1, 25),
        help="Answers per verdict.  [default: 1 with token probabilities, else 3]",
    ),
    option(
        "--rollouts",
        default=10,
        type=click.IntRange(1),
        help="Responses per instruction and question.",
    ),
    option(
        "--questions",
        type=click.IntRange(1),
        help="Use the first N questions only.",
    ),
    option(
        "--instructions", type=click.IntRange(1), help="Use the first N instruction pairs only."
    ),
    option(
        "--evaluation",
        default=2,
        type=click.IntRange(0),
        metavar="N",
        help="Test on held-out questions: N responses to each of the trait's evaluation questions "
        "with the positive, the negative and no instruction; 0 leaves it out.",
    ),
    option(
        "--causal",
        default=12,
        type=click.IntRange(0),
        metavar="N",
        help="Steer with the vector: 72 responses search for layer and strength, then N at each of "
        "9 pushes (none, 4 strengths, 4 random) are the dose-response; 0 leaves it out.",
    ),
    option(
        "--until",
        default="all",
        type=click.Choice(["all", "converged"]),
        help="converged stops a trait once its direction is known well enough.",
    ),
    option(
        "--converged-degrees",
        default=CONVERGED_DEGREES,
        type=click.FloatRange(0, 90, min_open=True, max_open=True),
        help="Well enough: 95 % sure to be this near the true direction around the best layer.",
    ),
    option(
        "--threshold",
        default=50.0,
        type=click.FloatRange(0, 100),
        help="Keep positives at or over it and negatives under 100 minus it.",
    ),
    option(
        "--coherence",
        default=50.0,
        type=click.FloatRange(0, 100),
        help="Keep responses at or over it.",
    ),
    option(
        "--filter",
        default="unpaired",
        type=click.Choice(["unpaired", "paired"]),
        help="paired drops a response whose other side fell (persona_vectors).",
    ),
    option("--methods", default="mean_diff", metavar="LIST", help=f"Of {', '.join(METHODS)}."),
    option("--max-new-tokens", default=200, type=click.IntRange(1), help="Longest response."),
    option("--temperature", default=1.0, type=click.FloatRange(0)),
    option("--top-p", default=1.0, type=click.FloatRange(0, 1, min_open=True)),
    option("--top-k", default=0, type=click.IntRange(0), help="0 is off."),
    option("--seed", default=0, type=int, help="Every sample's own seed follows from it."),
    option(
        "--shard-samples",
        default=100,
        type=click.IntRange(1),
        help="Samples per job; changes no result.",
    ),
    option(
        "--run",
        metavar="NAME",
        help="Name of the run's folder.  [default: from the model and the settings]",
    ),
    runs_dir_option,
]


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all settings of a run."""
    return reduce(lambda inner, decorate: decorate(inner), reversed(_OPTIONS), command)


def options_from(values: dict[str, Any]) -> tuple[RunOptions, dict[str, Any]]:
    """The run's settings out of a command's values, and the other values."""
    names = {field.name for field in fields(RunOptions)}
    ours = {name: values[name] for name in names}
    return RunOptions(**ours), {n: v for n, v in values.items() if n not in names}


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
