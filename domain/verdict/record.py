"""What a trait's metrics.json holds: the quality of its vectors with intervals, and the verdict.

Lists run over the layers 0 to L; null is what cannot be measured. docs/report.md says what each
figure means, and docs/metrics.schema.json is made from this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, JsonValue, computed_field
from pydantic.dataclasses import dataclass

from domain.plan.readiness import WaveEnd
from domain.plan.spec import DEFAULT_POSITION, ChecksSpec, FilterSpec, JudgeSpec, ScenariosAs

VERSION = 1
"""Of the record; a file without one was written before there was any."""

Layers = tuple[float | None, ...]
Ends = tuple[float | None, float | None]
"""[low, high] of a 95 % interval."""


class VerdictName(StrEnum):
    """What a trait's vectors are good for."""

    USABLE = "usable"
    USABLE_WITH_A_DOUBT = "usable with a doubt"
    WEAK = "weak"
    DO_NOT_USE = "do not use"


class Severity(StrEnum):
    """Fatal and weak findings are failed gates; a doubt is one that leaves a use of the vector
    untouched; untested ones name what no gate saw."""

    FATAL = "fatal"
    WEAK = "weak"
    DOUBT = "doubt"
    UNTESTED = "untested"
    NOTE = "note"


class Gate(StrEnum):
    """What was found; domain/verdict/sentences.py says each in words."""

    KEPT_TOO_FEW = "kept_too_few"
    KEPT_FEW = "kept_few"
    NOT_JUDGED = "not_judged"
    CONTRAST_UNKNOWN = "contrast_unknown"
    CONTRAST_LOW = "contrast_low"
    CONTRAST_CHANCE = "contrast_chance"
    DIFFERENCE_ZERO = "difference_zero"
    ANGLE_UNKNOWN = "angle_unknown"
    ANGLE_NOISE = "angle_noise"
    ANGLE_WIDE = "angle_wide"
    QUESTIONS_CHANCE = "questions_chance"
    QUESTIONS_RANDOM = "questions_random"
    QUESTIONS_SHUFFLED = "questions_shuffled"
    QUESTIONS_NOT_SHUFFLED = "questions_not_shuffled"
    QUESTIONS_LOW = "questions_low"
    INSTRUCTIONS_CHANCE = "instructions_chance"
    INSTRUCTIONS_UNSURE = "instructions_unsure"
    INSTRUCTIONS_LOW = "instructions_low"
    PROBE_ACCURACY_LOW = "probe_accuracy_low"
    EVALUATION_FEW = "evaluation_few"
    EVALUATION_CHANCE = "evaluation_chance"
    EVALUATION_LOW = "evaluation_low"
    JUDGE_NOT_FOLLOWED = "judge_not_followed"
    STEERING_UNREADABLE = "steering_unreadable"
    STEERING_ONE_QUESTION = "steering_one_question"
    STEERING_UNSURE = "steering_unsure"
    STEERING_RANDOM = "steering_random"
    STEERING_BACKWARDS = "steering_backwards"
    LIKELIHOOD_CHANCE = "likelihood_chance"
    STEERING_LIKELIHOOD = "steering_likelihood"
    READING_NOT_SHOWN = "reading_not_shown"
    READING_LOW = "reading_low"
    NO_USE_SHOWN = "no_use_shown"
    UNSCORED_MANY = "unscored_many"
    UNSCORED_DECIDE = "unscored_decide"
    EVALUATION_SHARED = "evaluation_shared"
    EVALUATION_PARTED = "evaluation_parted"
    EVALUATION_NO_QUESTIONS = "evaluation_no_questions"
    EVALUATION_OFF = "evaluation_off"
    EVALUATION_PENDING = "evaluation_pending"
    EVALUATION_ONE_QUESTION = "evaluation_one_question"
    CORRELATION_FEW = "correlation_few"
    CORRELATION_RANGE = "correlation_range"
    STEERING_OTHER_METHOD = "steering_other_method"
    STEERING_OFF = "steering_off"
    STEERING_OTHERS = "steering_others"
    STEERING_PENDING = "steering_pending"
    STEERING_NOT_WORTH = "steering_not_worth"
    READING_OFF = "reading_off"
    READING_PENDING = "reading_pending"
    READING_FEW = "reading_few"
    READING_PART = "reading_part"
    FROM_PROMPTS = "from_prompts"
    INSTRUCTIONS_NOT_LEFT_OUT = "instructions_not_left_out"
    INSTRUCTIONS_NONE = "instructions_none"
    INSTRUCTIONS_ONE = "instructions_one"
    QUESTIONS_NOT_LEFT_OUT = "questions_not_left_out"
    INSTRUCTIONS_FEW = "instructions_few"
    NOT_CONVERGED = "not_converged"
    CONFOUND = "confound"
    CONFOUND_WITHIN = "confound_within"
    CONFOUND_EXPLAINS = "confound_explains"
    CONFOUND_NOT_IDENTIFIABLE = "confound_not_identifiable"
    FORMER = "former"

    @classmethod
    def _missing_(cls, value: object) -> Gate:
        """What a record of another version names and this one does not."""
        return cls.FORMER


class Figures(BaseModel):
    """A value that cannot change; fields that a later version adds are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class Finding:
    """One thing that was found: where, the figure with its interval, and what it was held against.

    `of` names the polarity, method or covariate that it is about, `best` the method that was to be
    tested or the verdict that could be, `strength` the push of steering, `p` a p-value,
    `n_pairs` those that are alike in a covariate and `alike` the AUROC among them.
    """

    gate: Gate
    severity: Severity
    layer: int | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    of: str | None = None
    best: str | None = None
    correlation: float | None = None
    strength: float | None = None
    p: float | None = None
    n_pairs: int | None = None
    alike: float | None = None


class Estimate(Figures):
    """One number with its interval."""

    value: float | None = None
    interval: Ends = (None, None)


class Bounds(Figures):
    """What a figure comes to with the `n` scores that no judge gave where they lower it most and
    where they raise it most, at 0 or at 100 each."""

    n: int
    lowest: Estimate
    highest: Estimate


class Estimates(Figures):
    """Numbers with their intervals, by layer or by strength."""

    value: Layers
    interval: tuple[Ends, ...]

    def at(self, index: int) -> Estimate:
        """The one of a layer."""
        return Estimate(value=self.value[index], interval=self.interval[index])


class PolarityCounts(Figures):
    """Numbers of responses, or of prompts."""

    positive: int
    negative: int


class EffectiveSizes(Figures):
    """Sample sizes, less what responses of one prompt repeat."""

    positive: Layers
    negative: Layers


class SeparationFigures(Figures):
    """How well projections tell the sides apart; accuracy is balanced, at the midpoint."""

    auroc: Estimates
    cohens_d: Estimates
    accuracy: Estimates
    effective_n: EffectiveSizes


class HalfFigures(SeparationFigures):
    """On the half of the questions that the vector was not made from."""

    n_questions: int
    random_p: Layers | None = None


class VectorNorms(Figures):
    """Norm of the raw vector, and as a share of the residual stream's."""

    norm: Layers
    norm_to_residual: Layers


class MethodFigures(VectorNorms):
    """One method's vectors on what they were made from, and on the held-out half."""

    fitted: SeparationFigures
    held_out_half: HalfFigures | None


class DifferenceFigures(VectorNorms):
    """How sure the mean difference is; angles in degrees to the true direction. Of random
    directions and of shuffled labels: the AUROC that 95 % stay under, and the share that reaches
    the vector's."""

    angle_degrees: Layers
    angle_upper_degrees: Layers
    split_half_cosine: Estimates
    leave_one_instruction_out_auroc: Estimates
    leave_one_question_out_auroc: Estimates
    random_vector_auroc: Layers
    random_p: Layers | None = None
    shuffled_labels_auroc: Layers
    shuffled_p: Layers | None = None


class MethodCosines(Figures):
    """Matrices [L+1, k, k] of the cosines between the methods' vectors."""

    methods: tuple[str, ...]
    by_layer: tuple[tuple[tuple[float, ...], ...], ...]


class ConfoundFigures(Figures):
    """What else the vector may measure: how well it alone tells the sides apart, how it goes with
    the projection within them, the cosine with its own direction, and how well the vector separates
    pairs of a positive and a negative that are alike in it; None where those are too few."""

    auroc: Estimate | None = None
    correlation: Layers | None = None
    cosine: Layers
    matched_auroc: Estimates | None = None
    n_matched: int | None = None


class Best(Figures):
    """The best method and its layer, each method's best layer, and the rule in words."""

    method: str
    layer: int
    by_method: dict[str, int]
    rule: str


class EvaluationCounts(PolarityCounts):
    """Responses to the evaluation questions that count."""

    plain: int


class TestedFigures(Figures):
    """One method's vectors on the evaluation questions; None where too few responses count.

    `readable` is between all readable responses to positive and to negative instructions, whatever
    the judge gave them, `with_unscored` counts those as readable too that no judge scored (None
    where there are no such), `separation` between those alone whose score suits their side, which
    flatters. `correlation` with the judge's score is pooled over instructions and rises with what
    both owe to the instruction alone; `correlation_within` holds it fixed."""

    readable: SeparationFigures | None = None
    with_unscored: SeparationFigures | None = None
    separation: SeparationFigures | None
    correlation: Estimates | None
    correlation_within: Estimates | None = None
    correlation_plain: Estimates | None

    @property
    def between_instructions(self) -> SeparationFigures | None:
        """Of all readable responses; as records of before have it where there is no other."""
        return self.readable or self.separation


class EvaluationFigures(Figures):
    """The vectors on questions that they were not made from. `score_within` is the share of the
    trait score's variance that lies within instructions. `left_out_instruction_auroc` is between
    all readable responses, each scored by a mean difference that is made of the other instruction
    pairs."""

    n: EvaluationCounts
    n_questions: int
    score_within: float | None = None
    left_out_instruction_auroc: Estimates | None = None
    methods: dict[str, TestedFigures]


class CurveFigures(Figures):
    """Scores over the strengths of a push; the rise is taken at `rise_at`, None where no push
    leaves readable answers."""

    strength: tuple[float, ...]
    n: tuple[int, ...]
    trait: Estimates
    coherence: Estimates
    slope: Estimate
    rise: Estimate
    rise_at: float | None


class PushFigures(Figures):
    """What a vector does that is added at a layer with a length of `strength` mean norms of the
    residual stream there, beside random directions as long.

    `gain` is that of `LikelihoodFigures`; `damage` is how far next-token distributions of answers
    to no instruction are moved: KL(without || with the push) in nats per token.
    """

    layer: int
    strength: float
    gain: float
    damage: float | None = None
    random_gain: tuple[float, ...] = ()
    random_damage: float | None = None


class LikelihoodFigures(Figures):
    """Whether the vector makes texts of the trait likelier than texts of its opposite: the gain in
    mean log p per token of the one less that of the other, in nats, by a push of the vector's own
    length as far as a small push tells.

    Texts are of questions that their vector was not made from, read without an instruction. `z` is
    the gain in standard deviations of those of random directions, `p` that of the largest z of all
    layers, which is at `layer`.
    """

    method: str
    layer: int
    p: float
    z: Layers
    gain: Estimates
    n_texts: PolarityCounts
    n_questions: int
    n_random: int
    most_tokens: int
    pushes: tuple[PushFigures, ...] = ()


class SearchedPush(Figures):
    """One push of the search, its number of answers and what they were worth."""

    layer: int
    strength: float
    n: int
    worth: float


class CausalFigures(Figures):
    """What steering with the vector does, beside random vectors as long; `step` is the length of a
    push of strength 1, `backwards` the share of questions whose answers show less of the trait
    with the push that the rise is taken at than without one; bounds are None where every answer
    is scored."""

    method: str
    layer: int
    best_strength: float
    step: float
    n_questions: int
    coherence_floor: float
    coherence_good: float
    strongest_coherent: float | None
    vector: CurveFigures
    random: CurveFigures
    rise_over_random: Estimate
    backwards: Estimate = Estimate()
    rise_bounds: Bounds | None = None
    rise_over_random_bounds: Bounds | None = None
    n_searched: int
    search: tuple[SearchedPush, ...]
    n_confirmed: int


class ReadingFigures(Figures):
    """Whether the vector reads the text or the instruction before it, from `n_read` responses that
    were read again under the opposite instruction of their pair and under none; `n` of them are
    kept. Figures by layer are None where those are too few.

    Shares of the vector that lie in texts and in instructions; AUROC and Cohen's d between texts
    under no instruction, of directions that are made from other questions; the AUROC of the same
    in the texts' own contexts, and between the two instructions before the same texts. `p` is of
    the largest AUROC under no instruction over the layers, corrected for choosing among them.
    """

    n: PolarityCounts
    n_read: int
    n_questions: int
    text_share: Layers | None = None
    context_share: Layers | None = None
    auroc: Estimates | None = None
    cohens_d: Estimates | None = None
    in_context_auroc: Estimates | None = None
    instruction_auroc: Estimates | None = None
    p: float | None = None
    layer: int | None = None


class SpreadFigures(Figures):
    """What a difference between the sides varies with, as standard deviations: from one instruction
    pair to another, from one question to another, what a pair does with a question beyond both, and
    between rollouts of one prompt; None where the design, of so many of each, cannot tell.
    `narrows_most` is what one more of narrows the interval most."""

    instruction: float | None
    question: float | None
    combination: float | None
    rollout: float | None
    n_instructions: int
    n_questions: int
    n_rollouts: float
    narrows_most: str | None = None


PARTS = ("text", "context")
"""What of the mean difference is in the texts and what in the instructions: files of their own."""


class Quality(Figures):
    """The vectors' quality at one position; the tests fill what is None without them. `spread` is
    that of the mean difference at the best layer, in shares of its length."""

    position: str = DEFAULT_POSITION
    n_prompts: PolarityCounts
    n_instructions: int
    residual_norm: Layers
    mean_difference: DifferenceFigures
    methods: dict[str, MethodFigures]
    cosine_between_methods: MethodCosines
    confounds: dict[str, ConfoundFigures]
    best: Best
    spread: SpreadFigures | None = None
    evaluation: EvaluationFigures | None = None
    likelihood: LikelihoodFigures | None = None
    causal: CausalFigures | None = None
    reading: ReadingFigures | None = None


class UseState(StrEnum):
    """Whether a use of the vector is shown: surely, with a doubt, not, or nothing tested it."""

    YES = "yes"
    DOUBT = "doubt"
    NO = "no"
    UNTESTED = "untested"


class Use(Figures):
    """One use and the layer to use: that which is shown to serve best, else the best in context."""

    state: UseState = UseState.UNTESTED
    layer: int | None = None


class Uses(Figures):
    """What the vector is for: it reads the trait in texts, whatever instruction stands before them;
    it steers a model to show it."""

    reads: Use = Use()
    steers: Use = Use()


class BaseModelFacts(Figures):
    """The model that a LoRA adapter changed."""

    model: str
    revision: str | None = None


class GenerationFacts(Figures):
    """Which model wrote the responses, on what, and how many tokens. `revision` is a commit on the
    Hub, or the checksum of the file; `ignored` is what its checkpoint recommends for generation and
    the run, which has settings of its own, did not do. `prompt_sinks` is how many tokens of a
    prompt its mean leaves out, on average; None where some prompts' means hold every token, as runs
    of before made them."""

    model: str | None = None
    revision: str | None = None
    base: BaseModelFacts | None = None
    model_hash: str | None = None
    dtype: str | None = None
    d_model: int | None = None
    n_layers: int | None = None
    system_mode: str | None = None
    thinking: str | None = None
    ignored: dict[str, JsonValue] = {}
    path: str | None = None
    devices: tuple[str, ...] = ()
    n_tokens: int = 0
    busy_share: float = 0.0
    prompt_sinks: float | None = None


class JudgingFacts(Figures):
    """Which judgement the scores are from, who judged, and in which mode."""

    judgement: str
    judge: JudgeSpec
    mode: str | None


class Stopping(Figures):
    """What was measured after the wave that a trait's samples ended with, and why it ended."""

    wave: int
    n_kept: PolarityCounts
    layers: tuple[int, ...]
    degrees: tuple[float, ...]
    stops: bool
    converged: bool
    end: WaveEnd | None = None
    summary: str
    n_planned: int


class TraitMetrics(Figures):
    """A trait's metrics.json. `reasons`, `notes` and `untested` say the findings in words;
    `magnitude` is the mean norm over layers of the first method's vector, `methods` what each
    method says of its own fit, by position and name; `checks` what the run tests vectors with,
    `contrast_spread` in points of the judge's scale; `n_kept_most` counts the unscored that would
    be kept at the scores that suit their side, None where none would. `n_instructions` are the
    pairs that were asked, None in records of before. Where `scenarios` says how
    texts without instructions were put to the model, an instruction pair is a pair of these
    wherever contexts are meant."""

    # records of before lack what is computed, and are read as well
    model_config = ConfigDict(json_schema_extra={"required": ["trait"]})

    version: int | None = None
    trait: str
    verdict: VerdictName = VerdictName.DO_NOT_USE
    uses: Uses = Uses()
    n_generated: int = 0
    n_scored: int = 0
    n_unscored: dict[str, int] = {}
    n_dropped: dict[str, int] = {}
    n_kept: PolarityCounts = PolarityCounts(positive=0, negative=0)
    n_kept_most: PolarityCounts | None = None
    contrast: float | None = None
    contrast_interval: Ends | None = None
    contrast_bounds: Bounds | None = None
    contrast_spread: SpreadFigures | None = None
    coherence: float | None = None
    magnitude: float | None = None
    methods: Mapping[str, Mapping[str, Mapping[str, Layers]]] = {}
    quality: Quality | None = None
    n_instructions: int | None = None
    n_eval_questions: int = 0
    n_shared_questions: int = 0
    n_parted_questions: int = 0
    scenarios: ScenariosAs | None = None
    checks: ChecksSpec = ChecksSpec()
    is_checked: bool = False
    is_steered_with_others: bool = False
    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()
    filter: FilterSpec = FilterSpec()
    generation: GenerationFacts = GenerationFacts()
    judging: JudgingFacts | None = None
    stopping: Stopping | None = None

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way to write a property
    @property
    def is_to_be_checked(self) -> bool:
        """Whether tests of the vectors are planned and not made, so that the verdict may change."""
        checks = self.checks
        on_questions = self.n_eval_questions > 0 and (checks.evaluation > 0 or checks.causal > 0)
        is_planned = checks.contexts > 0 or on_questions
        return self.quality is not None and is_planned and not self.is_checked

    @property
    def is_usable(self) -> bool:
        """Whether a use of the vectors is shown and nothing stands against it."""
        return self.verdict in (VerdictName.USABLE, VerdictName.USABLE_WITH_A_DOUBT)
