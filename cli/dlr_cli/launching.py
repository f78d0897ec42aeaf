"""``dlr run --ranks N``: the command N times, each told its rank, and watched until all have ended.

This is what ``accelerate launch`` and ``torchrun`` do as well (torch.distributed's elastic agent, without restarts): it
notices a process that dies and ends the others. Here the ranks meet in a file, nothing listens but on the loopback
interface, and what went wrong is said in a line.
"""

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlr_core.errors import RankError
from dlr_core.ranks import MEETING

LAST_STEP = "3600"
"""Seconds that the ranks have, once the user wants them to end, for the step that they are in."""


def launch(arguments: Sequence[str], ranks: int, folder: Path) -> int:
    """Run ``dlr`` with these arguments on so many ranks of this machine.

    Args:
        arguments: of the command, in full.
        ranks: how many.
        folder: the run's, for what the user is told to do if it fails.

    Returns:
        The exit code: a rank's, where it has said itself what is wrong.

    Raises:
        RankError: a rank was killed, or has failed with a traceback.
    """
    import psutil
    from accelerate.utils import patch_environment
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # its own log: many lines for what is said below in one
    with tempfile.TemporaryDirectory(prefix="dlr-ranks-", ignore_cleanup_errors=True) as meeting:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{meeting}/agent",
            rdzv_configs={"store_type": "file"},
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=f"{meeting}/logs"),
        )
        try:
            with patch_environment(**_environment(meeting, ranks)):
                given = [argument.replace("$", "$$") for argument in arguments]  # the agent fills templates
                elastic_launch(config, sys.executable)("-m", "dlr_cli.app", *given)
        except ChildFailedError as error:
            return _outcome(error.failures, ranks, folder)
        except SignalException:  # the ranks had their step; after a second one they have not
            for child in psutil.Process().children(recursive=True):
                child.kill()
            return 130
        finally:
            logging.disable(logging.NOTSET)
    return 0


def _environment(meeting: str, ranks: int) -> dict[str, str]:
    """What the ranks find in their environment, over what is there."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    usual = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks)),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": LAST_STEP,
    }
    set_here = {MEETING: f"{meeting}/ranks", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return {key: os.environ.get(key, value) for key, value in usual.items()} | set_here


def _outcome(failures: Mapping[int, Any], ranks: int, folder: Path) -> int:
    """The exit code that says what happened, of the rank that it happened to first.

    Raises:
        RankError: it could not say so itself.
    """
    after = (RankError.exit_code, -signal.SIGTERM)
    rank, failure = min(failures.items(), key=lambda pair: (pair[1].exitcode in after, pair[1].timestamp))
    code: int = failure.exitcode
    again = f"; go on from its newest checkpoint with: dlr run --resume {folder} --ranks {ranks}"
    again = again if (folder / "manifest.json").is_file() else ""
    if code < 0:
        raise RankError(f"rank {rank} of {ranks} was ended by {failure.signal_name()}: the run has stopped{again}")
    if code == 1:
        raise RankError(f"rank {rank} of {ranks} has failed (its traceback is above): the run has stopped{again}")
    return code
