"""The workflow at the size of the preprint through Slurm's plugin: jobs, calls of the scheduler, the head process.

The tree is that of `scale.py` (34 datasets, 1,726 subjects, 11,980 runs), the config has 5 upstream experiments
and 20 downstream ones for each of 2 task datasets. Slurm is played by programs that count their calls and say that
a job is done as soon as it is asked for: the head process does all that it does on a cluster, without the waiting.
The column reference is what it was when each subject and stage was a job of its own, or a target.

jobs: that Slurm is asked to run, all of them.
jobs that prepare subjects: those among them; reference: 1,726 subjects in three stages.
calls of the scheduler: sbatch, squeue, sacct, sacctmgr, scontrol and sinfo together.
seconds between two looks at the jobs: of the plugin's source; it looks for all jobs at once, less often the longer
    nothing has ended (40 s, 50 s, ... 180 s).
processor time, peak memory: of the head process, from start to end.
start of a job: processor time of Snakemake on a node before a job begins, for one that prepares subjects and for
    the one that depends on most (packing of all upstream runs).

Usage: python benchmarks/cluster.py [--subjects N] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml
from scale import Call, call, snakemake

from boldly.files import write_tsv
from boldly.simulation import corpus

TABLE = Path("results/benchmarks/cluster.tsv")
CHECKOUT = Path(__file__).parents[1]
PROGRAMS = ("sbatch", "squeue", "sacct", "sacctmgr", "scontrol", "sinfo", "scancel")
DOWNSTREAM = 20
NAN = float("nan")

# It plays all programs of Slurm: counts its calls, makes the outputs of submitted jobs, and calls them done.
STUB = """#!{python} -IS
import os, re, sys
from pathlib import Path
folder, name = Path({folder!r}), os.path.basename(sys.argv[0])
with open(folder / "calls", "a") as calls:
    calls.write(name + "\\n")
if name == "sbatch":
    text = " ".join(sys.argv)
    rule, _, wildcards = re.search(r"--target-jobs '?([^' ]+)", text).group(1).partition(":")
    target = rule + " " + " ".join(sorted(wildcards.replace('"', "").split(",")))
    for line in open(folder / "outputs"):
        owner, path = line.rstrip("\\n").split("\\t")
        if owner == target.strip():
            path = Path({tree!r}, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{{}}" if path.suffix == ".json" else "")
    with open(folder / "jobs", "a") as file:
        file.write(rule + "\\n")
    number = os.getpid()
    with open(folder / "numbers", "a") as file:
        print(number, file=file)
    print(number)
elif name in ("squeue", "sacct") and (folder / "numbers").exists():
    for number in (folder / "numbers").read_text().split():
        print(f"{{number}}|COMPLETED")
elif name == "scontrol":
    print("MinJobAge = 300 sec")
elif name == "sacctmgr":
    print("default")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--subjects", type=int, default=corpus.SUBJECTS, help="fewer: the table is not written")
    parser.add_argument("--keep", type=Path, help="folder of the tree; what is there is used")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boldly-benchmark-") as temporary:
        table = measure((arguments.keep or Path(temporary)) / "tree", Path(temporary), arguments.subjects)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if arguments.subjects == corpus.SUBJECTS:
        write_tsv(TABLE, table)


def measure(tree: Path, stubs: Path, subjects: int) -> pd.DataFrame:
    """Make the tree, index it, run everything behind it on a Slurm that only counts."""
    if not tree.exists():
        call("boldly", "simulate", "--headers-only", "--subjects", str(subjects), "--output", str(tree))
    of_reference(tree / "config.yaml")
    snakemake(tree, "index", "--quiet", "all")
    play_slurm(tree, stubs)
    head = run_head(tree, stubs)
    jobs = (stubs / "jobs").read_text().split()
    calls = (stubs / "calls").read_text().split()
    print(pd.Series(jobs).value_counts().to_string(), pd.Series(calls).value_counts().to_string(), sep="\n\n")
    n_prepare = jobs.count("prepare_batch")
    batch = next((tree / "results/prepare").glob("*/shard_*of*.json"))
    prepare = f"prepare_batch:dataset={batch.parent.name},stage=shard,batch={batch.stem.partition('_')[2]}"
    rows = [
        ("jobs", len(jobs), len(jobs) - n_prepare + 3 * subjects, "jobs"),
        ("jobs that prepare subjects", n_prepare, 3 * subjects, "jobs"),
        ("calls of the scheduler", len(calls), NAN, "calls"),
        ("seconds between two looks at the jobs", 40, NAN, "s"),
        ("processor time", head.processor_s, NAN, "s"),
        ("peak memory", head.memory_gb, 2.0, "GB"),
        ("start of a job that prepares subjects", start(tree, prepare), 5.0, "s"),
        ("start of the job that packs all runs", start(tree, "pretrain_corpus:corpus=all"), 5.0, "s"),
    ]
    table = pd.DataFrame(rows, columns=["metric", "ours", "reference", "unit"])
    table.insert(3, "ratio", table["reference"] / table["ours"])
    return table


def of_reference(config: Path) -> None:
    """Give the tree's config as many experiments as the preprint had."""
    content = yaml.safe_load(config.read_text())
    upstream = {"layers": 4, "width": 768, "heads": 12, "window_frames": [10, 100]}
    frameworks = ("autoencoding", "csm", "sequence_bert", "network_bert", "masked_autoencoding")
    content["pretrain"]["experiments"] = {name: {"framework": name, **upstream} for name in frameworks}
    content["adapt"] = {
        "baselines": [],
        "controls": [],
        "experiments": {
            f"{name}{number}": {"pretrained": name, "method": "finetune", "learning_rate": 1e-4 / (1 + number)}
            for name in frameworks
            for number in range(DOWNSTREAM // len(frameworks))
        },
    }
    config.write_text(yaml.safe_dump(content))


def play_slurm(tree: Path, stubs: Path) -> None:
    """Write the programs that play Slurm, and the outputs of each rule, by which they know what a job makes."""
    for name in PROGRAMS:
        path = stubs / name
        path.write_text(STUB.format(python=sys.executable, folder=str(stubs), tree=str(tree)))
        path.chmod(0o755)
    planned = snakemake(tree, "--dry-run", "--config", "batches={minutes: 20}").text
    lines = []
    for block in re.split(r"\n(?=(?:rule|checkpoint) \w+:\n)", planned)[1:]:
        fields = dict(re.findall(r"^    (output|benchmark|wildcards): (.*)$", block, flags=re.MULTILINE))
        wildcards = sorted(pair for pair in fields.get("wildcards", "").split(", ") if pair)
        target = " ".join([block.split()[1].rstrip(":"), *wildcards])
        # A job that ended without its usage file has failed.
        paths = [*fields.get("output", "").split(", "), fields.get("benchmark", "")]
        lines += [f"{target}\t{path}\n" for path in paths if path]
    (stubs / "outputs").write_text("".join(lines))


def run_head(tree: Path, stubs: Path) -> Call:
    """Run Snakemake with the profile slurm to its end."""
    polling = str(CHECKOUT / "tests/cluster/quick_polling")
    environment = {
        "PATH": f"{stubs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{polling}:{os.environ.get('PYTHONPATH', '')}",
    }
    os.environ.update(environment)
    settings = [
        "--directory",
        str(tree),
        "--configfile",
        str(tree / "config.yaml"),
        "--profile",
        str(CHECKOUT / "slurm"),
    ]
    return call("snakemake", *settings, "--quiet", "all", "--latency-wait", "5")


def start(tree: Path, target: str) -> float:
    """Return the processor time (s) that Snakemake takes on a node until a job could begin."""
    of_node = ["--mode", "remote", "--executor", "dryrun", "--nolock", "--force", "--rerun-triggers", "mtime"]
    done = snakemake(tree, *of_node, "--target-jobs", target, "--allowed-rules", target.partition(":")[0])
    return done.processor_s


if __name__ == "__main__":
    main()
