"""What the folder of a decoder holds, and how it is read back.

::

    config.json       what the decoder is, was trained on, and wants to see (`About`)
    contract.json     how its input came about (`boldly.provenance.Contract`)
    README.md         the model card
    fit/              the trained decoder, as stage adapt wrote it
    encoders/<name>/  the frozen networks that it reads from; of one that was trained further only what it was
                      pretrained on (manifest.json)
    atlas/            image of the parcels and table of their names, where they may be passed on
    scores.tsv, comparisons.tsv   what evaluate says of it
    seen.json         fingerprints of the runs that it was fitted to
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

from pydantic import Field

import boldly
from boldly.config import (
    AtlasOptions,
    ParcellateOptions,
    PreprocessOptions,
    Section,
    ShardOptions,
    TaskOptions,
    parse,
)
from boldly.decoders.encoders import ENCODERS
from boldly.files import read_json, write_json
from boldly.provenance import Contract, file_sha256
from boldly.records import InputError, Problem
from boldly.samples.seen import MANIFEST
from boldly.signals.atlas import Atlas, load_parcels
from boldly.signals.grayordinates import Parcellation

CONFIG = "config.json"
CONTRACT = "contract.json"
CARD = "README.md"
FIT = "fit"
ATLAS = "atlas"
SCORES = "scores.tsv"
COMPARISONS = "comparisons.tsv"
SEEN = "seen.json"

ANOTHER_COPY = "give a folder that `boldly package` wrote, or copy it again"


class AtlasReference(Section):
    """The atlas of a decoder: its files, if they lie in the folder, else how to come by them."""

    name: str = Field(description="Name in contracts.")
    sha256: str = Field(description="Checksum of the image.")
    file: str | None = Field(None, description="Image in the folder; null: it may not be passed on.")
    labels: str | None = Field(None, description="Table of names in the folder.")
    fetch: AtlasOptions | None = Field(None, description="What `boldly atlas` fetches.")
    source: str = Field("", description="Where it is from.")
    citation: str = Field("", description="What to cite.")
    licence: str = Field("not stated", description="Its terms.")


class Training(Section):
    """What a decoder was fitted to, and what validation chose."""

    experiment: str
    kind: str = Field(description="pretrained, untrained, scratch or baseline.")
    start: str = Field(description="Upstream experiment, members, or baseline.")
    dataset: str
    by: Literal["subject", "run"] = Field(description="What a unit is.")
    n: int = Field(description="Labelled units used to fit or to choose.")
    draw: int
    seed: int
    train: list[str]
    validation: list[str]
    test: list[str]
    choice: str = Field("", description="What validation chose, in words.")
    picked: str = Field("", description="Why this fit was packaged.")


class About(Section):
    """config.json: all that is needed to apply a decoder to new data, weights and contract apart."""

    format: Literal[1] = Field(1, description="Version of the layout of the folder.")
    name: str = Field(description="Name of the decoder.")
    kind: Literal["probe", "network", "fine-tuned"] = Field(description="How it is built.")
    labels: list[str] = Field(min_length=1, description="Names of the states, in the order of probabilities.")
    longest_frames: int = Field(description="Longer trials are cut behind this many frames.")
    t_r_s: tuple[float, float] = Field(description="Shortest and longest repetition time in training, s.")
    window_s: float = Field(gt=0, description="Median length of a training trial, s: that of sliding windows.")
    least_covered: float = Field(0.8, description="Least share of parcels that a run must cover.")
    task: TaskOptions | None = Field(None, description="How events became trials.")
    layout: Literal["fmriprep", "hcp"] = Field("fmriprep", description="How the derivatives were laid out.")
    image_suffix: str = Field("", description="End of the images' names, if they were denoised.")
    preprocess: PreprocessOptions
    parcellate: ParcellateOptions
    shard: ShardOptions = ShardOptions()
    atlas: AtlasReference | None = Field(None, description="None: trained on ready-made shards.")
    training: Training
    licence: str = Field("not stated", description="Terms of the decoder.")
    boldly: str = Field(boldly.__version__, description="Version that wrote it.")
    files: dict[str, str] = Field({}, description="SHA-256 of each file.")


def write_about(folder: Path, about: About, contract: Contract) -> None:
    """Write config.json and contract.json; the checksums are those of all files that are there."""
    write_json(folder / CONTRACT, dataclasses.asdict(contract))
    files = {
        str(path.relative_to(folder)): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (CONFIG, CARD)
    }
    write_json(folder / CONFIG, about.model_copy(update={"files": files}).model_dump(mode="json"))


def read_about(folder: Path | str, *, check: bool = True) -> tuple[About, Contract]:
    """Read what a decoder is, and what its input must be.

    Parameters
    ----------
    folder : Path or str
        Folder of the decoder.
    check : bool, default=True
        Whether the checksums of all files are compared.

    Raises
    ------
    InputError
        For a folder that holds no decoder, and with every file that is missing or not what it was.
    """
    folder = Path(folder)
    path = folder / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
        content = dict(json.loads(text))
        contract = Contract.from_json((folder / CONTRACT).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(str(folder), "", f"not the folder of a decoder: {error}", ANOTHER_COPY)) from None
    if content.get("format", 1) != 1:
        message = (
            f"layout {content['format']} of the folder, this version of boldly ({boldly.__version__}) reads 1"
        )
        raise InputError(Problem(str(path), "", message, "update boldly, or ask for the folder in this layout"))
    try:
        about = parse(About, text, str(path))
    except InputError as error:
        raise InputError([dataclasses.replace(one, remedy=ANOTHER_COPY) for one in error.problems]) from None
    problems = []
    for name, sha256 in about.files.items() if check else ():
        if not (folder / name).is_file():
            problems.append(Problem(str(folder / name), about.name, "no such file", ANOTHER_COPY))
        elif file_sha256(folder / name) != sha256:
            message = "its checksum is not the one in config.json: the file was changed, or not wholly copied"
            problems.append(Problem(str(folder / name), about.name, message, ANOTHER_COPY))
    if problems:
        raise InputError(problems)
    return about, contract


def seen_fingerprints(folder: Path) -> set[str]:
    """Return the fingerprints of all runs that the decoder and its encoders were fitted to, as far as known.

    See `boldly.samples.sample.run_fingerprint`.
    """
    seen: set[str] = set()
    for path in (folder / SEEN, *folder.glob(f"{ENCODERS}/*/{MANIFEST}")):
        if path.exists():
            seen |= set(read_json(path).get("fingerprints", []))
    return seen


def atlas_options(folder: Path, about: About, image: Path | None, cache: Path | None) -> AtlasOptions:
    """Return where the atlas of a decoder is.

    Parameters
    ----------
    folder : Path
        Folder of the decoder.
    about : About
        Its config.
    image : Path or None
        Image of the atlas, from the user; None: that of the folder, or a fetched one.
    cache : Path or None
        Folder of fetched atlases; None: ``data/atlas``.

    Raises
    ------
    InputError
        Where it has no atlas, or the image does not lie in its folder and was not given.
    """
    reference = about.atlas
    if reference is None:
        message = "the decoder was trained on ready-made shards: there is no atlas to read images with"
        raise InputError(Problem(str(folder), about.name, message, "decode arrays of parcel signals in Python"))
    if image is not None:
        return AtlasOptions(path=str(image), name=reference.name)
    if reference.file is not None:
        labels = None if reference.labels is None else str(folder / reference.labels)
        return AtlasOptions(
            path=str(folder / reference.file), labels=labels, name=reference.name, sha256=reference.sha256
        )
    if reference.fetch is not None:
        return reference.fetch.model_copy(update={"cache": str(cache)} if cache is not None else {})
    message = f"its atlas {reference.name} (SHA-256 {reference.sha256}) does not lie in the folder"
    raise InputError(Problem(str(folder), about.name, message, "give the image of the atlas with --atlas"))


def read_atlas(
    folder: Path, about: About, image: Path | None = None, cache: Path | None = None
) -> Atlas | Parcellation:
    """Read the atlas of a decoder; parameters and errors as those of `atlas_options`."""
    return load_parcels(atlas_options(folder, about, image, cache))
