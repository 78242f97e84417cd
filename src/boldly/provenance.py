"""What a model's input must be, and how files prove what they are: contract, hashes, versions."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boldly
from boldly.records import InputError, Problem

_NOT_COMPARED = ("version", "varied")


@dataclass(frozen=True)
class Contract:
    """How a time series came about. Written into every time series, shard and model.

    Attributes
    ----------
    atlas, atlas_sha256 : str
        Name and checksum of the atlas image.
    n_parcels : int
        Number of parcels P.
    space : str
        BIDS space of the images.
    confounds : dict
        Strategy of the nuisance regression (section preprocess of the config without its thresholds for runs).
    smoothing_fwhm_mm, high_pass_hz, low_pass_hz : float or None
        Kernel and filters; None where there is none.
    detrend : bool
        Whether a linear trend was removed.
    standardize : str
        Scaling over time.
    order : tuple of str
        The operations on a run, in their order.
    version : str
        Version of boldly that wrote it. Informative: it is not compared.
    t_r_s : float or None
        Repetition time that all runs were resampled to, s; None where each has that of its recording.
    mask : bool
        Whether only voxels inside the brain mask of a run count.
    varied : dict of str to list
        Where data of different contracts were put together (`allow_mismatch`): all values of the fields in which
        they differ, the first one's first. Data that have one of these values fit.
    images : str
        Which images of a run, where they are not those that fMRIPrep or HCP preprocessed: ``desc-denoised``.
    """

    atlas: str
    atlas_sha256: str
    n_parcels: int
    space: str
    confounds: dict[str, Any]
    smoothing_fwhm_mm: float | None
    high_pass_hz: float | None
    low_pass_hz: float | None
    detrend: bool
    standardize: str
    order: tuple[str, ...] = ("smooth", "extract", "detrend", "filter", "regress", "scale", "scrub")
    version: str = boldly.__version__
    t_r_s: float | None = None
    mask: bool = False
    images: str = ""
    varied: dict[str, list[Any]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Return the contract as one line of JSON with sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read what `to_json` wrote."""
        content = json.loads(text)
        content["order"] = tuple(content["order"])
        if "order" in content.get("varied", {}):
            content["varied"]["order"] = [tuple(order) for order in content["varied"]["order"]]
        return cls(**content)

    def values(self, name: str) -> list[Any]:
        """Return all values of a field that the data have: one, but where contracts were put together."""
        return self.varied.get(name) or [getattr(self, name)]

    def with_another(self, other: Contract) -> Contract:
        """Return the contract of data that are put together with others: the same, with what varies."""
        if other == self:
            return self
        varied = {}
        for name in (field.name for field in dataclasses.fields(self) if field.name not in _NOT_COMPARED):
            found = self.values(name)
            found = found + [value for value in other.values(name) if value not in found]
            if len(found) > 1:
                varied[name] = found
        return self if varied == self.varied else dataclasses.replace(self, varied=varied)

    @property
    def sha256(self) -> str:
        """Checksum of the compared fields."""
        content = {k: v for k, v in dataclasses.asdict(self).items() if k not in _NOT_COMPARED}
        # The contracts of earlier versions do not have them, and keep their checksums.
        if self.t_r_s is None:
            del content["t_r_s"]
        if not self.mask:
            del content["mask"]
        if not self.images:
            del content["images"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differences(one: Contract, other: Contract) -> list[str]:
    """Return one line for each compared field in which the second contract has what the first has not."""
    names = [field.name for field in dataclasses.fields(Contract) if field.name not in _NOT_COMPARED]
    return [
        f"{name}: {_in_words(one.values(name), other.values(name))} != "
        f"{_in_words(other.values(name), one.values(name))}"
        for name in names
        if any(value not in one.values(name) for value in other.values(name))
    ]


def _in_words(values: list[Any], others: list[Any]) -> str:
    """Spell the values of a field; of options with names only those in which they differ from others."""
    if not all(isinstance(value, dict) for value in values + others):
        return " or ".join(map(repr, values))
    everything = [*values, *others]
    names = sorted({name for value in everything for name in value})
    differing = [name for name in names if any(v.get(name) != everything[0].get(name) for v in everything)]
    return " or ".join(", ".join(f"{name} {value.get(name)!r}" for name in differing) for value in values)


def check_same(one: Contract, other: Contract, where: str, entity: str, allow: Collection[str] = ()) -> None:
    """Refuse two things whose contracts differ.

    Parameters
    ----------
    one, other : Contract
        What is there and what it meets.
    where, entity : str
        File and name of the second, for the error.
    allow : collection of str
        Fields that may differ.

    Raises
    ------
    InputError
        With every difference.
    """
    wrong = [line for line in differences(one, other) if line.split(":")[0] not in allow]
    if wrong:
        raise InputError(
            Problem(
                where,
                entity,
                "its contract differs from the one it meets: " + "; ".join(wrong),
                "prepare both with the same options, or say that the difference is meant: "
                f"allow_mismatch: [{', '.join(line.split(':')[0] for line in wrong)}] in the experiment",
            )
        )


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 checksum of a file as hexadecimal text."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def environment() -> dict[str, Any]:
    """Return what a result depends on beside its input: versions of packages, git commit if there is one."""
    packages = ("numpy", "torch", "transformers", "accelerate", "deepspeed")
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "boldly": boldly.__version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **versions,
    }


def _git_commit() -> str | None:
    # An environment may lie in somebody's repository, whose commit says nothing of boldly.
    is_tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
    described = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        _, found = (
            subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
            for command in (is_tracked, described)
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
