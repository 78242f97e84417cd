"""Parcellation against nilearn's NiftiMapsMasker: time, memory and agreement, on data of real size.

Data are generated, since neither real runs nor DiFuMo can be shipped. The run has 200 volumes of 97x115x97 voxels
of 2 mm, as fMRIPrep writes them in MNI space: int16 with dim noise around the head, and in an ellipsoid of the
size of a brain (1.7 l) a level of 5,000 to 15,000 with smooth fluctuations of 2 % and voxel noise of 2 %.
Compressed it has a bit more than half its size. The atlas has 1,024 maps with the properties of DiFuMo that
matter here: smooth, not negative, zero outside of a patch of some thousand voxels, about seven of them overlapping
in each voxel.

Both do the same to a run: smooth with 3 mm, extract by least squares, detrend, high-pass at 0.008 Hz, regress nine
nuisances out, z-score. Both read the same files, each in a process of its own, so that its peak memory is its own.

Inside a brain mask (`parcellate.mask`, the default) ours has one row more; nilearn is not timed with `mask_img`.

transform per run: nilearn's `transform` after its `fit`; ours opens the cached projection and reads, extracts and
    cleans the run. Median of seven runs for ours, one run for nilearn.
the same inside a mask: ours; the mask leaves out the outer 5 % of the brain, so that parcels at its border lose
    voxels. The column reference is ours without the mask.
subject of 7 runs: imports and seven runs, and with nilearn its fit once.
build or fit: nilearn's fit (once per subject); our projection (once per atlas, grid and kernel).
largest difference: between the two, over all frames and parcels, of the z-scores.
largest error: of each from the same computation in double precision. nilearn computes in single precision here.
largest error inside a mask: of ours.

Usage: python benchmarks/parcellate.py [--quick] [--keep FOLDER] [--ours]
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage, sparse

TABLE = Path("results/benchmarks/parcellate.tsv")
RUNS = 7
T_R = 2.0
FWHM_MM = 3.0
HIGH_PASS_HZ = 0.008


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller problem; the table is not written")
    parser.add_argument("--keep", type=Path, help="folder for the generated data, kept and used again")
    parser.add_argument("--ours", action="store_true", help="without nilearn; the table is not written")
    parser.add_argument("--measure", choices=["ours", "reference"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps({"ours": ours, "reference": reference}[arguments.measure](arguments.keep)))
        return
    with tempfile.TemporaryDirectory(prefix="boldly-benchmark-") as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "confounds.npy").exists():
            generate(folder, quick=arguments.quick)
        table = compare(folder, with_reference=not arguments.ours)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if not (arguments.quick or arguments.ours):
        from boldly.files import write_tsv

        write_tsv(TABLE, table)


def compare(folder: Path, *, with_reference: bool) -> pd.DataFrame:
    """Measure both, each in a process of its own, and put the figures side by side."""
    measured: dict[str, dict[str, float]] = {"reference": defaultdict(lambda: np.nan)}
    for name in ("ours", "reference") if with_reference else ("ours",):
        command = [sys.executable, __file__, "--measure", name, "--keep", str(folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        measured[name] = json.loads(done.stdout.splitlines()[-1])
    one, other = measured["ours"], measured["reference"]
    found, masked = (np.load(folder / f"{name}.npy") for name in ("ours", "ours_masked"))
    expected = np.load(folder / "reference.npy") if with_reference else np.full_like(found, np.nan)
    exact, exact_masked = double_precision(folder), double_precision(folder, _mask(folder))
    rows = [
        ("transform per run", one["run"], other["run"], "s"),
        ("the same inside a mask", one["masked"], one["run"], "s"),
        (
            "subject of 7 runs",
            one["imports"] + RUNS * one["run"],
            other["imports"] + other["fit"] + RUNS * other["run"],
            "s",
        ),
        ("build or fit", one["fit"], other["fit"], "s"),
        ("peak memory", one["memory"], other["memory"], "GB"),
        ("peak memory of build or fit", one["memory_fit"], other["memory_fit"], "GB"),
        ("largest difference", float(np.abs(found - expected).max()), np.nan, "SD"),
        ("largest error", float(np.abs(found - exact).max()), float(np.abs(expected - exact).max()), "SD"),
        ("largest error inside a mask", float(np.abs(masked - exact_masked).max()), np.nan, "SD"),
    ]
    table = pd.DataFrame(rows, columns=["metric", "ours", "reference", "unit"])
    table.insert(3, "ratio", table["reference"] / table["ours"])
    return table


def ours(folder: Path) -> dict[str, float]:
    """Time boldly; leave its signals in the folder."""
    start = time.perf_counter()
    from boldly.config import AtlasOptions, ParcellateOptions
    from boldly.signals.atlas import load_atlas
    from boldly.signals.cleaning import clean
    from boldly.signals.images import open_volumes, read_mask
    from boldly.signals.projection import load_projection

    result = {"imports": time.perf_counter() - start}
    options = ParcellateOptions(smoothing_fwhm_mm=FWHM_MM, high_pass_hz=HIGH_PASS_HZ)
    confounds = np.load(folder / "confounds.npy")
    kept = np.ones(len(confounds), dtype=bool)
    cache = folder / "cache"

    def build() -> float:
        start = time.perf_counter()
        atlas = load_atlas(AtlasOptions(path=str(folder / "atlas.nii.gz")))
        load_projection(atlas, open_volumes(folder / "bold.nii.gz").grid, options.smoothing_fwhm_mm, cache)
        return time.perf_counter() - start

    def transform(mask: Path | None = None) -> np.ndarray:
        atlas = load_atlas(AtlasOptions(path=str(folder / "atlas.nii.gz")))
        volumes = open_volumes(folder / "bold.nii.gz")
        projection = load_projection(atlas, volumes.grid, options.smoothing_fwhm_mm, cache)
        if mask is not None:
            projection = projection.within(read_mask(mask, volumes.grid, "run"), options.smoothing_fwhm_mm)
        signals = projection.extract(volumes).signals
        return clean(signals, kept=kept, regressors=confounds, t_r=T_R, options=options).data.astype(np.float32)

    if not cache.exists():
        # Building has a process of its own, so that its memory is not counted as that of the runs.
        result["fit"] = build()
        result["memory_fit"] = _peak_gb()
        command = [sys.executable, __file__, "--measure", "ours", "--keep", str(folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return result | json.loads(done.stdout.splitlines()[-1])
    for metric, name, mask in (("run", "ours", None), ("masked", "ours_masked", folder / "mask.nii.gz")):
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            signals = transform(mask)
            seconds.append(time.perf_counter() - start)
        np.save(folder / f"{name}.npy", signals)
        result |= {metric: float(np.median(seconds)), "memory": result.get("memory", _peak_gb())}
    return result


def reference(folder: Path) -> dict[str, float]:
    """Time nilearn; leave its signals in the folder."""
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    from nilearn.maskers import NiftiMapsMasker

    result = {"imports": time.perf_counter() - start}
    run = str(folder / "bold.nii.gz")
    masker = NiftiMapsMasker(
        str(folder / "atlas.nii.gz"),
        smoothing_fwhm=FWHM_MM,
        detrend=True,
        high_pass=HIGH_PASS_HZ,
        standardize="zscore_sample",
        t_r=T_R,
        reports=False,
    )
    start = time.perf_counter()
    masker.fit(run)
    result["fit"] = time.perf_counter() - start
    result["memory_fit"] = _peak_gb()
    start = time.perf_counter()
    signals = masker.transform(run, confounds=np.load(folder / "confounds.npy"))
    result["run"] = time.perf_counter() - start
    np.save(folder / "reference.npy", signals)
    return result | {"memory": _peak_gb()}


def _mask(folder: Path) -> np.ndarray:
    """Return which voxels lie inside the mask, flat, in the order of `ravel`."""
    return np.asarray(nib.nifti1.load(folder / "mask.nii.gz").dataobj).ravel() > 0


def double_precision(folder: Path, inside: np.ndarray | None = None) -> np.ndarray:
    """Compute the same in double precision, the plain way: smooth each volume, solve the normal equations."""
    from nilearn.signal import clean

    confounds = np.load(folder / "confounds.npy")
    atlas, run = (nib.nifti1.load(folder / f"{name}.nii.gz") for name in ("atlas", "bold"))
    maps = sparse.hstack([sparse.csc_array(image.reshape(-1, 1)) for image in _images(atlas)]).astype(np.float64)
    if inside is not None:
        maps = sparse.diags_array(inside.astype(np.float64)) @ maps
    sigma = FWHM_MM / np.sqrt(8 * np.log(2)) / np.diag(run.affine)[:3]
    smoothed = (ndimage.gaussian_filter(image.astype(np.float64), sigma) for image in _images(run))
    projected = np.stack([maps.T @ image.ravel() for image in smoothed], axis=1)
    signals = np.linalg.solve((maps.T @ maps).toarray(), projected).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clean(signals, confounds=confounds, high_pass=HIGH_PASS_HZ, t_r=T_R, standardize="zscore_sample")


def _images(image: nib.nifti1.Nifti1Image) -> Iterator[np.ndarray]:
    """Read an image volume by volume."""
    stored: Any = image.dataobj
    with gzip.open(image.get_filename() or "") as stream:
        stream.read(stored.offset)
        volume = int(np.prod(image.shape[:3]))
        for _ in range(image.shape[3]):
            values = np.frombuffer(stream.read(volume * stored.dtype.itemsize), stored.dtype)
            yield values.reshape(image.shape[:3], order="F")


def generate(folder: Path, *, quick: bool) -> None:
    """Write run, atlas and confounds."""
    rng = np.random.default_rng(20240607)
    shape, n_volumes, n_maps, edge = ((49, 58, 49), 60, 128, 4.0) if quick else ((97, 115, 97), 200, 1024, 2.0)
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = -edge * (np.array(shape) - 1) / 2
    # Half axes of 66, 84 and 74 mm.
    axes = [(np.arange(n) - (n - 1) / 2) * edge / half for n, half in zip(shape, (66, 84, 74), strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    brain = x**2 + y**2 + z**2 < 1
    core = (x**2 + y**2 + z**2 < 0.95 ** (2 / 3)).astype(np.uint8)
    nib.save(nib.nifti1.Nifti1Image(core, affine), folder / "mask.nii.gz")
    _write_atlas(folder / "atlas.nii.gz", rng, brain, affine, n_maps)
    _write_run(folder / "bold.nii.gz", rng, brain, affine, n_volumes)
    np.save(folder / "confounds.npy", np.cumsum(rng.normal(size=(n_volumes, 9)), axis=0))


def _write_atlas(path: Path, rng: np.random.Generator, brain: np.ndarray, affine: np.ndarray, n_maps: int) -> None:
    inside = np.argwhere(brain)
    centres = inside[rng.choice(len(inside), n_maps, replace=False)]
    # Maps reach twice as far as parcels that share the brain without overlap would.
    radius = 2.0 * (len(inside) / n_maps * 3 / (4 * np.pi)) ** (1 / 3)
    maps: np.ndarray = np.zeros((*brain.shape, n_maps), np.float32, order="F")
    for number, centre in enumerate(centres):
        reach = int(1.3 * radius) + 1
        box = tuple(slice(max(c - reach, 0), c + reach + 1) for c in centre)
        near = np.argwhere(brain[box]) + [part.start for part in box]
        distance = (((near - centre) * rng.uniform(0.8, 1.25, 3)) ** 2).sum(axis=1)
        maps[(*near.T, number)] = np.maximum(1 - distance / radius**2, 0)
    nib.save(nib.Nifti1Image(maps, affine), path)


def _write_run(
    path: Path, rng: np.random.Generator, brain: np.ndarray, affine: np.ndarray, n_volumes: int
) -> None:
    level = 10_000 + 2_500 * _smooth(rng, brain.shape, 3)
    # A slow mixture of smooth patterns, and noise of each voxel.
    patterns = np.stack([_smooth(rng, brain.shape, 4) for _ in range(24)])
    course = ndimage.gaussian_filter1d(rng.normal(size=(n_volumes, len(patterns))), 1.5, axis=0)
    course /= course.std() * np.sqrt(len(patterns))
    data: np.ndarray = np.empty((*brain.shape, n_volumes), np.int16, order="F")
    flat = patterns[:, brain].astype(np.float32)
    for volume, weights in enumerate(course.astype(np.float32)):
        change = 0.02 * (weights @ flat + rng.standard_normal(flat.shape[1], np.float32))
        data[..., volume] = 40 + 12 * rng.standard_normal(brain.shape, np.float32)
        data[brain, volume] = np.rint(np.clip(level[brain], 5_000, 15_000) * (1 + change))
    image = nib.Nifti1Image(data, affine)
    image.header.set_zooms((*np.diag(affine)[:3], T_R))
    nib.save(image, path)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Return a smooth random pattern of unit variance."""
    pattern = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma)
    return pattern / pattern.std()


def _peak_gb() -> float:
    # Not getrusage, whose peak a process takes over from the one that started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e9


if __name__ == "__main__":
    main()
