"""Processes that train together, for tests: started by torchrun over the loopback device."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from boldly.config import PretrainOptions


def pretrain(data: list, output: Path, options: PretrainOptions, *, name: str = "toy") -> list[str]:
    """Return the arguments of the command line that pretrain an experiment."""
    arguments = ["pretrain", "--name", name, "--options", options.model_dump_json(), "--output", str(output)]
    for split, shards in data:
        arguments += ["--data", str(split), str(shards)]
    return arguments


def torchrun(*arguments: str, nodes: int = 1, processes: int = 2) -> None:
    """Run a module in several processes; nodes are as many torchrun on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment: dict[str, Any] = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), "--nnodes", str(nodes)]
    started = [
        subprocess.Popen([*command, "--node-rank", str(node), *arguments], env=environment)
        for node in range(nodes)
    ]
    for one in started:
        if one.wait():
            raise subprocess.CalledProcessError(one.returncode, command)
