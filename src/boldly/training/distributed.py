"""Several processes on one machine: a stage starts itself again under torchrun."""

from __future__ import annotations

import os
import signal
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

    They talk over the loopback device only. SIGTERM and SIGUSR1 reach all of them, as SIGTERM, through torchrun.

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
    # A batch system sends its warning to all processes of a job, torchrun among them.
    command += ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]
    command += ["--module", module, *arguments]
    environment = {
        "GLOO_SOCKET_IFNAME": "lo",
        # torchrun would set one thread and warn about it.
        "OMP_NUM_THREADS": "1",
        **os.environ,
    }
    with subprocess.Popen(command, env=environment) as torchrun:
        before = {
            number: signal.signal(number, lambda *_: torchrun.send_signal(signal.SIGTERM))
            for number in (signal.SIGTERM, signal.SIGUSR1)
        }
        try:
            status = torchrun.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if status:
        raise SystemExit(status if status > 0 else 128 - status)
