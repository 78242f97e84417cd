"""Several processes on one machine: a stage starts itself again under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys

LOOPBACK = "127.0.0.1"


def inside() -> bool:
    """Tell whether this is one of several processes already."""
    return "LOCAL_RANK" in os.environ


def is_first() -> bool:
    """Tell whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def launch(module: str, arguments: list[str], processes: int) -> None:
    """Run a module in several processes that train together.

    They talk over the loopback device only. SIGTERM reaches all of them through torchrun.

    Parameters
    ----------
    module : str
        What ``python -m`` starts.
    arguments : list of str
        Its arguments.
    processes : int
        Number of processes; on GPUs one per device.

    Raises
    ------
    SystemExit
        With the exit status of torchrun, if it is not 0.
    """
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--nnodes", "1", "--nproc-per-node", str(processes), "--max-restarts", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{LOOPBACK}:0", "--local-addr", LOOPBACK]
    command += ["--module", module, *arguments]
    environment = {
        "GLOO_SOCKET_IFNAME": "lo",
        # torchrun would set one thread and warn about it.
        "OMP_NUM_THREADS": "1",
        **os.environ,
    }
    status = subprocess.run(command, env=environment, check=False).returncode
    if status:
        raise SystemExit(status if status > 0 else 128 - status)
