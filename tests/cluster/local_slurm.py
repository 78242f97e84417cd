"""A real Slurm on this machine, started from Debian's packages and stopped without a trace.

Its nodes share the processors and the file system of the machine; GPUs are devices without anything behind them.
It shows scheduling, limits and what becomes of jobs, not speed.

    python -m tests.cluster.local_slurm      as root; runs until Ctrl-C, for trying things by hand
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
ACCOUNTING_PACKAGES = ("slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server-core", "mariadb-client-core")
# Found by programs that Snakemake starts without the variable SLURM_CONF.
_CONFIGURATION = Path("/etc/slurm")
_HOSTS = Path("/etc/hosts")
# In the environment of every process that the cluster starts.
_MARK = "BOLDLY_LOCAL_SLURM"
_ANSWER_S = 60.0
# mknod's numbers of a copy of /dev/null.
_NULL_DEVICE = os.makedev(1, 3)

CPU_NODES = ("c1", "c2")
GPU_NODES = ("g1", "g2")
GPUS = 2
# What each node claims to have, for all of them together are one machine.
CPUS, MEMORY_MB = 8, 64_000
ACCOUNT = "default"


class CannotStartError(RuntimeError):
    """A local Slurm cannot be started here; the message says why."""


class LocalSlurm:
    """A Slurm of four nodes: c1 and c2 in partition cpu, g1 and g2 with two GPUs each in gpu and urgent.

    Jobs in partition urgent push those in gpu off their nodes, and Slurm queues those again. A job that uses more
    memory than it asked for is killed within a second or two.
    """

    def __init__(self) -> None:
        # Not below a folder that only its owner may enter: munge refuses to put its socket there.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
        self.folder.chmod(0o755)
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.nodes = (*CPU_NODES, *GPU_NODES)
        names = ("slurmctld", "slurmdbd", "mariadbd", *self.nodes)
        self.ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), _MARK: str(self.folder)}

    def start(self) -> None:
        """Install what is missing and start all daemons.

        Raises
        ------
        CannotStartError
            Not root, packages that cannot be installed, another Slurm on this machine, a daemon that is silent.
        """
        _check_machine()
        install((*PACKAGES, *ACCOUNTING_PACKAGES))
        self._configure()
        self._daemon(
            "munged",
            "--foreground",
            f"--key-file={self.folder}/munge.key",
            f"--socket={self._socket}",
            f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munge.seed",
            f"--log-file={self.folder}/munged.log",
        )
        self._wait("munged", lambda: self._does("munge", "-n", "-S", self._socket))
        self.start_accounting()
        self._daemon("slurmctld", "-D")
        self._wait("slurmctld", lambda: "is UP" in self.ask("scontrol", "ping"))
        for node in self.nodes:
            self.start_node(node)
        self._wait("nodes", lambda: len(self.nodes_in("idle")) == len(self.nodes))

    def start_accounting(self) -> None:
        """Start the database of accounting, with an account for this user."""
        data = self.folder / "mariadb"
        if not data.exists():
            self._run(
                "mariadb-install-db",
                "--no-defaults",
                "--user=root",
                f"--datadir={data}",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            )
        self._daemon(
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder}/mariadb.sock",
            f"--pid-file={self.folder}/mariadbd.pid",
            f"--port={self.ports['mariadbd']}",
            "--skip-name-resolve",
            "--performance-schema=OFF",
            f"--init-file={self.folder}/accounts.sql",
            "--innodb-flush-log-at-trx-commit=0",
        )
        self._wait("mariadbd", lambda: _answers(self.ports["mariadbd"]))
        self._daemon("slurmdbd", "-D")
        self._wait("slurmdbd", lambda: self._does("timeout", "5", "sacctmgr", "-n", "list", "cluster"))
        for what in ("cluster local", f"account {ACCOUNT} Cluster=local", f"user root Account={ACCOUNT}"):
            # What is there already is refused, which is fine.
            self._does("sacctmgr", "-i", "add", *what.split())

    def stop_accounting(self) -> None:
        """Stop the database of accounting: sacct no longer answers."""
        self._end("slurmdbd")
        self._end("mariadbd")

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
        self._daemon(node, "-D", "-N", node, program="slurmd")

    def lose_node(self, node: str) -> None:
        """Kill everything that runs on a node, as if it had no power; its jobs run on no other one."""
        jobs = self.ask("squeue", "-h", "-w", node, "-o", "%A").split()
        self.daemons.pop(node).kill()
        own = [(process, _command(process)) for process in self.processes()]
        # Those that would tell of the end of the others come first.
        watching = [process for process, command in own if any(f"slurmstepd: [{job}." in command for job in jobs)]
        for process in (*watching, *(p for p, _ in own if _environment(p).get("SLURMD_NODENAME") == node)):
            _kill(process)
        self.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def nodes_in(self, *states: str) -> list[str]:
        """Return the nodes that are in one of some states (``idle``, ``mixed``, ``down``...)."""
        rows = (line.split() for line in self.ask("sinfo", "-h", "-N", "-o", "%N %T").splitlines())
        return sorted({name for name, state in rows if state.rstrip("*") in states})

    def ask(self, *command: str) -> str:
        """Return what a command of Slurm prints; nothing if it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""

    def accounting(self) -> dict[str, list[str]]:
        """Return partition, state, allocated resources, seconds and nodes of each job, by its number."""
        table = self.ask("sacct", "-X", "-n", "-P", "-o", "JobID,Partition,State,AllocTRES%80,ElapsedRaw,NodeList")
        rows = [line.split("|") for line in table.splitlines()]
        return {row[0]: row[1:] for row in rows}

    def processes(self) -> list[int]:
        """Return the process ids of everything that the cluster started, jobs included."""
        return [pid for pid in _all_processes() if _environment(pid).get(_MARK) == str(self.folder)]

    def stop(self) -> None:
        """End all jobs and daemons, take the configuration away; nothing is left behind."""
        if "slurmctld" in self.daemons:
            for state in ("PENDING", "RUNNING", "SUSPENDED"):
                self.ask("scancel", f"--state={state}")
            with contextlib.suppress(CannotStartError):
                self._wait("jobs to end", lambda: not self.ask("squeue", "-h").strip())
        for name in (*self.nodes, "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._end(name)
        for process in self.processes():
            _kill(process)
        for name in ("slurm.conf", "gres.conf"):
            if (link := _CONFIGURATION / name).is_symlink() and link.readlink().parent == self.folder:
                link.unlink()
        if self._hosts_mark in (hosts := _HOSTS.read_text()):
            lines = hosts.splitlines(keepends=True)
            # In place: in containers the file is mounted.
            _HOSTS.write_text("".join(line for line in lines if self._hosts_mark not in line))
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _hosts_mark(self) -> str:
        """What marks the line of this Slurm: another one, which cannot start beside it, leaves it alone."""
        return f"# local Slurm of boldly's tests, {self.folder}"

    @property
    def _socket(self) -> str:
        return f"{self.folder}/munge.sock"

    def _configure(self) -> None:
        password = secrets.token_hex(16)
        for name, content in (
            ("munge.key", secrets.token_hex(64)),
            ("slurmdbd.conf", self._accounting_configuration(password)),
            ("accounts.sql", _ACCOUNTS.format(password=password)),
            ("slurm.conf", self._configuration()),
            (
                "gres.conf",
                f"NodeName={','.join(GPU_NODES)} Name=gpu Type=fake File={self.folder}/gpu[0-{GPUS - 1}]\n",
            ),
        ):
            path = self.folder / name
            path.touch(mode=0o644 if name in ("slurm.conf", "gres.conf") else 0o600)
            path.write_text(content)
        for number in range(GPUS):
            os.mknod(self.folder / f"gpu{number}", 0o20666, _NULL_DEVICE)
        (self.folder / "state").mkdir()
        _CONFIGURATION.mkdir(exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            (_CONFIGURATION / name).unlink(missing_ok=True)
            (_CONFIGURATION / name).symlink_to(self.folder / name)
        with _HOSTS.open("a") as hosts:
            hosts.write(f"127.0.0.1 {' '.join(self.nodes)} {self._hosts_mark}\n")

    def _configuration(self) -> str:
        lines = [
            _CONFIGURATION_LINES.format(
                folder=self.folder,
                host=socket.gethostname(),
                socket=self._socket,
                controller=self.ports["slurmctld"],
                accounting=self.ports["slurmdbd"],
            )
        ]
        for node in self.nodes:
            gpus = f"Gres=gpu:fake:{GPUS} " if node in GPU_NODES else ""
            lines.append(
                f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 "
                f"Port={self.ports[node]} CPUs={CPUS} RealMemory={MEMORY_MB} {gpus}State=UNKNOWN\n"
            )
        for name, nodes, more in (
            ("cpu", CPU_NODES, "Default=YES"),
            ("gpu", GPU_NODES, "PriorityTier=1 GraceTime=20"),
            ("urgent", GPU_NODES, "PriorityTier=9 PreemptMode=OFF"),
        ):
            lines.append(f"PartitionName={name} Nodes={','.join(nodes)} MaxTime=INFINITE State=UP {more}\n")
        return "".join(lines)

    def _accounting_configuration(self, password: str) -> str:
        return _ACCOUNTING_LINES.format(
            folder=self.folder,
            host=socket.gethostname(),
            socket=self._socket,
            port=self.ports["slurmdbd"],
            database=self.ports["mariadbd"],
            password=password,
        )

    def _daemon(self, name: str, *arguments: str, program: str | None = None) -> None:
        """Start a daemon that stays a child of this process; Ctrl-C at the terminal does not reach it."""
        with (self.folder / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                [program or name, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _end(self, name: str) -> None:
        daemon = self.daemons.pop(name, None)
        if daemon is None:
            return
        daemon.terminate()
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotStartError(f"{command[0]} failed: {(done.stderr or done.stdout)[-2000:]}")

    def _does(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0

    def _wait(self, name: str, is_there: Callable[[], bool]) -> None:
        end = time.monotonic() + _ANSWER_S
        while not is_there():
            daemon = self.daemons.get(name)
            if time.monotonic() > end or (daemon is not None and daemon.poll() is not None):
                log = self.folder / f"{name}.out"
                said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
                raise CannotStartError(f"{name}: no answer within {_ANSWER_S:.0f} s, or it ended\n{said}")
            time.sleep(0.1)


def install(packages: Sequence[str]) -> None:
    """Install those of some Debian packages that are missing, without starting their services."""
    missing = [name for name in packages if not _is_installed(name)]
    if not missing:
        return
    print(f"installing {' '.join(missing)}", flush=True)
    # Debian's way to tell packages that services are not to be started.
    policy = Path("/usr/sbin/policy-rc.d")
    is_own = not policy.exists()
    if is_own:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", *command], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise CannotStartError(f"apt-get {command[0]} failed: {done.stderr[-2000:]}")
    finally:
        if is_own:
            policy.unlink()


def _check_machine() -> None:
    """Tell why no Slurm can be started here."""
    if os.geteuid() != 0:
        raise CannotStartError(
            "make test-cluster needs root: it installs Debian packages and starts Slurm's daemons"
        )
    if shutil.which("apt-get") is None and shutil.which("slurmctld") is None:
        raise CannotStartError(
            "make test-cluster needs Debian or Ubuntu: there is no apt-get to install Slurm with"
        )
    for name in ("slurm.conf", "gres.conf"):
        path = _CONFIGURATION / name
        if path.exists() or (path.is_symlink() and not path.readlink().parent.name.startswith("slurm")):
            raise CannotStartError(
                f"{path} is there: this machine belongs to a cluster, or runs another local Slurm; use another one"
            )


def _is_installed(package: str) -> bool:
    command = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "installed"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _all_processes() -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            yield int(folder.name)


def _environment(process: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty for one that is gone."""
    try:
        content = Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in content.split(b"\0"))
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


_CONFIGURATION_LINES = """ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={socket}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting}
AccountingStoragePass={socket}
AccountingStorageTRES=gres/gpu
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
GresTypes=gpu
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=5,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PriorityType=priority/basic
MinJobAge=300
KillWait=5
SlurmdTimeout=60
"""

_ACCOUNTING_LINES = """AuthType=auth/munge
AuthInfo=socket={socket}
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""

_ACCOUNTS = """CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS 'slurm'@'%' IDENTIFIED BY '{password}';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'%';
"""


def main() -> None:
    """Run a local Slurm until Ctrl-C or SIGTERM."""
    # Started in the background of a shell it has no Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    cluster = LocalSlurm()
    try:
        cluster.start()
        print(cluster.ask("sinfo"), f"logs: {cluster.folder}; Ctrl-C stops it", sep="\n", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
