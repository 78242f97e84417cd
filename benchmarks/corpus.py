"""One packed corpus that all processes of a node map, against a copy of all shards in the memory of each.

Data are generated: runs of 300 frames of 1,024 parcels in float16, in shards of seven runs, as many as asked for
(12,000 is the size of the preprint). Both sides cut the same windows, which is checked bit for bit. Memory of all
processes together is the sum of their proportional shares (PSS), in which what they share counts once, looked at
ten times a second from their start until each has cut its windows; the reference is the same with all shards read
by each process.

resident memory of all processes: at the end.
peak memory of all processes: the largest sum.
peak memory of packing: of the process that packs.
packing: shards to packed corpus; the reference is the speed at which the same shards are copied, nothing checked.
linear fits: the VAR for all runs and the forecasts for each group, once for all experiments and processes.
until windows are there: from the start of a process, imports included, to its first batch.
start of a training: wall time of `boldly pretrain` for one step of a small network: with the packed corpus and its
    fits, and from shards.
windows per second: batches of 32 from the map, and from memory.

Usage: python benchmarks/corpus.py [--runs N] [--processes N] [--threads N] [--folder FOLDER] [--packed-only]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing as mp
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boldly.bids import shard_name
from boldly.files import write_json, write_tsv
from boldly.provenance import Contract
from boldly.samples.shards import Sample, write_shard

TABLE = Path("results/benchmarks/corpus.tsv")
N_FRAMES, N_PARCELS, RUNS_PER_SHARD, DATASETS = 300, 1024, 7, ("one", "two")
BATCH, BATCHES = 32, 200
OPTIONS = {
    "framework": "csm", "layers": 1, "width": 32, "heads": 2, "steps": 1, "batch_size": BATCH,
    "validation_windows": 64, "keep_untrained": True, "track": [],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=1200)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2, help="of the packing")
    parser.add_argument("--folder", type=Path, help="where the data go; default: a temporary folder")
    parser.add_argument("--packed-only", action="store_true", help="leave the reference out where it does not fit")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boldly-benchmark-", dir=arguments.folder) as name:
        table = pd.DataFrame(
            measure(Path(name), arguments), columns=["metric", "ours", "reference", "ratio", "unit"]
        )
    table["unit"] += f" ({arguments.runs} runs, {arguments.processes} processes)"
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if not arguments.packed_only:
        write_tsv(TABLE, table)


def measure(folder: Path, arguments: argparse.Namespace) -> list[tuple[Any, ...]]:
    data = generate(folder, arguments.runs)
    shards = [path for _, shards in data for path in sorted(shards.iterdir())]
    size_mb = sum(path.stat().st_size for path in shards) / 1e6
    print(f"{len(shards)} shards, {size_mb:.0f} MB", flush=True)
    started = time.perf_counter()
    for path in shards:
        shutil.copyfile(path, folder / "copy")
    copied_s = time.perf_counter() - started
    pairs = [word for split, own in data for word in ("--data", str(split), str(own))]
    command = ["corpus", *pairs, "--output", str(folder / "corpus"), "--threads", str(arguments.threads)]
    told = boldly(command)
    packed_s, whole_s = (float(line.split()[-2]) for line in told["log"] if line.endswith(" s"))
    rows: list[tuple[Any, ...]] = [
        row("packing", size_mb / packed_s, size_mb / copied_s, "MB/s"),
        ("linear fits", whole_s - packed_s, "", "", "s"),
        ("peak memory of packing", told["peak_gb"], "", "", "GB"),
    ]
    corpus = ["--corpus", str(folder / "corpus")]
    train = [
        "pretrain",
        "--name",
        "toy",
        "--options",
        json.dumps(OPTIONS),
        *pairs,
        "--output",
        str(folder / "out"),
    ]
    started_s = {}
    for side in ("packed",) if arguments.packed_only else ("packed", "shards"):
        started_s[side] = boldly([*train, *(corpus if side == "packed" else [])])["seconds"]
        shutil.rmtree(folder / "out")
    found = {side: together(folder / "corpus", shards, side, arguments.processes) for side in started_s}
    assert len({checksum for side in found.values() for checksum in side["windows"]}) == 1, "windows differ"

    def both(metric: str, unit: str, larger_is_better: bool = False) -> tuple[Any, ...]:
        ours, reference = found["packed"][metric], found.get("shards", {}).get(metric)
        return row(metric, ours, reference, unit, larger_is_better)

    return [
        both("resident memory of all processes", "GB"),
        both("peak memory of all processes", "GB"),
        both("until windows are there", "s"),
        row("start of a training", started_s["packed"], started_s.get("shards"), "s", False),
        both("windows per second", "windows/s", True),
        *rows,
    ]


def row(
    metric: str, ours: float, reference: float | None, unit: str, larger_is_better: bool = True
) -> tuple[Any, ...]:
    if reference is None:
        return metric, ours, "", "", unit
    return metric, ours, reference, ours / reference if larger_is_better else reference / ours, unit


def generate(folder: Path, n_runs: int) -> list[tuple[Path, Path]]:
    """Write shards of two datasets with repetition times of their own; runs are cuts of one long series."""
    rng = np.random.default_rng(0)
    series = np.zeros((4 * N_FRAMES, N_PARCELS), np.float32)
    for frame in range(1, len(series)):
        series[frame] = 0.8 * series[frame - 1] + 0.6 * rng.standard_normal(N_PARCELS)
    signals = series.astype(np.float16)
    contract = Contract(
        "generated", "0" * 64, N_PARCELS, "none", {"strategy": []}, None, None, None, True, "zscore"
    )
    n_subjects = -(-n_runs // RUNS_PER_SHARD // len(DATASETS))
    data = []
    for number, dataset in enumerate(DATASETS):
        subjects = [f"{subject:04d}" for subject in range(n_subjects)]
        for subject in subjects:
            samples = []
            for run in range(RUNS_PER_SHARD):
                key = f"ds-{dataset}_sub-{subject}_task-rest_run-{run + 1}"
                first = int(rng.integers(3 * N_FRAMES))
                mean, std = rng.normal([[1000], [2]], 0.3, (2, N_PARCELS)).astype(np.float32)
                meta = {"dataset": dataset, "subject": subject, "run_key": key, "t_r": (2.0, 0.8)[number]}
                meta |= {"n_volumes": N_FRAMES, "marked": [], "entities": {}}
                samples.append(Sample(key, signals[first : first + N_FRAMES], mean, std, meta, contract))
            write_shard(folder / dataset / shard_name(dataset, subject), samples)
        held_out = max(1, n_subjects // 20)
        parts = {"train": subjects[:-held_out], "validation": subjects[-held_out:]}
        split = folder / f"{dataset}.json"
        write_json(split, {"dataset": dataset, "role": "upstream", "by": "subject", "seed": 1, **parts})
        data.append((split, folder / dataset))
    return data


def boldly(command: Sequence[str]) -> dict[str, Any]:
    """Run the command line in a process of its own."""
    program = (
        "import resource, sys; from boldly.cli import main; status = main(sys.argv[1:]);"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, peak_kb = time.perf_counter() - started, int(done.stdout.split()[-1])
    return {"seconds": seconds, "peak_gb": peak_kb / 1e6, "log": done.stderr.splitlines()}


def together(corpus: Path, shards: list[Path], side: str, processes: int) -> dict[str, Any]:
    """Let processes cut windows at the same time; return their memory, speed, and checksums of the windows."""
    context = mp.get_context("spawn")
    results: Queue[dict[str, Any]] = context.Queue()
    barrier = context.Barrier(processes + 1)
    started = time.time()
    workers = [
        context.Process(target=cut, args=(corpus, shards, side, started, results, barrier))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    found: list[dict[str, Any]] = []
    memory = [0.0]
    while len(found) < processes:
        memory.append(sum(pss_gb(worker.pid) for worker in workers))
        while not results.empty():
            found.append(results.get())
        if any(worker.exitcode for worker in workers):
            sys.exit(f"corpus: a process of side {side} died")
        time.sleep(0.1)
    resident = sum(pss_gb(worker.pid) for worker in workers)
    barrier.wait()
    for worker in workers:
        worker.join()
    return {
        "resident memory of all processes": resident,
        "peak memory of all processes": max(memory),
        "until windows are there": max(result["seconds"] for result in found),
        "windows per second": float(np.median([result["speed"] for result in found])),
        "windows": [result["windows"] for result in found],
    }


def pss_gb(pid: int | None) -> float:
    """Return the memory of a process; of what it shares with n - 1 others, the n-th part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith("Pss:")), 0.0)


def cut(
    corpus: Path, shards: list[Path], side: str, started: float, results: Queue[dict[str, Any]], barrier: Barrier
) -> None:
    """Be one of several processes: cut windows from all over the corpus."""
    from boldly.samples.packed import LooseShards, open_packed
    from boldly.samples.windows import WindowOptions, Windows

    source = open_packed(corpus) if side == "packed" else LooseShards()
    windows = Windows(source.corpus(shards), WindowOptions(10, 50, BATCH), 1, BATCH * BATCHES * 4)
    checksum = hashlib.sha256(windows.__getitems__(range(BATCH))["inputs"].numpy().tobytes())
    seconds = time.time() - started
    # The first pass brings pages into memory, the second is timed.
    for first in range(BATCH, BATCH * BATCHES * 2, BATCH):
        windows.__getitems__(range(first, first + BATCH))
    begun = time.perf_counter()
    for first in range(BATCH, BATCH * BATCHES, BATCH):
        checksum.update(windows.__getitems__(range(first, first + BATCH))["inputs"][:, :, ::64].numpy().tobytes())
    speed = BATCH * (BATCHES - 1) / (time.perf_counter() - begun)
    results.put({"seconds": seconds, "speed": speed, "windows": checksum.hexdigest()})
    barrier.wait()


if __name__ == "__main__":
    main()
