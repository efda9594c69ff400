"""What a run is: the settings that fix every sample, score and vector, and their hash."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

WIRE_VERSION = 1
"""Version of the messages and of run.json; a worker refuses any other instead of guessing."""

POSITIONS = ("response_avg", "prompt_avg", "prompt_last")

DEFAULT_POSITION = "response_avg"
"""Where the vectors of a run are measured, tested and steered with."""

# A shard is what a lost GPU worker costs at most; 100 samples are seconds on a GPU and still
# amortise one message, one artifact and one judge task over enough work.
SHARD_SAMPLES = 100

# A direction this sure moves little with what is left: cos 10 degrees is 0.985, and the samples so
# far are part of the whole.
CONVERGED_DEGREES = 10.0


class Frozen(BaseModel):
    """A value that cannot change and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SamplingSpec(Frozen):
    """How responses are drawn; top_p 1 and top_k 0 are off, temperature 0 is greedy."""

    max_new_tokens: int = Field(default=200, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)


class ModelSpec(Frozen):
    """Which model generates: a hub id, a local folder, or `demo`."""

    model_id: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False


class JudgeSpec(Frozen):
    """Who scores: an OpenAI-compatible endpoint; url `embedded` means the judge worker's own.

    votes None: one where the judge gives token probabilities, three where it does not.
    """

    model: str
    url: str = "embedded"
    scale: Literal["0_100", "0_10", "binary", "binary_text"] = "0_100"
    votes: int | None = Field(default=None, ge=1, le=25)

    @field_validator("url")
    @classmethod
    def _holds_no_secret(cls, url: str) -> str:
        if "@" in url.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "a judge's URL is recorded for everybody: leave user and password out, its key "
                "belongs into ORCHESTRATE_JUDGE_API_KEY"
            )
        return url


class FilterSpec(Frozen):
    """Which responses a vector is built from; scores are 0 to 100."""

    threshold: float = Field(default=50.0, ge=0, le=100)
    coherence: float = Field(default=50.0, ge=0, le=100)
    pairing: Literal["unpaired", "paired"] = "unpaired"


class ChecksSpec(Frozen):
    """How the vectors are tested; 0 leaves a test out.

    evaluation: responses to each evaluation question with the positive, the negative and no
    instruction. causal: responses at each strength of the dose-response that is reported.
    """

    evaluation: int = Field(default=2, ge=0)
    causal: int = Field(default=12, ge=0)


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
    rollouts: int = Field(default=10, ge=1)
    sampling: SamplingSpec = SamplingSpec()
    seed: int = 0
    filter: FilterSpec = FilterSpec()
    methods: tuple[str, ...] = ("mean_diff",)
    checks: ChecksSpec = ChecksSpec()
    until: Literal["all", "converged"] = "all"
    converged_degrees: float = Field(default=CONVERGED_DEGREES, gt=0, lt=90)
    shard_samples: int = Field(default=SHARD_SAMPLES, ge=1)

    def digest(self) -> str:
        """SHA-256 of the settings; the shard size is left out, since it changes no result."""
        body = self.model_dump(mode="json", exclude={"shard_samples"})
        return hashlib.sha256(canonical_json(body)).hexdigest()

    def trait(self, name: str) -> TraitRef:
        """The trait of that name; raises KeyError when the run does not have it."""
        for trait in self.traits:
            if trait.name == name:
                return trait
        raise KeyError(name)


def canonical_json(body: object) -> bytes:
    """One byte string per JSON value: sorted keys, no spaces."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


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
