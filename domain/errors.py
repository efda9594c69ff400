"""The errors users meet; each message is one sentence that says what is wrong and what to do."""

from __future__ import annotations


class OrchestrateError(Exception):
    """Root of every error raised on purpose; `exit_code` is what the command ends with.

    `advice`, what to do, may be told apart from what is wrong; as text both are one sentence.
    """

    exit_code = 1

    def __init__(self, wrong: str = "", *, advice: str = "") -> None:
        super().__init__(f"{wrong}: {advice}" if advice else wrong)
        self.wrong, self.advice = wrong, advice


class UsageError(OrchestrateError):
    """The request itself is wrong: a flag, a trait's name, settings that contradict a record."""

    exit_code = 2


class TraitFileError(UsageError):
    """A trait definition cannot be read or is incomplete."""


class BrokerError(OrchestrateError):
    """No broker answers, or no worker listens on a queue the run needs."""

    exit_code = 5


class ModelError(OrchestrateError):
    """The model cannot be loaded or is not one we can measure."""


class JudgeError(OrchestrateError):
    """The judge cannot be used: nobody answers, it refuses our key, or it gives no scores."""


class StoreError(OrchestrateError):
    """The run's record cannot be read or written."""


class BudgetError(OrchestrateError):
    """The run's --budget is reached: nothing more is asked, and a larger one continues."""

    exit_code = 4


class CannotWorkError(OrchestrateError):
    """A worker that can do nothing here, however often it is started."""

    exit_code = 6


class LocalError(OrchestrateError):
    """What may fail on this machine alone: a worker leaves such a run to the others."""


class ModelNotHereError(ModelError, LocalError):
    """The model cannot be loaded on this machine, or does not fit it."""


class StoreNotHereError(StoreError, LocalError):
    """This machine cannot read or write the run's record."""


class JudgeNotHereError(JudgeError, LocalError):
    """This worker has no judge, or no key for it."""


class StoppedError(OrchestrateError):
    """Work was asked to end before it was done; it can be taken up again."""

    exit_code = 130
