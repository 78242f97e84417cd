"""The upstream models that downstream experiments start from."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldly.decoders.encoders import ENCODERS
from boldly.files import atomic_path
from boldly.layout import MODEL_CONFIG, WEIGHTS
from boldly.provenance import file_sha256
from boldly.samples.seen import MANIFEST

# Files that hidden states depend on: weights, sizes, and the components of the states.
ENCODING = (WEIGHTS, MODEL_CONFIG, "basis.safetensors")


@dataclass(frozen=True)
class UpstreamModel:
    """An upstream model.

    Attributes
    ----------
    name : str
        Upstream experiment, as `AdaptOptions` names it.
    seed : int
        Seed that it was pretrained with; repetitions have the same name and other seeds.
    folder : Path
        Its folder.
    """

    name: str
    seed: int
    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"name": self.name, "seed": self.seed, "folder": str(self.folder)}

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file that hidden states depend on."""
        return {name: file_sha256(self.folder / name) for name in ENCODING if (self.folder / name).exists()}

    @property
    def label(self) -> str:
        """Name among the encoders of an experiment."""
        return f"{Path(self.name).name}_seed-{self.seed}"


def keep(model: UpstreamModel, output: Path, *, frozen: bool) -> Path:
    """Keep what decoders need of a model in the folder of their experiment, and return where.

    Files are linked where the file system can, so that an experiment takes no room for them, and copied elsewhere.
    Models are written beside their final name and renamed, so a link never changes with a later training.

    Parameters
    ----------
    model : UpstreamModel
        The model.
    output : Path
        Folder of the experiment.
    frozen : bool
        Whether decoders apply the model itself; if not, only what it was trained on is kept.
    """
    folder = output / ENCODERS / model.label
    link_files(model.folder, folder, (MANIFEST, *((*ENCODING, "contract.json") if frozen else ())))
    return folder


def link_files(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Make a folder that holds some files of another one, as far as they are there; see `keep`."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        (target / name).unlink(missing_ok=True)
        if (source / name).exists():
            with atomic_path(target / name) as temporary:
                _link(source / name, temporary)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
