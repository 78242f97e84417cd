"""Sections of the stages that prepare data: index, preprocess, parcellate, shard, export and split."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
)

from boldly.config.atlases import AtlasOptions
from boldly.config.datasets import DownstreamSplitOptions, TaskOptions, UpstreamSplitOptions
from boldly.config.sections import Section, Seed
from boldly.config.signals import ParcellateOptions, PreprocessOptions


class IndexOptions(Section):
    """Which runs are taken."""

    on_error: Literal["stop", "exclude"] = Field(
        "stop",
        description="What is done about defective runs in index, preprocess, parcellate and shard: stop with a "
        "list of all problems, or leave these runs out, with the reason in a table.",
    )
    minimum_volumes: int = Field(10, ge=2, description="Runs with fewer frames are excluded.")


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
    seed: Seed = Field(1234, description="Seed of all splits.")


class BatchOptions(Section):
    """How many subjects one job prepares (preprocess, parcellate and shard), one after the other."""

    minutes: float = Field(
        1.0,
        gt=0,
        description="How long such a job should last, minutes. How long a run takes is measured in this folder; "
        "before that, 4 s are assumed. On a cluster jobs should last longer than they wait for their turn (the "
        "profile slurm has 20).",
    )
    subjects: int | None = Field(
        None, ge=1, description="Number of subjects of each job; null: as many as `minutes` allows."
    )


class PrepareOptions(Section):
    """What `boldly prepare` is told of a dataset: sections of the three stages, and what they take from others."""

    preprocess: PreprocessOptions = PreprocessOptions()
    parcellate: ParcellateOptions = ParcellateOptions()
    shard: ShardOptions = ShardOptions()
    atlas: AtlasOptions
    task: TaskOptions | None = None
    window_frames: int = 10
    on_error: Literal["stop", "exclude"] = "stop"
