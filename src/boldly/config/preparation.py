"""Sections of the stages that prepare data: index, preprocess, parcellate, shard, export and split."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
)

from boldly.config.datasets import DownstreamSplitOptions, UpstreamSplitOptions
from boldly.config.sections import Fraction, Section


class IndexOptions(Section):
    """Which runs are taken."""

    on_error: Literal["stop", "exclude"] = Field(
        "stop",
        description="What a defective run does, in index, preprocess and parcellate: stop everything with a "
        "table, or get a row with the reason and be left out.",
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
