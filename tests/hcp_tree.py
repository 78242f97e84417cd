"""A small tree as the Human Connectome Project distributes it: the names of the S1200 release, tiny images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from boldly.config import TaskOptions
from tests.conftest import N_PARCELS, SHAPE, brain, parcels, write_image

T_R = 0.72
FRAMES = 60
# Two blocks of at most 50 s always fit.
REST_FRAMES = 160
# Blocks of 4 s every 4.5 s from 1 s: the eighth ends, delay included, after 39.4 of 43.2 s.
BLOCK_S, EVERY_S, FIRST_S = 4.0, 4.5, 1.0

STATES = {
    "EMOTION": ["fear", "neut"],
    "GAMBLING": ["loss", "win"],
    "LANGUAGE": ["math", "story"],
    "MOTOR": ["lf", "lh", "rf", "rh", "t"],
    "RELATIONAL": ["match", "relation"],
    "SOCIAL": ["mental", "rnd"],
    "WM": [f"{load}_{kind}" for load in ("0bk", "2bk") for kind in ("body", "faces", "places", "tools")],
}
# EVs that are no states: single events, and answers.
OTHERS = {
    "EMOTION": [],
    "GAMBLING": ["loss_event", "neut_event", "win_event"],
    "LANGUAGE": [
        "cue", "present_math", "present_story", "question_math", "question_story", "response_math",
        "response_story",
    ],
    "MOTOR": ["cue"],
    "RELATIONAL": ["error"],
    "SOCIAL": ["mental_resp", "other_resp"],
    "WM": ["0bk_cor", "0bk_err", "0bk_nlr", "2bk_cor", "2bk_err", "2bk_nlr", "all_bk_cor", "all_bk_err"],
}  # fmt: skip
# The 20 labels in the order of Thomas et al. (2022).
LABELS = [
    "EMOTION fear", "EMOTION neut", "GAMBLING loss", "GAMBLING win", "LANGUAGE math", "LANGUAGE story", "MOTOR lf",
    "MOTOR lh", "MOTOR rf", "MOTOR rh", "MOTOR t", "RELATIONAL match", "RELATIONAL relation", "SOCIAL mental",
    "SOCIAL rnd", "WM body", "WM faces", "WM places", "WM tools", "REST rest",
]  # fmt: skip
_CHECKOUT = Path(__file__).resolve().parents[1]


def preset(name: str) -> TaskOptions:
    """Return a task that boldly comes with."""
    return TaskOptions.model_validate(yaml.safe_load((_CHECKOUT / f"config/tasks/{name}.yaml").read_text()))


def task_events(task: str) -> pd.DataFrame:
    """Return the events of a task run: its states in turn, and shorter events that are none on top of them."""
    onsets = FIRST_S + EVERY_S * np.arange(len(STATES[task]))
    states = pd.DataFrame({"onset": onsets, "duration": BLOCK_S, "trial_type": STATES[task]})
    others = pd.DataFrame({"onset": FIRST_S, "duration": 2.0, "trial_type": OTHERS[task]})
    return pd.concat([states, others], ignore_index=True).sort_values("onset", kind="stable", ignore_index=True)


def write_tree(
    root: Path, *, subjects: Sequence[str] = ("100307", "100408"), tasks: Sequence[str] = (*STATES, "REST1")
) -> Path:
    """Write the runs of subjects, phase encoding LR, and the atlas ``atlas-slabs_dseg.nii.gz``; return root."""
    rng = np.random.default_rng(0)
    for subject in subjects:
        for task in tasks:
            kind, n_frames = ("rfMRI", REST_FRAMES) if task.startswith("REST") else ("tfMRI", FRAMES)
            name = f"{kind}_{task}_LR"
            folder = root / subject / "MNINonLinear" / "Results" / name
            bold = brain()[..., None] * rng.normal(1000, 10, (*SHAPE, n_frames))
            write_image(folder / f"{name}.nii.gz", bold.astype(np.int16), T_R)
            write_image(folder / "brainmask_fs.2.nii.gz", brain())
            walk = np.cumsum(rng.normal(0, 0.01, (n_frames, 6)), axis=0)
            movement = np.hstack([walk, np.diff(walk, axis=0, prepend=walk[:1])])
            np.savetxt(folder / "Movement_Regressors.txt", movement, fmt="%.6f", delimiter="  ")
            if kind == "tfMRI":
                _write_evs(folder / "EVs", task_events(task))
    write_image(root / "atlas-slabs_dseg.nii.gz", parcels())
    names = pd.DataFrame({"index": range(1, N_PARCELS + 1), "name": [f"slab-{i + 1}" for i in range(N_PARCELS)]})
    names.to_csv(root / "atlas-slabs_dseg.tsv", sep="\t", index=False)
    return root


def _write_evs(folder: Path, events: pd.DataFrame) -> None:
    folder.mkdir()
    for state, rows in events.groupby("trial_type"):
        lines = "".join(f"{row.onset:.3f}\t{row.duration}\t1\n" for row in rows.itertuples())
        (folder / f"{state}.txt").write_text(lines)
    (folder / "Sync.txt").write_text("12.345\n")
    (folder / "Stats.txt").write_text("Median RT: 812.5\n")
