"""The workflow at the size of the preprint: time and memory of its bookkeeping, and what one more subject costs.

The tree is that of `boldly simulate --headers-only`: 34 datasets, 1,726 subjects and 11,980 runs with real names,
sidecars and confounds tables, images of zeros; some runs are defective and have to end as a reason in a run table.
Everything goes through `boldly` and `snakemake` as a user calls them. The column reference holds targets, not
another program: 60 s and 2 GB on 2 cores.

make the tree: wall time of `boldly simulate --headers-only`.
index: wall time of `snakemake --cores 2 index`, 34 jobs, imports included.
index, processor time: of the same, all processes.
runs in the tables: rows of the 34 run tables; reference: runs of the tree.
runs with a reason: rows that are not usable, each with its reason; reference: defective runs of the tree.
dry run: wall time of `snakemake --dry-run` for everything, after the index.
peak memory of the dry run: of that process.
dry run, all done: the same when every file is there: nothing may be planned.
dry run, one subject more: the same after a subject was added to one dataset and this dataset was indexed again.

To see what one more subject costs, all outputs must be there. No cluster computed them: they are empty files with
the right names and one age; for the dataset that changes, `snakemake --touch` also recorded inputs and params as
after real jobs (it sleeps 0.1 s per job, too long for all). Rows named after a rule compare its jobs for one
subject more (ours) with those of the whole workflow (reference).

Where one subject is added, prepare_batch is not among the jobs: Snakemake has no record of what the empty files
were made with. With records it plans the one batch of the subject (`tests/workflow/test_workflow.py`).

Usage: python benchmarks/scale.py [--subjects N] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from boldly.files import write_tsv
from boldly.simulation import corpus
from boldly.simulation.tree import Tree

TABLE = Path("results/benchmarks/scale.tsv")
TARGET_S = 60.0
TARGET_GB = 2.0
CHANGED = 8


@dataclass(frozen=True)
class Call:
    """What a program printed and took."""

    text: str
    seconds: float
    processor_s: float
    memory_gb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--subjects", type=int, default=corpus.SUBJECTS, help="fewer: the table is not written")
    parser.add_argument("--keep", type=Path, help="folder for the tree and the outputs; an empty one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boldly-benchmark-") as temporary:
        table = measure((arguments.keep or Path(temporary)) / "tree", arguments.subjects)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if arguments.subjects == corpus.SUBJECTS:
        write_tsv(TABLE, table)


def measure(folder: Path, subjects: int) -> pd.DataFrame:
    """Make the tree, index it, plan the work, add a subject, plan again."""
    datasets = corpus.plan(subjects)
    expected = [run for dataset in datasets for name in dataset.runs for run in dataset.runs_of(name)]
    made = call("boldly", "simulate", "--headers-only", "--subjects", str(subjects), "--output", str(folder))
    index = snakemake(folder, "index")
    runs = pd.concat([pd.read_csv(path, sep="\t") for path in folder.glob("results/index/*_runs.tsv")])
    unusable = runs[runs["status"] != "ok"]
    print(unusable.groupby("dataset").size().sum(), "runs with a reason, for example")
    print(unusable.drop_duplicates("reason")["reason"].str.slice(0, 110).head(12).to_string(index=False))
    planned = snakemake(folder, "--dry-run")
    jobs = job_counts(planned)
    finish(folder, datasets[CHANGED])
    done = snakemake(folder, "--dry-run")
    if left := job_counts(done):
        print("planned although all is done:", left)
    add_subject(folder, datasets[CHANGED])
    more = snakemake(folder, "--dry-run")
    again = job_counts(more)
    defective = sum(bool(run.defect) for run in expected)
    rows = [
        ("make the tree", made.seconds, np.nan, "s"),
        ("index", index.seconds, TARGET_S, "s"),
        ("index, processor time", index.processor_s, np.nan, "s"),
        ("runs in the tables", len(runs), len(expected), "runs"),
        ("runs with a reason", int(unusable["reason"].notna().sum()), defective, "runs"),
        ("dry run", planned.seconds, TARGET_S, "s"),
        ("peak memory of the dry run", planned.memory_gb, TARGET_GB, "GB"),
        ("dry run, all done", done.seconds, TARGET_S, "s"),
        ("dry run, one subject more", more.seconds, TARGET_S, "s"),
        *((f"{rule}", again.get(rule, 0), count, "jobs") for rule, count in jobs.items()),
    ]
    table = pd.DataFrame(rows, columns=["metric", "ours", "reference", "unit"])
    table.insert(3, "ratio", (table["reference"] / table["ours"]).replace(np.inf, np.nan))
    return table


def call(*command: str) -> Call:
    """Run a program of this environment and wait for it."""
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [str(binaries / command[0]), *command[1:]], stdout=output, stderr=output, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read()
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)}\n{text[-4000:]}")
    return Call(text, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)


def snakemake(folder: Path, *arguments: str) -> Call:
    """Run Snakemake in the tree with its config."""
    settings = ("--directory", str(folder), "--configfile", str(folder / "config.yaml"), "--cores", "2")
    return call("snakemake", *arguments, *settings)


def job_counts(planned: Call) -> dict[str, int]:
    """Return the jobs of each rule that a dry run names; empty when nothing is planned."""
    _, _, stats = planned.text.partition("Job stats:")
    counts = re.findall(r"^(\w+)\s+(\d+)\s*$", stats.split("\n\n")[0], flags=re.MULTILINE)
    return {rule: int(count) for rule, count in counts if rule != "total"}


def finish(folder: Path, changed: corpus.CorpusDataset) -> None:
    """Make missing outputs as empty files, all of one age; let Snakemake record the jobs of a dataset."""
    summary = snakemake(folder, "--summary").text.splitlines()
    fields = [line.split("\t") for line in summary]
    paths = [folder / parts[0] for parts in fields if len(parts) > 5 and parts[0] != "output_file"]
    for path in paths:
        if path.exists():  # the tables of index
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        # What stands for a batch of subjects is read: it names none of whom files were missing.
        path.write_text("{}" if path.parts[-3] == "prepare" else "")
    batches = sorted(path for path in paths if path.parts[-3:-1] == ("prepare", changed.name))
    targets = [f"results/split/{changed.name}.json", *(str(path.relative_to(folder)) for path in batches)]
    snakemake(folder, *targets, "--touch")
    now = time.time()
    for path in paths:
        os.utime(path, (now, now))


def add_subject(folder: Path, dataset: corpus.CorpusDataset) -> None:
    """Add a subject to a dataset and index the dataset again."""
    label = "added001"
    dataset.runs[label] = 3
    Tree(folder).write_subject(dataset, label)
    snakemake(folder, "--force", f"results/index/{dataset.name}_runs.tsv")


if __name__ == "__main__":
    main()
