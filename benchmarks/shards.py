"""Writing and reading of shards against pickles in a WebDataset tar, the usual way to store arrays for training.

Both hold the same 100 runs of 300 frames and 1,024 parcels. Ours is `boldly.samples.shards`: arrays in .npy, their
checksums (SHA-256) and those of the meta data written and, when reading, verified; written beside the final name
and renamed. The reference is `webdataset.TarWriter`, which pickles array and meta data, and a plain loop over the
tar that unpickles, without checksum. Files are in the page cache of the system: what is measured is the processor.
Ours is slower throughout: most of that is the price of the checksums, not all of it, as the row with checksums on
both sides shows. Median of five, MB of arrays (10**6 bytes).

write float32: writing of float32 arrays.
read float32: reading of all samples, with a look at each byte, since ours are used where they were read.
write float16: the same for float16, in which shards are stored by default.
read float16: the same for float16.
read float32, checksums in both: the reference with the SHA-256 of its array and a comparison, reading.
size float32: of the file, per byte of the arrays.

Usage: python benchmarks/shards.py [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from webdataset import TarWriter

from boldly.files import write_tsv
from boldly.provenance import Contract
from boldly.samples.shards import Sample, read_shard, write_shard

TABLE = Path("results/benchmarks/shards.tsv")
REPEATS = 5
N_PARCELS = 1024
N_FRAMES = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller problem; the table is not written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boldly-benchmark-") as temporary:
        table = compare(Path(temporary), n_runs=10 if arguments.quick else 100)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if not arguments.quick:
        write_tsv(TABLE, table)


def compare(folder: Path, n_runs: int) -> pd.DataFrame:
    """Time both for both precisions, in turns, and put the figures side by side."""
    rows: list[tuple[str, float, float, str]] = []
    ours, reference = folder / "ours.tar", folder / "reference.tar"
    for dtype in ("float32", "float16"):
        samples = list(generate(n_runs, dtype))
        digests = {sample.key: hashlib.sha256(sample.bold.data).digest() for sample in samples}
        megabytes = sum(sample.bold.nbytes for sample in samples) / 1e6

        def rates(
            one: Callable[[], object], other: Callable[[], object], size: float = megabytes
        ) -> tuple[float, float]:
            seconds = np.array([[_seconds(action) for action in (one, other)] for _ in range(REPEATS)])
            mine, theirs = size / np.median(seconds, axis=0)
            return float(mine), float(theirs)

        writing = rates(partial(write_shard, ours, samples), partial(write_pickles, reference, samples))
        rows.append((f"write {dtype}", *writing, "MB/s"))
        reading = rates(lambda: read(read_shard(ours)), lambda: read(read_pickles(reference)))
        rows.append((f"read {dtype}", *reading, "MB/s"))
        if dtype == "float32":
            verified = rates(lambda: read(read_shard(ours)), partial(_read_verified, reference, digests))
            rows.append(("read float32, checksums in both", *verified, "MB/s"))
            size, other = (path.stat().st_size / 1e6 / megabytes for path in (ours, reference))
            rows.append(("size float32", size, other, "bytes"))
    table = pd.DataFrame(rows, columns=["metric", "ours", "reference", "unit"])
    faster = table["ours"] / table["reference"]
    table.insert(3, "ratio", faster.where(table["unit"] == "MB/s", 1 / faster))
    return table


def generate(n_runs: int, dtype: str) -> Iterator[Sample]:
    """Yield runs of noise."""
    contract = Contract(
        atlas="difumo",
        atlas_sha256="0" * 64,
        n_parcels=N_PARCELS,
        space="MNI152NLin2009cAsym",
        confounds={"strategy": ["motion", "wm_csf", "global_signal"], "motion": "basic"},
        smoothing_fwhm_mm=3.0,
        high_pass_hz=0.008,
        low_pass_hz=None,
        detrend=True,
        standardize="zscore",
    )
    rng = np.random.default_rng(20240607)
    for run in range(n_runs):
        key = f"ds-made_sub-01_task-rest_run-{run + 1}"
        entities = {"sub": "01", "task": "rest", "run": str(run + 1)}
        meta = {"dataset": "made", "subject": "01", "run_key": key, "entities": entities, "t_r": 2.0}
        yield Sample(
            key=key,
            bold=rng.standard_normal((N_FRAMES, N_PARCELS), np.float32).astype(dtype),
            mean=rng.uniform(5_000, 15_000, N_PARCELS).astype(np.float32),
            std=rng.uniform(50, 150, N_PARCELS).astype(np.float32),
            meta=meta | {"n_volumes": N_FRAMES, "marked": [], "missing": 0},
            contract=contract,
        )


def write_pickles(path: Path, samples: list[Sample]) -> None:
    """Write arrays and meta data as pickles."""
    with TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write({"__key__": sample.key, "bold.pyd": sample.bold, "meta.pyd": sample.meta})


def read_pickles(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield key and array of each sample of a file that this script has just written."""
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            stream = tar.extractfile(member)
            content = pickle.loads(stream.read() if stream else b"")
            if member.name.endswith(".bold.pyd"):
                yield member.name.partition(".")[0], content


def _read_verified(path: Path, digests: dict[str, bytes]) -> int:
    def verified() -> Iterator[tuple[str, np.ndarray]]:
        for key, bold in read_pickles(path):
            if hashlib.sha256(bold.data).digest() != digests[key]:
                raise ValueError(f"{key}: the checksum does not match")
            yield key, bold

    return read(verified())


def read(samples: Iterator[Sample] | Iterator[tuple[str, np.ndarray]]) -> int:
    """Look at every byte of all samples."""
    arrays = (sample.bold if isinstance(sample, Sample) else sample[1] for sample in samples)
    return sum(int(array.view(np.uint64).max() >> np.uint64(32)) for array in arrays)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
