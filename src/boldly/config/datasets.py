"""Section datasets: where the data lie and what is taken of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from boldly.config.sections import Fraction, Section, Seed
from boldly.config.signals import ParcellateOptions, PreprocessOptions
from boldly.files import is_url

# The space of the images that the Human Connectome Project distributes.
HCP_SPACE = "MNI152NLin6Asym"
# The space of surfaces: its time series are CIFTI files.
SURFACES = "fsLR"


class RestOptions(Section):
    """Random blocks of rest runs as trials, the same for the same seed and run."""

    tasks: str = Field("(?i)^rest", description="Regular expression; runs of BIDS tasks that match are rest.")
    state: str = Field("rest", description="Name of their state; it is neither dropped, renamed nor prefixed.")
    blocks: int = Field(2, ge=1, description="Blocks per run, without overlap; fewer where they do not fit.")
    length_s: tuple[float, float] = Field((10.0, 50.0), description="Shortest and longest block, s.")
    seed: Seed = Field(1234, description="Seed of the blocks.")

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if not 0 < self.length_s[0] <= self.length_s[1]:
            raise ValueError(f"length_s {list(self.length_s)}: need 0 < shortest <= longest")
        return self


class TaskOptions(Section):
    """How events become trials (a file in config/tasks)."""

    column: str = Field("trial_type", description="Column of the events table that names the state.")
    onset_column: str = Field("onset", description="Column of onsets, s.")
    duration_column: str = Field("duration", description="Column of durations, s.")
    end_column: str | None = Field(None, description="Column of ends, s, in place of durations.")
    delay_s: float | None = Field(
        None,
        ge=0,
        description="Haemodynamic delay, s: frames with onset+delay <= t < end+delay. Default: 0, with a warning; "
        "the response peaks 4 to 6 s after its cause.",
    )
    window_s: tuple[float, float] | None = Field(
        None,
        description="In place of `delay_s`, for brief events: frames with onset+begin <= t < onset+end, s, "
        "whatever the duration: `[4, 10]`. Default: from onset to end.",
    )
    minimum_frames: int | None = Field(
        None,
        ge=1,
        description="Frames that a trial must have; those that scrubbing takes or that lie outside the run do not "
        "count. Default: 2, with `average` 1.",
    )
    average: bool = Field(
        False, description="A trial is the mean of its frames, for decoders of single frames; it has no dynamics."
    )
    overlaps: Literal["error", "drop", "allow"] = Field(
        "error",
        description="What is done about trials of different states that share frames: stop, leave both out, or "
        "keep both.",
    )
    merge_blocks: bool = Field(
        False, description="Join consecutive rows of one state into one trial (after renaming)."
    )
    drop: list[str] = Field([], description="Regular expressions; states that match one are left out.")
    rename: dict[str, str] = Field(
        {}, description="Regular expressions and what replaces them in names of states, applied in this order."
    )
    prefix_task: bool = Field(False, description="Put the BIDS task before the name: `MOTOR lf`.")
    labels: list[str] | None = Field(
        None,
        description="Names of the states in the order of their numbers; names in the events that differ from "
        "these in upper and lower case alone are taken for them. Default: the states that are found, in "
        "alphabetical order.",
    )
    minimum_s: float = Field(
        0.0,
        ge=0,
        description="Trials whose events last less than this are left out, s; `minimum_frames` counts frames "
        "instead.",
    )
    rest: RestOptions | None = Field(None, description="Random blocks of rest runs as trials; default: none.")

    @model_validator(mode="after")
    def _patterns_compile(self) -> Self:
        for pattern in [*self.drop, *self.rename, *([self.rest.tasks] if self.rest else [])]:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None
        return self

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        labels = self.labels or []
        twice = sorted({name for name in labels if labels.count(name) > 1})
        if twice:
            raise ValueError(
                f"labels: {', '.join(map(repr, twice))} stands there more than once; name each state once"
            )
        return self

    @model_validator(mode="after")
    def _frames(self) -> Self:
        if self.window_s is not None and self.delay_s is not None:
            raise ValueError("window_s counts from the onset and holds the delay already: leave out delay_s")
        if self.window_s is not None and not self.window_s[0] < self.window_s[1]:
            raise ValueError(f"window_s {list(self.window_s)}: need begin < end")
        if self.minimum_frames == 1 and not self.average:
            raise ValueError("minimum_frames: a trial of one frame has no dynamics; set average, or ask for 2")
        return self

    @property
    def fewest_frames(self) -> int:
        """Frames that a trial must have inside the run, scrubbed ones not counted."""
        return self.minimum_frames or (1 if self.average else 2)

    def span_s(self, onset: float, duration: float) -> tuple[float, float]:
        """Return from when to when (s) frames belong to a trial."""
        if self.window_s is not None:
            return onset + self.window_s[0], onset + self.window_s[1]
        delay = self.delay_s or 0.0
        return onset + delay, onset + duration + delay

    def is_rest(self, bids_task: str) -> bool:
        """Tell whether runs of a BIDS task are rest, of which random blocks are trials."""
        return self.rest is not None and re.search(self.rest.tasks, bids_task) is not None


_GROUP = "Column of participants.tsv (`family_id`): people with the same value stay in one part; default: none."

_STRATIFY = "Column of participants.tsv (`site`) of whose values each part gets its share; default: none."


class DownstreamSplitOptions(Section):
    """Which units train, validate and test a decoder."""

    by: Literal["subject", "run"] = Field(
        "subject",
        description="Unit of the split; `run` is for a dataset of one subject: with several, the same people "
        "would train and be tested (reports say so).",
    )
    train: list[int] | None = Field(
        None,
        description="Numbers of training units; with the validation units they are the n of results. Default: 1, "
        "3, 6 and 11, as far as there are units, and with `leave_one_out` all but the tested one.",
    )
    validation: int = Field(
        0,
        ge=0,
        description="Number of units whose labels only choose; 0: choices are made within the training units.",
    )
    test: int | Literal["leave_one_out"] | None = Field(
        None,
        description="Number of test units, the same in all draws; or each unit in turn (`leave_one_out`). "
        "Default: 9 where that leaves enough for the largest of `train` (without `train`: from 20 units on), else "
        "`leave_one_out`.",
    )
    draws: int = Field(
        5, ge=1, description="Number of random draws of training units, for each number in `train`."
    )
    group: str | None = Field(None, description=_GROUP)
    stratify: str | None = Field(None, description=_STRATIFY)


class UpstreamSplitOptions(Section):
    """Which subjects validate a pretraining."""

    validation_fraction: Fraction = Field(
        0.05,
        description="Share of subjects that validate, at least one. Upstream datasets of the same `source` draw "
        "the same people, and who validates in one of them trains in none.",
    )
    group: str | None = Field(None, description=_GROUP)
    stratify: str | None = Field(None, description=_STRATIFY)
    shared_people: Literal["error", "exclude", "allow"] = Field(
        "error",
        description="What is done about people whom a downstream dataset of the same `source` tests: stop, leave "
        "them out of the pretraining, or let them in and record it in the split.",
    )


class DatasetOptions(Section):
    """A dataset."""

    role: Literal["upstream", "downstream"] = Field(
        description="Unlabelled runs for pretraining, or labelled trials for decoding."
    )
    derivatives: str | None = Field(None, description="fMRIPrep derivatives folder, or that of HCP subjects.")
    layout: Literal["fmriprep", "hcp"] = Field(
        "fmriprep", description="How `derivatives` is laid out; `hcp`: `<subject>/MNINonLinear/Results/<run>/`."
    )
    bids: str | None = Field(
        None,
        description="Raw BIDS folder with the events (downstream). Layout hcp needs none: by default the folders "
        "`EVs` beside the runs are read.",
    )
    space: str = Field(
        "MNI152NLin2009cAsym",
        description=f"Space of the images that are used (entity `space`); layout hcp: {HCP_SPACE}. `{SURFACES}`: "
        "images on surfaces (CIFTI, `*.dtseries.nii`), with a parcellation as atlas; with layout hcp give "
        "`image_suffix: _Atlas_MSMAll` then.",
    )
    image_suffix: str = Field(
        "",
        description="End of the images' names, for images that another program denoised: `_desc-denoised_bold` "
        "(XCP-D), `_desc-optcomDenoised_bold` (tedana); confounds are then regressed out of them only where the "
        "dataset's own `preprocess` names a strategy. Layout hcp: what follows the run, `_hp2000_clean`. Default: "
        "fMRIPrep's `_desc-preproc_bold`, or HCP's images.",
    )
    fmriprep: str | None = Field(
        None,
        description="fMRIPrep folder with brain masks and confounds tables, where `derivatives` holds denoised "
        "images alone (`image_suffix`).",
    )
    resolution: str | None = Field(
        None, description="Resolution of the images that are used (entity `res`, of surfaces `den`); default: any."
    )
    tasks: list[str] | None = Field(None, description="Use only these BIDS tasks.")
    subjects: list[str] | None = Field(None, description="Use only these subjects.")
    filters: dict[str, list[str | int | None]] = Field(
        {},
        description="Use only runs whose BIDS entities have these values: `{session: [pre], acquisition: [mb, "
        "null]}`; null stands for runs without the entity, and a number is also found with zeros before it.",
    )
    exclude_runs: dict[str, str] = Field(
        {},
        description="Runs that are left out, and why: `{sub-03_task-rest_run-2: asleep}`. A key with fewer "
        "entities means all runs that have them. The reason stands in the run table.",
    )
    without_mask: Literal["error", "whole_image"] = Field(
        "error",
        description="A run without a brain mask is defective (error), or its whole image counts as brain: then "
        "every parcel inside the image counts as covered, whether the scanner saw it or not.",
    )
    task: str | TaskOptions | None = Field(
        None,
        description="How events become trials: the path of a YAML file, or the options themselves (downstream).",
    )
    preprocess: PreprocessOptions | None = Field(
        None,
        description="Options of section preprocess that differ for this dataset: `{strategy: [motion]}`. All "
        "others are those of the section, unless a preset is named.",
    )
    parcellate: ParcellateOptions | None = Field(
        None, description="Options of section parcellate that differ for this dataset."
    )
    shards: str | None = Field(
        None,
        description="Folder of ready-made tars, instead of derivatives. Upstream also the address of one "
        "(http, https or s3), with the run table `<dataset>_runs.tsv` beside the tars.",
    )
    participants: str | None = Field(
        None,
        description="Table of the people (BIDS participants.tsv) with the columns of `split.group` and "
        "`split.stratify`; default: that in `bids`, or the nearest in the folders above `derivatives`.",
    )
    source: str | None = Field(
        None,
        description="Where the people come from: in datasets of the same source, the same label means the same "
        "person; default: the folder of `derivatives` or `shards`.",
    )
    ceilings: str | None = Field(
        None, description="Table of the best accuracies possible, known for simulated data only."
    )
    truth: str | None = Field(
        None, description="Table of how parcels respond to states, known for simulated data only (stage explain)."
    )
    fetch: dict[Literal["derivatives", "fmriprep", "bids"], str] = Field(
        {},
        description="Where folders of the dataset come from, fetched once on the machine where Snakemake runs: "
        "`datalad` for a folder that DataLad manages, or the address of a folder in a bucket: `{derivatives: "
        "s3://brains/fmriprep, bids: datalad}`. Only files that boldly reads are fetched.",
    )
    split: DownstreamSplitOptions | UpstreamSplitOptions | None = Field(
        None, description="Split of this dataset; default: `split.upstream` or `split.downstream`, by role."
    )

    @property
    def is_cifti(self) -> bool:
        """Whether the images are on surfaces."""
        return self.space == SURFACES

    @property
    def is_denoised(self) -> bool:
        """Whether the images are those of a program that has removed confounds from them."""
        return bool(self.image_suffix) and (self.layout == "fmriprep" or "clean" in self.image_suffix)

    @property
    def is_remote(self) -> bool:
        """Whether the shards stay at a web address."""
        return self.shards is not None and is_url(self.shards)

    @property
    def people(self) -> str:
        """Name of the source of the people: the one given, or the resolved folder of the data."""
        folder = self.derivatives or self.shards or ""
        return self.source or (folder if is_url(folder) else os.path.realpath(folder))

    @property
    def participants_table(self) -> str | None:
        """Path of participants.tsv: the one given or found, else the first place looked at; None: no place."""
        if self.participants is not None:
            return self.participants
        folders = [Path(self.bids)] if self.bids else []
        folders += Path(self.derivatives).parents if self.derivatives else []
        places = [str(folder / "participants.tsv") for folder in folders]
        return next(filter(os.path.isfile, places), places[0] if places else None)

    @field_validator("image_suffix")
    @classmethod
    def _without_ending(cls, suffix: str) -> str:
        return re.sub(r"(\.dtseries)?\.nii(\.gz)?$", "", suffix)

    @field_validator("fetch")
    @classmethod
    def _known_places(cls, fetch: dict[str, str]) -> dict[str, str]:
        for folder, place in fetch.items():
            if place != "datalad" and not place.startswith("s3://"):
                raise ValueError(f"{folder} comes from 'datalad' or an address s3://bucket/folder, not {place!r}")
        return fetch

    @field_validator("resolution", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Take the number 2 for the text that stands in file names."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("subjects", "tasks", mode="before")
    @classmethod
    def _in_quotes(cls, values: Any) -> Any:
        """Refuse numbers: YAML reads 01 as 1 and 010 as 8, which may be the label of somebody else."""
        numbers = [value for value in values if isinstance(value, int | float)] if isinstance(values, list) else []
        if numbers:
            raise ValueError(f"{numbers[0]} is a number here; write labels in quotes, as in ['01', '02']")
        return values

    @field_validator("filters", mode="before")
    @classmethod
    def _lists(cls, content: Any) -> Any:
        """Take a single value for a list of one."""
        if not isinstance(content, dict):
            return content
        return {name: value if isinstance(value, list) else [value] for name, value in content.items()}

    @field_validator("split", mode="before")
    @classmethod
    def _split_of_role(cls, content: Any, info: ValidationInfo) -> Any:
        """Take the options that the role has, so that errors are about them."""
        if content is None or "role" not in info.data:
            return content
        is_upstream = info.data["role"] == "upstream"
        return (UpstreamSplitOptions if is_upstream else DownstreamSplitOptions).model_validate(content)

    @model_validator(mode="before")
    @classmethod
    def _space_of_layout(cls, content: Any) -> Any:
        is_hcp = isinstance(content, dict) and content.get("layout") == "hcp"
        return {"space": HCP_SPACE, **content} if is_hcp else content

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.derivatives is None) == (self.shards is None):
            raise ValueError("give either derivatives or shards")
        for folder in self.fetch:
            if getattr(self, folder) is None:
                raise ValueError(f"fetch names {folder}, but the dataset has no folder {folder} to fetch it into")
        if self.role == "downstream" and self.is_remote:
            raise ValueError("shards at a web address are for pretraining; download these, and name their folder")
        if self.shards is not None and (self.filters or self.exclude_runs):
            raise ValueError("filters and exclude_runs choose runs of images; ready-made shards are taken whole")
        no_events = self.bids is None and self.layout != "hcp"
        if self.role == "downstream" and self.shards is None and (no_events or self.task is None):
            raise ValueError("a downstream dataset needs bids (events) and task (how events become trials)")
        if self.layout == "hcp" and (self.space not in (HCP_SPACE, SURFACES) or self.resolution is not None):
            raise ValueError(
                f"images of layout hcp are in {HCP_SPACE} (or {SURFACES}), of one resolution: drop space and "
                "resolution"
            )
        if self.fmriprep is not None and (self.layout == "hcp" or not self.image_suffix):
            raise ValueError(
                "fmriprep: only for denoised images that lie apart from fMRIPrep's (with image_suffix); images of "
                "fMRIPrep itself are in derivatives"
            )
        return self
