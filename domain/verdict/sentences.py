"""The sentences in which people read why something was decided; nothing decides on them."""

from __future__ import annotations

from domain.plan.readiness import Certainty, WaveEnd
from domain.scoring.thresholds import Fall, Outcome
from domain.verdict.record import Finding, Gate, TraitMetrics

_FALLS = {
    Fall.UNSCORED: "{metric}: {unscored}",
    Fall.THOUGHT_OPEN: "its thought did not end within {limit:,g} tokens",
    Fall.EMPTY: "empty response",
    Fall.COHERENCE_LOW: "coherence under {limit:g}",
    Fall.TRAIT_LOW: "positive with trait under {limit:g}",
    Fall.TRAIT_HIGH: "negative with trait at or over {limit:g}",
    Fall.UNPAIRED: "its pair was not kept",
}

_CONFOUND = (
    "positive responses {words} negative ones: this alone tells the sides apart "
    "(AUROC {value:.2f}, 95 % {low:.2f} to {high:.2f})"
)

_CONFOUND_WORDS = {
    "response_length": ("are longer than", "are shorter than"),
    "instruction_words": (
        "repeat more of their instruction's words than",
        "repeat fewer of their instruction's words than",
    ),
    "refusal_words": (
        "begin with words of refusal more often than",
        "begin with words of refusal less often than",
    ),
}

_FINDINGS = {
    Gate.KEPT_TOO_FEW: "{value:g} {of} responses passed the thresholds, {limit:g} are needed",
    Gate.KEPT_FEW: "only {value:g} {of} responses passed the thresholds",
    Gate.NOT_JUDGED: (
        "nothing was judged: whether the responses show the trait, whether they are coherent and "
        "whether a judge sees what steering does is unknown (`orchestrate rejudge` asks)"
    ),
    Gate.CONTRAST_UNKNOWN: "one side has no scored response, so the contrast is unknown",
    Gate.CONTRAST_LOW: "contrast {value:.1f} is not over {limit:g}",
    Gate.CONTRAST_CHANCE: (
        "chance alone may explain the contrast: its 95 % interval reaches 0{more}"
    ),
    Gate.DIFFERENCE_ZERO: "the mean difference is zero at every layer",
    Gate.ANGLE_UNKNOWN: (
        "nothing tells how sure the direction is: a side was kept of one prompt only"
    ),
    Gate.ANGLE_NOISE: (
        "the mean difference at layer {layer} is no longer than its sampling noise{more}"
    ),
    Gate.ANGLE_WIDE: (
        "the mean difference at layer {layer} may be {value:.0f} degrees off the true direction, "
        "over {limit:g}{more}"
    ),
    Gate.QUESTIONS_CHANCE: (
        "on left-out questions the direction at layer {layer} separates hardly better than chance "
        "(AUROC {value:.2f}, 95 % from {low:.2f})"
    ),
    Gate.QUESTIONS_RANDOM: (
        "directions drawn at random with the spread of the responses reach AUROC {value:.2f} on "
        "left-out questions at layer {layer} too often (p = {p:.2g}, over {limit:g})"
    ),
    Gate.QUESTIONS_SHUFFLED: (
        "vectors made of shuffled labels reach AUROC {value:.2f} on left-out questions at layer "
        "{layer} too often (p = {p:.2g}, over {limit:g})"
    ),
    Gate.QUESTIONS_NOT_SHUFFLED: (
        "not compared with shuffled labels: there are too few prompts to deal them in many ways"
    ),
    Gate.QUESTIONS_LOW: (
        "AUROC {value:.2f} on left-out questions at layer {layer} is not over {limit:g}"
    ),
    Gate.INSTRUCTIONS_CHANCE: (
        "on left-out instructions the mean difference at layer {layer} separates no better than "
        "chance (AUROC {value:.2f}): it may hold the instructions' words alone"
    ),
    Gate.INSTRUCTIONS_UNSURE: (
        "AUROC {value:.2f} on left-out instructions at layer {layer} may be chance (95 % from "
        "{low:.2f}): it may hold the instructions' words alone"
    ),
    Gate.INSTRUCTIONS_LOW: (
        "AUROC {value:.2f} on left-out instructions at layer {layer} is not over {limit:g}"
    ),
    Gate.PROBE_ACCURACY_LOW: "the probe's held-out accuracy {value:.0%} is not over {limit:.0%}",
    Gate.EVALUATION_FEW: (
        "too few responses to the evaluation questions can be read to test the vector on them"
    ),
    Gate.EVALUATION_CHANCE: (
        "on the evaluation questions at layer {layer} the vector separates hardly better than "
        "chance (AUROC {value:.2f}, 95 % from {low:.2f})"
    ),
    Gate.EVALUATION_LOW: (
        "AUROC {value:.2f} on the evaluation questions at layer {layer} is not over {limit:g}"
    ),
    Gate.JUDGE_NOT_FOLLOWED: (
        "on the evaluation questions the projection at layer {layer} does not surely go with the "
        "judge's trait score within instructions (correlation {value:.2f}, 95 % from {low:.2f})"
    ),
    Gate.STEERING_UNREADABLE: (
        "steering with the vector leaves no readable answers at any strength tried"
    ),
    Gate.STEERING_ONE_QUESTION: (
        "steering with strength {strength:.3g} was tried on one question only, which shows no "
        "spread"
    ),
    Gate.STEERING_UNSURE: (
        "steering with strength {strength:.3g} does not surely show the trait: its score rises by "
        "{value:.0f}, 95 % from {low:.0f}"
    ),
    Gate.STEERING_RANDOM: (
        "steering with strength {strength:.3g} raises the trait no more than random vectors of the "
        "same length do"
    ),
    Gate.STEERING_BACKWARDS: (
        "answers to {value:.0%} of the questions (95 % from {low:.0%} to {high:.0%}) show less of "
        "the trait when steered than without"
    ),
    Gate.LIKELIHOOD_CHANCE: (
        "the vector makes texts of the trait no likelier than random directions do (p {p:.2g} over "
        "all layers)"
    ),
    Gate.STEERING_LIKELIHOOD: (
        "that it steers is shown by the likelihood of texts alone, no judge has seen an answer"
    ),
    Gate.READING_NOT_SHOWN: (
        "it does not surely read the trait: texts under no instruction are told apart with AUROC "
        "{value:.2f} at layer {layer} (p {p:.2g} of the best layer)"
    ),
    Gate.READING_LOW: (
        "it reads the trait in texts, but not well: AUROC {value:.2f} under no instruction at "
        "layer {layer}, 95 % from {low:.2f}"
    ),
    Gate.NO_USE_SHOWN: (
        "no use is shown: that it reads the trait in texts ({of}), or that it steers ({best})"
    ),
    Gate.UNSCORED_MANY: "{value:.0%} of the responses are unscored, over {limit:.0%}",
    Gate.UNSCORED_DECIDE: (
        "with the unscored responses at the scores that speak against it the {of} would be "
        "{low:.2f}, not {value:.2f}, and the verdict `{best}`"
    ),
    Gate.EVALUATION_SHARED: (
        "not tested on {value:g} of the evaluation questions: vectors are made from the same ones"
    ),
    Gate.EVALUATION_PARTED: (
        "the definition has no evaluation questions of its own: {value:g} of its questions are "
        "held out for that, and no vector is made from them"
    ),
    Gate.EVALUATION_NO_QUESTIONS: (
        "the definition has no evaluation questions, so the vectors are tested on none and nothing "
        "is steered with them"
    ),
    Gate.EVALUATION_OFF: "not tested on evaluation questions (--evaluation 0)",
    Gate.EVALUATION_PENDING: (
        "not tested on evaluation questions: their answers are not judged yet"
    ),
    Gate.EVALUATION_ONE_QUESTION: (
        "one evaluation question does not show how sure the AUROC on such is"
    ),
    Gate.CORRELATION_FEW: (
        "too few evaluation questions have readable answers, or their scores differ too little, to "
        "ask whether the projection goes with the judge's trait score"
    ),
    Gate.CORRELATION_RANGE: (
        "whether the projection goes with the judge's trait score within instructions is not "
        "known: scores hardly differ there ({value:.1%} of their variance, under {limit:.0%})"
    ),
    Gate.STEERING_OTHER_METHOD: (
        "steering was tested with the {of} vectors, not with the best, {best}"
    ),
    Gate.STEERING_OFF: "nothing was steered with these vectors (--causal 0)",
    Gate.STEERING_OTHERS: (
        "steering was not tested with these vectors: the run steered with its own"
    ),
    Gate.STEERING_PENDING: "nothing was steered with these vectors yet",
    Gate.STEERING_NOT_WORTH: (
        "nothing was steered with these vectors: those that the run made were not worth it"
    ),
    Gate.READING_OFF: (
        "whether it reads texts or the instructions before them was not tested: nothing was read "
        "again (--contexts)"
    ),
    Gate.READING_PENDING: (
        "whether it reads texts or the instructions before them is not tested yet"
    ),
    Gate.READING_FEW: (
        "whether it reads texts or the instructions before them is not known: {value:g} of the "
        "{limit:g} responses that were read again are kept, too few or of too few questions"
    ),
    Gate.READING_PART: (
        "{value:g} of the {limit:g} responses that were read again are kept with these settings"
    ),
    Gate.FROM_PROMPTS: (
        "made from prompts, where the sides differ by their instructions whatever is answered: "
        "that they separate says little"
    ),
    Gate.INSTRUCTIONS_NOT_LEFT_OUT: (
        "leaving out instructions was not possible: too few were kept on one side"
    ),
    Gate.INSTRUCTIONS_NONE: (
        "scenarios have no instructions to leave out: of other ways to call the trait up, left-out "
        "scenarios alone say something"
    ),
    Gate.INSTRUCTIONS_ONE: (
        "leaving out instructions was not possible: there is one instruction pair only"
    ),
    Gate.QUESTIONS_NOT_LEFT_OUT: (
        "leaving out questions was not possible: too few were kept on one side"
    ),
    Gate.INSTRUCTIONS_FEW: (
        "{value:g} instruction pairs do not show whether the direction holds for others: from "
        "{limit:g} on that is tested"
    ),
    Gate.NOT_CONVERGED: (
        "the fit of {of} at layer {layer} did not converge: another seed may give another direction"
    ),
    Gate.CONFOUND: _CONFOUND,
    Gate.CONFOUND_WITHIN: (
        f"{_CONFOUND}, and the projection at layer {{layer}} goes with it within the sides "
        "(correlation {correlation:.2f}): the vector may measure it rather than the trait"
    ),
    Gate.CONFOUND_EXPLAINS: (
        f"{_CONFOUND}, and among {{n_pairs}} pairs that are alike in it the projection at layer "
        "{layer} hardly tells them apart (AUROC {alike:.2f}): the vector may measure it rather "
        "than the trait"
    ),
    Gate.CONFOUND_NOT_IDENTIFIABLE: (
        f"{_CONFOUND}, and too few pairs are alike in it ({{n_pairs}}): the trait's part in the "
        "vector is not identifiable"
    ),
}


def wave_text(end: WaveEnd, found: Certainty) -> str:
    """Why a trait's samples end with a wave, or why they do not."""
    few = min(found.n_kept.values())
    words = f"the angle is unknown with {few} kept on one side"
    if found.degrees:
        words = (
            f"the mean difference is within {max(found.degrees):.1f} degrees of the true direction "
            f"at layers {', '.join(map(str, found.layers))}"
        )
    if end == WaveEnd.EVERYTHING_GENERATED:
        return f"everything is generated: {words}"
    if end == WaveEnd.MORE_INSTRUCTIONS:
        return (
            f"more instructions, not more rollouts: {words}, and over {found.least_degrees:.1f} "
            "with any number of rollouts, because the instruction pairs differ"
        )
    first = "enough" if end == WaveEnd.ENOUGH else "goes on"
    return f"{first}: {words}; {few} kept on the smaller side"


def check_text(metrics: TraitMetrics) -> str:
    """What stands behind a verdict whose tests are still to come; empty for others."""
    return ", not yet checked" if metrics.is_to_be_checked else ""


def fall_text(outcome: Outcome) -> str:
    """Why a response fell; empty for the kept."""
    return "" if outcome.fall is None else _FALLS[outcome.fall].format(**vars(outcome))


def finding_text(finding: Finding) -> str:
    """What was found, with its figures."""
    words, more = "", f"; more {finding.of} would narrow it most" if finding.of else ""
    if finding.of in _CONFOUND_WORDS:
        more, less = _CONFOUND_WORDS[finding.of]
        words = less if (finding.high or 0) < 0.5 else more
    return _FINDINGS[finding.gate].format(**vars(finding), words=words, more=more)
