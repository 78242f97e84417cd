"""The model card of a decoder: README.md with the front matter that model hubs read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from boldly.config.datasets import SURFACES
from boldly.decoding.folder import CARD, About, AtlasReference
from boldly.files import atomic_path
from boldly.provenance import Contract
from boldly.words import listed

_TAGS = ["fmri", "neuroimaging", "brain-decoding", "boldly"]
# Licence identifiers that hubs know are short words; others are "other" with a name.
_OTHER = ("not stated", "other")
_MOST_UNITS = 30


def write_card(
    folder: Path, about: About, contract: Contract, scores: pd.DataFrame, comparisons: pd.DataFrame
) -> None:
    """Write the model card.

    Parameters
    ----------
    folder : Path
        Folder of the decoder.
    about : About
        Its config.
    contract : Contract
        What its input must be.
    scores : DataFrame
        Rows of evaluate's scores at the n of the decoder: its own, and summaries of all experiments; may be empty.
    comparisons : DataFrame
        Paired differences of its experiment to others; may be empty.
    """
    parts = [
        _front_matter(about, scores),
        _title(about),
        _use(about, contract),
        _input(about, contract),
        _training(about),
        _scores(about, scores),
        _shortcuts(about, scores),
        _comparisons(about, comparisons),
        _recalls(about, scores),
        _limits(about, scores),
        _licence(about),
    ]
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _front_matter(about: About, scores: pd.DataFrame) -> str:
    licence = {"license": about.licence}
    if about.licence in _OTHER:
        licence = {"license": "other", "license_name": "not-stated"}
    content: dict[str, Any] = {**licence, "library_name": "boldly", "tags": _TAGS}
    metrics = [
        {"type": row["metric"], "value": round(float(row["value"]), 4), "name": row["metric"].replace("_", " ")}
        for row in _summary(about, scores)
        if row["metric"] in ("accuracy", "balanced_accuracy")
    ]
    if metrics:
        result = {
            "task": {"type": "classification", "name": "decoding of mental states from fMRI"},
            "dataset": {"type": about.training.dataset, "name": about.training.dataset},
            "metrics": metrics,
        }
        content["model-index"] = [{"name": about.name, "results": [result]}]
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n"


def _title(about: About) -> str:
    states = ", ".join(f"`{name}`" for name in about.labels)
    return (
        f"# {about.name}\n\n"
        f"A decoder of mental states: it reads preprocessed functional MRI and says which of {len(about.labels)} "
        f"states a person was in. It was made with boldly {about.boldly}.\n\n"
        f"States: {states}.\n"
    )


def _use(about: About, contract: Contract) -> str:
    ending = "bold.dtseries.nii" if contract.space == SURFACES else "desc-preproc_bold.nii.gz"
    return (
        "## Use\n\n"
        "```bash\n"
        "pip install 'boldly[decode]'\n"
        f"boldly decode --model {about.name} --derivatives /data/fmriprep --output decoded\n"
        "```\n\n"
        "```python\n"
        "from boldly import Decoder\n"
        f'decoder = Decoder.from_pretrained("{about.name}")\n'
        f'table = decoder.decode("sub-01_task-x_space-{contract.space}_{ending}")\n'
        "```\n"
    )


def _input(about: About, contract: Contract) -> str:
    low, high = about.t_r_s
    rows = [
        ("space", contract.space),
        ("atlas", f"{contract.atlas}, {contract.n_parcels} parcels (SHA-256 `{contract.atlas_sha256}`)"),
        ("repetition time", f"{low:g} s" if low == high else f"{low:g} to {high:g} s"),
        ("confounds", _confounds(contract)),
        ("smoothing", "none" if contract.smoothing_fwhm_mm is None else f"{contract.smoothing_fwhm_mm:g} mm FWHM"),
        ("high-pass, low-pass", f"{_hz(contract.high_pass_hz)}, {_hz(contract.low_pass_hz)}"),
        ("scaling", contract.standardize),
        ("parcels covered", f"at least {about.least_covered:.0%}"),
        (
            "length of a trial",
            f"{about.window_s:g} s (median in training); cut behind {about.longest_frames} frames",
        ),
    ]
    if about.task is not None:
        lag = about.task.window_s or about.task.delay_s or 0.0
        shown = (
            f"{lag[0]:g} to {lag[1]:g} s after the onset" if isinstance(lag, tuple) else f"delayed by {lag:g} s"
        )
        rows.append(("frames of a trial", shown))
    return (
        "## Input\n\n"
        "Derivatives of fMRIPrep. `boldly decode` prepares them as below, and refuses data that it cannot prepare "
        f"so.\n\n{_table(('what', 'value'), rows)}"
    )


def _confounds(contract: Contract) -> str:
    """Return what is regressed out, with what each part is, and thresholds that are in use."""
    options = contract.confounds
    strategy = [str(part) for part in options.get("strategy", [])]
    parts = [f"{part} ({options[part]})" if isinstance(options.get(part), str) else part for part in strategy]
    parts += [str(name) for name in options.get("columns", [])]
    limits = {
        "fd_threshold_mm": "frames over {:g} mm scrubbed",
        "std_dvars_threshold": "std DVARS over {:g} scrubbed",
    }
    parts += [text.format(options[name]) for name, text in limits.items() if options.get(name) is not None]
    return ", ".join(parts) or "none"


def _hz(value: float | None) -> str:
    return "none" if value is None else f"{value:g} Hz"


def _training(about: About) -> str:
    training = about.training
    units = [unit.removeprefix(f"ds-{training.dataset}_") for unit in (*training.train, *training.validation)]
    lines = [
        f"Dataset `{training.dataset}`; {_count(training.n, 'labelled ' + training.by)} "
        f"({listed(sorted(units), _MOST_UNITS)}); "
        f"{_count(len(training.test), training.by)} for testing, which it never saw.",
        f"Experiment `{training.experiment}` ({training.kind}: {training.start}), draw {training.draw}, seed "
        f"{training.seed}. {_kind(about)}",
    ]
    if training.choice:
        lines.append(f"Chosen by validation: {training.choice}.")
    if training.picked:
        lines.append(f"Why this one was packaged: {training.picked}.")
    return "## Training\n\n" + "\n\n".join(lines) + "\n"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _kind(about: About) -> str:
    return {
        "probe": "A classifier on what frozen encoders, or the signals themselves, say of a trial.",
        "network": "A network that was trained by gradient steps.",
        "fine-tuned": "A classifier on a frozen network, and that network trained from there on.",
    }[about.kind]


def _summary(about: About, scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of the decoder's experiment over all draws, seeds and test people."""
    if not len(scores):
        return []
    whole = (scores[["draw", "seed", "subject", "label"]] == "all").all(axis=1)
    own = (scores["experiment"] == about.training.experiment) & (scores["n"] == about.training.n)
    return [{str(key): value for key, value in row.items()} for row in scores[whole & own].to_dict("records")]


def _scores(about: About, scores: pd.DataFrame) -> str:
    if not len(scores):
        return "## Scores\n\nIt was not evaluated when it was packaged.\n"
    training = about.training
    whole = (scores[["draw", "seed", "subject", "label"]] == "all").all(axis=1) & (scores["metric"] == "accuracy")
    rows = [
        (
            _bold(row, training.experiment),
            row["kind"],
            _interval(row),
            row["flag"] if isinstance(row["flag"], str) else "",
        )
        for row in scores[whole & (scores["kind"] != "control")]
        .sort_values("value", ascending=False)
        .to_dict("records")
    ]
    this = scores[(scores["draw"] == str(training.draw)) & (scores["seed"] == str(training.seed))]
    this = this[(this["metric"] == "accuracy") & (this["label"] == "all") & (this["subject"] == "all")]
    of_fit = f" This very fit: {_interval(this.to_dict('records')[0])}." if len(this) else ""
    metrics = [(row["metric"], _interval(row)) for row in _summary(about, scores)]
    return (
        f"## Scores\n\nOf the experiment on people (or runs) that it never saw, over all draws of {training.n} "
        f"training {training.by}s and all seeds, with intervals of 95 %.{of_fit}\n\n"
        f"{_table(('metric', 'value'), metrics)}\n"
        f"Accuracy beside that of the other decoders and baselines with as many labels (the decoder in bold):\n\n"
        f"{_table(('experiment', 'kind', 'accuracy', 'flag'), rows)}"
    )


def _bold(row: dict[Any, Any], experiment: str) -> str:
    name = str(row["experiment"])
    return f"**{name}**" if name == experiment else name


def _interval(row: dict[Any, Any]) -> str:
    value = f"{row['value']:.3f}"
    return value if pd.isna(row["ci_low"]) else f"{value} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def _shortcuts(about: About, scores: pd.DataFrame) -> str:
    if not len(scores):
        return ""
    controls = scores[
        (scores["kind"] == "control") & (scores["metric"] == "accuracy") & (scores["label"] == "all")
    ]
    controls = controls[(controls[["draw", "seed", "subject"]] == "all").all(axis=1)]
    if not len(controls):
        return "## Shortcuts\n\nNo control was fitted.\n"
    records = controls.to_dict("records")
    flagged = [row for row in records if isinstance(row["flag"], str) and row["flag"]]
    named = ", ".join(f"{_control(row)} ({row['flag']})" for row in flagged)
    verdict = (
        f"What they reach needs no brain signal, and part of the decoder's accuracy may come from it: {named}"
        if flagged
        else "None of them is better than chance: nothing of the decoder's accuracy needs to come from them"
    )
    rows = [(_control(row), _interval(row)) for row in records]
    return (
        "## Shortcuts\n\nClassifiers that see no signals, only the length, the position or the head motion of a "
        f"trial. {verdict}.\n\n{_table(('seen', 'accuracy'), rows)}"
    )


def _control(row: dict[Any, Any]) -> str:
    return str(row["experiment"]).removeprefix("control_")


def _comparisons(about: About, comparisons: pd.DataFrame) -> str:
    if not len(comparisons):
        return ""
    rows = []
    for row in comparisons.to_dict("records"):
        sign = 1 if row["experiment"] == about.training.experiment else -1
        other = row["baseline"] if sign == 1 else row["experiment"]
        low, high = sorted((sign * row["ci_low"], sign * row["ci_high"]))
        rows.append((other, f"{sign * row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]", f"{row['p_holm']:.2g}"))
    return (
        "## Against others\n\nHow much more accurate it is, paired over test units, draws and seeds; p-values "
        f"corrected for the number of comparisons.\n\n{_table(('other', 'difference', 'p'), rows)}"
    )


def _recalls(about: About, scores: pd.DataFrame) -> str:
    if not len(scores):
        return ""
    own = scores[(scores["experiment"] == about.training.experiment) & (scores["metric"] == "recall")]
    own = own[(own[["draw", "seed", "subject"]] == "all").all(axis=1)]
    if not len(own):
        return ""
    rows = [(row["label"], _interval(row)) for row in own.to_dict("records")]
    shown = _table(("state", "recall"), rows)
    return f"## States\n\nShare of the trials of each state that is named correctly.\n\n{shown}"


def _limits(about: About, scores: pd.DataFrame) -> str:
    training = about.training
    lines = [
        f"It knows {len(about.labels)} states and always names one of them, also for data in which none occurs: a "
        "probability says which of them is likeliest, not that it is there.",
        f"It was trained on {training.n} {training.by}s of one dataset; other scanners, tasks, ages and patients "
        "were not tested unless the scores say so.",
        "Sliding windows (`boldly decode` without events) hold more than one state where states change; scores "
        "are those of whole trials.",
        "No medical device: it must not be used for decisions about people.",
    ]
    if training.by == "run":
        lines.insert(1, "It was trained and tested on runs of one person: how it does on others is unknown.")
    flags = [row["flag"] for row in _summary(about, scores) if isinstance(row.get("flag"), str) and row["flag"]]
    lines += [f"Evaluation flagged its scores: {flag}." for flag in dict.fromkeys(flags)]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _licence(about: About) -> str:
    lines = [f"The decoder: {about.licence}."]
    if about.atlas is not None:
        lines.append(_of_atlas(about.atlas))
    return "## Licence\n\n" + "\n\n".join(lines) + "\n"


def _of_atlas(atlas: AtlasReference) -> str:
    text = f"The atlas {atlas.name}: {atlas.licence}."
    if atlas.citation:
        text += f" Please cite {atlas.citation} ({atlas.source})."
    if atlas.file is not None:
        return f"{text} Its image lies in `{atlas.file}`."
    if atlas.fetch is not None:
        options = atlas.fetch.model_dump_json(exclude_none=True, exclude={"cache"})
        return f"{text} Its image is not part of this folder; `boldly atlas --atlas '{options}'` fetches it."
    return f"{text} Its image is not part of this folder: give it with `--atlas` (SHA-256 `{atlas.sha256}`)."


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
