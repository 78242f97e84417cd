"""Decoding of one long run by the command line: time from start to tables and picture.

The run has 1,200 volumes of 97x115x97 voxels of 2 mm, with brain mask and confounds, as fMRIPrep writes them; the
atlas has 1,024 maps like those of DiFuMo (`benchmarks/parcellate.py` says how both are generated; the volumes are
200 different ones, six times over). The decoder is a probe on a network of the default size with random weights:
what it says means nothing, how long it takes does not depend on that.

Measured is the whole of ``boldly decode`` in a process of its own: imports, loading, checking and parcellating the
run, cleaning, the network on 100 sliding windows and more, tables and picture.

first run: with an empty cache, so that the projection of the atlas on the grid of the run is built, too.
next runs: with the projection in the cache.

Wall time is that of the machine as it was; user time is that of the processor, over all threads.

Usage: python benchmarks/decode.py [--quick] [--keep FOLDER] [--dtype int16 float32]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from isal import igzip

sys.path.insert(0, str(Path(__file__).parent))

import parcellate

from boldly.config import (
    AdaptOptions,
    AtlasOptions,
    ParcellateOptions,
    PreprocessOptions,
    PretrainOptions,
    TaskOptions,
)
from boldly.decoding.folder import About, AtlasReference, Training, write_about
from boldly.files import write_json, write_tsv
from boldly.models.build import build_network, pretraining_config, save_network
from boldly.provenance import Contract
from boldly.samples.shards import Sample, write_shard
from boldly.signals.atlas import load_atlas
from boldly.stages import adapt
from boldly.stages.parcellate import contract_of

TABLE = Path("results/benchmarks/decode.tsv")
SPACE = "MNI152NLin2009cAsym"
T_R = 2.0
REPEATS = 6
STATES = ["one", "two", "three", "four"]
NAME = f"sub-01_task-rest_space-{SPACE}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller problem; the table is not written")
    parser.add_argument("--keep", type=Path, help="folder for the generated data, kept and used again")
    parser.add_argument("--dtype", nargs="+", choices=["int16", "float32"], default=["int16", "float32"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boldly-benchmark-") as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "confounds.npy").exists():
            parcellate.generate(folder, quick=arguments.quick)
        if not (folder / "decoder").exists():
            write_decoder(folder)
        rows = []
        for dtype in arguments.dtype:
            write_run(folder, dtype)
            shutil.rmtree(folder / "cache", ignore_errors=True)
            for name in ("first run", "next runs"):
                wall, user = measure(folder)
                rows.append((name, dtype, wall, user))
            shutil.rmtree(folder / "derivatives")
    table = pd.DataFrame(rows, columns=["metric", "numbers", "wall_s", "user_s"])
    print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}"))
    print(f"load of the machine over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if not arguments.quick:
        write_tsv(TABLE, table)


def measure(folder: Path) -> tuple[float, float]:
    """Decode the run in a process of its own; return wall and user seconds."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "boldly",
        "decode",
        "--model",
        folder / "decoder",
        "--cache",
        folder / "cache",
    ]
    command += ["--derivatives", folder / "derivatives", "--output", folder / "out"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    start = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    return wall, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def write_run(folder: Path, dtype: str) -> None:
    """Write the long run with mask and confounds, compressed as fMRIPrep compresses."""
    func = folder / "derivatives" / "sub-01" / "func"
    func.mkdir(parents=True, exist_ok=True)
    short = nib.nifti1.load(folder / "bold.nii.gz")
    header = short.header.copy()
    n_volumes = short.shape[3] * REPEATS
    header.set_data_shape((*short.shape[:3], n_volumes))
    header.set_data_dtype(dtype)
    header.set_slope_inter(1, 0)
    volumes = np.asarray(short.dataobj).astype(dtype)
    with igzip.open(func / f"{NAME}_desc-preproc_bold.nii.gz", "wb", compresslevel=1) as stream:
        stream.write(header.binaryblock + bytes(4))
        for _ in range(REPEATS):
            for volume in range(short.shape[3]):
                stream.write(volumes[..., volume].tobytes(order="F"))
    write_json(func / f"{NAME}_desc-preproc_bold.json", {"RepetitionTime": T_R, "SliceTimingCorrected": False})
    inside = (volumes[..., 0] > 1_000).astype(np.uint8)
    nib.save(nib.nifti1.Nifti1Image(inside, short.affine), func / f"{NAME}_desc-brain_mask.nii.gz")
    rng = np.random.default_rng(0)
    names = ["csf", "white_matter", "global_signal", "trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    table = pd.DataFrame(np.cumsum(rng.normal(size=(n_volumes, len(names))), axis=0), columns=names)
    write_tsv(func / "sub-01_task-rest_desc-confounds_timeseries.tsv", table)


def write_decoder(folder: Path) -> None:
    """Write a probe on a network of the default size with random weights."""
    preprocess, options = PreprocessOptions(), ParcellateOptions()
    atlas = load_atlas(AtlasOptions(path=str(folder / "atlas.nii.gz"), name="benchmark"))
    contract = contract_of(SPACE, atlas, options, preprocess)
    config = pretraining_config(PretrainOptions(framework="csm"), atlas.n_parcels)
    save_network(folder / "network", config, build_network(config, seed=1).state_dict(), contract)
    split = write_trials(folder / "trials", contract)
    model = adapt.UpstreamModel("csm", 1, folder / "network")
    adapted = folder / "adapted"
    adapt.run(
        name="csm",
        options=AdaptOptions(pretrained="csm"),
        dataset="toy",
        split=split,
        shards=folder / "trials",
        models=[model],
        output=adapted,
    )
    output = folder / "decoder"
    shutil.copytree(adapted / "n-2_draw-0_seed-1", output / "fit")
    shutil.copytree(adapted / "encoders", output / "encoders")
    (output / "atlas").mkdir()
    shutil.copyfile(folder / "atlas.nii.gz", output / "atlas" / "atlas.nii.gz")
    training = Training(
        experiment="csm", kind="pretrained", start="csm", dataset="toy", by="subject", n=2, draw=0, seed=1,
        train=["01", "02"], validation=[], test=[],
    )  # fmt: skip
    about = About(
        name="benchmark",
        kind="probe",
        labels=STATES,
        longest_frames=50,
        t_r_s=(T_R, T_R),
        window_s=40.0,
        task=TaskOptions(delay_s=4.0, labels=STATES),
        preprocess=preprocess,
        parcellate=options,
        atlas=AtlasReference(name="benchmark", sha256=atlas.sha256, file="atlas/atlas.nii.gz"),
        training=training,
    )
    write_about(output, about, contract)


def write_trials(folder: Path, contract: Contract) -> Path:
    """Write trials of noise of two people; return their split."""
    rng = np.random.default_rng(1)
    flat = np.zeros(contract.n_parcels, np.float32)
    for subject in ("01", "02"):
        samples = []
        for number in range(16):
            key, label = f"ds-toy_sub-{subject}_task-t_run-{1 + number // 8}", number % len(STATES)
            meta = {"dataset": "toy", "subject": subject, "run_key": key, "entities": {}, "t_r": T_R, "marked": []}
            meta |= {"n_volumes": 20, "number": number, "label": label, "label_name": STATES[label]}
            meta |= {"labels": STATES, "onset": 0.0, "duration": 40.0}
            data = rng.normal(size=(20, contract.n_parcels)).astype(np.float16)
            samples.append(Sample(f"{key}_sample_{number:03d}", data, flat, flat + 1, meta, contract))
        write_shard(folder / f"ds-toy_sub-{subject}.tar", samples)
    draw = {"n": 2, "draw": 0, "train": ["01", "02"], "validation": [], "test": ["01"]}
    split = folder / "split.json"
    write_json(split, {"dataset": "toy", "role": "downstream", "by": "subject", "seed": 1, "draws": [draw]})
    return split


if __name__ == "__main__":
    main()
