"""The only place that spells BIDS and fMRIPrep names."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boldly.records import Run

_ENTITY = re.compile(r"(?:^|_)([a-z]+)-([A-Za-z0-9+]+)")

# Long name of a run's entities to their BIDS key, in the order that BIDS and a run key have them.
RUN_ENTITIES = {
    "subject": "sub",
    "session": "ses",
    "task": "task",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "echo": "echo",
    "part": "part",
    "chunk": "chunk",
}
_CIFTI = ".dtseries.nii"
# Entities that name a product, not the recording it was made from.
_OF_PRODUCT = {"space", "cohort", "res", "den", "hemi", "desc", "label", "atlas", "seg", "scale"}
# Entities that tell several images of one recording apart.
OF_VARIANT = ("rec", "echo", "part")
# Entities whose values are numbers: "01" is 1.
_NUMBERS = {"run", "res", "echo", "chunk"}


def entities(name: str) -> dict[str, str]:
    """Return the key-value entities of a BIDS file name, values as spelled.

    Examples
    --------
    >>> entities("sub-01_task-rest_run-02_desc-preproc_bold.nii.gz")
    {'sub': '01', 'task': 'rest', 'run': '02', 'desc': 'preproc'}
    """
    return dict(_pairs(name))


# Each name is asked for several times while a dataset is indexed.
@functools.lru_cache(maxsize=1 << 12)
def _pairs(name: str) -> list[tuple[str, str]]:
    return _ENTITY.findall(name)


def run_fields(found: dict[str, str]) -> dict[str, Any]:
    """Return the entities of a run by their long names (fields of `Run`); absent ones are empty."""
    return {name: found.get(key, "") for name, key in RUN_ENTITIES.items()}


def run_entities(run: Run) -> dict[str, str]:
    """Return the entities that a run has, by their short names."""
    return {key: value for name, key in RUN_ENTITIES.items() if (value := getattr(run, name))}


def run_prefix(found: dict[str, str]) -> str:
    """Spell the entities that all files of a run share, in BIDS order, values as spelled."""
    return "_".join(f"{key}-{found[key]}" for key in RUN_ENTITIES.values() if found.get(key))


@functools.lru_cache(maxsize=1 << 14)
def identity_of(name: str) -> tuple[str, ...]:
    """Return the identity of the run (`run_identity`) that a file name tells."""
    return run_identity(entities(name))


def run_identity(found: dict[str, str]) -> tuple[str, ...]:
    """Return what makes two images belong to one run: its entities, with numbers as numbers ("01" is 1)."""
    return tuple(_plain(key, found.get(key, "")) for key in RUN_ENTITIES.values())


def _plain(key: str, value: str) -> str:
    return str(int(value)) if key in _NUMBERS and value.isdigit() else value


def run_key(dataset: str, found: dict[str, str]) -> str:
    """Return the key of a run: ``ds-X_sub-Y[_ses-..]_task-Z[_acq-..][_dir-..][_run-N]`` with N unpadded.

    Between and behind these stand the rarer entities of BIDS (`RUN_ENTITIES`), as far as the run has them.
    """
    parts = [f"ds-{dataset}"]
    for key, value in zip(RUN_ENTITIES.values(), run_identity(found), strict=True):
        if value:
            parts.append(f"{key}-{value}")
    return "_".join(parts)


def is_same(key: str, one: str, other: str) -> bool:
    """Tell whether two values of an entity are the same, numbers as numbers."""
    return one == other or _plain(key, one) == _plain(key, other)


@functools.lru_cache(maxsize=1 << 14)
def recording(name: str) -> dict[str, str]:
    """Return the entities of a file name that tell of which recording it is, not which product."""
    return {key: value for key, value in entities(name).items() if key not in _OF_PRODUCT}


def applies(found: dict[str, str], image: dict[str, str]) -> bool:
    """Tell whether a file with these entities is about an image: it has no entity that the image contradicts.

    What is said of one echo, or of the magnitude, also holds for the image that was combined from them.
    """
    return all(
        is_same(key, value, image[key]) if key in image else key == "echo" or (key, value) == ("part", "mag")
        for key, value in found.items()
    )


def matches(paths: Iterable[Path], image: dict[str, str]) -> list[list[Path]]:
    """Return the files that are about an image by the inheritance of BIDS, the most specific first.

    A file at a lower level of the dataset goes before one at a higher level; at the same level the one that shares
    more entities with the image, has fewer of its own, and spells them alike.

    Parameters
    ----------
    paths : iterable of Path
        Files of one kind, of one dataset.
    image : dict of str to str
        Entities of the image.

    Returns
    -------
    list of list of Path
        Files that are equally specific stand together.
    """
    ranked: dict[tuple[int, ...], list[Path]] = {}
    for path in paths:
        found = recording(path.name)
        if applies(found, image):
            shared = sum(key in image for key in found)
            alike = sum(image.get(key) == value for key, value in found.items())
            # fMRIPrep 20.0 renamed *_regressors.tsv to *_timeseries.tsv; a folder may hold both after an update.
            rank = (len(path.parts), shared, shared - len(found), alike, "_regressors" not in path.name)
            ranked.setdefault(rank, []).append(path)
    return [ranked[rank] for rank in sorted(ranked, reverse=True)]


def best_match(paths: Iterable[Path], image: dict[str, str]) -> list[Path]:
    """Return the file that is about an image (`matches`); several where they are equally specific."""
    return next(iter(matches(paths, image)), [])


def files_in(folder: Path) -> list[Path]:
    """Return the files and folders in a folder, sorted; none where there is no such folder."""
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def inherited_files(root: Path, subject: str) -> list[Path]:
    """Return the files of a subject at all levels where BIDS has files that runs inherit, but those at the top."""
    folder = root / f"sub-{subject}"
    levels = (folder, *sorted(folder.glob("ses-*")))
    return [path for level in levels for path in (*files_in(level), *files_in(level / "func"))]


def subject_folders(derivatives: Path) -> list[Path]:
    """Return the subject folders of a BIDS or derivatives folder, sorted."""
    return sorted(path for path in derivatives.glob("sub-*") if path.is_dir())


def functional_files(subject: Path) -> list[Path]:
    """Return all files in a subject's func folders, with sessions or without, sorted."""
    folders = [folder / "func" for folder in (subject, *sorted(subject.glob("ses-*")))]
    return [folder / name for folder in folders if folder.is_dir() for name in sorted(os.listdir(folder))]


def is_preproc_bold(name: str) -> bool:
    """Tell whether a name is that of a preprocessed BOLD image (in any space)."""
    return entities(name).get("desc") == "preproc" and name.endswith(("_bold.nii.gz", "_bold.nii"))


def is_denoised_bold(name: str, suffix: str) -> bool:
    """Tell whether a name is that of a run's image with a certain end (``_desc-denoised_bold``), in any space."""
    return name.endswith((f"{suffix}.nii.gz", f"{suffix}.nii", f"{suffix}{_CIFTI}")) and "task" in entities(name)


def is_cifti(name: str) -> bool:
    """Tell whether a name is that of a time series on surfaces."""
    return name.endswith(_CIFTI)


def is_cifti_bold(name: str) -> bool:
    """Tell whether a name is that of a preprocessed time series on surfaces, as fMRIPrep spells it."""
    return name.endswith(f"_bold{_CIFTI}") and entities(name).get("desc", "preproc") == "preproc"


def is_aroma_bold(name: str) -> bool:
    """Tell whether a name is that of a BOLD image smoothed and cleaned with ICA-AROMA (fMRIPrep before 23.1)."""
    return entities(name).get("desc") == "smoothAROMAnonaggr" and name.endswith(("_bold.nii.gz", "_bold.nii"))


def is_brain_mask(name: str) -> bool:
    """Tell whether a name is that of a run's brain mask."""
    return entities(name).get("desc") == "brain" and name.endswith(("_mask.nii.gz", "_mask.nii"))


def is_confounds_table(name: str) -> bool:
    """Tell whether a name is that of a confounds table, as fMRIPrep before 20.0 or after spells it."""
    return entities(name).get("desc") == "confounds" and name.endswith(("_timeseries.tsv", "_regressors.tsv"))


def kind_of_image(image: Path) -> str:
    """Return what tells a BOLD image from the one that fMRIPrep or HCP preprocessed; empty for that one.

    Examples
    --------
    >>> kind_of_image(Path("sub-01_task-rest_space-T1w_desc-denoised_bold.nii.gz"))
    'desc-denoised'
    """
    found = entities(image.name)
    if "sub" not in found:
        stem, run = sidecar(image).stem, image.parent.name
        return stem.removeprefix(run).strip("_") if stem.startswith(run) else ""
    desc = found.get("desc", "preproc")
    # The contract tells of ICA-AROMA among the confounds.
    return "" if desc in ("preproc", "smoothAROMAnonaggr") else f"desc-{desc}"


def censored_frames(image: Path) -> Path:
    """Return where XCP-D writes which frames it took for outliers: a row for each recorded frame."""
    return image.with_name(f"{run_prefix(entities(image.name))}_outliers.tsv")


def is_events_table(name: str) -> bool:
    """Tell whether a name is that of an events table, with tabs as in BIDS or with commas."""
    return name.endswith(("_events.tsv", "_events.csv"))


def sidecar(image: Path) -> Path:
    """Return the JSON file beside an image or table."""
    name = image.name
    for suffix in (".nii.gz", ".dtseries.nii", ".dlabel.nii", ".nii", ".tsv"):
        name = name.removesuffix(suffix)
    return image.with_name(f"{name}.json")


def timeseries_path(found: dict[str, str], space: str, atlas: str) -> Path:
    """Return the path of a run's parcel signals in a derivative dataset; labels have letters and digits only."""
    label = entities(atlas).get("atlas") or re.sub("[^A-Za-z0-9]", "", atlas)
    folder = Path(f"sub-{found['sub']}", *([f"ses-{found['ses']}"] if found.get("ses") else []), "func")
    return folder / f"{run_prefix(found)}_space-{space}_atlas-{label}_timeseries.tsv"


def source_image(raw: Path, found: dict[str, str]) -> Path | None:
    """Return the raw image that a preprocessed run was made from; None if it is not there."""
    folder = raw / f"sub-{found['sub']}" / (f"ses-{found['ses']}" if found.get("ses") else "") / "func"
    paths = (folder / f"{run_prefix(found)}_bold{suffix}" for suffix in (".nii.gz", ".nii"))
    return next((path for path in paths if path.exists()), None)


def fmriprep_version(derivatives: Path) -> str:
    """Return the version in the description of fMRIPrep derivatives; empty if it is not said."""
    try:
        about = json.loads((derivatives / "dataset_description.json").read_text(encoding="utf-8"))
        maker = (about.get("GeneratedBy") or [about.get("PipelineDescription")])[0]
        return str(maker["Version"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def shard_name(dataset: str, subject: str) -> str:
    """Return the name of a subject's tar."""
    return f"ds-{dataset}_sub-{subject}.tar"


def runs_name(dataset: str) -> str:
    """Return the name of a dataset's run table."""
    return f"{dataset}_runs.tsv"


def trials_name(dataset: str) -> str:
    """Return the name of a dataset's table of trials."""
    return f"{dataset}_trials.tsv"


def sample_key(run_key: str, number: int) -> str:
    """Return the key of a trial's sample."""
    return f"{run_key}_sample_{number:03d}"


def run_of_sample(key: str) -> str:
    """Return the run key of a sample, which is that of a whole run itself."""
    return key.partition("_sample_")[0]
