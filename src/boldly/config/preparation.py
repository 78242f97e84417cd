"""Sections of the stages that prepare data: index, preprocess, parcellate, shard, export and split."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
)

from boldly.config.datasets import DownstreamSplitOptions, UpstreamSplitOptions
from boldly.config.sections import Section


class IndexOptions(Section):
    """Which runs are taken."""

    on_error: Literal["stop", "exclude"] = Field(
        "stop",
        description="What a defective run does, in index, preprocess, parcellate and shard: stop everything "
        "with a table, or get a row with the reason and be left out.",
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
    seed: int = Field(1234, description="Seed of all splits.")
