"""Kinds of damaged and odd input: what is done to the input of a stage, and what boldly says about it."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from boldly.config import (
    AtlasOptions,
    DatasetOptions,
    DownstreamSplitOptions,
    ExclusionOptions,
    ParcellateOptions,
    PreprocessOptions,
    TaskOptions,
)
from boldly.samples.splits import DownstreamSplit, Draw, write_split
from boldly.samples.timeseries import read_timeseries, write_timeseries
from tests.cifti import models, save_labels, save_series
from tests.faults import chain
from tests.faults.damage import (
    append,
    append_latin1,
    as_folder,
    cut,
    cut_inside,
    dangle,
    edit_bytes,
    edit_image,
    edit_table,
    fill,
    flip,
    keep_volumes,
    latin1,
    link_to_itself,
    make_3d,
    move_qform,
    no_rotation,
    no_time,
    rewrite,
    set_cells,
    time_of,
    without_columns,
)

DERIVATIVES = Path("study/bids/derivatives/fmriprep")
RUN = chain.Chain().run()
BOLD, MASK, SIDECAR, CONFOUNDS, EVENTS = RUN.bold, RUN.mask, RUN.sidecar, RUN.confounds, RUN.events
APART = Path("study/denoised/sub-01/func")
SURFACE = BOLD.with_name("sub-01_task-blocks_run-1_space-fsLR_den-91k_bold.dtseries.nii")
TWIN = BOLD.with_name(BOLD.name.replace("run-1", "run-01"))

# A change to the files of one run, the file the problem must name, its message and its way out.
RUN_FAULTS: dict[str, tuple[Callable[[Any], Any], str, str, str]] = {
    "empty image": (lambda f: f.bold.write_bytes(b""), "bold", "is empty", "again"),
    "image without compression": (
        lambda f: f.bold.write_bytes(gzip.decompress(f.bold.read_bytes())), "bold", "not gzip-compressed", "again",
    ),
    "text for an image": (
        lambda f: f.bold.write_bytes(gzip.compress(b"text" * 500)), "bold", "not a NIfTI image", "again",
    ),
    "cut to its first bytes": (lambda f: cut(f.bold, 0.0005), "bold", "cut", "again"),
    "cut image": (lambda f: cut(f.bold), "bold", "compressed image is cut", "again"),
    "image that lost its last byte": (lambda f: cut(f.bold, 0.99999), "bold", "compressed image is cut", "again"),
    "image with half its data": (lambda f: cut_inside(f.bold), "bold", "its header promises 46432", "again"),
    "3-D image": (lambda f: make_3d(f.bold), "bold", "not 4-D, its shape is 8x9x8", "again"),
    "dangling link": (lambda f: dangle(f.bold), "bold", "link to a file that is not there", "datalad get"),
    "no confounds": (lambda f: f.confounds.unlink(), "bold", "no confounds table", "preprocess.strategy"),
    "dangling confounds": (lambda f: dangle(f.confounds), "confounds", "not there", "datalad get"),
    "empty confounds": (lambda f: f.confounds.write_text(""), "confounds", "is empty", "run fMRIPrep again"),
    "confounds with a missing row": (
        lambda f: f.confounds.write_text(f.confounds.read_text().rstrip("\n").rpartition("\n")[0] + "\n"),
        "confounds", "has 39 rows, the image 40 volumes", "run fMRIPrep again",
    ),
    "missing column": (
        lambda f: without_columns(f.confounds, "csf"),
        "confounds", "no column 'csf' (found: ", "drop wm_csf from preprocess.strategy",
    ),
    "no brain mask": (lambda f: f.mask.unlink(), "bold", "no brain mask", "exclude the run"),
    "mask of another grid": (
        lambda f: nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), f.mask),
        "mask", "the run has 8x9x8 voxels", "mask that fMRIPrep wrote",
    ),
    "no repetition time": (no_time, "bold", "no repetition time", "RepetitionTime"),
    "repetition time in ms": (
        lambda f: time_of(f, 2000, 0), "sidecar", "2000 s is implausible (probably ms)", "in seconds",
    ),
    "tiny repetition time": (lambda f: time_of(f, 0.002, 0), "sidecar", "0.002 s is implausible", "in seconds"),
    "repetition time as text": (
        lambda f: time_of(f, "2.0", 2.0), "sidecar", "is '2.0', not a positive number", "correct the file",
    ),
    "two repetition times": (
        lambda f: time_of(f, 2.0, 2.5), "sidecar", "differ: 2 s in the sidecar, 2.5 s in", "correct the wrong one",
    ),
    "broken sidecar": (lambda f: f.sidecar.write_text("{"), "sidecar", "not readable JSON", "correct the file"),
    "no events": (
        lambda f: f.events.unlink(), "", "no events table (sub-01_task-blocks_run-1_events.tsv)", "x.tasks",
    ),
    "empty events": (
        lambda f: f.events.write_text(""), "events", "the events table is empty", "correct the events",
    ),
    "dangling events": (lambda f: dangle(f.events), "events", "no such file", "correct the events"),
    "no column of states": (
        lambda f: f.events.write_text("onset\tduration\n4\t10\n"),
        "events", "no column 'trial_type' (found: onset, duration)", "column",
    ),
    "no column of durations": (
        lambda f: f.events.write_text("onset\ttrial_type\n4\tfaces\n"), "events", "no column duration", "correct",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes
    ----------
    kind : str
        In words.
    stage : str
        The stage that meets it.
    change : callable
        What happens to the input, in the current directory.
    says : str
        Part of what boldly says.
    where : Path or None
        The file that it names; for `outcome` reason and warning, the run is named instead.
    outcome : {"error", "reason", "warning"}
        The stage stops; it excludes the run with a reason in its table; it goes on and says so in its log.
    options : dict
        Changes to the arguments of the stage.
    """

    kind: str
    stage: str
    change: Callable[[], object]
    says: str
    where: Path | None = None
    outcome: Literal["error", "reason", "warning"] = "error"
    options: dict[str, Any] = field(default_factory=dict)


def _index() -> list[Fault]:
    found = [
        Fault(kind, "index", partial(change, RUN), says, getattr(RUN, role) if role else Path("study/bids/sub-01"))
        for kind, (change, role, says, _) in RUN_FAULTS.items()
    ]
    three = chain.dataset_options(TaskOptions(labels=["faces", "house", "rest"]))
    # fmt: off
    return [
        *found,
        Fault("one-volume run", "index", lambda: keep_volumes(BOLD, 1), "1 volumes, fewer than 10",
            outcome="reason"),
        Fault("bytes after the compressed image", "index", lambda: append(BOLD, b"garbage"),
            "or has bytes behind its end", BOLD),
        Fault("flipped byte in a compressed header", "index", lambda: flip(BOLD, 1), "not gzip", BOLD),
        Fault("run that is there twice", "index",
            lambda: shutil.copy(BOLD, TWIN), "several images of one run", TWIN),
        Fault("sidecar that is not UTF-8", "index",
            lambda: latin1(SIDECAR, '{"RepetitionTime": 2, "Site": "Zürich"}'), "not readable JSON", SIDECAR),
        Fault("negative repetition time", "index", lambda: SIDECAR.write_text('{"RepetitionTime": -2}'),
            "RepetitionTime is -2", SIDECAR),
        Fault("repetition time that is no number", "index",
            lambda: SIDECAR.write_text('{"RepetitionTime": NaN}'), "RepetitionTime is nan", SIDECAR),
        Fault("header with more volumes than any file has", "index",
            lambda: edit_bytes(BOLD, lambda b: b.__setitem__(slice(48, 50), b"\xff\x7f")), "its header promises",
            BOLD),
        Fault("header whose number of volumes overflowed", "index",
            lambda: edit_bytes(BOLD, lambda b: b.__setitem__(slice(48, 50), b"\xff\xff")), "not 4-D", BOLD),
        Fault("qform 500 mm off", "index", lambda: move_qform(BOLD), "affines differ", MASK),
        Fault("affine of NaN", "index",
            lambda: edit_bytes(BOLD, lambda b: b.__setitem__(slice(280, 284), np.float32(np.nan).tobytes())),
            "affine of the image cannot be inverted", BOLD),
        Fault("qform without a rotation", "index", lambda: edit_bytes(BOLD, no_rotation),
            "the affine of the image is none", BOLD),
        Fault("orientation that was lost", "index",
            lambda: edit_bytes(BOLD, lambda b: b.__setitem__(slice(252, 256), bytes(4))),
            "does not say where the voxels are", BOLD),
        Fault("confounds header that is not UTF-8", "index", lambda: append_latin1(CONFOUNDS), "cannot be read",
            CONFOUNDS),
        Fault("folder in place of the image", "index", lambda: as_folder(BOLD), "Is a directory", BOLD),
        Fault("link to itself", "index", lambda: link_to_itself(BOLD), "Too many levels of symbolic links",
            BOLD),
        Fault("events that are not UTF-8", "index",
            lambda: latin1(EVENTS, "onset\tduration\ttrial_type\n4\t10\tgesicht-ü\n"),
            "not a readable events table", EVENTS),
        Fault("onset that is no number", "index", lambda: set_cells(EVENTS, "onset", "soon", slice(1, 2)),
            "row 2: onset is 'soon'", EVENTS),
        Fault("negative duration", "index", lambda: set_cells(EVENTS, "duration", "-10", slice(0, 1)),
            "duration is '-10'", EVENTS),
        Fault("events after the end of the run", "index", lambda: set_cells(EVENTS, "onset", "4000"),
            "no trial (6 x outside the run)", outcome="reason"),
        Fault("events of two states at the same time", "index",
            lambda: set_cells(EVENTS, "duration", "20", slice(0, 1)), "2 events share frames", EVENTS),
        Fault("slice timing that was corrected to a moment in ms", "index",
            lambda: SIDECAR.write_text('{"RepetitionTime": 2.0, "StartTime": 900}'), "StartTime is 900", SIDECAR),
        Fault("slice timing that was corrected to a moment that nobody names", "index",
            lambda: SIDECAR.write_text('{"RepetitionTime": 2.0, "SliceTimingCorrected": true}'),
            "no StartTime says to which moment", outcome="warning"),
        Fault("misspelt state", "index", lambda: set_cells(EVENTS, "trial_type", "huose", slice(1, 2)),
            "states outside the labels: huose", EVENTS, options={"dataset_options": three}),
        Fault("single echoes without an image combined from them", "index", lambda: _as_echoes(BOLD),
            "single echoes of one recording (echo-1, echo-2)", _named(BOLD, "_space", "_echo-1_space")),
        Fault("two events tables for one run", "index",
            lambda: EVENTS.with_suffix(".csv").write_text("onset,duration,trial_type\n4,10,faces\n"),
            "several events tables", EVENTS.with_suffix(".csv")),
        Fault("events without duration", "index", lambda: set_cells(EVENTS, "duration", "0"),
            "no trial (6 x no duration)", outcome="reason"),
        Fault("images of two resolutions", "index",
            lambda: shutil.copy(BOLD, _named(BOLD, "_desc", "_res-2_desc")), "images of several resolutions",
            BOLD.parent),
        Fault("filter that no run passes", "index", lambda: None, "no run has 'post'", DERIVATIVES,
            options=_dataset(filters={"session": ["post"]})),
        Fault("excluded run that is not there", "index", lambda: None, "no run 'sub-09'", DERIVATIVES,
            options=_dataset(exclude_runs={"sub-09": "asleep"})),
        Fault("denoised images in a folder without brain masks", "index",
            lambda: _denoised(apart=True), "no brain mask beside the image",
            APART / BOLD.name.replace("preproc", "denoised"),
            options=_dataset(derivatives=str(APART.parents[1]), image_suffix="_desc-denoised_bold")),
        Fault("denoised image that XCP-D left frames out of", "index",
            lambda: keep_volumes(_denoised(), 30), "has 40 rows, the image 30 volumes", CONFOUNDS,
            options=_dataset(image_suffix="_desc-denoised_bold")),
        Fault("image on surfaces that is cut", "index", lambda: cut(_surfaces()), "it is cut or damaged", SURFACE,
            options=_on_surfaces()),
        Fault("parcellation of another density than the surfaces", "index", lambda: _surfaces(vertices=60),
            "a hemisphere has 60 vertices, in the run 32", Path("study/a.dlabel.nii"), options=_on_surfaces()),
        Fault("no image on surfaces", "index", lambda: _surfaces().unlink(),
            "not a single *_bold.dtseries.nii", DERIVATIVES, options=_on_surfaces()),
        Fault("no subject left", "index",
            lambda: [path.rename(DERIVATIVES / f"gone-{path.name}") for path in list(DERIVATIVES.iterdir())],
            "not a single sub-* folder", DERIVATIVES),
    ]
    # fmt: on


def _named(path: Path, old: str, new: str) -> Path:
    return path.with_name(path.name.replace(old, new))


def _as_echoes(path: Path) -> None:
    """Put two single echoes in the place of an image."""
    shutil.copy(path, _named(path, "_space", "_echo-1_space"))
    path.rename(_named(path, "_space", "_echo-2_space"))


def _denoised(*, apart: bool = False) -> Path:
    """Write an image that another program denoised, beside that of fMRIPrep or in a folder of its own."""
    folder = APART if apart else BOLD.parent
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(BOLD, folder / BOLD.name.replace("preproc", "denoised")))


def _surfaces(vertices: int = 32) -> Path:
    """Write an image on surfaces, and a parcellation of so many vertices; return the image."""
    save_labels(Path("study/a.dlabel.nii"), models(vertices=vertices))
    return save_series(SURFACE, models(), t_r=2.0)


def _dataset(**changes: Any) -> dict[str, Any]:
    """Return options of index with changes to those of the dataset."""
    content = chain.dataset_options(TaskOptions()).model_dump(exclude_unset=True)
    return {"dataset_options": DatasetOptions.model_validate(content | changes)}


def _on_surfaces() -> dict[str, Any]:
    return {**_dataset(space="fsLR"), "atlas": AtlasOptions(path="study/a.dlabel.nii")}


def _atlas() -> list[Fault]:
    image, _, record = chain.OUTPUTS["atlas"]
    own = chain.ATLAS
    names = own.with_name("atlas-slabs_dseg.tsv")
    named = {"atlas": chain.FETCHED}

    def offline(**_: Any) -> Any:
        raise ConnectionError("no route to host")

    # fmt: off
    return [
        Fault("no network", "atlas", lambda: chain.offer(offline), "could not be fetched: ConnectionError",
            image),
        Fault("fetched atlas that is not there", "index", lambda: record.unlink(), "not fetched yet", record,
            options=named),
        Fault("fetched atlas that was changed", "index", lambda: append(image, b"\0"),
            "its checksum is not the one in", image, options=named),
        Fault("record of a fetched atlas that is cut", "index", lambda: cut(record),
            "not a readable record", record, options=named),
        Fault("atlas with another checksum than in the config", "index", lambda: None,
            "not the one of the config", own, options={"atlas": AtlasOptions(path=str(own), sha256="0" * 64)}),
        Fault("atlas that is cut", "index", lambda: cut(own), "not a readable NIfTI image", own),
        Fault("atlas of weights in three dimensions", "index",
            lambda: edit_image(own, lambda d: d.__imul__(0.5)), "must have whole numbers", own),
        Fault("atlas whose labels overflow", "index",
            lambda: edit_image(own, lambda d: d.__imul__(2**40), np.float64), "labels go up to 2147483647", own),
        Fault("atlas without a label", "index", lambda: edit_image(own, fill(0, ...)),
            "no label but 0", own),
        Fault("table of names that is not UTF-8", "index",
            lambda: latin1(names, "index\tname\n1\tgröße\n"), "not a table", names),
        Fault("table of names with a parcel missing", "index",
            lambda: rewrite(names, lambda t: t.rsplit("\n", 2)[0] + "\n"), "no row for the labels 6",
            names),
    ]
    # fmt: on


def _preprocess() -> list[Fault]:
    runs = chain.RUNS
    n = "non_steady_state_outlier00"
    # fmt: off
    return [
        Fault("constant confounds", "preprocess", lambda: set_cells(CONFOUNDS, "csf", "800"),
            "do not vary in time: csf", outcome="warning"),
        Fault("confounds with a hole", "preprocess", lambda: set_cells(CONFOUNDS, "csf", "n/a", slice(7, 9)),
            "no number in column csf at 2 frames, the first 7", CONFOUNDS),
        Fault("confounds with text", "preprocess", lambda: set_cells(CONFOUNDS, "rot_x", "?", slice(3, 4)),
            "no number in column rot_x", CONFOUNDS),
        Fault("infinite confounds", "preprocess", lambda: set_cells(CONFOUNDS, "csf", "1e999", slice(3, 4)),
            "no number in column csf", CONFOUNDS),
        Fault("confounds that are not UTF-8", "preprocess",
            lambda: append(CONFOUNDS, "größe\n".encode("latin-1")), "not a readable confounds table", CONFOUNDS),
        Fault("confounds that grew after index", "preprocess",
            lambda: append(CONFOUNDS, CONFOUNDS.read_bytes().splitlines(True)[-1]),
            "has 41 rows, the image 40 volumes", CONFOUNDS),
        Fault("confounds that went away after index", "preprocess", lambda: CONFOUNDS.unlink(),
            "not a readable confounds table", CONFOUNDS),
        Fault("no frame in the steady state", "preprocess",
            lambda: edit_table(CONFOUNDS, lambda t: t.insert(0, n, "1")), "0 degrees of freedom are left",
            outcome="reason"),
        Fault("movement without a number", "preprocess",
            lambda: set_cells(CONFOUNDS, "framewise_displacement", "n/a", slice(7, 9)),
            "no number in column framewise_displacement, which fd_threshold_mm needs", CONFOUNDS,
            options={"options": PreprocessOptions(fd_threshold_mm=0.5)}),
        Fault("too much movement", "preprocess", lambda: set_cells(CONFOUNDS, "framewise_displacement", "3"),
            "mean FD 3 mm is over 0.5 mm", outcome="reason",
            options={"options": PreprocessOptions(exclude=ExclusionOptions(mean_fd_mm=0.5))}),
        Fault("run table that is cut", "preprocess", lambda: cut(chain.RUNS), "the table is cut", runs),
        Fault("run table without its columns", "preprocess",
            lambda: edit_table(chain.RUNS, lambda t: t.pop("t_r")), "no column t_r",
            runs),
        Fault("run table that is not UTF-8", "preprocess", lambda: append(chain.RUNS, b"\xff\n"),
            "not a readable table", runs),
    ]
    # fmt: on


def _parcellate() -> list[Fault]:
    nuisance, qc = chain.NUISANCE, chain.QC
    # fmt: off
    return [
        Fault("volumes of NaN", "parcellate", lambda: edit_image(BOLD, fill(np.nan, ..., slice(3, 5))),
            "2 of 40 volumes hold nothing but zeros or NaN: 3, 4", BOLD),
        Fault("volume of zeros", "parcellate", lambda: edit_image(BOLD, fill(0, ..., 39), np.int16),
            "1 of 40 volumes hold nothing but zeros or NaN: 39", BOLD),
        Fault("voxels of NaN", "parcellate", lambda: edit_image(BOLD, fill(np.nan, 3, 4, 4, slice(2, 7))),
            "5 voxel values are not finite, taken as zero", outcome="warning"),
        Fault("parcel of zeros", "parcellate",
            lambda: edit_image(BOLD, fill(0, slice(None), slice(0, 2)), np.int16), "1 of 6 parcels are zeros",
            outcome="warning", options={"options": ParcellateOptions(smoothing_fwhm_mm=None)}),
        Fault("image that does not vary in time", "parcellate",
            lambda: edit_image(BOLD, lambda d: d.__setitem__(..., d[..., :1].copy()), np.int16),
            "not one of 6 parcels has a signal", BOLD),
        Fault("scale factor beyond single precision", "parcellate",
            lambda: edit_bytes(BOLD, lambda b: b.__setitem__(slice(112, 116), np.float32(1e37).tobytes())),
            "beyond single precision", BOLD),
        Fault("flipped byte in the image", "parcellate", lambda: flip(BOLD), "the compressed file is damaged",
            BOLD),
        Fault("image cut after index", "parcellate", lambda: cut(BOLD), "the compressed file is cut", BOLD),
        Fault("bytes behind the image", "parcellate", lambda: append(BOLD, b"garbage"), "no longer compressed",
            BOLD),
        Fault("image that went away after index", "parcellate", lambda: BOLD.unlink(), "no such file", BOLD),
        Fault("image of another length than its confounds", "parcellate", lambda: keep_volumes(BOLD, 39),
            "39 volumes, its nuisance table 40 frames", BOLD),
        Fault("empty brain mask", "parcellate", lambda: edit_image(MASK, fill(0, ...), np.uint8),
            "the brain mask is empty", MASK),
        Fault("brain mask beside the atlas", "parcellate",
            lambda: edit_image(MASK, lambda d: d.__setitem__(..., 1 - d), np.uint8),
            "no parcel of the atlas lies within the brain mask", MASK),
        Fault("nuisance table that is cut", "parcellate", lambda: cut(chain.NUISANCE), "the table is cut",
            nuisance),
        Fault("nuisance table without a run", "parcellate",
            lambda: edit_table(chain.NUISANCE, lambda t: t.__setitem__("key", "another")),
            "no rows of this run", nuisance),
        Fault("quality table that is empty", "parcellate", lambda: chain.QC.write_text(""),
            "not a readable table", qc),
        Fault("quality table that went away", "parcellate", lambda: chain.QC.unlink(), "no such table", qc),
        Fault("damaged projection in the cache", "parcellate",
            lambda: cut(next(Path("cache").glob("*/smoothed_data.npy"))), "it is built again",
            outcome="warning"),
    ]
    # fmt: on


def _shard() -> list[Fault]:
    series, labels, trials = chain.SERIES, chain.LABELS, chain.TRIALS

    def edit_series(value: float) -> None:
        runs, contract = read_timeseries(chain.SERIES)
        runs[0].data.setflags(write=True)
        runs[0].data[3, 2] = value
        write_timeseries(chain.SERIES, runs, contract)

    # fmt: off
    return [
        Fault("time series that are cut", "shard", lambda: cut(chain.SERIES), "not a readable time series file",
            series),
        Fault("time series of NaN", "shard", lambda: edit_series(np.nan), "signals that are not finite", series),
        Fault("time series beyond float16", "shard", lambda: edit_series(7e4), "beyond the range of float16",
            series),
        Fault("time series of another subject", "shard",
            lambda: chain.SERIES.write_bytes(Path("parcellate/sub-02_timeseries.safetensors").read_bytes()),
            "is not in the run table", series),
        Fault("label names that are cut", "shard", lambda: cut(chain.LABELS), "not a list of label names",
            labels),
        Fault("label names that went away", "shard", lambda: chain.LABELS.unlink(), "no such file", labels),
        Fault("state that index did not see", "shard",
            lambda: set_cells(trials, "label", "houses", slice(0, 1)), "states that are not in", trials),
        Fault("table of trials that went away", "shard", lambda: trials.unlink(), "no such table", trials),
        Fault("table of trials that is cut", "shard", lambda: cut(trials), "the table is cut", trials),
        Fault("trials placed at another repetition time", "shard", lambda: set_cells(trials, "t_r", "1.5"),
            "trials in frames of 1.5 s, signals in frames of 2 s", trials),
        Fault("movement of a nuisance table that is cut", "shard", lambda: cut(chain.NUISANCE),
            "the table is cut", chain.NUISANCE),
    ]
    # fmt: on


def _split() -> list[Fault]:
    runs, qc = chain.RUNS, chain.QC
    three = DownstreamSplitOptions(train=[3], validation=0, test=1, draws=1)
    people, other = Path("study/bids/participants.tsv"), Path("study/split_of_y.json")
    families = DownstreamSplitOptions(train=[1], validation=0, test=1, draws=1, group="family_id")
    by_family = {"downstream": families, "participants": people}

    def test_person() -> None:
        write_split(other, DownstreamSplit("y", "subject", 1, (Draw(1, 0, ("02",), (), ("01",)),)))

    def rebuild_twice() -> None:
        """Name the two runs of each person as two reconstructions of one recording."""
        for path in (chain.RUNS, *Path().glob("preprocess/*_qc.tsv"), *Path().glob("parcellate/*_quality.tsv")):
            rewrite(path, lambda t: t.replace("_run-1", "_rec-norm_run-1").replace("_run-2", "_rec-raw_run-1"))

    # fmt: off
    return [
        Fault("two reconstructions of one recording, split by run", "split", rebuild_twice,
            "are there in several reconstructions", runs,
            options={"downstream": DownstreamSplitOptions(by="run", train=[1], validation=0, test=1, draws=1)}),
        Fault("fewer subjects than asked for", "split", lambda: None,
            "leave 1 for training, but train asks for 3", runs, options={"downstream": three}),
        Fault("quality table without a run", "split",
            lambda: rewrite(chain.QC, lambda t: t.rsplit("\n", 2)[0] + "\n"), "stands in no quality table",
            runs),
        Fault("quality table that is cut", "split", lambda: cut(chain.QC), "the table is cut", qc),
        Fault("no usable run", "split", lambda: set_cells(chain.RUNS, "status", "excluded"), "no usable run",
            runs),
        Fault("run table that went away", "split", lambda: chain.RUNS.unlink(), "no such table", runs),
        Fault("people who pretrain here and are tested there", "split", test_person,
            "1 of its people would be pretrained on and are test people of y", other,
            options={"role": "upstream", "same_source": [other]}),
        Fault("no table of participants", "split", lambda: None, "split.group: no such table of participants",
            people, options=by_family),
        Fault("no column of families", "split",
            lambda: people.write_text("participant_id\tage\nsub-01\t31\nsub-02\t28\n"),
            "no column 'family_id' (found: participant_id, age)", people, options=by_family),
        Fault("participant without a family", "split",
            lambda: people.write_text("participant_id\tfamily_id\nsub-01\t7\nsub-02\tn/a\n"), "family_id is n/a",
            people, options=by_family),
        Fault("subject who is no participant", "split",
            lambda: people.write_text("participant_id\tfamily_id\nsub-01\t7\n"),
            "no row in the table of participants", people, options=by_family),
    ]
    # fmt: on


def _export() -> list[Fault]:
    shard, series = chain.SHARD, chain.SERIES
    # fmt: off
    return [
        Fault("shard that is cut", "export_lfb", lambda: cut(chain.SHARD), "damaged shard", shard),
        Fault("shard with a flipped byte", "export_lfb", lambda: flip(chain.SHARD, 512 + 128 + 40),
            "the checksum of bold.npy", shard),
        Fault("time series of another atlas", "export_bids",
            lambda: edit_image(chain.ATLAS, lambda d: d.__setitem__((0, 0, 0), 1), np.int16),
            "another image than", series),
    ]
    # fmt: on


def _config() -> list[Fault]:
    config, task = chain.CONFIG, Path("study/task.yaml")

    def change(old: str, new: str) -> Callable[[], object]:
        return lambda: rewrite(chain.CONFIG, lambda text: text.replace(old, new))

    # fmt: off
    return [
        Fault("config with an unknown key", "config", change("role:", "rolle:"), "unknown key", config),
        Fault("config that is not YAML", "config", change("  x:", "\tx: {"), "not YAML", config),
        Fault("config that is not UTF-8", "config", lambda: latin1(chain.CONFIG, "# Zürich\n"), "not YAML",
            config),
        Fault("config that is empty", "config", lambda: chain.CONFIG.write_text(""), "valid dictionary", config),
        Fault("config with an atlas that nobody knows", "config",
            change("{path: study/atlas-slabs_dseg.nii.gz}", "{name: schafer}"),
            "difumo, schaefer, aal, harvard-oxford", config),
        Fault("config with a variable that is not set", "config", change("study/bids/", "${BOLDLY_NOWHERE}/"),
            "names an environment variable that is not set", Path("study/config.yaml")),
        Fault("task file that went away", "config", task.unlink, "no such file", task),
        Fault("images on surfaces (CIFTI) without a parcellation", "config",
            change("role: downstream", "{role: downstream, space: fsLR}"[1:-1].replace(", ", "\n    ")),
            "its images are on surfaces (space fsLR), the atlas", config),
    ]
    # fmt: on


FAULTS = [*_config(), *_atlas(), *_index(), *_preprocess(), *_parcellate(), *_shard(), *_split(), *_export()]
