"""Several processes, on one machine or the nodes of a Slurm allocation: torchrun starts each with one command."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence

from boldly.records import InputError, Problem

LOOPBACK = "127.0.0.1"
# Where the nodes of a job meet: jobs that share a node have different numbers.
_FIRST_PORT, _PORTS = 20_000, 20_000
# A batch system sends its warning to all processes of a job, torchrun among them, which passes on SIGTERM.
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
# One part of a list of nodes: a prefix, and numbers in brackets or none.
_PART = re.compile(r"([^,\[\]]+)(?:\[([^\]]*)\])?([^,\[\]]*)(?:,|$)")


def launch(arguments: Sequence[str], *, nodes: int, processes: int) -> None:
    """Become the processes that train together, each of which runs the command line with the same arguments.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line of boldly, the stage first.
    nodes : int
        Nodes, those of the Slurm allocation that this runs in if there are several.
    processes : int
        Processes on each; on GPUs one per device. One process on one node is started without torchrun.

    Raises
    ------
    InputError
        For several nodes outside of a Slurm allocation.
    """
    command = launch_command(arguments, nodes=nodes, processes=processes, environment=os.environ)
    if nodes == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # torchrun would set one thread for each process, and warn.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // max(1, processes))))
    sys.stdout.flush()
    os.execvp(command[0], command)


def launch_command(
    arguments: Sequence[str], *, nodes: int, processes: int, environment: Mapping[str, str]
) -> list[str]:
    """Return the command that starts the processes; see `launch`.

    Outside of a job step of as many tasks as nodes it is `srun` of the same command on each node; there, and on a
    single node, torchrun. Nodes meet at the first one of the allocation.
    """
    stage = ["-m", "boldly", *arguments]
    if nodes * processes <= 1:
        return [sys.executable, *stage]
    torchrun = [sys.executable, "-m", "boldly.training.torchrun", "--nproc-per-node", str(processes)]
    torchrun += ["--max-restarts", "0", "--signals-to-handle", _SIGNALS]
    if nodes == 1:
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{LOOPBACK}:0", "--local-addr", LOOPBACK]
        return [*torchrun, "--nnodes", "1", *meeting, *stage]
    if "SLURM_JOB_ID" not in environment:
        message = f"{nodes} nodes, but this is no Slurm allocation"
        remedy = "start torchrun on each node by hand (config/README.md), or ask for one node"
        raise InputError(Problem("boldly launch", "nodes", message, remedy))
    if environment.get("SLURM_STEP_NUM_TASKS") != str(nodes):
        again = ["launch", "--nodes", str(nodes), "--processes", str(processes), *arguments]
        # Overlap: this may run in a job step itself, which holds all that the job has.
        srun = [shutil.which("srun") or "srun", "--overlap", "--nodes", str(nodes), "--ntasks", str(nodes)]
        srun += ["--ntasks-per-node", "1", "--cpu-bind", "none", "--kill-on-bad-exit=1"]
        return [*srun, sys.executable, "-m", "boldly", *again]
    first = next(node_names(environment["SLURM_JOB_NODELIST"]))
    port = _FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _PORTS
    meeting = ["--nnodes", str(nodes), "--node-rank", environment["SLURM_NODEID"]]
    meeting += ["--master-addr", first, "--master-port", str(port)]
    return [*torchrun, *meeting, *stage]


def node_names(nodes: str) -> Iterator[str]:
    """Yield the names in a list of nodes as Slurm writes it (``c[01-03,7],login``), in its order."""
    for prefix, numbers, suffix in _PART.findall(nodes):
        if not numbers:
            yield prefix + suffix
            continue
        for part in numbers.split(","):
            first, _, last = part.partition("-")
            for number in range(int(first), int(last or first) + 1):
                # Leading zeros count.
                yield f"{prefix}{number:0{len(first)}d}{suffix}"
