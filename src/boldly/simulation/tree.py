"""The corpus of `boldly.simulation.corpus` as files: real names, sidecars and tables, images of zeros.

Files of equal content are hard links to one, so that 12,000 runs take seconds and megabytes.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

import boldly
from boldly import bids
from boldly.files import atomic_path, write_json, write_tsv
from boldly.simulation.anatomy import anatomy
from boldly.simulation.confounds import MOTION, confounds_table
from boldly.simulation.corpus import CorpusDataset, CorpusRun, prefix
from boldly.simulation.files import write_nifti

_STATES = ("faces", "houses", "words", "tools")
_BLOCK_S, _PAUSE_S = 16.0, 8.0
_CUT_BYTES = 300
_ANNEX = "../.git/annex/objects/absent/SHA256E-s1--0/SHA256E-s1--0"


class Tree:
    """Writes datasets below a folder; remembers the first file of each content.

    Parameters
    ----------
    output : Path
        The folder.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._first: dict[tuple[Any, ...], Path] = {}

    def write_dataset(self, dataset: CorpusDataset) -> None:
        """Write all subjects of a dataset."""
        raw = self._output / dataset.name
        for folder, kind in ((raw, "raw"), (raw / "derivatives" / "fmriprep", "derivative")):
            about = {"Name": f"boldly {dataset.name}: names only, no data", "BIDSVersion": "1.8.0"}
            made_by = [{"Name": "boldly simulate", "Version": boldly.__version__}]
            write_json(folder / "dataset_description.json", {**about, "DatasetType": kind, "GeneratedBy": made_by})
        for task in dataset.tasks:
            write_json(raw / f"task-{task}_bold.json", {"RepetitionTime": dataset.t_r, "TaskName": task})
        for subject in dataset.runs:
            self.write_subject(dataset, subject)

    def write_subject(self, dataset: CorpusDataset, subject: str) -> None:
        """Write all runs of a subject: image, mask, sidecars, confounds, and what fMRIPrep leaves beside."""
        raw = self._output / dataset.name
        derivatives = raw / "derivatives" / "fmriprep"
        for run in dataset.runs_of(subject):
            name = prefix(run)
            if dataset.role == "downstream":
                events = functools.partial(_write_events, duration_s=dataset.t_r * run.n_volumes)
                self._place(raw / f"{name}_events.tsv", ("events", dataset.t_r * run.n_volumes), events)
            self._write_derivatives(derivatives, dataset, run, name)

    def _write_derivatives(self, folder: Path, dataset: CorpusDataset, run: CorpusRun, name: str) -> None:
        resolution = f"_res-{dataset.resolution}" if dataset.resolution else ""
        in_space = f"{name}_space-{'T1w' if run.defect == 'other space' else dataset.space}{resolution}"
        size = (dataset.t_r, run.n_volumes)
        self._write_image(folder / f"{in_space}_desc-preproc_bold.nii.gz", run.defect, *size)
        self._place(folder / f"{in_space}_desc-brain_mask.nii.gz", ("mask",), _write_mask)
        if dataset.has_own_sidecars:
            content = {"RepetitionTime": dataset.t_r, "SkullStripped": False, "TaskName": run.entities["task"]}
            self._place(
                folder / f"{in_space}_desc-preproc_bold.json",
                ("sidecar", *content.values()),
                lambda path: write_json(path, content),
            )
        table = folder / f"{name}_desc-confounds_timeseries.tsv"
        if run.defect == "dangling confounds":
            table.symlink_to(_ANNEX)
        else:
            self._place(table, ("confounds", *size), lambda path: write_tsv(path, _confounds(*size)[0]))
            self._place(bids.sidecar(table), ("meta", *size), lambda path: write_json(path, _confounds(*size)[1]))
        for suffix in dataset.beside:
            self._write_beside(folder / f"{name}{suffix}", *size)

    def _write_image(self, path: Path, defect: str, t_r: float, n_volumes: int) -> None:
        if defect == "empty image":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        elif defect == "dangling image":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(_ANNEX)
        elif defect == "cut image":
            _write_zeros(path, t_r=t_r, n_volumes=n_volumes)
            path.write_bytes(path.read_bytes()[:_CUT_BYTES])
        else:
            self._image(path, t_r, n_volumes)

    def _image(self, path: Path, t_r: float, n_volumes: int) -> None:
        self._place(path, ("image", t_r, n_volumes), lambda path: _write_zeros(path, t_r=t_r, n_volumes=n_volumes))

    def _write_beside(self, path: Path, t_r: float, n_volumes: int) -> None:
        if path.exists():
            return
        if path.name.endswith("_bold.nii.gz"):
            self._image(path, t_r, n_volumes)
        elif path.name.endswith("_mask.nii.gz"):
            self._place(path, ("mask",), _write_mask)
        else:
            self._place(path, ("other", path.suffix), lambda path: path.write_text("{}\n", encoding="utf-8"))

    def _place(self, path: Path, content: tuple[Any, ...], write: Callable[[Path], object]) -> None:
        """Write the first file of a content; link the others to it, or copy where a file system has no links."""
        path.parent.mkdir(parents=True, exist_ok=True)
        first = self._first.setdefault(content, path)
        if first == path:
            write(path)
            return
        try:
            os.link(first, path)
        except OSError:
            shutil.copyfile(first, path)


def write_config(path: Path, datasets: list[CorpusDataset], atlas: str) -> None:
    """Write a config of the whole workflow for the tree, paths relative to it.

    Parameters
    ----------
    path : Path
        The YAML file.
    datasets : list of CorpusDataset
        All of the tree.
    atlas : str
        Path of the atlas.
    """
    network = {"framework": "csm", "layers": 4, "width": 768, "heads": 12, "window_frames": [10, 100]}
    content = {
        "atlas": {"path": atlas},
        "datasets": {dataset.name: _section(dataset) for dataset in datasets},
        "index": {"on_error": "exclude"},
        "split": {"downstream": {"train": [1, 3], "test": 1}},
        "pretrain": {"experiments": {"csm": network}},
        "adapt": {"experiments": {"csm": {"pretrained": "csm"}, "linear": {"baseline": "linear"}}},
    }
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _section(dataset: CorpusDataset) -> dict[str, Any]:
    section: dict[str, Any] = {"role": dataset.role, "derivatives": f"{dataset.name}/derivatives/fmriprep"}
    section |= {"space": dataset.space}
    if dataset.resolution:
        section |= {"resolution": dataset.resolution}
    if dataset.role == "downstream":
        section |= {"bids": dataset.name, "task": {"column": "trial_type", "delay_s": 3.0}}
    return section


def _write_zeros(path: Path, *, t_r: float, n_volumes: int) -> None:
    write_nifti(path, np.zeros((*anatomy().brain.shape, n_volumes), np.int16, order="F"), t_r=t_r)


def _write_mask(path: Path) -> None:
    write_nifti(path, anatomy().brain.astype(np.uint8))


@functools.lru_cache
def _confounds(t_r: float, n_volumes: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a confounds table of noise, and the content of the JSON file beside it."""
    rng = np.random.default_rng([round(1000 * t_r), n_volumes])
    motion = np.cumsum(rng.normal(0, [0.01] * 3 + [0.0002] * 3, (n_volumes, len(MOTION))), axis=0)
    bold = rng.normal(10_000, 100, (n_volumes, int(anatomy().brain.sum())))
    columns, metadata = confounds_table(bold, motion, t_r)
    table = pd.DataFrame({name: np.char.mod("%.7g", column) for name, column in columns.items()})
    return table.replace("nan", None), metadata


def _write_events(path: Path, duration_s: float) -> None:
    onsets = np.arange(_PAUSE_S, duration_s - _BLOCK_S - _PAUSE_S, _BLOCK_S + _PAUSE_S)
    states = [_STATES[k % len(_STATES)] for k in range(len(onsets))]
    write_tsv(path, pd.DataFrame({"onset": onsets, "duration": _BLOCK_S, "trial_type": states}))
