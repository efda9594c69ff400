"""What is asked of an engine and what it returns: requests, sampling, steering, generations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from domain.thoughts import Marks
from traitlens.arrays import Float32
from traitlens.steering import Mode, Positions

Finish = Literal["stop", "length", "thought"]
"""How a response ended: by itself, at its limit, or within its thought, so that nothing answers."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: temperature 0 is greedy, top_p 1 and top_k 0 are off.

    A thought has `max_thought_tokens` for itself; 0 does not tell it from the answer. Raises
    ValueError for settings outside their range.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_thought_tokens: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}: it must be 1 or more")
        if self.max_thought_tokens < 0:
            raise ValueError(f"max_thought_tokens is {self.max_thought_tokens}: it must be 0 or up")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: it must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: it must be 0 (off) or more")

    @property
    def most_tokens(self) -> int:
        """Of a thought and an answer together."""
        return self.max_thought_tokens + self.max_new_tokens


@dataclass(frozen=True, eq=False)
class Intervention:
    """What is done to the states of a layer with a vector [d_model], as `traitlens.steer` does it:
    "add" adds coefficient * vector, "ablate" and "cap" work on the projection."""

    layer: int
    vector: Float32
    coefficient: float = 1.0
    mode: Mode = "add"


@dataclass(frozen=True, eq=False)
class Steering:
    """Interventions on some tokens of a request; "prompt" includes the prompt's last token.

    Requests that share one Steering object share their prompt's prefill.
    """

    interventions: tuple[Intervention, ...]
    positions: Positions = "all"


@dataclass(frozen=True, eq=False)
class UnitVectors:
    """Unit vectors [k, d_model], each at its layer, that every token of a request is projected on.

    Requests that share one UnitVectors object share their prompt's prefill and one matrix product a
    step.
    """

    layers: tuple[int, ...]
    units: Float32

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.units):
            raise ValueError(f"{len(self.layers)} layers for {len(self.units)} directions")


@dataclass(frozen=True)
class PromptKey:
    """A prompt as it is run: its tokens, the steering that changes them, and what they are
    projected on."""

    token_ids: tuple[int, ...]
    steering: Steering | None
    directions: UnitVectors | None = None


@dataclass(frozen=True, eq=False)
class GenerationRequest:
    """One response to generate; the object itself is what its generation is told by.

    `opened` are the marks of a thought that the prompt ends within.

    The same prompt, seed, sampling and steering give the same response, whatever else is generated
    beside it: promised on a CPU in float32; elsewhere rounding can differ with the batch and may,
    now and then, flip a token.
    """

    prompt_ids: tuple[int, ...]
    seed: int
    sampling: Sampling
    steering: Steering | None = None
    directions: UnitVectors | None = None
    opened: Marks | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError("a request has an empty prompt: render a chat first")

    @property
    def prompt_key(self) -> PromptKey:
        """What its prefill depends on."""
        steered = self.steering is not None and self.steering.positions != "response"
        return PromptKey(self.prompt_ids, self.steering if steered else None, self.directions)


@dataclass(frozen=True, eq=False)
class Generation:
    """One response and its mean activations, each [L+1, d_model], the last row before the norm.

    `response_ids` excludes the end-of-turn token. The answer begins at `answer_start`, before it
    is the thought with its marks: `response_avg` is of the answer, `thought_avg` of the thought. A
    model may stop at once: then what is empty has an average of zeros, and the caller must treat it
    as unusable.

    `prompt_sinks` tokens are left out of `prompt_avg` at the layer where most are; the rule is in
    `traitlens.capture.sinks`.

    `projections` is [prompt + response tokens, 2, k] for a request with k directions: h.u of the
    state h at each token itself, and the norm of h at that direction's layer. None without
    directions.
    """

    request: GenerationRequest
    response_ids: tuple[int, ...]
    finish: Finish
    response_avg: Float32
    prompt_avg: Float32
    prompt_last: Float32
    prompt_sinks: int
    projections: Float32 | None = None
    answer_start: int = 0
    thought_avg: Float32 | None = None


@dataclass
class EngineStats:
    """Counts and seconds since the engine started; decode seconds end when the logits are there.

    On a GPU a step's seconds of work appear where the host first waits: in `sample_seconds`.
    `response_tokens` are those of finished responses, `drawn_tokens` all so far, also of rows that
    had to begin anew.
    """

    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    sample_seconds: float = 0.0
    capture_seconds: float = 0.0
    prefill_capture_seconds: float = 0.0
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    response_tokens: int = 0
    drawn_tokens: int = 0
    finished: int = 0
    steps: int = 0
    row_steps: int = 0
    recorded_steps: int = 0
    peak_rows: int = 0
    halvings: int = 0

    @property
    def forward_seconds(self) -> float:
        """Seconds in which the model worked: prefill, decoding, drawing and capture."""
        working = self.prefill_seconds + self.decode_seconds
        return working + self.sample_seconds + self.capture_seconds
