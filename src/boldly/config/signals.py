"""Sections preprocess and parcellate: from images to the signals of parcels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
)

from boldly.config.sections import Fraction, S, Section

# In what a user may let contracts differ, where data meet or a model meets data; the number of parcels must fit.
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
    "mask",
    "images",
]


class ExclusionOptions(Section):
    """Runs over a threshold are excluded, the reason stands in the tables."""

    mean_fd_mm: float | None = Field(
        None, gt=0, description="Runs with a larger mean framewise displacement are left out, mm."
    )
    maximum_fd_mm: float | None = Field(
        None, gt=0, description="Runs with a larger framewise displacement at any frame are left out, mm."
    )
    scrubbed_fraction: Fraction | None = Field(
        None, description="Runs are left out if a larger share of their frames is scrubbed or not yet steady."
    )
    degrees_of_freedom: int = Field(
        10,
        ge=1,
        description="Runs with fewer degrees of freedom are left out: frames that are kept, less regressors and "
        "a constant.",
    )


class PreprocessOptions(Section):
    """Nuisance regressors, in the terms of `nilearn.interfaces.fmriprep.load_confounds`."""

    preset: str | None = Field(
        None,
        description="Strategy to start from: a name in config/confounds, or the path of a file of your own; "
        "options beside it count more.",
    )
    strategy: list[Literal["motion", "wm_csf", "global_signal", "compcor", "high_pass", "ica_aroma"]] = Field(
        ["motion", "wm_csf", "global_signal"],
        description="Parts of the regression, as nilearn names them; empty: nothing is regressed out.",
    )
    motion: Literal["basic", "power2", "derivatives", "full"] = Field(
        "basic",
        description="Regressors of head motion: 6 (basic), 12 (power2: with squares), 12 (derivatives) or 24 "
        "(full).",
    )
    wm_csf: Literal["basic", "power2", "derivatives", "full"] = Field(
        "basic", description="Regressors of white matter and cerebrospinal fluid: 2, 4, 4 or 8."
    )
    global_signal: Literal["basic", "power2", "derivatives", "full"] = Field(
        "basic", description="Regressors of the global signal: 1, 2, 2 or 4."
    )
    compcor: Literal["anat_combined", "anat_separated", "temporal", "temporal_anat_combined"] = Field(
        "anat_combined",
        description="Which CompCor components: anatomical ones, of white matter and cerebrospinal fluid together "
        "or of each; temporal ones; or both kinds.",
    )
    n_compcor: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        6, description="Number of CompCor components of each mask."
    )
    ica_aroma: Literal["basic", "full"] = Field(
        "basic",
        description="What is done about noise components of ICA-AROMA: they are regressed out (basic), or the "
        "images that fMRIPrep cleaned of them are taken (full).",
    )
    columns: list[str] = Field(
        [],
        description="Further columns of the confounds table to regress out, by name or pattern: `rmsd`, "
        "`edge_comp_*`.",
    )
    dummy_volumes: int = Field(
        0, ge=0, description="First frames that do not count, beside those that fMRIPrep marks as not yet steady."
    )
    fd_threshold_mm: float | None = Field(
        None, gt=0, description="Frames with a larger framewise displacement are left out (scrubbed), mm."
    )
    std_dvars_threshold: float | None = Field(
        None, gt=0, description="Frames with a larger standardised DVARS are left out (scrubbed)."
    )
    exclude: ExclusionOptions = Field(ExclusionOptions(), description="Thresholds for whole runs.")

    @property
    def takes_aroma_images(self) -> bool:
        """Whether the images are those that fMRIPrep smoothed and cleaned with ICA-AROMA."""
        return "ica_aroma" in self.strategy and self.ica_aroma == "full"

    @property
    def takes_cosines(self) -> bool:
        """Whether fMRIPrep's cosines, a high-pass filter, are regressed out: CompCor was computed with them."""
        return "high_pass" in self.strategy or "compcor" in self.strategy

    def regression(self) -> dict[str, Any]:
        """Return what of it changes a run's signals, for contracts; what is not in use is left out of it."""
        unused = {"preset", "exclude"} | (set() if self.takes_aroma_images else {"ica_aroma"})
        # Contracts of versions without these options stay as they are.
        unused |= {name for name in ("columns", "dummy_volumes") if not getattr(self, name)}
        return self.model_dump(mode="json", exclude=unused)


class SignalExclusionOptions(Section):
    """Runs whose signals are below a threshold are excluded, the reason stands in the tables."""

    median_tsnr: float | None = Field(
        None,
        gt=0,
        description="Runs with a smaller temporal signal-to-noise ratio (median over parcels that are not "
        "marked) are left out.",
    )
    median_coverage: Fraction | None = Field(
        None, description="Runs with a smaller coverage (median over all parcels) are left out."
    )


class ParcellateOptions(Section):
    """Order of operations as in nilearn's maskers: smooth, extract, detrend, filter with regression, scale."""

    smoothing_fwhm_mm: float | None = Field(
        3.0, gt=0, description="Width of the Gaussian kernel (FWHM), mm; null: none."
    )
    mask: bool = Field(
        True,
        description="Only voxels inside the run's brain mask count (after smoothing), as with nilearn's "
        "`mask_img`; false: all voxels of a parcel, also those beside the brain.",
    )
    detrend: bool = Field(True, description="Remove a linear trend.")
    high_pass_hz: float | None = Field(0.008, gt=0, description="Butterworth high-pass, Hz; null: none.")
    low_pass_hz: float | None = Field(None, gt=0, description="Butterworth low-pass, Hz; null: none.")
    standardize: Literal["zscore", "psc", "none"] = Field(
        "zscore",
        description="How each parcel is scaled over time: to mean 0 and standard deviation 1, to per cent signal "
        "change, or not at all.",
    )
    min_coverage: Fraction = Field(
        0.5,
        description="Parcels of which a smaller share lies in the brain mask are marked: their signals are "
        "zeros, and nothing is learned from them.",
    )
    exclude: SignalExclusionOptions = Field(SignalExclusionOptions(), description="Thresholds for whole runs.")


def merged(study: S, own: S | None) -> S:
    """Return the options of a study with those that a dataset has for itself.

    Options of options (`exclude`) are put together in the same way. A `preset` of the dataset is a start of its
    own: nothing is left of the study's options then.
    """
    if own is None:
        return study
    if getattr(own, "preset", None) is not None:
        return own
    update = {}
    for name in own.model_fields_set:
        before, value = getattr(study, name), getattr(own, name)
        update[name] = merged(before, value) if isinstance(value, Section) else value
    return study.model_copy(update=update)


def with_one_high_pass(parcellate: ParcellateOptions, preprocess: PreprocessOptions) -> ParcellateOptions:
    """Drop the Butterworth high-pass filter where fMRIPrep's cosines are regressed out: both would filter twice.

    The cosines stay: CompCor's components were computed with them, and each is counted among the degrees of
    freedom that are lost.
    """
    if parcellate.high_pass_hz is None or not preprocess.takes_cosines:
        return parcellate
    return parcellate.model_copy(update={"high_pass_hz": None})
