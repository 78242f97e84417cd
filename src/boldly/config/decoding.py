"""Section decode: people to whom a finished decoder is applied."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from boldly.config.datasets import TaskOptions
from boldly.config.sections import Section
from boldly.config.signals import ContractField, PreprocessOptions

# Beside the fields of contracts: the range of repetition times in the training, and the share of parcels covered.
AllowedMismatch = Literal[ContractField, "t_r", "coverage"]


class DecodeOptions(Section):
    """A cohort: a folder of fMRIPrep derivatives, and the decoder that reads it."""

    model: str = Field(description="Folder of the decoder, from `boldly package`.")
    derivatives: str = Field(description="Folder of fMRIPrep.")
    fmriprep: str | None = Field(
        None, description="Folder of fMRIPrep with masks and confounds, where `derivatives` has denoised images."
    )
    events: str | None = Field(
        None, description="BIDS folder with events: trials are decoded. Default: sliding windows."
    )
    participants: list[str] | None = Field(None, description="Labels of the people; default: all.")
    tasks: list[str] | None = Field(None, description="BIDS tasks; default: all.")
    filters: dict[str, list[str | int | None]] = Field(
        {}, description="Use only runs whose BIDS entities have these values, as in `datasets.<name>.filters`."
    )
    space: str | None = Field(
        None, description="Space of the images; default: that of the training, any other has to be allowed."
    )
    resolution: str | None = Field(
        None, description="The `res` entity of the images (of surfaces `den`), where there are several."
    )
    layout: Literal["fmriprep", "hcp"] | None = Field(
        None, description="How the derivatives are laid out; default: as those of the training."
    )
    task: TaskOptions | None = Field(
        None, description="How events become trials; default: as in the training of the decoder."
    )
    preprocess: PreprocessOptions | None = Field(
        None, description="Nuisance regressors; default: those of the training, any other have to be allowed."
    )
    window_s: float | None = Field(
        None, gt=0, description="Length of sliding windows, s; default: the median trial of the training."
    )
    step_s: float | None = Field(
        None, gt=0, description="Distance from one window to the next, s; default: a quarter of a window."
    )
    without_mask: Literal["error", "whole_image"] = Field(
        "error", description="A run without a brain mask is defective, or its whole image counts as brain."
    )
    atlas: str | None = Field(
        None, description="Image of the atlas, where it does not lie in the folder of the decoder."
    )
    allow_mismatch: list[AllowedMismatch] = Field(
        [],
        description="Ways in which the data may differ from those of the training: fields of the contract, `t_r` "
        "(repetition times outside of those of the training), `coverage` (too few parcels).",
    )
    on_error: Literal["stop", "exclude"] = Field(
        "stop",
        description="Defective runs make the command fail once all others are decoded, or are only written to "
        "problems.tsv.",
    )

    @model_validator(mode="after")
    def _step(self) -> Self:
        if self.step_s is not None and self.window_s is not None and self.step_s > self.window_s:
            raise ValueError(
                f"step_s {self.step_s:g} is longer than window_s {self.window_s:g}: frames are skipped"
            )
        return self
