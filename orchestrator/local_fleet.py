"""The embedded default: everything a run needs, on this machine, for the time of one command.

A private redis-server, one GPU worker per visible device or some that share the cores, a judge
worker with the embedded judge, a reduce worker. The same code, tasks and queues as on a fleet.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from domain.errors import BrokerError, CannotWorkError
from domain.redaction import HUB_KEYS, JUDGE_KEYS, STORAGE_KEYS
from orchestrator.processes import Child, Processes, child_environment, orchestrate
from storage.broker.embedded_redis import embedded_redis

log = logging.getLogger(__name__)
GPU_KEYS = (*HUB_KEYS, *STORAGE_KEYS)
# the account's own names are no secrets, and mean nothing without the key
KEYS_OF_KIND = {
    "gpu": GPU_KEYS,
    "judge": (*JUDGE_KEYS, "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", *STORAGE_KEYS),
    "reduce": STORAGE_KEYS,
}
"""What of the secrets each kind of worker is given."""


@contextlib.contextmanager
def local_fleet(
    log_folder: Path | None, *, needs_judge_server: bool | None, devices: Sequence[str]
) -> Iterator[tuple[str, Processes]]:
    """Run the fleet while the context is open; yields the broker URL and the processes.
    `needs_judge_server` None is for a run without a judge, which gets no judge worker; `devices`
    are those of GPU workers, `cpu` as often as workers share the cores.

    Worker logs go to `log_folder`, or to a temporary folder when it takes none or the runs are not
    on a local disk.
    Raises BrokerError from the context when a worker cannot work on this machine.
    """
    with contextlib.ExitStack() as stack:
        if log_folder is None or not _takes_logs(log_folder):
            log_folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(embedded_redis())
        settings = {
            "ORCHESTRATE_BROKER_URL": url,
            # the fleet's workers may be kept to some models; this one serves the run's
            "ORCHESTRATE_MODELS": "",
            # who asked for a model's own code and who runs it are the same person here
            "ORCHESTRATE_ALLOW_REMOTE_CODE": "1",
        }
        kinds = [["gpu", "--device", ",".join(devices)], ["reduce"]]
        if needs_judge_server is not None:
            kinds.append(["judge", *([] if needs_judge_server else ["--no-embedded"])])
        children = [
            Child(
                f"{arguments[0]} worker",
                orchestrate("worker", *arguments),
                child_environment(os.environ, keys=KEYS_OF_KIND[arguments[0]]) | settings,
                log_folder / f"{arguments[0]}.log",
                tries=1,  # `worker gpu` tries again itself
            )
            for arguments in kinds
        ]
        processes = stack.enter_context(Processes(children).running())
        try:
            yield url, processes
        except CannotWorkError as error:
            # 6 is said among processes; to a user this is a run without a worker
            raise BrokerError(str(error)) from error


def _takes_logs(folder: Path) -> bool:
    """Whether the workers' logs can be written there; logs of another user, or what is no folder,
    spoil no run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KEYS_OF_KIND:
            (folder / f"{kind}.log").open("ab").close()
    except OSError as error:
        log.warning("What workers say is not kept with the run: %s.", error)
        return False
    return True
