"""What a run is: the settings that fix every sample, score and vector, and their hash."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from domain.redaction import without_password

WIRE_VERSION = 1
"""Version of the messages and of run.json; a worker refuses any other instead of guessing."""

POSITIONS = ("response_avg", "prompt_avg", "prompt_last")
DEFAULT_POSITION = "response_avg"
"""Where the vectors of a run are measured, tested and steered with."""

ScenariosAs = Literal["text", "turn", "read"]
"""How a trait of scenarios is put to a model: as a text that it goes on with, as what a user says,
or as a text that is itself what is measured, so that nothing is generated."""

Measure = Literal["answer", "thought", "both"]
"""Of a response that begins with a thought: what its activations are of."""

METHODS = ("mean_diff", "probe", "ica", "gradient")
DEMO_MODEL = "demo"

# Most thoughts about a question of a trait end within; a response beyond it falls.
THOUGHT_TOKENS = 2048

# A shard is what a lost GPU worker costs at most; 100 samples are seconds on a GPU and still
# amortise one message, one artifact and one judge task over enough work.
SHARD_SAMPLES = 100

# A plan lists its samples: beyond these, which no experiment comes near, that alone takes hours.
MOST_ROLLOUTS, MOST_CHECKED = 10_000, 1_000

# 60 texts of each polarity tell an AUROC of 0.65 from chance.
CONTEXTS = 120

# 12 answers find a rise from 2 to 30 % of the answers in half of the runs, 40 in nearly all.
CONFIRMED, MOST_DOSES = 40, 4

MOST_NEW_TOKENS, MOST_TEMPERATURE = 1_000_000, 100.0

# A direction this sure moves little with what is left: cos 10 degrees is 0.985, and the samples so
# far are part of the whole.
CONVERGED_DEGREES = 10.0


class Frozen(BaseModel):
    """A value that cannot change and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Option:
    """How commands take a field, where that does not follow from the field alone.

    Annotates a field whose option has another name than the field, or a second one, shows another
    word for its value, or whose value, left out, follows from other settings.
    """

    name: str | None = None
    metavar: str | None = None
    has_default: bool = True
    also: str | None = None


class SamplingSpec(Frozen):
    """How responses are drawn; top_p 1 and top_k 0 are off, temperature 0 is greedy."""

    max_new_tokens: int = Field(
        default=200, ge=1, le=MOST_NEW_TOKENS, description="Longest response."
    )
    temperature: float = Field(default=1.0, ge=0, le=MOST_TEMPERATURE, description="0 is greedy.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="1 is off.")
    top_k: int = Field(default=0, ge=0, description="0 is off.")
    max_thought_tokens: int = Field(
        default=THOUGHT_TOKENS,
        ge=1,
        le=MOST_NEW_TOKENS,
        description="Longest thought of a model that thinks before it answers; --max-new-tokens is "
        "then for the answer alone.",
    )


class ModelSpec(Frozen):
    """Which model generates: a hub id, a folder, a GGUF file, a LoRA adapter of one, or `demo`."""

    model_id: Annotated[str, Option("model", metavar="ID")] = Field(
        default=DEMO_MODEL,
        description="Hub id, folder or GGUF file of a chat model, or of a LoRA adapter; demo is "
        "the small one shipped here.",
    )
    revision: Annotated[str | None, Option(metavar="REV")] = Field(
        default=None, description="Commit, tag or branch of the model on the hub."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = Field(
        default=False,
        description="Let the model's repository run its own code on the workers: trusted sources "
        "only.",
    )

    @property
    def label(self) -> str:
        """Its name among workers; two runs with one label can share what is loaded."""
        parts = [self.model_id if self.revision is None else f"{self.model_id}@{self.revision}"]
        if self.dtype != "auto":
            parts.append(self.dtype)
        if self.trust_remote_code:
            parts.append("own code")
        return " ".join(parts)


NO_JUDGE = "none"
"""In place of a judge's name and URL: nothing is scored."""


class JudgeSpec(Frozen):
    """Who scores: an OpenAI-compatible endpoint; url `embedded` means the judge worker's own, and
    `none` nobody.

    votes None: one where the judge gives token probabilities, three where it does not.
    """

    model: Annotated[str, Option("judge-model", metavar="NAME", also="judge")] = Field(
        description="Model that scores; without it the embedded judge of the demo traits. `none` "
        "scores nothing: every response is used, and only tests without a judge are made."
    )
    url: Annotated[str, Option("judge-url", metavar="URL", has_default=False)] = Field(
        default="embedded",
        description="OpenAI-compatible endpoint of the judge; OpenAI's when only --judge-model is "
        "given.",
    )
    scale: Annotated[Literal["0_100", "0_10", "binary", "binary_text"], Option("judge-scale")] = (
        Field(
            default="0_100",
            description="What the judge answers with; every answer is put on 0 to 100.",
        )
    )
    votes: Annotated[int | None, Option("judge-votes")] = Field(
        default=None,
        ge=1,
        le=25,
        description="Answers per score.  [default: 1 with token probabilities, else 3]",
    )

    @property
    def scores(self) -> bool:
        """Whether anybody is asked."""
        return self.url != NO_JUDGE

    @field_validator("url")
    @classmethod
    def _holds_no_secret(cls, url: str) -> str:
        if without_password(url) != url:
            raise ValueError(
                "a judge's URL is recorded for everybody: leave user, password and key out, its "
                "key belongs into ORCHESTRATE_JUDGE_API_KEY"
            )
        return url


class FilterSpec(Frozen):
    """Which responses a vector is built from; scores are 0 to 100."""

    threshold: float = Field(
        default=50.0,
        ge=0,
        le=100,
        description="Keep positives at or over it and negatives under 100 minus it.",
    )
    coherence: float = Field(
        default=50.0, ge=0, le=100, description="Keep responses at or over it."
    )
    pairing: Annotated[Literal["unpaired", "paired"], Option("filter")] = Field(
        default="unpaired",
        description="paired drops a response whose other side fell (persona_vectors).",
    )


class ChecksSpec(Frozen):
    """How the vectors are tested; 0 leaves a test out.

    evaluation: responses to each evaluation question with the positive, the negative and no
    instruction. causal: responses to each push that is confirmed. doses: strengths of the vector,
    and of random vectors, that are confirmed. contexts: responses that are read again under the
    opposite instruction and under none.
    """

    evaluation: Annotated[int, Option(metavar="N")] = Field(
        default=2,
        ge=0,
        le=MOST_CHECKED,
        description="Test on held-out questions: N responses to each of the trait's evaluation "
        "questions with the positive, the negative and no instruction; 0 leaves it out.",
    )
    causal: Annotated[int, Option(metavar="N")] = Field(
        default=CONFIRMED,
        ge=0,
        le=MOST_CHECKED,
        description="Steer with the vector: 72 responses search for layer and strength, then N "
        "without a push, N with the best and N with random ones confirm it; 0 leaves it out.",
    )
    doses: Annotated[int, Option(metavar="N")] = Field(
        default=1,
        ge=1,
        le=MOST_DOSES,
        description="Confirm N strengths: 1 is the best alone, 4 the best with a quarter, half and "
        "one and a half of it, a dose-response.",
    )
    contexts: Annotated[int, Option(metavar="N")] = Field(
        default=CONTEXTS,
        ge=0,
        le=MOST_CHECKED,
        description="Read N kept responses again under the opposite instruction and under none, to "
        "tell what of the vector is in the text; at most 15 % of what is generated; 0 leaves it "
        "out.",
    )


class TraitRef(Frozen):
    """A trait of the run and the fingerprint of the definition it was planned with."""

    name: str
    fingerprint: str
    n_instructions: int = Field(ge=1)
    n_questions: int = Field(ge=1)
    n_eval_questions: int = Field(default=0, ge=0)


class RunSpec(Frozen):
    """Everything that decides a run's samples, scores and vectors."""

    traits: tuple[TraitRef, ...] = Field(min_length=1)
    model: ModelSpec
    judge: JudgeSpec
    rollouts: int = Field(
        default=10, ge=1, le=MOST_ROLLOUTS, description="Responses per instruction and question."
    )
    sampling: SamplingSpec = SamplingSpec()
    seed: int = Field(default=0, description="Every sample's own seed follows from it.")
    filter: FilterSpec = FilterSpec()
    methods: Annotated[tuple[str, ...], Option(metavar="LIST")] = Field(
        default=("mean_diff",), description=f"Of {', '.join(METHODS)}."
    )
    measure: Annotated[Measure, Option(has_default=False)] = Field(
        default="answer",
        description="Of a model that thinks: what vectors are made of; the judge reads the answer. "
        "To be said where a model cannot be told not to think, else the answer.",
    )
    scenarios: ScenariosAs = Field(
        default="text",
        description="Of a trait of scenarios: text has the model go on with each as it stands, "
        "without a chat template; turn puts each in the template as what a user says; read "
        "generates nothing and measures the scenarios themselves.",
    )
    checks: ChecksSpec = ChecksSpec()
    until: Literal["all", "converged"] = Field(
        default="all",
        description="converged stops a trait once its direction is known well enough.",
    )
    converged_degrees: float = Field(
        default=CONVERGED_DEGREES,
        gt=0,
        lt=90,
        description="Well enough: 95 % sure to be this near the true direction around the best "
        "layer.",
    )
    shard_samples: int = Field(
        default=SHARD_SAMPLES, ge=1, description="Samples per job; changes no result."
    )

    @classmethod
    def recorded(cls, body: Mapping[str, Any]) -> Self:
        """The specification that a run recorded: what there was no setting for when it was made,
        it does without, and steered in four doses."""
        checks = {"contexts": 0, "doses": 4, **body.get("checks", {})}
        return cls.model_validate({**body, "checks": checks})

    def digest(self) -> str:
        """SHA-256 of the settings; the shard size is left out, since it changes no result."""
        body = self.model_dump(mode="json", exclude={"shard_samples"})
        return json_digest(body)

    def trait(self, name: str) -> TraitRef:
        """The trait of that name; raises KeyError when the run does not have it."""
        for trait in self.traits:
            if trait.name == name:
                return trait
        raise KeyError(name)


@dataclass(frozen=True)
class Setting:
    """A field of the specification as people set it.

    `name` is its option without dashes, its key in orchestrate.toml, and, in capitals, its
    environment variable; `path` leads to the field.
    """

    name: str
    path: tuple[str, ...]
    field: FieldInfo
    option: Option

    def of(self, spec: RunSpec) -> object:
        """Its value in a specification."""
        return functools.reduce(getattr, self.path, spec)


def spec_settings(
    model: type[BaseModel] = RunSpec, *, within: tuple[str, ...] = ()
) -> Iterator[Setting]:
    """Every setting of a specification in the order of its fields; which traits it has is none."""
    for name, field in model.model_fields.items():
        path, kind = (*within, name), field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from spec_settings(kind, within=path)
        elif path != ("traits",):
            option = next((one for one in field.metadata if isinstance(one, Option)), Option())
            yield Setting(option.name or name.replace("_", "-"), path, field, option)


def json_digest(body: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its names."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def settings_differences(recorded: RunSpec, asked: RunSpec) -> tuple[str, ...]:
    """Sentences naming each setting that differs, for the error of a run continued differently."""
    old, new = _flat(recorded.model_dump(mode="json")), _flat(asked.model_dump(mode="json"))
    names = [n for n in old if not n.startswith(("traits", "shard_samples"))]
    found = [f"{n} was {old[n]!r}, now {new[n]!r}" for n in names if old[n] != new.get(n)]
    old_traits = {t.name: t for t in recorded.traits}
    for trait in asked.traits:
        before = old_traits.pop(trait.name, None)
        if before is None:
            found.append(f"trait {trait.name} is not in the run")
        elif before != trait:
            found.append(f"trait {trait.name}'s definition or limits changed")
    found.extend(f"trait {name} is in the run but was not asked for" for name in old_traits)
    return tuple(found)


def _flat(body: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in body.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
