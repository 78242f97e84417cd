"""Tool site: a Snakemake profile for one Slurm cluster, and a look whether jobs will run there.

The profile is the one that comes along, workflow/profiles/slurm/config.yaml, with the site's account, partitions,
GPUs and folder in its marked lines. Nothing else differs, so that the profiles of two sites can be compared.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from boldly import __version__
from boldly.files import atomic_path
from boldly.records import InputError, Problem

TEMPLATE = Path("workflow/profiles/slurm/config.yaml")

# Lines between these two may be edited.
_START, _END = re.compile(r"^# --- the lines a site edits -*$"), re.compile(r"^# -{20,}$")

# Of commands that answer at once where Slurm is well.
_TIMEOUT_S = 30
# What a test job asks for.
_TEST_JOB = ["--ntasks=1", "--time=5", "--mem=1000"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """What differs between clusters.

    Attributes
    ----------
    account : str
        Slurm account that jobs are charged to.
    partition, gpu_partition : str
        Partitions of jobs without and with a GPU.
    gpu_model : str or None
        Type of the GPUs, as in ``--gpus=<type>:1``; None: any.
    directory : str or None
        Folder of the study, on a file system that all nodes see; a relative one counts from the current folder.
        None: that in which Snakemake is called.
    """

    account: str
    partition: str
    gpu_partition: str
    gpu_model: str | None = None
    directory: str | None = None


def run(*, site: Site, template: Path, output: Path, check: bool, wait_s: float) -> None:
    """Write the profile of a site, after a look whether Slurm knows what it names.

    Parameters
    ----------
    site : Site
        What the user answered.
    template : Path
        Profile with marked lines.
    output : Path
        Profile to write, ``<folder>/config.yaml``.
    check : bool
        Ask Slurm for partitions and account, and run a short job on a node of each partition.
    wait_s : float
        How long such a job may wait in the queue, s.

    Raises
    ------
    InputError
        With everything that Slurm does not know, or that a test job could not do. Nothing is written then.
    """
    text = profile(template, site)
    if check:
        problems = [*_unknown_names(site)]
        # Jobs with wrong names would only say so again.
        problems = problems or [*_test_jobs(site, wait_s)]
        if problems:
            raise InputError(problems)
        for name in _without_notice(site):
            message = (
                "partition %s ends jobs that have to make way without notice (PreemptMode CANCEL, GraceTime 0)"
            )
            way_out = "Snakemake would wait for such a job for ever: stop it with Ctrl-C then, and start it again"
            logger.warning(f"{message}: {way_out}", name)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    logger.info("wrote %s; start with: snakemake --profile %s", output, output.parent)


def profile(template: Path, site: Site) -> str:
    """Return the profile with the answers of a site in its marked lines.

    Raises
    ------
    InputError
        Where the template is absent, or has no marked lines to edit.
    """
    remedy = "call boldly in the checkout, or name its workflow/profiles/slurm/config.yaml with --template"
    if not template.is_file():
        raise InputError(Problem(str(template), "", "no such file", remedy))
    lines = template.read_text(encoding="utf-8").splitlines()
    start = next((number for number, line in enumerate(lines) if _START.match(line)), None)
    end = next((n for n, line in enumerate(lines) if start is not None and n > start and _END.match(line)), None)
    if start is None or end is None:
        raise InputError(Problem(str(template), "", "has no marked lines that a site edits", remedy))
    edited = _edit(lines[start + 1 : end], site)
    text = "\n".join([*lines[: start + 1], *edited, *lines[end:]]) + "\n"
    if not isinstance(yaml.safe_load(text), dict):
        raise InputError(Problem(str(template), "", "is no profile", remedy))
    return text


def _edit(lines: Sequence[str], site: Site) -> list[str]:
    """Return the marked lines with the answers; a partition below `set-resources` is that of GPUs."""
    edited, on_gpus = [], False
    for line in lines:
        on_gpus = on_gpus if line.startswith((" ", "#")) else line.startswith("set-resources")
        indent = line[: len(line) - len(line.lstrip())]
        comment = f"        #{line.split('#', 1)[1]}" if "#" in line.strip()[1:] else ""
        if line.lstrip().startswith("slurm_account:"):
            edited.append(f"{indent}slurm_account: {_quoted(site.account)}{comment}")
        elif line.lstrip().startswith("slurm_partition:"):
            edited.append(f"{indent}slurm_partition: {_quoted(site.gpu_partition if on_gpus else site.partition)}")
            if on_gpus and site.gpu_model:
                edited.append(f"{indent}gpu_model: {_quoted(site.gpu_model)}")
        else:
            edited.append(line)
    return [*edited, f"directory: {_quoted(_from_anywhere(site.directory))}"] if site.directory else edited


def _from_anywhere(directory: str) -> str:
    """Return a folder as it is found from wherever Snakemake is called; it puts in variables and ~ by itself.

    It takes a relative one that also is below the profile, as "." always is, for that one.
    """
    return directory if directory.startswith(("$", "~")) else os.path.abspath(directory)


def _quoted(value: str) -> str:
    """Return a text as YAML; plain where every reader takes it for a text."""
    # YAML takes no, on and null for something else than their letters.
    is_plain = re.fullmatch(r"[A-Za-z/][\w/.-]*", value) and yaml.safe_load(value) == value
    return value if is_plain else json.dumps(value)


def _unknown_names(site: Site) -> list[Problem]:
    """Return what Slurm does not know of an account and partitions."""
    missing = [name for name in ("sinfo", "sacctmgr", "srun") if shutil.which(name) is None]
    if missing:
        message = f"no command {', '.join(missing)}: this is no machine that submits Slurm jobs"
        return [Problem("PATH", "", message, "log in to the cluster, or leave the checks out with --no-check")]
    problems = []
    partitions = {line.strip().rstrip("*") for line in _said("sinfo", "--noheader", "--format=%P").splitlines()}
    for name in dict.fromkeys((site.partition, site.gpu_partition)):
        if name not in partitions:
            known = ", ".join(sorted(partitions)) or "none"
            problems.append(Problem("sinfo", name, f"no such partition (there are: {known})", "name one of these"))
    user = getpass.getuser()
    query = ("sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=account")
    accounts = set(_said(*query).split())
    # A cluster without a database of accounts takes every name.
    if accounts and site.account not in accounts:
        message = f"{user} has no such account (but: {', '.join(sorted(accounts))})"
        problems.append(Problem("sacctmgr", site.account, message, "name one of these"))
    return problems


def _without_notice(site: Site) -> list[str]:
    """Return the partitions in which a job that has to make way neither saves nor is queued again."""
    found = []
    for name in dict.fromkeys((site.partition, site.gpu_partition)):
        words = _said("scontrol", "--oneliner", "show", "partition", name).split()
        if {"PreemptMode=CANCEL", "GraceTime=0"} <= set(words):
            found.append(name)
    return found


def _said(*command: str) -> str:
    """Return what a command of Slurm says; nothing where it fails, as sacctmgr does without a database."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        message = f"did not answer within {_TIMEOUT_S} s"
        raise InputError(Problem(command[0], "", message, "ask those who run the cluster")) from None
    return done.stdout if done.returncode == 0 else ""


def _test_jobs(site: Site, wait_s: float) -> list[Problem]:
    """Run this environment on a node of each partition; a GPU has to be seen there by torch."""
    version = [sys.executable, "-c", "import boldly; print(boldly.__version__)"]
    gpus = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    model = f"{site.gpu_model}:" if site.gpu_model else ""
    return [
        *_test_job(site, site.partition, [], version, _same_version, wait_s),
        *_test_job(site, site.gpu_partition, [f"--gpus={model}1"], gpus, _sees_gpu, wait_s),
    ]


def _test_job(
    site: Site,
    partition: str,
    asked: Sequence[str],
    command: Sequence[str],
    judge: Callable[[str], tuple[str, str] | None],
    wait_s: float,
) -> list[Problem]:
    logger.info("a test job in partition %s (at most %.0f s)", partition, wait_s)
    job = ["srun", f"--account={site.account}", f"--partition={partition}", *_TEST_JOB, *asked, *command]
    try:
        done = subprocess.run(job, capture_output=True, text=True, timeout=wait_s, check=False)
    except subprocess.TimeoutExpired:
        message = f"a test job did not run within {wait_s:.0f} s"
        return [
            Problem("srun", partition, message, "wait longer (--wait SECONDS), or leave checks out (--no-check)")
        ]
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        remedy = "the environment has to lie on a file system that all nodes see: " + sys.prefix
        return [Problem("srun", partition, f"a test job failed: {'; '.join(lines[-3:])}", remedy)]
    judged = judge(done.stdout.strip())
    return [] if judged is None else [Problem("srun", partition, *judged)]


def _same_version(said: str) -> tuple[str, str] | None:
    if said == __version__:
        return None
    return f"nodes see boldly {said}, here it is {__version__}", "use one environment for all nodes"


def _sees_gpu(said: str) -> tuple[str, str] | None:
    if said == "True":
        return None
    remedy = "install the CUDA build of torch (envs/gpu.yaml), or leave checks out (--no-check)"
    return "torch sees no GPU there", remedy
