"""A corpus of the preprint's size in names: 34 datasets, 1,726 subjects, 11,980 runs, spelled as real ones are.

Only the plan is here: which runs there are, how they are called, and which of them are defective.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from boldly import bids

SUBJECTS = 1726
RUNS = 11980
N_DATASETS = 34
N_DOWNSTREAM = 2
SPACE = "MNI152NLin2009cAsym"
OTHER_SPACE = "MNI152NLin6Asym"

Defect = Literal["", "empty image", "dangling image", "dangling confounds", "other space", "cut image"]
_DEFECTS: tuple[Defect, ...] = (
    "empty image",
    "dangling image",
    "dangling confounds",
    "other space",
    "cut image",
)
# One run in so many is defective, in every other dataset.
_DEFECT_EVERY = 97
_TASKS = (
    *("rest", "nback", "stroop", "gonogo", "flanker", "stopsignal", "balloonanalogrisktask", "movie", "gambling"),
    *("motor", "language", "emomatching", "faces", "localizer", "imagery", "picturenaming", "mixedgambles"),
)
_T_R_S = (2.0, 0.72, 1.0, 2.5, 1.5, 3.0, 0.8, 1.94)


@dataclass(frozen=True)
class CorpusRun:
    """A run: its BIDS entities, its number of frames and what is wrong with it."""

    entities: dict[str, str]
    n_volumes: int
    defect: Defect


@dataclass(frozen=True)
class CorpusDataset:
    """A dataset and how its makers spelled it.

    Attributes
    ----------
    name : str
        Name.
    role : {"upstream", "downstream"}
        What it is for.
    number : int
        Position in the corpus, from 0; decides the spelling.
    runs : dict of str to int
        Number of runs of each subject.
    t_r : float
        Repetition time, s.
    """

    name: str
    role: Literal["upstream", "downstream"]
    number: int
    runs: dict[str, int] = field(repr=False)
    t_r: float

    @property
    def sessions(self) -> tuple[str, ...]:
        """Session labels; an empty one where there are none."""
        return (("",), ("01", "02"), ("",), ("pre", "post"))[self.number % 4]

    @property
    def space(self) -> str:
        """Space of the images to use."""
        return OTHER_SPACE if self.number % 11 == 5 else SPACE

    @property
    def resolution(self) -> str:
        """The `res` entity of the images to use; empty for none."""
        return "2" if self.number % 3 == 1 else ""

    @property
    def beside(self) -> tuple[str, ...]:
        """What follows the run in the names of products that are not used."""
        native = ("_space-T1w_desc-preproc_bold.nii.gz", "_space-T1w_desc-brain_mask.nii.gz")
        other = OTHER_SPACE if self.space == SPACE else SPACE
        aroma = (f"_space-{OTHER_SPACE}_res-2_desc-smoothAROMAnonaggr_bold.nii.gz", "_AROMAnoiseICs.csv")
        surface = ("_hemi-L_space-fsaverage5_bold.func.gii", "_hemi-R_space-fsaverage5_bold.func.gii")
        cifti = ("_space-fsLR_den-91k_bold.dtseries.nii", "_space-fsLR_den-91k_bold.json")
        choices = ((), native, (f"_space-{other}_desc-preproc_bold.nii.gz",), aroma, surface, cifti)
        return choices[self.number % len(choices)]

    @property
    def has_own_sidecars(self) -> bool:
        """Whether each image has a JSON file; else one at the top of the raw data holds for all of a task."""
        return self.number % 5 != 3

    @property
    def tasks(self) -> tuple[str, ...]:
        """BIDS tasks: many where runs have no number, else two."""
        first = self.number % len(_TASKS)
        names = (*_TASKS[first:], *_TASKS[:first])
        return names if self.number % 3 == 2 else names[:2]

    def n_volumes(self, task: str) -> int:
        """Return the number of frames of a task's runs, 120 to 420."""
        return 120 + 60 * ((self.tasks.index(task) + self.number) % 6)

    def runs_of(self, subject: str) -> Iterator[CorpusRun]:
        """Yield the runs of a subject, task by task within its sessions."""
        first = sum(count for name, count in self.runs.items() if name < subject)
        n_sessions, n_tasks = len(self.sessions), len(self.tasks)
        for number in range(self.runs[subject]):
            session = self.sessions[number % n_sessions]
            repeat, position = divmod(number // n_sessions, n_tasks)
            found = {"sub": subject, "ses": session, "task": self.tasks[position]}
            found["acq"] = "mb4" if self.number % 5 == 0 else ""
            found["dir"] = ("AP", "PA")[repeat % 2] if self.number % 7 == 0 else ""
            found["run"] = ("{:02d}", "{}", "")[self.number % 3].format(repeat + 1)
            # The first run of a subject is sound, so that no subject is lost.
            is_defective = number > 0 and self.number % 2 == 1 and (first + number) % _DEFECT_EVERY == 1
            defect = _DEFECTS[(first + number + self.number // 2) % len(_DEFECTS)] if is_defective else ""
            yield CorpusRun(found, self.n_volumes(found["task"]), defect)


def plan(subjects: int = SUBJECTS) -> list[CorpusDataset]:
    """Return the corpus, or one of the same make and fewer subjects.

    Parameters
    ----------
    subjects : int, default=1726
        Number of subjects, 34 or more; runs in proportion, 11,980 by default.
    """
    numbers = np.arange(N_DATASETS)
    # Datasets of one to fourteen times the size, subjects of three to twelve runs.
    counts = _shares(subjects, 1 + numbers * 7 % 13)
    weights = 3 + numbers * 5 % 9
    runs = _shares(round(subjects * RUNS / SUBJECTS), np.array(counts) * weights)
    return [_dataset(int(number), counts[number], runs[number]) for number in numbers]


def prefix(run: CorpusRun) -> str:
    """Return folder and first part of the names of a run's files."""
    session = [f"ses-{run.entities['ses']}"] if run.entities["ses"] else []
    return "/".join([f"sub-{run.entities['sub']}", *session, "func", bids.run_prefix(run.entities)])


def _dataset(number: int, n_subjects: int, n_runs: int) -> CorpusDataset:
    role: Literal["upstream", "downstream"] = "upstream" if number < N_DATASETS - N_DOWNSTREAM else "downstream"
    labels = [_label(number, k) for k in range(n_subjects)]
    runs = dict(zip(labels, _shares(n_runs, np.ones(n_subjects)), strict=True))
    name = f"ds{number + 1:06d}" if role == "upstream" else f"task{number - N_DATASETS + N_DOWNSTREAM + 1:02d}"
    return CorpusDataset(name, role, number, runs, _T_R_S[number % len(_T_R_S)])


def _label(number: int, k: int) -> str:
    return (f"{k + 1:03d}", f"CTRL{k + 1:03d}", f"{10159 + 11 * k}", f"pixar{k + 1:03d}")[number % 4]


def _shares(total: int, weights: np.ndarray | Sequence[int]) -> list[int]:
    """Split a whole number in proportion, one at least for each, by largest remainders."""
    weights = np.asarray(weights, np.float64)
    exact = (total - len(weights)) * weights / weights.sum()
    shares = np.floor(exact).astype(int)
    for place in np.argsort(shares - exact, kind="stable")[: total - len(weights) - shares.sum()]:
        shares[place] += 1
    return [int(share) + 1 for share in shares]
