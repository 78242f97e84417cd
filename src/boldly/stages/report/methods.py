"""The methods of a study as a paper tells them, with citations, from its config and what its tables hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup, escape

from boldly.config import DownstreamSplitOptions, ParcellateOptions, PreprocessOptions, with_one_high_pass
from boldly.samples.draws import with_sizes
from boldly.stages.report.references import LIBRARY, Reference
from boldly.words import counted

Record = dict[str, Any]

# How many regressors each choice means stands in config/README.md; here they are put into words.
_MOTION = {
    "basic": "six motion parameters",
    "power2": "six motion parameters and their squares",
    "derivatives": "six motion parameters and their temporal derivatives",
    "full": "six motion parameters, their temporal derivatives, and the squares of both",
}
_EXPANDED = {
    "basic": "",
    "power2": " with squares",
    "derivatives": " with temporal derivatives",
    "full": " with temporal derivatives and squares of both",
}
_FRAMEWORKS = {
    "autoencoding": "autoencoding",
    "csm": "causal sequence modeling",
    "sequence_bert": "Sequence-BERT",
    "network_bert": "Network-BERT",
    "masked_autoencoding": "masked autoencoding",
}
_CITATION = re.compile(r"\[(@[\w.-]+(?:; @[\w.-]+)*)\]")


@dataclass(frozen=True)
class Methods:
    """Text of the methods and what it cites.

    Attributes
    ----------
    markdown : str
        Paragraphs; citations as pandoc reads them, ``[@key]``.
    references : tuple of Reference
        What is cited, in the order of the text.
    """

    markdown: str
    references: tuple[Reference, ...]

    def html(self) -> Markup:
        """Return the text as HTML, citations as links to the list of references."""
        known = {reference.key: reference for reference in self.references}

        def cited(match: re.Match[str]) -> str:
            keys = [key.strip(" @") for key in match[1].split(";")]
            return "(" + "; ".join(f'<a href="#ref-{key}">{escape(known[key].short)}</a>' for key in keys) + ")"

        paragraphs = []
        for paragraph in self.markdown.strip().split("\n\n"):
            text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", str(escape(paragraph)))
            paragraphs.append(f"<p>{_CITATION.sub(cited, text)}</p>")
        return Markup("\n".join(paragraphs))


def methods(
    *,
    environment: jinja2.Environment,
    config: Record,
    counts: dict[str, Record],
    splits: dict[str, Record],
    descriptions: dict[str, Record],
    own: Reference,
    datasets: dict[str, Reference],
    n_parcels: int | None,
    version: str,
) -> Methods:
    """Write the methods of a study.

    Parameters
    ----------
    environment : jinja2.Environment
        Where the template is found.
    config : dict
        The complete config, as JSON.
    counts : dict
        Of each dataset: people, runs, excluded.
    splits : dict
        The splits of datasets that have one, as their files say.
    descriptions : dict
        Of each dataset the dataset_description.json of its derivatives, as far as there is one.
    own : Reference
        That of boldly.
    datasets : dict
        References of the datasets that have one, by name.
    n_parcels : int or None
        Number of parcels of the atlas.
    version : str
        Version of boldly.
    """
    library = {**LIBRARY, own.key: own, **{reference.key: reference for reference in datasets.values()}}
    atlas = config["atlas"]
    text = environment.get_template("methods.md.jinja").render(
        config=config,
        datasets=config["datasets"],
        counts=counts,
        cited={name: datasets[name].key if name in datasets else None for name in config["datasets"]},
        simulated=[name for name, found in descriptions.items() if "boldly simulate" in _makers(found)],
        fmriprep=_fmriprep_versions(descriptions),
        n_parcels=n_parcels,
        atlas_name=_atlas_name(atlas),
        atlas_keys=_atlas_keys(atlas),
        preparations=_preparations(config),
        denoised=[name for name, dataset in config["datasets"].items() if dataset["image_suffix"]],
        resampled_s=config["shard"]["t_r_s"],
        frameworks=_frameworks(config["pretrain"]["experiments"]),
        components=_components(config["pretrain"]["experiments"]),
        held_out=_held_out(config),
        splits=[
            _split(name, config, counts[name], splits.get(name))
            for name, one in config["datasets"].items()
            if one["role"] == "downstream"
        ],
        trials=[_trials(name, one["task"]) for name, one in config["datasets"].items() if one["task"]],
        decoders=_decoders(config["adapt"]["experiments"]),
        stepwise=_stepwise(config["adapt"]["experiments"]),
        compared=_compared(config["adapt"]["experiments"]),
        baselines=_baselines(config["adapt"]["experiments"]),
        confidence=100 * config["evaluate"]["confidence"],
        permutations=config["evaluate"]["permutations"],
        version=version,
    )
    text = re.sub(r"[ \t]+", " ", re.sub(r"\n{3,}", "\n\n", text)).strip() + "\n"
    keys = dict.fromkeys(key.strip(" @") for found in _CITATION.findall(text) for key in found.split(";"))
    return Methods(text, tuple(library[key] for key in keys))


def filters() -> dict[str, Callable[..., str]]:
    """Return the filters that the template needs."""
    return {
        "enumerated": enumerated,
        "counted": counted,
        "plain": lambda number: f"{number:g}",
        "thousands": "{:,}".format,
    }


def enumerated(parts: Sequence[str]) -> str:
    """Join with commas, the last with "and"."""
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


def _makers(description: Record) -> str:
    found = description.get("GeneratedBy") or []
    return " ".join(str(one.get("Name", "")) for one in found if isinstance(one, dict))


def _fmriprep_versions(descriptions: dict[str, Record]) -> dict[str, list[str]]:
    """Return the datasets by the version of fMRIPrep that says it made them; others are not claimed."""
    versions: dict[str, list[str]] = {}
    for name, description in descriptions.items():
        for maker in description.get("GeneratedBy") or []:
            if isinstance(maker, dict) and str(maker.get("Name", "")).lower() == "fmriprep":
                versions.setdefault(str(maker.get("Version", "")), []).append(name)
    return versions


def _atlas_name(atlas: Record | None) -> str:
    if atlas is None:
        return ""
    if atlas["path"] is not None:
        return f"the atlas {atlas['name'] or atlas['path'].rsplit('/', 1)[-1]}"
    parts = [str(atlas["name"]), *(str(atlas[key]) for key in ("dimension", "variant") if atlas[key])]
    size = f" at {atlas['resolution_mm']} mm" if atlas["resolution_mm"] else ""
    return f"the atlas {' '.join(parts)}{size}"


def _atlas_keys(atlas: Record | None) -> list[str]:
    if atlas is None or atlas["path"] is not None or atlas["name"] not in LIBRARY:
        return []
    return ["aal", "aal3"] if atlas["name"] == "aal" and atlas["variant"] == "3v2" else [str(atlas["name"])]


def _preparations(config: Record) -> list[Record]:
    """Return how signals were made, with the datasets that were prepared in the same way together."""
    found: list[Record] = []
    for name, dataset in config["datasets"].items():
        if dataset["derivatives"] is None:
            continue
        preprocess = PreprocessOptions.model_validate(dataset["preprocess"] or config["preprocess"])
        parcellate = ParcellateOptions.model_validate(dataset["parcellate"] or config["parcellate"])
        options, signals = preprocess.model_dump(), with_one_high_pass(parcellate, preprocess).model_dump()
        made = {
            "preprocess": options,
            # A mask is a volume: images on surfaces have none.
            "parcellate": {**signals, "mask": signals["mask"] and not dataset["space"].startswith("fsLR")},
            "regressors": _regressors(preprocess),
            "limits": _limits(options["exclude"], signals["exclude"]),
        }
        same = next((one for one in found if all(one[key] == value for key, value in made.items())), None)
        if same is None:
            found.append({**made, "names": [name]})
        else:
            same["names"].append(name)
    return found


def _regressors(options: PreprocessOptions) -> list[str]:
    preprocess = options.model_dump()
    strategy = preprocess["strategy"]
    found = []
    if "motion" in strategy:
        found.append(_MOTION[preprocess["motion"]] + (" [@friston1996]" if preprocess["motion"] == "full" else ""))
    if "wm_csf" in strategy:
        found.append(f"mean signals of white matter and cerebrospinal fluid{_EXPANDED[preprocess['wm_csf']]}")
    if "global_signal" in strategy:
        found.append(f"the global signal{_EXPANDED[preprocess['global_signal']]}")
    if "compcor" in strategy:
        kind = preprocess["compcor"].replace("_", " ")
        found.append(f"{preprocess['n_compcor']} CompCor components per mask ({kind}) [@compcor]")
    if options.takes_cosines:
        found.append("fMRIPrep's cosines, a high-pass filter")
    if "ica_aroma" in strategy:
        found.append("noise components of ICA-AROMA [@aroma]")
    return found + [f"column {name}" for name in preprocess["columns"]]


def _limits(exclude: Record, signals: Record) -> list[str]:
    said = (
        (exclude["mean_fd_mm"], "a mean framewise displacement [@power2012] over {:g} mm"),
        (exclude["maximum_fd_mm"], "a largest framewise displacement [@power2012] over {:g} mm"),
        (exclude["scrubbed_fraction"], "a share of removed frames over {:g}"),
        (exclude["degrees_of_freedom"], "fewer than {:g} degrees of freedom after regression"),
        (signals["median_tsnr"], "a median temporal signal-to-noise ratio under {:g}"),
        (signals["median_coverage"], "a median coverage of parcels under {:g}"),
    )
    return [text.format(value) for value, text in said if value is not None]


def _frameworks(experiments: Record) -> list[str]:
    repeated = {f"{name}_seed-{seed}" for name, one in experiments.items() for seed in one["repeats"]}
    lines = []
    for name, one in experiments.items():
        if name in repeated or one["framework"] == "components":
            continue
        seeds = f", repeated with {counted(len(one['repeats']), 'other seed')}" if one["repeats"] else ""
        low, high = one["window_frames"]
        lines.append(
            f"{_FRAMEWORKS.get(one['framework'], one['framework'])} "
            f"({one['layers']} layers of width {one['width']}, "
            f"{one['steps']:,} steps of {one['batch_size']} windows of {low} to {high} frames, learning rate "
            f"{one['learning_rate']:g}{seeds})"
        )
    return lines


def _components(experiments: Record) -> list[str]:
    widths = dict.fromkeys(one["width"] for one in experiments.values() if one["framework"] == "components")
    return [str(width) for width in widths]


def _trials(name: str, task: Record) -> str:
    """Say which frames are a trial."""
    if task["window_s"]:
        begin, end = task["window_s"]
        frames = f"the frames from {begin:g} to {end:g} s after its onset"
    elif task["delay_s"]:
        frames = f"the frames from {task['delay_s']:g} s after its onset to {task['delay_s']:g} s after its end"
    else:
        frames = "the frames from its onset to its end"
    if task["average"]:
        frames = f"the mean of {frames}"
    joined = "consecutive events of one state, taken as one," if task["merge_blocks"] else "an event"
    return f"In {name}, a trial was {joined} and held {frames}."


def _split(name: str, config: Record, count: Record, made: Record | None = None) -> str:
    """Say who trains and who tests: as the split says that was made, else as the config asks for it."""
    split = _made(made) if made and made["draws"] else _planned(name, config, count)
    unit = "run" if split["by"] == "run" else "person"
    plural = "runs" if split["by"] == "run" else "people"
    numbers = enumerated([str(number) for number in split["train"]])
    trained = unit if split["train"] == [1] else plural
    others = unit if split["test"] == 1 else plural
    is_each = split["test"] == "leave_one_out"
    tested = f"each {unit} in turn" if is_each else f"{split['test']} other {others}"
    most = "at most " if split["are_fewer"] else ""
    draws = f"for each {unit} a random draw" if is_each else most + counted(split["draws"], "random draw")
    sentence = (
        f"In {name}, decoders were trained with the labels of {numbers} {trained} ({draws} of each number) and "
        f"tested on {tested}."
    )
    if split["validation"]:
        sentence += (
            f" The labels of {split['validation']} more {unit if split['validation'] == 1 else plural} served for "
            "choices and count as used."
        )
    if split["by"] == "run":
        sentence += (
            " The split is by run: the same person trains and tests, so nothing is said about other people."
        )
    return sentence


def _held_out(config: Record) -> str:
    """Return the percentages of people that upstream datasets held out; empty without any."""
    splits = [one["split"] or config["split"]["upstream"] for one in _of_role(config, "upstream")]
    return " or ".join(f"{100 * share:g}" for share in sorted({split["validation_fraction"] for split in splits}))


def _of_role(config: Record, role: str) -> list[Record]:
    return [one for one in config["datasets"].values() if one["role"] == role]


def _planned(name: str, config: Record, count: Record) -> Record:
    """Return what the config says of a split that is not made yet."""
    given = config["datasets"][name]["split"] or config["split"]["downstream"]
    n_units = count["runs" if given["by"] == "run" else "people"]
    split = with_sizes(DownstreamSplitOptions.model_validate(given), n_units)
    return {**split.model_dump(), "are_fewer": False}


def _made(split: Record) -> Record:
    """Return the same of a split: groups and people without trials may have changed what the config asks for."""
    draws = split["draws"]
    of_sizes = Counter(len(draw["train"]) for draw in draws)
    is_each = len({tuple(draw["test"]) for draw in draws}) > 1
    return {
        "by": split["by"],
        "train": sorted(of_sizes),
        "validation": len(draws[0]["validation"]),
        "test": "leave_one_out" if is_each else len(draws[0]["test"]),
        "draws": max(of_sizes.values()),
        "are_fewer": len(set(of_sizes.values())) > 1,
    }


def _decoders(experiments: Record) -> list[str]:
    kinds = {
        "probe": "classifiers on read-outs of the frozen networks",
        "finetune": "such classifiers whose networks were then trained further",
        "network": "networks of which all weights were trained further",
    }
    used = dict.fromkeys(one["method"] for one in experiments.values() if one["pretrained"])
    found = [kinds[method] for method in used]
    if any(one["members"] for one in experiments.values()):
        found.append("ensembles of several decoders")
    return found


def _stepwise(experiments: Record) -> list[str]:
    """Say with what steps networks and baselines were trained, those with the same steps together."""
    alike: dict[tuple[int, int, float], list[str]] = {}
    for name, one in experiments.items():
        is_network = bool(one["scratch"]) or (bool(one["pretrained"]) and one["method"] == "network")
        if is_network or one["baseline"] in ("linear", "mean_mlp"):
            alike.setdefault((one["steps"], one["batch_size"], one["learning_rate"]), []).append(name)
    return [
        f"{enumerated([name.replace('_', ' ') for name in names])} ({counted(steps, 'step')} of "
        f"{counted(batch_size, 'trial')}, learning rate {rate:g})"
        for (steps, batch_size, rate), names in alike.items()
    ]


def _compared(experiments: Record) -> list[str]:
    kinds = {
        "untrained": "the same read-outs of networks with random weights",
        "scratch": "the same networks trained from scratch",
    }
    return [text for kind, text in kinds.items() if any(one[kind] for one in experiments.values())]


def _baselines(experiments: Record) -> list[str]:
    words = {
        "linear": "a linear classifier over time and parcels",
        "mean_mlp": "a multilayer perceptron on the mean signal",
        "mean_logistic": "logistic regression on the mean signal",
        "mean_lda": "shrinkage LDA on the mean signal",
        "components_logistic": "logistic regression on time slices of principal components",
        "components_lda": "shrinkage LDA on time slices of principal components",
        "covariance_lda": "shrinkage LDA on covariances of principal components",
        "connectivity": "logistic regression on correlations of parcels",
        "tangent": "logistic regression on matrix logarithms of covariances of components",
        "components": "principal components with the same read-outs as networks",
    }
    used: Iterable[str] = dict.fromkeys(one["baseline"] for one in experiments.values() if one["baseline"])
    return [words.get(name, name) for name in used]
