"""Structured logs: every line knows its run, trait and job, as text or as JSON lines.

Lines about a job also go to the run's log on the broker, where `orchestrate logs` reads them.
Prompts, responses and secrets are in none of them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import redis

from domain.redaction import Redactor
from storage.broker.connection import BROKER_AWAY
from storage.broker.job_log import LogLine, append_log_line

FORMATS = ("text", "json")


# which job a thread works on
_context: ContextVar[dict[str, str]] = ContextVar("job")


@contextlib.contextmanager
def log_context(run_id: str, run: str, job: str) -> Iterator[None]:
    """Lines that this thread logs while the context is open are about a job."""
    trait = job.partition("/")[0] if "/" in job else ""
    token = _context.set({"run": run, "run_id": run_id, "trait": trait, "job": job})
    try:
        yield
    finally:
        _context.reset(token)


class LogContext(logging.Filter):
    """Puts run, trait and job on every record of a thread that works on one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through."""
        context = _context.get({})
        for name in ("run", "run_id", "trait", "job"):
            setattr(record, name, context.get(name, getattr(record, name, "")))
        return True


class LogWithoutSecrets(logging.Filter):
    """Takes what is secret out of every record, of its trace too."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact, self._trace = redact, logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through."""
        record.msg, record.args = self._redact(record.getMessage()), ()
        if record.exc_info:
            # formatters take the text where there is one
            record.exc_text = self._redact(self._trace.formatException(record.exc_info))
        return True


class LogAsJson(logging.Formatter):
    """One JSON object a line, for whoever collects logs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's facts and its sentence."""
        names = ("run", "run_id", "trait", "job", "event")
        facts = {name: getattr(record, name, "") for name in names}
        body = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            **{name: value for name, value in facts.items() if value},
            "text": record.getMessage(),
        }
        if record.exc_info:
            body["trace"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(body, ensure_ascii=False, default=str)


class LogToBroker(logging.Handler):
    """Sends lines about a job to its run's log; a broker that is away costs the line."""

    def __init__(self, worker: str, connection: Callable[[], redis.Redis]) -> None:
        super().__init__(level=logging.INFO)
        self._worker, self._connection = worker, connection
        self._trace = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line."""
        run_id, job = getattr(record, "run_id", ""), getattr(record, "job", "")
        if not run_id or not job:
            return
        trace = record.exc_text or ""
        if record.exc_info and not trace:
            trace = self._trace.formatException(record.exc_info)
        line = LogLine(
            at=record.created,
            level=record.levelname.lower(),
            worker=self._worker,
            job=job,
            event=str(getattr(record, "event", "")),
            text=record.getMessage(),
            trace=trace,
        )
        with contextlib.suppress(*BROKER_AWAY, redis.RedisError, OSError):
            append_log_line(self._connection(), run_id, line)


def set_up_logging(*, level: str, form: str, to_broker: LogToBroker) -> None:
    """Log to standard error in a form, and what is about jobs to the broker too."""
    to_stream = logging.StreamHandler()
    to_stream.setFormatter(
        LogAsJson()
        if form == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    hide = LogWithoutSecrets(Redactor.from_environment(os.environ))
    for handler in (to_stream, to_broker):
        handler.addFilter(LogContext())
        handler.addFilter(hide)
    logging.basicConfig(level=level.upper(), handlers=[to_stream, to_broker])
