"""What a config allows and probably does not mean: one line for each, as warnings before any job."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from boldly.config.datasets import TaskOptions
from boldly.config.study import Config

# Numbers of test units of which an interval is of no use, and how many standard errors a 0.95 interval over them
# reaches to each side: Student's t of 0.975 with one and two degrees of freedom.
FEW_UNITS = {2: 12.7, 3: 4.3}


def advise(config: Config) -> list[str]:
    """Say what is allowed and probably not meant, in a line for each.

    Parameters
    ----------
    config : Config
        A whole config, in which nothing is wrong.
    """
    lines: list[str] = []
    for name, options in config.datasets.items():
        lines += _on_people(config, name)
        if options.derivatives is not None:
            lines += _on_signals(config, name)
    return lines + _differently_prepared(config)


def _on_people(config: Config, name: str) -> Iterator[str]:
    """Say where a dataset has too few people to test, or people of whom others are tested."""
    options = config.datasets[name]
    split = options.split or config.split.downstream
    few = getattr(split, "test", None) if options.role == "downstream" else None
    if few == 1:
        yield (
            f"datasets.{name}: a single test unit (split.test: 1): nothing tells how much scores vary "
            "between units; `test: leave_one_out` tests each in turn"
        )
    elif few in FEW_UNITS:
        yield (
            f"datasets.{name}: {few} test units (split.test: {few}): an interval over them reaches "
            f"{FEW_UNITS[few]} standard errors to each side and says next to nothing; "
            "`test: leave_one_out` tests each unit in turn"
        )
    if options.role == "upstream" and (same := _tested_people(config, name)):
        yield (
            f"datasets.{name}: its people come from the same folder as those of {', '.join(same)}, where "
            "some are tested: nobody may be pretrained on and tested, so set "
            "split.upstream.shared_people to exclude (leave them out) or allow (the split records them), "
            f"or, if they are others, give datasets.{name}.source a name"
        )


def _tested_people(config: Config, name: str) -> list[str]:
    """Return the downstream datasets of the same people, where nothing says what is to be done about them."""
    options = config.datasets[name]
    split = options.split or config.split.upstream
    if getattr(split, "shared_people", "error") != "error":
        return []
    others = config.datasets.items()
    return [other for other, its in others if its.role == "downstream" and its.people == options.people]


def _on_signals(config: Config, name: str) -> Iterator[str]:
    """Say what of a dataset's task, filters and template is probably not meant."""
    options = config.datasets[name]
    task = options.task
    if isinstance(task, TaskOptions) and task.delay_s is None and task.window_s is None:
        yield (
            f"datasets.{name}.task: without delay_s frames are taken from the onset on, before the "
            "response has begun; 4 to 6 s are usual (0: none is meant), or give window_s"
        )
    high_pass_hz = config.parcellate_of(name).high_pass_hz
    if config.preprocess_of(name).takes_cosines and high_pass_hz is not None:
        yield (
            f"datasets.{name}: preprocess brings fMRIPrep's cosines (high_pass or compcor), which are the "
            f"high-pass filter; parcellate.high_pass_hz {high_pass_hz:g} is left out (set it to null)"
        )
    smoothing_mm = config.parcellate_of(name).smoothing_fwhm_mm
    if "smooth" in options.image_suffix.lower() and smoothing_mm is not None:
        yield (
            f"datasets.{name}: its images are smoothed already ({options.image_suffix}), and "
            f"parcellate.smoothing_fwhm_mm {smoothing_mm:g} smooths them again (null: none)"
        )
    template = config.atlas.template if config.atlas is not None else None
    if template not in (None, options.space):
        yield (
            f"datasets.{name}: its images are in {options.space}, the atlas is in {template}: brain and "
            "parcels lie millimetres apart in places; take images and atlas of one template (fMRIPrep "
            f"--output-spaces {template}; TemplateFlow has many atlases in both)"
        )


def _differently_prepared(config: Config) -> list[str]:
    """Name the datasets that one model meets though they are prepared in different ways."""
    made = {name: config.prepared(name) for name, its in config.datasets.items() if its.derivatives is not None}
    models = {one for adapted in config.adapt.experiments.values() for one in adapted.upstream}
    made |= {folder: contract for folder in sorted(models) if (contract := _contract(folder))}
    # By dataset, those it differs from and the fields: the experiments that meet both.
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for experiment, dataset, others, allowed in _meetings(config, made):
        if fields := _differing(made, dataset, others, allowed):
            found[dataset, ", ".join(others), fields].append(experiment)
    return [
        f"datasets.{dataset}: prepared in another way than {others} ({fields}), and the same model meets "
        f"both: {experiments[0]}{f' and {len(experiments) - 1} more' if len(experiments) > 1 else ''} will "
        f"stop; prepare them alike, or set allow_mismatch: [{fields}] there"
        for (dataset, others, fields), experiments in found.items()
    ]


def _meetings(config: Config, made: Collection[str]) -> Iterator[tuple[str, str, Sequence[str], Collection[str]]]:
    """Yield each experiment with a dataset, those that its model saw before, and what may differ between them."""
    everywhere = [name for name, its in config.datasets.items() if its.role == "upstream"]
    of_upstream = {
        name: sorted(dataset for dataset in options.datasets or everywhere if dataset in made)
        for name, options in config.pretrain.experiments.items()
    }
    for name, options in config.pretrain.experiments.items():
        for dataset in of_upstream[name][1:]:
            yield f"pretrain.experiments.{name}", dataset, of_upstream[name][:1], options.allow_mismatch
    downstream = [name for name, its in config.datasets.items() if its.role == "downstream" and name in made]
    for name, adapted in config.adapt.experiments.items():
        of_folders = {one: [one] for one in adapted.upstream if one in made and one not in of_upstream}
        seen = [dataset for one in adapted.upstream for dataset in (of_upstream | of_folders).get(one, [])]
        for dataset in downstream:
            if seen and dataset in (adapted.datasets or made):
                yield f"adapt.experiments.{name}", dataset, seen, adapted.allow_mismatch


def _contract(folder: str) -> dict[str, Any]:
    """Return how the signals were made that a network in a folder was trained on; empty where nothing says so."""
    try:
        content = json.loads(Path(os.path.expandvars(folder), "contract.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    # Which images these were is said in another way there.
    return (
        {name: value for name, value in content.items() if name != "images"} if isinstance(content, dict) else {}
    )


def _differing(
    made: Mapping[str, Mapping[str, Any]], dataset: str, others: Sequence[str], allowed: Collection[str]
) -> str:
    """Name the fields in which a dataset is like none of others, in one text."""
    own = made[dataset]
    fields = (field for field in own if not any(_fits(own[field], made[one], field) for one in others))
    return ", ".join(field for field in fields if field not in allowed)


def _fits(value: Any, other: Mapping[str, Any], field: str) -> bool:
    """Tell whether a value is that of others, or one of those that were put together there."""
    return field not in other or value in (other[field], *other.get("varied", {}).get(field, ()))
