"""The config: one model per section, every field typed and described.

The JSON schema, the option tables of config/README.md and the checks of every stage come from these models.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from boldly.files import is_url
from boldly.records import InputError, Problem

STAGES = (
    "index",
    "preprocess",
    "parcellate",
    "shard",
    "split",
    "pretrain",
    "adapt",
    "evaluate",
    "figures",
)

# Raised by one when the results of a stage change for the same input and options: reruns it and what follows.
REVISIONS: dict[str, int] = {
    **dict.fromkeys(STAGES, 1),
    **{"preprocess": 2, "parcellate": 3, "shard": 2, "split": 2, "pretrain": 4},
    **{"adapt": 2, "evaluate": 3, "figures": 5},
}

Framework = Literal["autoencoding", "csm", "sequence_bert", "network_bert"]
ReadOut = Literal["mean", "slices", "covariance", "power", "tangent", "correlation"]
ClassifierName = Literal["logistic", "lda", "ridge", "mlp"]
LayerChoice = Literal["all", "first", "middle", "last"]
Baseline = Literal[
    "linear",
    "mean_mlp",
    "mean_logistic",
    "mean_lda",
    "components_logistic",
    "components_lda",
    "covariance_lda",
    "connectivity",
    "tangent",
    "components",
]
Variant = Literal["boldly", "lfb"]
# What a user may wave through where a model meets data; the number of parcels must fit.
ContractField = Literal[
    "atlas",
    "atlas_sha256",
    "space",
    "confounds",
    "smoothing_fwhm_mm",
    "high_pass_hz",
    "low_pass_hz",
    "detrend",
    "standardize",
    "order",
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]+$")]
# The space of the images that the Human Connectome Project distributes.
HCP_SPACE = "MNI152NLin6Asym"
ExperimentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of the config: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


class AtlasChoice(NamedTuple):
    """What can be chosen of an atlas that is fetched; the default stands first."""

    dimensions: tuple[int, ...]
    resolutions_mm: tuple[int, ...]
    variants: tuple[str, ...]


ATLASES = {
    "difumo": AtlasChoice((1024, 512, 256, 128, 64), (2, 3), ()),
    "schaefer": AtlasChoice(
        (400, *range(100, 400, 100), *range(500, 1100, 100)), (2, 1), ("7networks", "17networks")
    ),
    "aal": AtlasChoice((), (), ("3v2", "SPM12", "SPM8", "SPM5")),
    "harvard-oxford": AtlasChoice(
        (),
        (2, 1),
        tuple(
            f"{part}-{kind}"
            for part in ("cort", "cortl", "sub")
            for kind in ("maxprob-thr25", "maxprob-thr0", "maxprob-thr50", "prob")
        ),
    ),
}


class AtlasOptions(Section):
    """The parcels that signals are read from: an image of your own (`path`), or one that is fetched (`name`)."""

    path: str | None = Field(
        None, description="Image: 3-D labels (`*_dseg.nii.gz`) or 4-D maps (`*_probseg.nii.gz`)."
    )
    labels: str | None = Field(
        None, description="Table of parcel names (columns index, name); default: the image's name with .tsv."
    )
    name: str | None = Field(
        None,
        description="With path: name in contracts and figures; default: the image's file name. "
        f"Without: the atlas to fetch, {', '.join(ATLASES)}.",
    )
    dimension: int | None = Field(
        None, description="Number of parcels: difumo 64 to 1024 (1024), schaefer 100 to 1000 (400)."
    )
    resolution_mm: int | None = Field(
        None, description="Voxel size, mm: difumo 2 or 3 (2), schaefer and harvard-oxford 1 or 2 (2)."
    )
    variant: str | None = Field(
        None,
        description="schaefer: 7networks or 17networks; aal: 3v2, SPM12, SPM8 or SPM5; "
        "harvard-oxford: cort-maxprob-thr25, sub-prob and so on. Default: the first.",
    )
    cache: str = Field("data/atlas", description="Folder of fetched atlases.")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="Checksum that the image must have; default: any."
    )

    @model_validator(mode="before")
    @classmethod
    def _choose(cls, content: Any) -> Any:
        """Fill in what a fetched atlas leaves open, so that two ways to say the same are the same."""
        if not isinstance(content, dict) or content.get("path") is not None:
            return content
        choice = ATLASES.get(content.get("name") or "")
        if choice is None:
            return content
        chosen = dict(content)
        for field, values in zip(("dimension", "resolution_mm", "variant"), choice, strict=True):
            if values and chosen.get(field) is None:
                chosen[field] = values[0]
        return chosen

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        fields = {"dimension": self.dimension, "resolution_mm": self.resolution_mm, "variant": self.variant}
        if self.path is not None:
            given = [field for field, value in fields.items() if value is not None]
            if given:
                raise ValueError(
                    f"{', '.join(given)}: only for an atlas that is fetched; leave out, or leave out path"
                )
            return self
        if self.name not in ATLASES:
            raise ValueError(f"give the path of an image, or one of these as name: {', '.join(ATLASES)}")
        if self.labels is not None:
            raise ValueError("labels: the table of a fetched atlas comes with it; leave it out")
        choices: tuple[tuple[Any, ...], ...] = ATLASES[self.name]
        for (field, value), values in zip(fields.items(), choices, strict=True):
            if value is not None and value not in values:
                allowed = ", ".join(map(str, sorted(values))) or f"nothing, {self.name} has no {field}"
                raise ValueError(f"{field}: {value} (possible: {allowed})")
        return self

    @property
    def image(self) -> str:
        """Path of the image, wherever it comes from."""
        return self.path if self.path is not None else f"{self.cache}/{self.label}.nii.gz"

    @property
    def label(self) -> str:
        """What a fetched atlas is called, in contracts and as the start of its file names: ``difumo-1024-2mm``."""
        size = f"{self.resolution_mm}mm" if self.resolution_mm is not None else None
        return "-".join(str(part) for part in (self.name, self.dimension, self.variant, size) if part is not None)

    @property
    def fetched(self) -> list[str]:
        """Image, table of names and record of a fetched atlas; empty for an image of one's own."""
        if self.path is not None:
            return []
        return [self.image, *(f"{self.cache}/{self.label}_{part}" for part in ("labels.tsv", "atlas.json"))]


class RestOptions(Section):
    """Random blocks of rest runs as trials, the same for the same seed and run."""

    tasks: str = Field("(?i)^rest", description="Regular expression; runs of BIDS tasks that match are rest.")
    state: str = Field("rest", description="Name of their state; it is neither dropped, renamed nor prefixed.")
    blocks: int = Field(2, ge=1, description="Blocks per run, without overlap; fewer where they do not fit.")
    length_s: tuple[float, float] = Field((10.0, 50.0), description="Shortest and longest block, s.")
    seed: int = Field(1234, description="Seed of the blocks.")

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
    delay_s: float = Field(
        0.0, ge=0, description="Haemodynamic delay, s: frames with onset+delay <= t < end+delay."
    )
    merge_blocks: bool = Field(
        False, description="Join consecutive rows of one state into one trial (after renaming)."
    )
    drop: list[str] = Field([], description="Regular expressions; states that match one are left out.")
    rename: dict[str, str] = Field({}, description="Regular expression to replacement, applied in order.")
    prefix_task: bool = Field(False, description="Put the BIDS task before the name: `MOTOR lf`.")
    labels: list[str] | None = Field(
        None,
        description="The states in label order, in this upper and lower case; default: those found, by alphabet.",
    )
    minimum_s: float = Field(0.0, ge=0, description="Trials shorter than this are left out, s.")
    rest: RestOptions | None = Field(None, description="Random blocks of rest runs as trials; default: none.")

    @model_validator(mode="after")
    def _patterns_compile(self) -> Self:
        for pattern in [*self.drop, *self.rename, *([self.rest.tasks] if self.rest else [])]:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None
        return self

    def is_rest(self, bids_task: str) -> bool:
        """Tell whether runs of a BIDS task are rest, of which random blocks are trials."""
        return self.rest is not None and re.search(self.rest.tasks, bids_task) is not None


_GROUP = "Column of participants.tsv (`family_id`) whose members stay on one side; default: everyone for oneself."
_STRATIFY = "Column of participants.tsv (`site`) of whose values each part gets its share; default: none."


class DownstreamSplitOptions(Section):
    """Which units train, validate and test a decoder."""

    by: Literal["subject", "run"] = Field(
        "subject", description="Unit of the split; `run` only where there is one subject (named in reports)."
    )
    train: list[int] = Field(
        [1, 3, 6, 11],
        description="Numbers of training units; with the validation units they are the n of results.",
    )
    validation: int = Field(
        0,
        ge=0,
        description="Number of units whose labels only choose; 0: choices are made within the training units.",
    )
    test: int | Literal["leave_one_out"] = Field(
        9, description="Number of test units, the same in all draws; or each unit in turn."
    )
    draws: int = Field(5, ge=1, description="Random draws of training units per number.")
    group: str | None = Field(None, description=_GROUP)
    stratify: str | None = Field(None, description=_STRATIFY)


class UpstreamSplitOptions(Section):
    """Which subjects validate a pretraining."""

    validation_fraction: Fraction = Field(0.05, description="Share of subjects held out, at least one.")
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
        None, description="Raw BIDS folder with the events (downstream); hcp: default, the runs' `EVs`."
    )
    space: str = Field(
        "MNI152NLin2009cAsym", description=f"The `space` entity to use; layout hcp: always {HCP_SPACE}."
    )
    image_suffix: str = Field(
        "", description="What follows the run in an image's name, layout hcp: `_hp2000_clean`."
    )
    resolution: str | None = Field(None, description="The `res` entity to use; default: any, if unambiguous.")
    tasks: list[str] | None = Field(None, description="Use only these BIDS tasks.")
    subjects: list[str] | None = Field(None, description="Use only these subjects.")
    task: str | TaskOptions | None = Field(
        None, description="How events become trials: a YAML file or the options themselves (downstream)."
    )
    shards: str | None = Field(
        None,
        description="Folder of ready-made tars, instead of derivatives. Upstream also the http(s) address of one, "
        "with the run table `<dataset>_runs.tsv` beside the tars.",
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
    split: DownstreamSplitOptions | UpstreamSplitOptions | None = Field(
        None, description="Split of this dataset; default: `split.upstream` or `split.downstream`, by role."
    )

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
        if self.role == "downstream" and self.is_remote:
            raise ValueError("shards at a web address are for pretraining; download these, and name their folder")
        no_events = self.bids is None and self.layout != "hcp"
        if self.role == "downstream" and self.shards is None and (no_events or self.task is None):
            raise ValueError("a downstream dataset needs bids (events) and task (how events become trials)")
        if self.layout == "hcp" and (self.space != HCP_SPACE or self.resolution is not None):
            raise ValueError(
                f"images of layout hcp are in {HCP_SPACE}, of one resolution: drop space and resolution"
            )
        if self.layout != "hcp" and self.image_suffix:
            raise ValueError("image_suffix is for layout hcp; choose fMRIPrep's images with space and resolution")
        return self


class IndexOptions(Section):
    """Which runs are taken."""

    on_error: Literal["stop", "exclude"] = Field(
        "stop", description="What a defective run does: stop everything with a table, or exclude it."
    )
    minimum_volumes: int = Field(10, ge=2, description="Runs with fewer frames are excluded.")


class ExclusionOptions(Section):
    """Runs over a threshold are excluded, the reason stands in the tables."""

    mean_fd_mm: float | None = Field(None, gt=0, description="Mean framewise displacement, mm.")
    maximum_fd_mm: float | None = Field(None, gt=0, description="Largest framewise displacement, mm.")
    scrubbed_fraction: Fraction | None = Field(None, description="Share of scrubbed frames.")
    degrees_of_freedom: int = Field(10, ge=1, description="Fewest frames left after regressors and scrubbing.")


class PreprocessOptions(Section):
    """Nuisance regressors, in the terms of `nilearn.interfaces.fmriprep.load_confounds`."""

    preset: str | None = Field(
        None,
        description="Strategy to start from: a name in config/confounds, or the path of a file of your own; "
        "options beside it count more.",
    )
    strategy: list[Literal["motion", "wm_csf", "global_signal", "compcor", "high_pass", "ica_aroma"]] = Field(
        ["motion", "wm_csf", "global_signal"], description="Parts of the regression; empty: none."
    )
    motion: Literal["basic", "power2", "derivatives", "full"] = Field("basic", description="6, 12, 12 or 24.")
    wm_csf: Literal["basic", "power2", "derivatives", "full"] = Field("basic", description="2, 4, 4 or 8.")
    global_signal: Literal["basic", "power2", "derivatives", "full"] = Field("basic", description="1, 2, 2 or 4.")
    compcor: Literal["anat_combined", "anat_separated", "temporal", "temporal_anat_combined"] = Field(
        "anat_combined", description="Kind of components."
    )
    n_compcor: int | Literal["all"] = Field(6, description="Components per mask.")
    ica_aroma: Literal["basic", "full"] = Field(
        "basic", description="basic: regress the noise components out; full: take fMRIPrep's AROMA images."
    )
    fd_threshold_mm: float | None = Field(None, gt=0, description="Scrub frames that move more, mm.")
    std_dvars_threshold: float | None = Field(None, gt=0, description="Scrub frames with larger std DVARS.")
    exclude: ExclusionOptions = Field(ExclusionOptions(), description="Thresholds for whole runs.")

    @property
    def takes_aroma_images(self) -> bool:
        """Whether the images are those that fMRIPrep smoothed and cleaned with ICA-AROMA."""
        return "ica_aroma" in self.strategy and self.ica_aroma == "full"

    def regression(self) -> dict[str, Any]:
        """Return what of it changes a run's signals, for contracts; what is not in use is left out of it."""
        unused = {"preset", "exclude"} | (set() if self.takes_aroma_images else {"ica_aroma"})
        return self.model_dump(mode="json", exclude=unused)


class SignalExclusionOptions(Section):
    """Runs whose signals are below a threshold are excluded, the reason stands in the tables."""

    median_tsnr: float | None = Field(
        None, gt=0, description="Least median temporal signal-to-noise ratio of the parcels that are not marked."
    )
    median_coverage: Fraction | None = Field(None, description="Least median coverage of all parcels.")


class ParcellateOptions(Section):
    """Order of operations as in nilearn's maskers: smooth, extract, detrend, filter with regression, scale."""

    smoothing_fwhm_mm: float | None = Field(3.0, gt=0, description="Gaussian kernel, mm FWHM; null: none.")
    detrend: bool = Field(True, description="Remove a linear trend.")
    high_pass_hz: float | None = Field(0.008, gt=0, description="Butterworth high-pass, Hz; null: none.")
    low_pass_hz: float | None = Field(None, gt=0, description="Butterworth low-pass, Hz; null: none.")
    standardize: Literal["zscore", "psc", "none"] = Field("zscore", description="Scaling over time.")
    min_coverage: Fraction = Field(0.5, description="Parcels with less of their weight in the mask are marked.")
    exclude: SignalExclusionOptions = Field(SignalExclusionOptions(), description="Thresholds for whole runs.")


class ShardOptions(Section):
    """How samples are stored."""

    dtype: Literal["float16", "float32"] = Field("float16", description="Number type of the stored signals.")
    t_r_s: float | None = Field(
        None, gt=0, description="Resample all runs to this repetition time, s; null: as they were recorded."
    )


class ExportOptions(Section):
    """Prepared data for other tools, beside what boldly uses itself."""

    layouts: list[Literal["lfb", "bids"]] = Field(
        [],
        description="lfb: tars as Learning from Brains reads them, in data/lfb; "
        "bids: time series as TSV and JSON, in results/export.",
    )


class SplitOptions(Section):
    """Subjects of each part."""

    upstream: UpstreamSplitOptions = Field(UpstreamSplitOptions(), description="Pretraining.")
    downstream: DownstreamSplitOptions = Field(DownstreamSplitOptions(), description="Decoding.")
    seed: int = Field(1234, description="Seed of all splits.")


# Two windows and three special tokens must fit into the 512 positions of LfB's networks.
_LFB_LONGEST = 254


class OptimiserOptions(Section):
    """What pretraining and adaptation share: AdamW with linear warm-up and decay."""

    steps: int = Field(10_000, ge=1, description="Optimiser steps.")
    batch_size: int = Field(64, ge=1, description="Windows per step, over all processes.")
    learning_rate: float = Field(1e-4, gt=0, description="Largest learning rate.")
    warmup_fraction: Fraction = Field(0.01, description="Share of the steps with rising learning rate.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW weight decay.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW beta 1.")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW beta 2.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    dropout: Fraction = Field(0.1, description="Dropout of the network.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic; auto: bfloat16 on a GPU that has it, else float32."
    )
    evaluate_every: int = Field(1000, ge=1, description="Steps between validations.")
    checkpoint_every: int = Field(1000, ge=1, description="Steps between checkpoints.")
    seed: int = Field(1234, description="Seed of weights, windows and dropout.")


class PretrainOptions(OptimiserOptions):
    """An upstream experiment."""

    framework: Framework | Literal["components"] = Field(
        description="Objective and network; components: principal components of the runs, `width` of them."
    )
    variant: Variant = Field(
        "boldly", description="Networks and objectives: of boldly, or (lfb) the published ones as they were."
    )
    layers: int = Field(4, ge=1, description="Layers (autoencoding: of encoder and of decoder).")
    width: int = Field(768, ge=8, description="Width of the hidden states.")
    heads: int = Field(12, ge=1, description="Attention heads (not for autoencoding).")
    embedding_layers: int = Field(1, ge=1, description="Layers of embedder and unembedder (lfb; else 1).")
    window_frames: tuple[int, int] = Field(
        (10, 50), description="Shortest and longest window, frames (lfb: the longest stays below, 49 of 50)."
    )
    mask_fraction: float = Field(0.2, gt=0, lt=1, description="Share masked (the BERT frameworks).")
    mask_span: int = Field(4, ge=1, description="Length of the masked spans, frames (sequence_bert).")
    # Of the next frame alone, hidden states know the change and lose the pattern that lasts, which is what tells
    # mental states apart.
    horizons_s: list[Annotated[float, Field(gt=0)]] = Field(
        [4.0, 8.0, 16.0],
        description="Times ahead, s, of the frames that are predicted beside the next one, with half its weight; "
        "at least two frames (csm).",
    )
    validation_windows: int = Field(512, ge=1, description="Windows per validation.")
    keep_untrained: bool = Field(
        False,
        description="Keep the best weights of the training even if no validation was better than before its first "
        "step; false: that is an error.",
    )
    stream_shards: int | None = Field(
        None,
        ge=1,
        description="Read this many shards at a time, the next ones in the background; null: all stay in memory.",
    )
    stream_steps: int = Field(100, ge=1, description="Steps on these shards before the next (stream_shards).")
    deepspeed: str | None = Field(None, description="DeepSpeed JSON (config/deepspeed); null: none.")
    compile: bool = Field(
        False,
        description="Compile the network (torch.compile): a minute or two, then faster steps; needs g++.",
    )
    datasets: list[Name] | None = Field(None, description="Upstream datasets; default: all.")
    subjects_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of each dataset's training subjects; smaller shares lie in larger ones.",
    )
    initialise: str | None = Field(
        None,
        description="Start from the weights of an upstream experiment, model folder, local GPT-2 or BERT folder.",
    )
    repeats: list[int] = Field(
        [],
        description="Further seeds: the training is repeated as `<name>_seed-<seed>`, and decoders are adapted "
        "from each, so that intervals cover the chance in pretraining too.",
    )
    track: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        ["tensorboard"], description="Where the histories are shown beside the CSV files."
    )

    @model_validator(mode="before")
    @classmethod
    def _horizons_in_seconds(cls, content: Any) -> Any:
        if isinstance(content, dict) and "horizons" in content:
            raise ValueError("horizons: give horizons_s instead, in seconds (frames times the repetition time)")
        return content

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.seed in self.repeats or len(set(self.repeats)) < len(self.repeats):
            raise ValueError(f"repeats {self.repeats}: the seeds must differ from each other and from {self.seed}")
        if self.framework not in ("autoencoding", "components") and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        shortest, longest = self.window_frames
        if not 2 <= shortest <= longest:
            raise ValueError(f"window_frames {list(self.window_frames)}: need 2 <= shortest <= longest")
        if self.variant != "lfb" and self.embedding_layers > 1:
            raise ValueError("embedding_layers above 1 need variant lfb")
        if self.variant == "lfb" and not shortest < longest <= _LFB_LONGEST:
            raise ValueError(f"window_frames: lfb needs shortest < longest <= {_LFB_LONGEST}")
        return self


# What a probe chooses from unless the config says otherwise: see docs/decoders.md for what was tried.
_READ_OUTS = ["slices+covariance", "tangent"]
_PENALTIES = [3.0, 10.0, 1.0, 0.3]


class ProbeBaseline(NamedTuple):
    """A baseline that is fitted in closed or convex form.

    Attributes
    ----------
    encoder : {"signal", "components"}
        The parcels themselves, or their principal components over the upstream runs.
    read_outs : list of str
        As in `AdaptOptions`.
    classifier : str
        As in `AdaptOptions`.
    """

    encoder: Literal["signal", "components"]
    read_outs: list[str]
    classifier: ClassifierName


PROBE_BASELINES: dict[str, ProbeBaseline] = {
    "mean_logistic": ProbeBaseline("signal", ["mean"], "logistic"),
    "mean_lda": ProbeBaseline("signal", ["mean"], "lda"),
    "components_logistic": ProbeBaseline("components", ["slices"], "logistic"),
    "components_lda": ProbeBaseline("components", ["slices"], "lda"),
    "covariance_lda": ProbeBaseline("components", ["power", "covariance"], "lda"),
    "connectivity": ProbeBaseline("signal", ["correlation"], "logistic"),
    "tangent": ProbeBaseline("components", ["tangent"], "logistic"),
    "components": ProbeBaseline("components", _READ_OUTS, "logistic"),
}


class AdaptOptions(OptimiserOptions):
    """A downstream experiment: a pretrained network, an untrained one, the same from scratch, or a baseline.

    There are two ways to make a decoder of a network (`method`). A probe leaves the network as it is: trials are
    encoded once, read-outs turn the states of a trial into features, and a classifier is fitted to them in closed
    or convex form; read-outs, layers, classifier and penalty are chosen by validation. The other way, that of the
    published system, trains all weights by gradient steps. Fine-tuning does one after the other. Options such as
    steps, batch_size and learning_rate are for gradient steps.
    """

    pretrained: str | list[str] | None = Field(
        None,
        description="Upstream experiment (or model folder) to start from; several: one decoder of all of them.",
    )
    untrained: str | None = Field(
        None,
        description="Upstream experiment whose network keeps its random weights, as a probe.",
    )
    scratch: str | None = Field(
        None, description="Upstream experiment whose network starts untrained and is trained by gradient steps."
    )
    baseline: Baseline | None = Field(
        None,
        description="Decoder without a network. mean_: logistic regression or shrinkage LDA on the mean signal; "
        "components_: the same on time slices of principal components of the upstream runs; covariance_lda: their "
        "covariances, lagged or not; connectivity: correlations of all parcels; tangent: those of components "
        "as matrix logarithms; components: read-outs chosen as for networks. By gradient steps: linear (over time "
        "and parcels, as in the published system), mean_mlp (on the mean signal).",
    )
    method: Literal["probe", "finetune", "network"] = Field(
        "probe",
        description="How a pretrained network becomes a decoder: frozen with a classifier, trained from there on "
        "as long as trials that are left out gain by it, or trained from the start.",
    )
    read_outs: list[str] = Field(
        _READ_OUTS,
        min_length=1,
        description=f"Read-outs of a probe to choose from, of {', '.join(get_args(ReadOut))}; "
        "joined by + they are used together.",
    )
    layers: list[LayerChoice] = Field(["all"], min_length=1, description="Layers of a probe to choose from.")
    classifiers: list[ClassifierName] = Field(
        ["logistic"], min_length=1, description="Classifiers of a probe to choose from."
    )
    penalties: list[Annotated[float, Field(gt=0)]] = Field(
        _PENALTIES,
        min_length=1,
        description="Penalties on squared weights to choose from (the first where nothing can be left out); "
        "lda finds its shrinkage by itself.",
    )
    combine: Literal["weighted", "mean", "best"] = Field(
        "weighted",
        description="Of several networks: the mean of their probabilities, weighted by how well each validates or "
        "not, or the one that validates best.",
    )
    variant: Variant = Field(
        "boldly", description="Of the linear baseline: of boldly, or (lfb) that of the published system as it was."
    )
    width: int = Field(256, ge=1, description="Hidden width of mean_mlp.")
    window_frames: int = Field(50, ge=2, description="Longer trials are cut to this many frames.")
    shortest_crop: float = Field(
        1.0, gt=0, le=1, description="Training trials are cropped at random to no less than this share; 1: never."
    )
    freeze: list[Literal["embedder", "decoder", "unembedder"]] = Field(
        [], description="Parts not trained (methods finetune, network); pooler and head always are."
    )
    layer_decay: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Learning rate of each layer as a share of that of the layer above it (method finetune); "
        "1: all layers have the same.",
    )
    allow_mismatch: list[ContractField] = Field(
        [], description="Fields in which the contracts of upstream model and shards may differ."
    )
    seeds: list[int] = Field(
        [1234],
        min_length=1,
        description="Repetitions with other seeds; an upstream experiment with `repeats` brings its own seeds.",
    )
    datasets: list[Name] | None = Field(None, description="Downstream datasets; default: all.")

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in STARTS) != 1:
            raise ValueError(f"give exactly one of {', '.join(STARTS)}")
        if self.variant != "boldly" and self.baseline != "linear":
            raise ValueError("variant is for the linear baseline; a network has that of its upstream experiment")
        if self.pretrained == []:
            raise ValueError("pretrained: an empty list; name an upstream experiment")
        if len(self.upstream) > 1 and self.method != "probe":
            raise ValueError(
                f"method {self.method} trains one network; name one in pretrained, or take method probe"
            )
        self.read_out_words()
        return self

    @property
    def kind(self) -> str:
        """Which of `STARTS` is given."""
        return next(kind for kind in STARTS if getattr(self, kind) is not None)

    @property
    def upstream(self) -> list[str]:
        """Upstream experiments or model folders that the experiment needs; none for most baselines."""
        start = self.pretrained or self.untrained or self.scratch or []
        return [start] if isinstance(start, str) else list(start)

    @property
    def is_probe(self) -> bool:
        """Whether the decoder is a frozen encoder with a classifier."""
        if self.baseline is not None:
            return self.baseline in PROBE_BASELINES
        return self.untrained is not None or (self.pretrained is not None and self.method == "probe")

    @property
    def is_fine_tuned(self) -> bool:
        """Whether the decoder is a probe with a network that was trained from there on."""
        return self.pretrained is not None and self.method == "finetune"

    def read_out_words(self) -> tuple[tuple[ReadOut, ...], ...]:
        """Return the read-outs to choose from, each as the words that are used together."""
        parted = tuple(tuple(item.split("+")) for item in self.read_outs)
        known = get_args(ReadOut)
        if wrong := sorted({word for words in parted for word in words} - set(known)):
            raise ValueError(f"read_outs: no read-out {', '.join(wrong)} (there are: {', '.join(known)})")
        return parted  # type: ignore[return-value]


STARTS = ("pretrained", "untrained", "scratch", "baseline")


class GridOptions(Section):
    """Upstream experiments that differ in a few options: a size search, or data scaling."""

    options: dict[str, Any] = Field(description="What all of them share.")
    vary: dict[str, list[Any]] = Field(
        min_length=1,
        description="Option to its values; each combination is the experiment `<grid>_<option>-<value>_..`.",
    )

    def experiments(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the options of each combination by name."""
        combinations = itertools.product(
            *([(option, value) for value in values] for option, values in self.vary.items())
        )
        return {
            "_".join([name, *(f"{option}-{_word(value)}" for option, value in combination)]): {
                **self.options,
                **dict(combination),
            }
            for combination in combinations
        }


def _word(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


class PretrainSection(Section):
    """All upstream experiments."""

    experiments: dict[ExperimentName, PretrainOptions] = Field({}, description="By name.")
    grids: dict[ExperimentName, GridOptions] = Field({}, description="Sets of experiments by name.")

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, content: Any) -> Any:
        """Write grids and repeats out as experiments."""
        if not isinstance(content, dict) or not isinstance(content.get("experiments") or {}, dict):
            return content
        experiments = dict(content.get("experiments") or {})
        for name, grid in (content.get("grids") or {}).items():
            for key, options in GridOptions.model_validate(grid).experiments(name).items():
                experiments.setdefault(key, options)
        for name, options in list(experiments.items()):
            given = options.model_dump(exclude_unset=True) if isinstance(options, BaseModel) else options
            repeats = given.get("repeats") if isinstance(given, dict) else None
            for seed in repeats if isinstance(repeats, list) else ():
                experiments.setdefault(repeat_name(name, seed), {**given, "seed": seed, "repeats": []})
        if experiments:
            # What baselines look at.
            experiments.setdefault(COMPONENTS, {"framework": "components", "width": 64})
        return {**content, "experiments": experiments}


# The upstream experiment that baselines start from: linear pretraining.
COMPONENTS = "components"


def repeat_name(name: str, seed: int) -> str:
    """Return what the repetition of an upstream experiment with another seed is called."""
    return f"{name}_seed-{seed}"


class AdaptSection(Section):
    """All downstream experiments."""

    experiments: dict[ExperimentName, AdaptOptions] = Field({}, description="By name.")
    baselines: list[Baseline] = Field(
        list(get_args(Baseline)), description="Baselines that are added as experiments of their own name."
    )
    controls: list[Literal["untrained", "scratch"]] = Field(
        ["untrained", "scratch"],
        description="Added to each experiment with one pretrained network, as `<name>_untrained` and "
        "`<name>_scratch`: the same network with random weights, and trained from scratch.",
    )
    shared: dict[str, Any] = Field(
        {}, description="Options of all experiments that do not give them: steps, batch_size, learning_rate, ..."
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        """Add baselines and controls, and what experiments share."""
        if not isinstance(content, dict) or not isinstance(content.get("experiments") or {}, dict):
            return content
        given = {
            name: options.model_dump(exclude_unset=True) if isinstance(options, BaseModel) else options
            for name, options in (content.get("experiments") or {}).items()
        }
        content = {"baselines": cls.model_fields["baselines"].default if given else [], **content}
        shared = content.get("shared")
        experiments: dict[str, Any] = {name: {"baseline": name} for name in _words(content["baselines"])}
        controls = _words(content.get("controls", cls.model_fields["controls"].default))
        for name, options in given.items():
            experiments[name] = options
            start = options.get("pretrained") if isinstance(options, dict) else None
            # Linear pretraining has neither random weights nor any to train.
            for control in controls if isinstance(start, str) and start != COMPONENTS else ():
                own = {key: value for key, value in options.items() if key not in _OF_PRETRAINED}
                experiments.setdefault(f"{name}_{control}", {**own, control: start})
        complete = {
            name: {**shared, **options} if isinstance(options, dict) and isinstance(shared, dict) else options
            for name, options in experiments.items()
        }
        return {**content, "experiments": complete}


def _words(content: Any) -> list[str]:
    """Return the words of a list; what is wrong with it is reported where its field is checked."""
    return [word for word in content if isinstance(word, str)] if isinstance(content, list) else []


# What holds for a pretrained experiment and not for its controls.
_OF_PRETRAINED = ("pretrained", "method", "combine", "freeze", "layer_decay")


class EvaluateOptions(Section):
    """Scores and their intervals."""

    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the intervals.")
    permutations: int = Field(
        1000, ge=0, description="Random orders of the labels within runs, for p-values against chance; 0: none."
    )
    seed: int = Field(1234, description="Seed of the permutations.")
    allow_pretrained_test_runs: bool = Field(
        False, description="Score also where the upstream model was pretrained on runs whose trials are tested."
    )


class FiguresOptions(Section):
    """Pictures."""

    dpi: int = Field(200, ge=50, description="Resolution of the PNG files.")


class Config(Section):
    """The whole config."""

    atlas: AtlasOptions | None = Field(
        None, description="Parcels; not needed where all datasets are ready-made shards."
    )
    datasets: dict[Name, DatasetOptions] = Field(min_length=1, description="Datasets by name.")
    index: IndexOptions = Field(IndexOptions(), description="Stage index.")
    preprocess: PreprocessOptions = Field(PreprocessOptions(), description="Stage preprocess.")
    parcellate: ParcellateOptions = Field(ParcellateOptions(), description="Stage parcellate.")
    shard: ShardOptions = Field(ShardOptions(), description="Stage shard.")
    export: ExportOptions = Field(ExportOptions(), description="Tool export.")
    split: SplitOptions = Field(SplitOptions(), description="Stage split.")
    pretrain: PretrainSection = Field(PretrainSection(), description="Stage pretrain.")
    adapt: AdaptSection = Field(AdaptSection(), description="Stage adapt.")
    evaluate: EvaluateOptions = Field(EvaluateOptions(), description="Stage evaluate.")
    figures: FiguresOptions = Field(FiguresOptions(), description="Stage figures.")

    @model_validator(mode="after")
    def _atlas_for_images(self) -> Self:
        images = [name for name, options in self.datasets.items() if options.derivatives is not None]
        if images and self.atlas is None:
            raise ValueError(
                f"atlas: missing, and the signals of {', '.join(images)} are still to be read from images; give "
                "`atlas: {path: ...}` or `atlas: {name: ...}`"
            )
        return self

    @model_validator(mode="after")
    def _smoothed_once(self) -> Self:
        if wrong := self.aroma_conflicts():
            raise ValueError("; ".join(wrong))
        return self

    def aroma_conflicts(self) -> list[str]:
        """Say what does not go together with the images that fMRIPrep smoothed and cleaned with ICA-AROMA."""
        if not self.preprocess.takes_aroma_images:
            return []
        wrong = [
            f"datasets.{name}: layout hcp has no ICA-AROMA images; drop ica_aroma from preprocess.strategy"
            for name, options in self.datasets.items()
            if options.layout == "hcp" and options.derivatives is not None
        ]
        if self.parcellate.smoothing_fwhm_mm is not None:
            wrong.append(
                "parcellate.smoothing_fwhm_mm: with preprocess.ica_aroma full the images are smoothed already; "
                "set it to null"
            )
        return wrong

    @model_validator(mode="after")
    def _names_meet(self) -> Self:
        wrong = []
        for name, options in self.adapt.experiments.items():
            for upstream in options.upstream:
                if upstream in self.pretrain.experiments:
                    is_linear = self.pretrain.experiments[upstream].framework == "components"
                    if is_linear and (options.untrained is not None or not options.is_probe):
                        wrong.append(
                            f"adapt.experiments.{name}.{options.kind}: '{upstream}' is linear pretraining, which "
                            "has no weights to train and no random ones; take `pretrained` with method probe"
                        )
                    continue
                if not Path(upstream).is_dir():
                    wrong.append(
                        f"adapt.experiments.{name}.{options.kind}: no upstream experiment '{upstream}' "
                        f"(there are: {', '.join(self.pretrain.experiments) or 'none'})"
                    )
        wrong += self._unknown_starts()
        for section, role in (("pretrain", "upstream"), ("adapt", "downstream")):
            known = {name for name, options in self.datasets.items() if options.role == role}
            for name, experiment in getattr(self, section).experiments.items():
                unknown = set(experiment.datasets or ()) - known
                if unknown:
                    wrong.append(
                        f"{section}.experiments.{name}.datasets: no {role} dataset {', '.join(sorted(unknown))}"
                    )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def upstream_models(self, options: AdaptOptions) -> list[tuple[str, int, str]]:
        """Return the upstream models of a downstream experiment.

        Returns
        -------
        list of (str, int, str)
            Name in `AdaptOptions.upstream` (or that of the components that baselines look at), seed, and the
            experiment that was trained with it; another folder is its own experiment, of the first of the seeds.
        """
        names = options.upstream
        if options.baseline is not None:
            preset = PROBE_BASELINES.get(options.baseline)
            needed = (
                preset is not None and preset.encoder == "components" and COMPONENTS in self.pretrain.experiments
            )
            names = [COMPONENTS] if needed else []
        models = []
        for name in names:
            experiment = self.pretrain.experiments.get(name)
            if experiment is None:
                models.append((name, options.seeds[0], name))
                continue
            models.append((name, experiment.seed, name))
            if options.pretrained is not None:
                models += [(name, seed, repeat_name(name, seed)) for seed in experiment.repeats]
        return models

    def _unknown_starts(self) -> list[str]:
        """Say what is wrong with the weights that upstream experiments start from."""
        experiments = self.pretrain.experiments
        wrong = []
        for name, options in experiments.items():
            seen, start = [name], options.initialise
            while start in experiments and start not in seen:
                seen.append(start)
                start = experiments[start].initialise
            field = f"pretrain.experiments.{name}.initialise"
            if start in seen:
                wrong.append(f"{field}: {' starts from '.join([*seen, start])}")
            elif len(seen) == 1 and start is not None and not Path(start).is_dir():
                wrong.append(
                    f"{field}: '{start}' is neither an upstream experiment ({', '.join(experiments)}) nor a folder"
                )
        return wrong


def parse(model: type[S], content: Any, where: str) -> S:
    """Check `content` against a model of the config.

    Parameters
    ----------
    model : type
        `Config` or one of its sections.
    content : dict or str
        The values, or JSON text of them (as rules pass them).
    where : str
        File or flag, for the error.

    Raises
    ------
    InputError
        With every wrong key and value.
    """
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except json.JSONDecodeError as error:
            raise InputError(Problem(where, "", f"not JSON: {error}", "pass a JSON object")) from None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            field = ".".join(str(part) for part in item["loc"]) or "config"
            if item["type"] == "extra_forbidden":
                message, remedy = "unknown key", "remove it or correct its spelling (config/README.md lists all)"
            else:
                message, remedy = item["msg"].removeprefix("Value error, "), "see config/README.md"
            problems.append(Problem(where, field, message, remedy))
        raise InputError(problems) from None


def resolve(config: Config, checkout: Path) -> Config:
    """Complete a config: expand ``${VARIABLE}`` in paths, read presets and task files, find DeepSpeed files.

    Parameters
    ----------
    config : Config
        As read.
    checkout : Path
        Where the files lie that boldly comes with (config/confounds, config/tasks, config/deepspeed): relative
        paths count from the working directory first, then from there.

    Raises
    ------
    InputError
        For an environment variable that is not set, or a preset or task file that is absent or wrong.
    """
    config = _expand_variables(config)
    datasets = dict(config.datasets)
    for name, options in datasets.items():
        if isinstance(options.task, str):
            path = _find(options.task, checkout)
            task = parse(TaskOptions, _read_yaml(path, f"datasets.{name}.task"), path)
            datasets[name] = options.model_copy(update={"task": task})
    experiments = dict(config.pretrain.experiments)
    for name, experiment in experiments.items():
        if experiment.deepspeed is not None:
            path = _find(experiment.deepspeed, checkout)
            experiments[name] = experiment.model_copy(update={"deepspeed": path})
    pretrain = config.pretrain.model_copy(update={"experiments": experiments})
    preprocess = apply_preset(config.preprocess, checkout)
    resolved = config.model_copy(update={"datasets": datasets, "pretrain": pretrain, "preprocess": preprocess})
    if wrong := resolved.aroma_conflicts():
        where = str(config.preprocess.preset)
        raise InputError([Problem(where, "preprocess", text, "see config/README.md") for text in wrong])
    return resolved


def apply_preset(options: PreprocessOptions, checkout: Path) -> PreprocessOptions:
    """Write the preset out: the values of its file, then those given beside it; `preset` itself becomes None.

    Parameters
    ----------
    options : PreprocessOptions
        As read.
    checkout : Path
        Where config/confounds lies (see `resolve`).

    Raises
    ------
    InputError
        For an unknown name, or a file that is absent or wrong.
    """
    if options.preset is None:
        return options
    path = _preset_path(options.preset, checkout)
    base = parse(PreprocessOptions, _read_yaml(path, "preprocess.preset"), path)
    if base.preset is not None:
        message, remedy = "a preset cannot start from another one", "write its options out"
        raise InputError(Problem(path, "preset", message, remedy))
    content, own = (section.model_dump(exclude_unset=True) for section in (base, options))
    exclude = {**content.get("exclude", {}), **own.get("exclude", {})}
    return parse(PreprocessOptions, {**content, **own, "exclude": exclude, "preset": None}, path)


def _preset_path(preset: str, checkout: Path) -> str:
    """Return the file of a preset: a name has neither a folder nor an ending."""
    if Path(preset).suffix or Path(preset).name != preset:
        return _find(preset, checkout)
    folder = Path("config", "confounds")
    path = _find(str(folder / f"{preset}.yaml"), checkout)
    if not Path(path).is_file():
        known = {file.stem for place in (folder, checkout / folder) for file in place.glob("*.yaml")}
        message = f"no preset '{preset}' (there are: {', '.join(sorted(known)) or 'none'})"
        raise InputError(Problem("config", "preprocess.preset", message, "correct it, or give the path of a file"))
    return path


def load_config(path: Path | str, checkout: Path) -> Config:
    """Read, check and complete a config file (see `resolve`)."""
    return resolve(parse(Config, _read_yaml(str(path), "config"), str(path)), checkout)


# Options of a dataset in which ${VARIABLE} is expanded.
_PATHS = ("derivatives", "bids", "shards", "participants", "source", "ceilings")


def _expand_variables(config: Config) -> Config:
    problems = []

    def expand(section: S, fields: tuple[str, ...], entity: str) -> S:
        update = {}
        for field in fields:
            value = getattr(section, field)
            if isinstance(value, str) and "$" in value:
                update[field] = os.path.expandvars(value)
                if "$" in update[field]:
                    message = f"'{value}' names an environment variable that is not set"
                    problems.append(
                        Problem("config", f"{entity}.{field}", message, "export it, or write the path out")
                    )
        return section.model_copy(update=update)

    atlas = expand(config.atlas, ("path", "labels", "cache"), "atlas") if config.atlas else None
    datasets = {name: expand(options, _PATHS, f"datasets.{name}") for name, options in config.datasets.items()}
    preprocess = expand(config.preprocess, ("preset",), "preprocess")
    if problems:
        raise InputError(problems)
    return config.model_copy(update={"atlas": atlas, "datasets": datasets, "preprocess": preprocess})


def _find(path: str, checkout: Path) -> str:
    return path if Path(path).exists() or not (checkout / path).exists() else str(checkout / path)


def _read_yaml(path: str, entity: str) -> Any:
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(Problem(path, entity, "no such file", "correct the path in the config")) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(Problem(path, entity, f"not YAML: {error}", "correct the file")) from None
