"""The probe and judge stages: an endpoint's request shape; a shard's responses in, verdicts out."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

from orchestrator.errors import JudgeError
from orchestrator.plan import PROBE, Job
from orchestrator.prompts import coherence_prompt
from orchestrator.run_spec import JudgeSpec
from orchestrator.scores import METRICS, Unscored
from storage.artifacts import Record, load_record, publish
from storage.responses import VERDICTS, encode_verdicts, load_responses
from storage.run_record import Run, load_definition
from workers.event_loop import EventLoopThread
from workers.judge import Judge, RequestShape, open_client


@dataclass
class JudgePool:
    """The judges that one worker process talks to, kept with their connections."""

    embedded_url: str | None
    api_key: str
    max_in_flight: int
    loop: EventLoopThread = field(default_factory=EventLoopThread)
    _judges: dict[tuple[str, str, RequestShape | None], Judge] = field(default_factory=dict)

    def judge(self, spec: JudgeSpec, shape: RequestShape | None = None) -> Judge:
        """The judge of a run; raises JudgeError when the run wants one that nobody started."""
        url = self.embedded_url if spec.url == "embedded" else spec.url
        if url is None:
            raise JudgeError(
                "the run uses the embedded judge and this worker has none: start it with "
                "`orchestrate worker judge`, or give the run a --judge-url"
            )
        known = (url, spec.model, shape)
        if known not in self._judges:
            self._judges[known] = self.loop.run(self._open(url, spec.model, shape))
        return self._judges[known]

    async def _open(self, url: str, model: str, shape: RequestShape | None) -> Judge:
        client = open_client(url, api_key=self.api_key)
        chosen = shape if shape is not None else RequestShape()
        return Judge(client, model, shape=chosen, max_in_flight=self.max_in_flight)


def probe(run: Run, job: Job, *, judges: JudgePool) -> Record:
    """Find out how the judge wants to be asked, with each trait's own prompt."""
    question, answer = "How do I boil an egg?", "Boil it for eight minutes, then cool it in water."
    prompts = {"coherence": coherence_prompt(question, answer)}
    for trait in run.spec.traits:
        prompts[trait.name] = load_definition(run, trait.name).judge_prompt(question, answer)
    shape = judges.loop.run(judges.judge(run.spec.judge).probe(prompts))
    info = {"shape": shape.model_dump(), "mode": "logprob", "summary": "the judge gives logprobs"}
    return publish(run.store, job, files={}, info=info)


def judge(run: Run, job: Job, *, judges: JudgePool) -> Record:
    """Ask for both verdicts on every response of a shard."""
    assert job.trait is not None
    definition = load_definition(run, job.trait)
    samples = {sample.key: sample for sample in run.plan.samples(job)}
    responses = load_responses(run.store, Job("generate", job.trait, job.polarity, job.shard))
    asked: list[tuple[str, str, str]] = []
    for response in responses:
        question = definition.questions[samples[response.key].question]
        asked.append((response.key, "trait", definition.judge_prompt(question, response.response)))
        asked.append((response.key, "coherence", coherence_prompt(question, response.response)))
    shape = RequestShape.model_validate(load_record(run.store, PROBE).info["shape"])
    verdicts = judges.loop.run(
        judges.judge(run.spec.judge, shape).verdicts([prompt for _, _, prompt in asked])
    )
    rows = [(key, metric, v) for (key, metric, _), v in zip(asked, verdicts, strict=True)]
    unscored = Counter(v.reason for v in verdicts if isinstance(v, Unscored))
    info = {
        "n_samples": len(responses),
        "n_verdicts": len(verdicts),
        "n_unscored": dict(unscored),
        "prompt_tokens": sum(v.evidence.prompt_tokens for v in verdicts if v.evidence),
        "completion_tokens": sum(v.evidence.completion_tokens for v in verdicts if v.evidence),
        "summary": f"{len(verdicts)} verdicts, {sum(unscored.values())} unscored",
    }
    assert len(rows) == len(METRICS) * len(responses)
    return publish(run.store, job, files={VERDICTS: encode_verdicts(rows)}, info=info)


def key_from_environment() -> str:
    """The judge's key; an endpoint without keys gets a word in its place."""
    for name in ("ORCHESTRATE_JUDGE_API_KEY", "OPENAI_API_KEY"):
        if os.environ.get(name):
            return os.environ[name]
    return "no-key"
