"""A decoder of mental states that is loaded from its folder and applied to new data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boldly import bids
from boldly.config import PreprocessOptions, TaskOptions
from boldly.decoding import folder as folders
from boldly.decoding.folder import About, read_about
from boldly.decoding.images import image_record
from boldly.decoding.preparation import (
    Recipe,
    array_samples,
    check_scaling,
    corpus_of,
    has_signal,
    samples_of,
    series_of,
    trials_of_run,
    windows,
    windows_of_run,
)
from boldly.files import atomic_path
from boldly.provenance import Contract, check_same
from boldly.records import InputError, Problem, Run, Trial
from boldly.samples.corpus import Corpus
from boldly.samples.sample import Sample, run_fingerprint
from boldly.sharing import folder_of, is_repository
from boldly.signals.atlas import Atlas
from boldly.signals.grayordinates import Parcellation

# torch and transformers take seconds to import: not before a decoder is applied.
if TYPE_CHECKING:
    from boldly.decoders.apply import LoadedFit

Image = str | Path | nib.Nifti1Image
Signals = NDArray[np.floating[Any]]


class ArrayLike(Protocol):
    """A table of pandas, a tensor: what numpy takes for an array."""

    def __array__(self, *arguments: Any, **options: Any) -> NDArray[Any]: ...


# Prefix of the columns of a table that hold probabilities.
PROBABILITY = "p_"


class Decoder:
    """A decoder of mental states; made by `from_pretrained`.

    `predict` and `predict_proba` are those of a scikit-learn classifier whose samples are trials: arrays (T, P) of
    any length. `decode` turns a whole run, as an array, an image or a path, into a table over time.

    Attributes
    ----------
    about : About
        What the decoder is: labels, options, training.
    contract : Contract
        How its input must have come about.
    classes_ : ndarray of str, shape (L,)
        The states, in the order of the columns of `predict_proba`.
    """

    def __init__(
        self,
        folder: Path,
        about: About,
        contract: Contract,
        *,
        atlas: Path | str | None = None,
        cache: Path | str | None = None,
        allow_mismatch: Collection[str] = (),
    ) -> None:
        self.folder, self.about, self.contract = folder, about, contract
        self.classes_: NDArray[np.str_] = np.array(about.labels)
        self.allow_mismatch = frozenset(allow_mismatch)
        self.image = None if atlas is None else Path(atlas)
        self.cache = default_cache() if cache is None else Path(cache)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        *,
        revision: str | None = None,
        atlas: Path | str | None = None,
        cache: Path | str | None = None,
        allow_mismatch: Collection[str] = (),
        check: bool = True,
    ) -> Self:
        """Read a decoder from its folder.

        Parameters
        ----------
        folder : Path or str
            Folder that ``boldly package`` wrote, or ``owner/name`` of a repository of a hub.
        revision : str, optional
            Commit, tag or branch of the repository.
        atlas : Path or str, optional
            Image of the atlas, where it does not lie in the folder; its checksum must be that of the contract.
        cache : Path or str, optional
            Folder of projections from voxels to parcels and of fetched atlases; default: ``boldly`` in the user's
            cache folder.
        allow_mismatch : collection of str, optional
            Fields of the contract in which data may differ; also "t_r" and "coverage". "mask": images without a
            brain mask are taken whole.
        check : bool, default=True
            Whether the checksums of all files are compared.

        Raises
        ------
        InputError
            For a folder that is no decoder, or in which files are missing or damaged.
        """
        # A folder is checked by what its config.json says.
        found = folder_of(folder, revision) if is_repository(folder) or revision else Path(folder)
        about, contract = read_about(found, check=check)
        return cls(found, about, contract, atlas=atlas, cache=cache, allow_mismatch=allow_mismatch)

    def save_pretrained(self, folder: Path | str) -> None:
        """Copy the decoder to another folder, atomically."""
        with atomic_path(folder) as temporary:
            shutil.copytree(self.folder, temporary)

    def __repr__(self) -> str:
        return f"Decoder({self.about.name}: {len(self.classes_)} states, {self.contract.n_parcels} parcels)"

    @cached_property
    def fit(self) -> LoadedFit:
        """The trained classifiers and networks.

        Raises
        ------
        InputError
            For missing or damaged files, states that are not those of config.json, and where torch is needed and
            not installed.
        """
        from boldly.decoders.apply import LoadedFit

        try:
            loaded = LoadedFit(self.folder, folders.FIT)
        except ModuleNotFoundError as error:
            message = f"its networks need {error.name}, which is not installed"
            raise InputError(
                Problem(str(self.folder), self.about.name, message, "pip install 'boldly[decode]'")
            ) from error
        if list(loaded.labels) != self.about.labels:
            message = f"its states are {', '.join(self.about.labels)}, those of its classifier "
            message += ", ".join(loaded.labels)
            raise InputError(
                Problem(str(self.folder / folders.CONFIG), self.about.name, message, folders.ANOTHER_COPY)
            )
        return loaded

    @cached_property
    def seen(self) -> set[str]:
        """Fingerprints of the runs that the decoder and its networks were fitted to."""
        return folders.seen_fingerprints(self.folder)

    def atlas(self) -> Atlas | Parcellation:
        """Read the atlas.

        Raises
        ------
        InputError
            Where it does not lie in the folder and was neither given nor fetched, with the way to come by it.
        """
        return folders.read_atlas(self.folder, self.about, self.image, self.cache / "atlas")

    def recipe(self, *, task: TaskOptions | None = None, preprocess: PreprocessOptions | None = None) -> Recipe:
        """Return how runs become what the decoder wants to see.

        Parameters
        ----------
        task : TaskOptions, optional
            How events become trials; default: as in the training.
        preprocess : PreprocessOptions, optional
            Nuisance regressors; default, and the only ones that the contract allows: those of the training.

        Raises
        ------
        InputError
            For an atlas or regressors that differ from those of the contract.
        """
        about, atlas = self.about, self.atlas()
        chosen = task or about.task or TaskOptions(delay_s=0.0)
        recipe = Recipe(
            name=about.name,
            labels=tuple(about.labels),
            contract=self.contract,
            atlas=atlas,
            preprocess=preprocess or about.preprocess,
            parcellate=about.parcellate,
            shard=about.shard,
            # A state that the decoder does not know is an error, whatever labels the task has.
            task=chosen.model_copy(update={"labels": about.labels}),
            t_r_s=about.t_r_s,
            least_covered=about.least_covered,
            cache=self.cache / "projections",
            allow_mismatch=self.allow_mismatch,
        )
        found = recipe.contract_of(self.contract.space, self.contract.images)
        if found.n_parcels != self.contract.n_parcels:
            message = f"the atlas has {found.n_parcels} parcels, the decoder takes {self.contract.n_parcels}"
            remedy = f"give the atlas {self.contract.atlas} (SHA-256 {self.contract.atlas_sha256})"
            raise InputError(Problem("atlas", about.name, message, remedy))
        self.check(found, "atlas")
        return recipe

    def check(self, contract: Contract, where: str) -> None:
        """Refuse data whose contract differs from that of the decoder in a field that is not allowed to."""
        allowed = {*self.allow_mismatch, *(("t_r_s",) if contract.t_r_s is None else ())}
        check_same(self.contract, contract, where, self.about.name, allowed)

    def predict_proba(
        self, X: Sequence[Signals] | Signals | ArrayLike | Image, **of_run: Any
    ) -> NDArray[np.float32]:
        """Return the probability of each state.

        Parameters
        ----------
        X : sequence of ndarray (T, P), or ndarray (R, T, P)
            Trials: cleaned signals of the parcels, as the contract describes them. A single array (T, P), an image
            or a path is a run: see `decode`.
        **of_run
            `t_r` for arrays; for a run, the other parameters of `decode`.

        Returns
        -------
        ndarray of float32, shape (R, L)
            In the order of `classes_`; nan for windows of a run of which scrubbing left too little.
        """
        table = self.decode(X, **of_run)
        return table[[f"{PROBABILITY}{name}" for name in self.classes_]].to_numpy(np.float32)

    def predict(self, X: Sequence[Signals] | Signals | ArrayLike | Image, **of_run: Any) -> NDArray[Any]:
        """Return the most probable state of each trial, or window of a run; parameters as for `predict_proba`.

        Returns
        -------
        ndarray of str, shape (R,)
            Empty text for windows of which scrubbing left too little.
        """
        return self.decode(X, **of_run)["state"].fillna("").to_numpy(str)

    def decode(
        self,
        X: Sequence[Signals] | Signals | ArrayLike | Image,
        *,
        t_r: float | None = None,
        confounds: Path | str | None = None,
        mask: Path | str | None = None,
        events: Path | str | None = None,
        window_s: float | None = None,
        step_s: float | None = None,
    ) -> pd.DataFrame:
        """Decode trials or a run into a table.

        Parameters
        ----------
        X : sequence of ndarray (T, P), ndarray (R, T, P), ndarray (T, P), image or path
            Several arrays are trials, one row each. One array (T, P), or a table of pandas, is a run of cleaned
            signals. An image, or the
            path of one, is a preprocessed run (``*_desc-preproc_bold.nii.gz``), which is cleaned with the options
            of the training.
        t_r : float, optional
            Repetition time, s. Default: that of the image's header; for arrays that of the training, if it had
            only one.
        confounds, mask : Path or str, optional
            Of an image: its table of confounds and its brain mask. Default: the files that fMRIPrep wrote beside
            it.
        events : Path or str, optional
            Events of the run: trials are decoded in place of windows.
        window_s, step_s : float, optional
            Length of the sliding windows and distance between them, s. Default: the median length of a training
            trial, and a quarter of the window.

        Returns
        -------
        DataFrame
            A row per trial or window: for runs `onset` and `duration` (s) and, with events, `trial_type`; `state`
            (the most probable), `probability` (of it), and ``p_<state>`` for each state.

        Raises
        ------
        InputError
            With all that is wrong with the data.
        """
        if isinstance(X, str | Path | nib.Nifti1Image):
            return self._decode_image(X, t_r, confounds, mask, events, window_s, step_s)
        # Tables of pandas and tensors are arrays too.
        X = np.asarray(X) if hasattr(X, "__array__") else X
        t_r = self._t_r(t_r)
        if isinstance(X, np.ndarray) and X.ndim == 2:
            self._check_arrays([X])
            task = self.about.task
            delay_s = 0.0 if task is None else (task.window_s or (task.delay_s or 0.0,))[0]
            length_s, step_s = self.window(window_s, step_s)
            trials = windows("run", len(X), t_r, length_s, step_s, delay_s)
            samples = self._samples([X[trial.first : trial.stop] for trial in trials], t_r)
            return self.table(samples, trials, self.probabilities(samples, "signals"))
        arrays = [np.asarray(trial) for trial in X]
        self._check_arrays(arrays)
        probabilities = self.probabilities(self._samples(arrays, t_r), "trials")
        return self._rows(probabilities)

    def window(self, window_s: float | None = None, step_s: float | None = None) -> tuple[float, float]:
        """Return length of sliding windows and their distance, s, where they are not given.

        Raises
        ------
        InputError
            For windows that are none, or leave out frames between them.
        """
        length_s = self.about.window_s if window_s is None else window_s
        step_s = length_s / 4 if step_s is None else step_s
        message = ""
        if length_s <= 0:
            message = f"window_s is {length_s:g} s"
        elif step_s <= 0:
            message = f"step_s is {step_s:g} s"
        elif step_s > length_s:
            message = f"step_s {step_s:g} is longer than a window of {length_s:g} s: frames are skipped"
        if message:
            raise InputError(
                Problem("windows", self.about.name, message, "give a step from 0 s to a whole window")
            )
        return length_s, step_s

    def corpus(self, trials: Sequence[Signals], t_r: float | None = None) -> Corpus:
        """Return trials, arrays (T, P), as the classifiers and networks of the decoder take them."""
        return corpus_of(self._samples([np.asarray(trial) for trial in trials], self._t_r(t_r)), "trials")

    def probabilities(self, samples: Sequence[Sample], where: str) -> NDArray[np.float32]:
        """Return the probability of each state for each sample, shape (R, L)."""
        if not samples:
            return np.zeros((0, len(self.classes_)), np.float32)
        return self.fit.probabilities(corpus_of(samples, where))

    def table(
        self, samples: Sequence[Sample], trials: Sequence[Trial], probabilities: NDArray[np.float32]
    ) -> pd.DataFrame:
        """Return the table of a run; trials without a sample have no state and no probabilities.

        Parameters
        ----------
        samples : sequence of Sample
            Those of the trials that scrubbing left enough of.
        trials : sequence of Trial
            All, or windows.
        probabilities : ndarray, shape (len(samples), L)
            Of the samples.
        """
        whole = np.full((len(trials), len(self.classes_)), np.nan, np.float32)
        numbers = [sample.meta.get("number", place) for place, sample in enumerate(samples)]
        places = {trial.number: place for place, trial in enumerate(trials)}
        if numbers:
            whole[[places[number] for number in numbers]] = probabilities
        when = pd.DataFrame({"onset": [t.onset for t in trials], "duration": [t.duration for t in trials]})
        if any(trial.label >= 0 for trial in trials):
            when["trial_type"] = [trial.label_name for trial in trials]
        return pd.concat([when.astype({"onset": float, "duration": float}), self._rows(whole)], axis=1)

    def decode_run(
        self, record: Run, recipe: Recipe, *, window_s: float | None = None, step_s: float | None = None
    ) -> pd.DataFrame:
        """Decode a run whose files are known: its trials if it has events, else sliding windows.

        Parameters
        ----------
        record : Run
            The run; `events` empty for windows.
        recipe : Recipe
            From `recipe`.
        window_s, step_s : float, optional
            As for `decode`.

        Raises
        ------
        InputError
            With all that is wrong with the run.

        Notes
        -----
        ``attrs["seen"]`` of the table says whether the decoder, or a network in it, was fitted to this very run.
        """
        has_trials = bool(record.events) or recipe.task.is_rest(record.task)
        self.check(recipe.contract_of(record.space, bids.kind_of_image(Path(record.bold))), record.bold)
        trials = (
            trials_of_run(record, recipe)
            if has_trials
            else windows_of_run(record, recipe, *self.window(window_s, step_s))
        )
        samples = samples_of(series_of(record, recipe), record, trials, recipe)
        table = self.table(samples, trials, self.probabilities(samples, record.bold))
        table.attrs["seen"] = bool(samples) and run_fingerprint(samples[0]) in self.seen
        return table

    def _rows(self, probabilities: NDArray[np.float32]) -> pd.DataFrame:
        """Return the most probable state, its probability, and those of all states."""
        known = np.isfinite(probabilities).all(axis=1)
        best = np.where(known, np.nan_to_num(probabilities).argmax(axis=1), -1)
        names = [str(self.classes_[number]) if number >= 0 else None for number in best]
        table = pd.DataFrame({"state": pd.Series(names, dtype=object), "probability": probabilities.max(axis=1)})
        columns = {f"{PROBABILITY}{name}": probabilities[:, k] for k, name in enumerate(self.classes_)}
        return pd.concat([table, pd.DataFrame(columns)], axis=1)

    def _samples(self, trials: Sequence[Signals], t_r: float) -> list[Sample]:
        about = self.about
        average = about.task is not None and about.task.average
        return array_samples(
            trials,
            t_r=t_r,
            labels=about.labels,
            contract=self.contract,
            dtype=about.shard.dtype,
            average=average,
        )

    def _t_r(self, t_r: float | None) -> float:
        low, high = self.about.t_r_s
        if t_r is None and low < high:
            message = f"the decoder was trained at {low:g} to {high:g} s, and arrays do not tell theirs"
            raise InputError(Problem("t_r", self.about.name, message, "give t_r, the repetition time in s"))
        found = low if t_r is None else t_r
        if "t_r" not in self.allow_mismatch and not low * 0.95 <= found <= high * 1.05:
            message = f"{found:g} s, the decoder was trained at {low:g} to {high:g} s"
            remedy = "resample the signals, or accept it with allow_mismatch=['t_r']"
            raise InputError(Problem("t_r", self.about.name, message, remedy))
        return found

    def _check_arrays(self, arrays: Sequence[Signals]) -> None:
        expected, about = self.contract.n_parcels, self.about
        fewest = 1 if about.task is None else about.task.fewest_frames
        wrong = []
        for number, array in enumerate(arrays):
            message, remedy = "", ""
            if array.ndim != 2 or array.shape[1] != expected or not len(array):
                message = f"shape {array.shape}, the decoder takes (frames, {expected})"
                remedy = f"give the signals of the {expected} parcels of {self.contract.atlas}, one row per frame"
            elif len(array) < fewest:
                message = f"{len(array)} frames, the decoder takes trials of at least {fewest}"
                remedy = "leave it out, or give longer trials"
            elif (share := has_signal(array).mean()) < about.least_covered and not self._allows("coverage"):
                message = f"{share:.0%} of {expected} parcels have a signal, "
                message += f"the decoder wants {about.least_covered:.0%}"
                remedy = "leave it out, or accept it with allow_mismatch=['coverage']"
            if message:
                wrong.append(Problem("arrays", f"array {number}", message, remedy))
        if wrong:
            raise InputError(wrong)
        if not self._allows("standardize"):
            check_scaling(arrays, self.contract, "arrays")

    def _allows(self, field: str) -> bool:
        return field in self.allow_mismatch

    def _decode_image(
        self,
        image: Image,
        t_r: float | None,
        confounds: Path | str | None,
        mask: Path | str | None,
        events: Path | str | None,
        window_s: float | None,
        step_s: float | None,
    ) -> pd.DataFrame:
        if isinstance(image, nib.Nifti1Image) and not image.get_filename():
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary) / "image.nii"
                nib.save(image, path)
                return self._decode_image(path, t_r, confounds, mask, events, window_s, step_s)
        path = Path(image if isinstance(image, str | Path) else str(image.get_filename()))
        record = image_record(
            path, space=self.contract.space, t_r=t_r, confounds=confounds, mask=mask, events=events
        )
        if self.contract.mask and not record.mask and not self._allows("mask"):
            message = "no brain mask beside the image; the decoder was trained on signals inside of one"
            remedy = "give mask=..., or let the whole image count as brain with allow_mismatch=['mask']"
            raise InputError(Problem(record.bold, record.key, message, remedy))
        return self.decode_run(record, self.recipe(), window_s=window_s, step_s=step_s)


def default_cache() -> Path:
    """Return where projections and fetched atlases are kept: ``boldly`` in the user's cache folder.

    The environment variable BOLDLY_CACHE names another one.
    """
    root = os.environ.get("BOLDLY_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "boldly"
    )
    return Path(root)
