"""All images of an explanation: NIfTI files, pictures and interactive pages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boldly.config import ExplainOptions
from boldly.files import atomic_path
from boldly.signals.atlas import Atlas
from boldly.stages.explain import maps as voxels
from boldly.stages.explain import pictures as drawing
from boldly.stages.explain.explanation import Map

logger = logging.getLogger(__name__)

IMAGES, PICTURES, VIEWS = "images", "pictures", "views"

# What the values of each method are.
UNITS = {
    "integrated_gradients": "evidence that a parcel gave for the state (logits)",
    "occlusion": "evidence that is lost without the parcel (logits)",
    "patterns": "change of the signal per unit of evidence (SD)",
    "weights": "evidence per SD of the signal",
    "mean_difference": "mean signal less that of other states (SD)",
}


def write_images(
    output: Path,
    maps: dict[str, Map],
    atlas: Atlas | None,
    states: Sequence[str],
    present: Sequence[int],
    options: ExplainOptions,
    title: str,
    in_mni: bool,
) -> None:
    """Write maps as images, pictures and pages; their folders are there also where nothing is drawn."""
    folders = {IMAGES: options.drawn("images"), PICTURES: options.drawn("pictures"), VIEWS: options.drawn("views")}
    names = [states[state] for state in present]
    # What an earlier call with other options left would be taken for a part of this one.
    with (
        atomic_path(output / IMAGES) as images,
        atomic_path(output / PICTURES) as pictures,
        atomic_path(output / VIEWS) as views,
    ):
        for folder in (images, pictures, views):
            folder.mkdir()
        if atlas is None:
            logger.warning("%s: no atlas that is an image of voxels, so no images", title)
            return
        files = voxels.file_names(names)
        for method, one in maps.items():
            if not any(method in chosen for chosen in folders.values()):
                continue
            found = voxels.volumes(atlas, one.value[:, list(present)])
            images_of = [
                voxels.image_of(atlas, found[..., k], f"boldly explain {method} {name}")
                for k, name in enumerate(names)
            ]
            if method in folders[IMAGES]:
                for name, image in zip(names, images_of, strict=True):
                    voxels.write_image(images / method / f"{files[name]}.nii.gz", image)
            scale = drawing.scale_of(found)
            about: dict[str, Any] = {
                "title": f"{title}: {method.replace('_', ' ')}",
                "scale": scale,
                "in_mni": in_mni,
            }
            if method in folders[PICTURES]:
                drawing.draw(pictures / f"{method}.png", images_of, names, unit=UNITS[method], **about)
            if method in folders[VIEWS] and not drawing.has_depth(images_of[0]):
                logger.info("%s: the atlas has too few slices for an interactive view", title)
            elif method in folders[VIEWS]:
                drawing.write_view(views / f"{method}.html", images_of, names, **about)
