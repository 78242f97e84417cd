"""Section atlas: the parcels that signals are read from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from boldly.config.sections import Section


class AtlasChoice(NamedTuple):
    """What can be chosen of an atlas that is fetched, the default first, and the template that it is in."""

    dimensions: tuple[int, ...]
    resolutions_mm: tuple[int, ...]
    variants: tuple[str, ...]
    template: str = "MNI152NLin6Asym"


ATLASES = {
    "difumo": AtlasChoice((1024, 512, 256, 128, 64), (2, 3), ()),
    "schaefer": AtlasChoice(
        (400, *range(100, 400, 100), *range(500, 1100, 100)), (2, 1), ("7networks", "17networks")
    ),
    "aal": AtlasChoice((), (), ("3v2", "SPM12", "SPM8", "SPM5"), "MNIColin27"),
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
        None,
        description="Image: 3-D labels (`*_dseg.nii.gz`) or 4-D maps (`*_probseg.nii.gz`); for images on surfaces "
        "(`space: fsLR`) a parcellation, `*.dlabel.nii`.",
    )
    labels: str | None = Field(
        None,
        description="Table of parcel names (columns index, name; tabs or commas); default: the image's name with "
        ".tsv or .csv, or the table beside it that BIDS rules find (`tpl-X_atlas-Y_dseg.tsv`).",
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
    space: str | None = Field(
        None,
        description="Template that the atlas is in; default: the `tpl` or `space` entity of the image's name. A "
        "warning says where the images of a dataset are in another one. With an atlas in a template, images in "
        "the space of each person's own brain are refused.",
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
        for field, values in zip(("dimension", "resolution_mm", "variant"), choice[:3], strict=True):
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
        choices: tuple[tuple[Any, ...], ...] = ATLASES[self.name][:3]
        for (field, value), values in zip(fields.items(), choices, strict=True):
            if value is not None and value not in values:
                allowed = ", ".join(map(str, sorted(values))) or f"nothing, {self.name} has no {field}"
                raise ValueError(f"{field}: {value} (possible: {allowed})")
        return self

    @property
    def is_parcellation(self) -> bool:
        """Whether its parcels are those of surfaces (CIFTI), not of volumes."""
        return self.path is not None and self.path.endswith(".dlabel.nii")

    @property
    def image(self) -> str:
        """Path of the image, wherever it comes from."""
        return self.path if self.path is not None else f"{self.cache}/{self.label}.nii.gz"

    @property
    def template(self) -> str | None:
        """Template that the atlas is in; None where nothing tells."""
        if self.space is not None or self.path is None:
            return self.space or ATLASES[str(self.name)].template
        found = re.search(r"(?:^|_)(?:tpl|space)-([A-Za-z0-9+]+)", Path(self.path).name)
        return found[1] if found else None

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
