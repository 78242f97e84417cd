"""A small study and the stages that prepare it, run one by one, so that each can be given something broken."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn import datasets
from sklearn.utils import Bunch

from boldly import cli
from boldly.config import (
    AtlasOptions,
    Config,
    DatasetOptions,
    DownstreamSplitOptions,
    IndexOptions,
    ParcellateOptions,
    PreprocessOptions,
    ShardOptions,
    TaskOptions,
    UpstreamSplitOptions,
    load_config,
)
from boldly.stages import atlas, export, index, parcellate, preprocess, shard, split
from tests.conftest import RunFiles, _write_study

DATASET = "x"
SUBJECTS = ("01", "02")
RUNS, LABELS = Path("index/x_runs.tsv"), Path("index/x_labels.json")
TRIALS = Path("index/x_trials.tsv")
PROBLEMS = Path("index/x_problems.tsv")
NUISANCE, QC = Path("preprocess/sub-01_nuisance.tsv"), Path("preprocess/sub-01_qc.tsv")
SERIES, SHARD = Path("parcellate/sub-01_timeseries.safetensors"), Path("shard/ds-x_sub-01.tar")
SIGNAL_QUALITY = Path("parcellate/sub-01_quality.tsv")
SPLIT, ATLAS, CONFIG = Path("split/x.json"), Path("study/atlas-slabs_dseg.nii.gz"), Path("study/config.yaml")
FETCHED = AtlasOptions.model_validate({"name": "schaefer", "dimension": 100, "cache": "atlas"})

# What each stage writes for the first subject.
OUTPUTS: dict[str, tuple[Path, ...]] = {
    "config": (),
    "atlas": tuple(map(Path, FETCHED.fetched)),
    "index": (RUNS, LABELS, TRIALS),
    "preprocess": (NUISANCE, QC),
    "parcellate": (SERIES, SIGNAL_QUALITY),
    "shard": (SHARD,),
    "split": (SPLIT,),
    "export_lfb": (Path("export_lfb/sub-01.json"),),
    "export_bids": (Path("export_bids/sub-01.json"),),
}
CONFIG_TEXT = """\
atlas: {path: study/atlas-slabs_dseg.nii.gz}
datasets:
  x:
    role: downstream
    bids: study/bids
    derivatives: study/bids/derivatives/fmriprep
    task: study/task.yaml
"""


@dataclass
class Chain:
    """The stages in the current directory, with options that a fault may change.

    Attributes
    ----------
    options : dict
        Changes to the arguments of the stage that is run.
    """

    options: dict[str, Any] = field(default_factory=dict)

    def run(self, subject: str = "01", number: str = "1") -> RunFiles:
        """Return the files of a run of the study."""
        folder = Path("study/bids/derivatives/fmriprep", f"sub-{subject}", "func")
        prefix = f"sub-{subject}_task-blocks_run-{number}"
        in_space = f"{prefix}_space-MNI152NLin2009cAsym"
        return RunFiles(
            bold=folder / f"{in_space}_desc-preproc_bold.nii.gz",
            mask=folder / f"{in_space}_desc-brain_mask.nii.gz",
            sidecar=folder / f"{in_space}_desc-preproc_bold.json",
            confounds=folder / f"{prefix}_desc-confounds_timeseries.tsv",
            confounds_json=folder / f"{prefix}_desc-confounds_timeseries.json",
            events=Path("study/bids", f"sub-{subject}", "func", f"{prefix}_events.tsv"),
        )

    def stage(self, name: str, subject: str = "01") -> None:
        """Run a stage with its input as it is."""
        getattr(self, f"_{name}")(subject)

    def _config(self, _: str) -> Config:
        return load_config(CONFIG, Path.cwd())

    def _atlas(self, _: str) -> None:
        atlas.run(**({"atlas": FETCHED} | self.options))

    def _index(self, _: str) -> None:
        arguments: dict[str, Any] = {
            "dataset_options": dataset_options(TaskOptions()),
            "options": IndexOptions(),
            "preprocess": PreprocessOptions(),
            "window_frames": 10,
            "atlas": AtlasOptions(path=str(ATLAS)),
        }
        index.run(dataset=DATASET, runs=RUNS, labels=LABELS, **(arguments | self.options))

    def _preprocess(self, subject: str) -> None:
        outputs: dict[str, Any] = {"nuisance": _of(NUISANCE, subject), "qc": _of(QC, subject)}
        preprocess.run(runs=RUNS, subject=subject, **({"options": PreprocessOptions()} | self.options), **outputs)

    def _parcellate(self, subject: str) -> None:
        arguments: dict[str, Any] = {
            "atlas": AtlasOptions(path=str(ATLAS)),
            "options": ParcellateOptions(),
            "preprocess": PreprocessOptions(),
        }
        inputs: dict[str, Any] = {
            "runs": RUNS,
            "nuisance": _of(NUISANCE, subject),
            "qc": _of(QC, subject),
            "cache": Path("cache"),
        }
        outputs: dict[str, Any] = {"output": _of(SERIES, subject), "quality": _of(SIGNAL_QUALITY, subject)}
        parcellate.run(subject=subject, **inputs, **outputs, **(arguments | self.options))

    def _shard(self, subject: str) -> None:
        arguments: dict[str, Any] = {"role": "downstream", "task": TaskOptions(), "options": ShardOptions()}
        inputs: dict[str, Any] = {"timeseries": _of(SERIES, subject), "runs": RUNS, "labels": LABELS}
        inputs |= {"trials": TRIALS, "nuisance": _of(NUISANCE, subject)}
        output = _of(SHARD, subject)
        shard.run(subject=subject, window_frames=10, output=output, **inputs, **(arguments | self.options))

    def _split(self, _: str) -> None:
        arguments: dict[str, Any] = {
            "role": "downstream",
            "upstream": UpstreamSplitOptions(),
            "downstream": DownstreamSplitOptions(train=[1], validation=0, test=1, draws=1),
        }
        tables: dict[str, Any] = {
            name: [_of(path, subject) for subject in SUBJECTS]
            for name, path in {"qc": QC, "signals": SIGNAL_QUALITY}.items()
        }
        split.run(dataset=DATASET, runs=RUNS, seed=1, output=SPLIT, **tables, **(arguments | self.options))

    def _export_lfb(self, _: str) -> None:
        (output,) = OUTPUTS["export_lfb"]
        export.lfb_shards(shard=SHARD, folder=output.parent, output=output)

    def _export_bids(self, _: str) -> None:
        (output,) = OUTPUTS["export_bids"]
        own = AtlasOptions(path=str(ATLAS))
        export.bids_timeseries(timeseries=SERIES, atlas=own, dataset=DATASET, folder=output.parent, output=output)


def dataset_options(task: TaskOptions) -> DatasetOptions:
    """Return the options of the study as a dataset."""
    where = {"bids": "study/bids", "derivatives": "study/bids/derivatives/fmriprep"}
    return DatasetOptions(role="downstream", task=task, **where)


def _of(path: Path, subject: str) -> Path:
    return path.with_name(path.name.replace("sub-01", f"sub-{subject}"))


def write_clean() -> None:
    """Write the study and all that the stages make of it into the current directory."""
    _write_study(Path("study"), t_r=2.0)
    CONFIG.write_text(CONFIG_TEXT)
    Path("study/task.yaml").write_text("column: trial_type\n")
    chain = Chain()
    for name in OUTPUTS:
        for subject in SUBJECTS if name in ("preprocess", "parcellate", "shard") else SUBJECTS[:1]:
            chain.stage(name, subject)


def local_fetcher(**_: Any) -> Bunch:
    """Stand in for nilearn's fetcher of the Schaefer atlas."""
    image = nib.Nifti1Image(np.broadcast_to(np.arange(3, dtype=np.uint8), (2, 2, 3)), np.eye(4))
    lut = pd.DataFrame({"index": [0, 1, 2], "name": ["Background", "Vis_1", "Vis_2"]})
    return Bunch(maps=image, lut=lut, template="MNI152NLin6Asym")


def offer(fetcher: Callable[..., Bunch] = local_fetcher) -> None:
    """Put a function in the place of nilearn's fetcher."""
    datasets.fetch_atlas_schaefer_2018 = fetcher


def made(stage: str) -> dict[str, bytes]:
    """Return the bytes of all that a stage wrote for the first subject."""
    paths = list(Path(stage).rglob("*")) if stage.startswith("export") else OUTPUTS[stage]
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def forget(stage: str) -> None:
    """Remove what a stage wrote."""
    for path in made(stage):
        Path(path).unlink()


def restore(clean: Path, stage: str) -> None:
    """Bring everything that a stage reads back to what it was; what the stage itself left stays."""
    own = {path.parts[0] for path in OUTPUTS[stage]}
    for item in clean.iterdir():
        if item.is_dir() and item.name not in own:
            shutil.rmtree(item.name)
            shutil.copytree(item, item.name, symlinks=True)


def files() -> set[str]:
    """Return all files in the current directory but locks and the table of problems, which may be left."""
    paths = {str(path) for path in Path().rglob("*") if not path.is_dir()}
    return {path for path in paths if not path.endswith(".lock")} - {str(PROBLEMS)}


def write_limited(folder: Path, stage: str, limit: int, *, killed: bool, errors: Path) -> None:
    """Run a stage in `folder`, in a process of its own whose files cannot grow beyond `limit` bytes, and exit.

    The write that reaches the limit fails half done, as on a full disk. With `killed` the kernel ends the process
    at that byte instead: nothing cleans up behind it.
    """
    os.chdir(folder)
    offer()
    sys.stderr = errors.open("w")
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with mock.patch.object(cli, "parser") as parser:
        parser().parse_args.return_value.command = lambda _: Chain().stage(stage)
        sys.exit(cli.main([]))
