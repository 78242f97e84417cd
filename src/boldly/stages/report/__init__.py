"""Tool report: one self-contained page about a study, from the tables and manifests in its folder of results."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from boldly import __version__
from boldly.config import Config, advise
from boldly.files import atomic_path
from boldly.layout import Layout
from boldly.records import InputError, Problem
from boldly.scope import Scope
from boldly.stages.report import figures, gather, guards, references, study
from boldly.stages.report import scores as decoding
from boldly.stages.report.methods import Methods, enumerated, filters, methods
from boldly.stages.report.tables import Table
from boldly.words import counted

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
# The templates that `snakemake --report` renders too.
CAPTIONS = HERE / "captions"
# A reader's mail program and browser have to take the page.
LARGEST_BYTES = 30_000_000

Record = dict[str, Any]


def run(*, results: Path, output: Path, config: Config | None = None) -> list[str]:
    """Write the report of a study, its references and its methods.

    Parameters
    ----------
    results : Path
        Folder of results.
    output : Path
        The page, ``*.html``. Beside it are written ``*.bib`` with the references and ``*_methods.md``.
    config : Config, optional
        The complete config of the study. It is recorded in the folder of results (study.json), with what the
        datasets say of themselves; default: what is recorded there. Where there is neither, the report has no
        captions and no methods, and says how to get them.

    Returns
    -------
    list of str
        The result of each decoded dataset, in a line.

    Raises
    ------
    InputError
        If the folder holds no results.
    """
    if not (results / "index").is_dir():
        message = "no folder of results: it has no index/"
        raise InputError(
            Problem(str(results), "report", message, "name the folder that the workflow wrote (results)")
        )
    about = study.load(results)
    if config is not None:
        about = study.record(results, _complete(config), advise(config))
    scope = Scope(about["config"] if about else None)
    runs = gather.read_run_tables(results, scope)
    manifests, downstream = gather.read_manifests(results, scope), gather.read_downstream(results, scope)
    environments = gather.environments([*manifests.values(), *downstream.values()])
    splits = {split["dataset"]: split for split in gather.read_splits(results, scope)}
    contract = gather.read_contract(results, scope)
    text = _methods(about, runs, splits, contract, environments) if about else None
    content = _content(results, about, scope, runs, manifests, downstream)
    names = {"bib": output.with_suffix(".bib"), "methods": output.with_name(f"{output.stem}_methods.md")}
    page = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            **content,
            environments=environments,
            methods=text.html() if text else None,
            references=text.references if text else (),
            bibliography_name=names["bib"].name,
            methods_name=names["methods"].name,
        )
    )
    _write(output, page)
    if text:
        _write(names["bib"], references.bibliography(text.references))
        _write(names["methods"], text.markdown)
    size = output.stat().st_size
    if size > LARGEST_BYTES:
        logger.warning("%s has %.0f MB, more than %.0f", output, size / 1e6, LARGEST_BYTES / 1e6)
    logger.info("%s: %.1f MB", output, size / 1e6)
    return [_in_a_line(one) for one in content["headlines"]]


def _content(
    results: Path,
    about: Record | None,
    scope: Scope,
    runs: dict[str, list[Any]],
    manifests: dict[str, Record],
    downstream: dict[tuple[str, str], Record],
) -> Record:
    """Return what the page shows of the study."""
    config = scope.config
    scores, comparisons = decoding.read_scores(results, scope), decoding.read_comparisons(results, scope)
    trials = gather.read_trial_tables(results, scope)
    used = gather.used_quality(results, runs)
    splits = gather.read_splits(results, scope)
    without_data = Layout(Config.model_validate(config)).figures_without_data() if config else []
    pictures = figures.pictures(results / "figures", CAPTIONS, config, without_data)
    pictures += figures.maps(results, scope)
    confidence = config["evaluate"]["confidence"] if config else None
    tables: dict[str, Table | list[Table]] = {
        "datasets": gather.datasets(runs, splits),
        "exclusions": gather.exclusions(runs),
        "trials": gather.trials(trials),
        "left_out": gather.left_out(trials),
        "quality": gather.quality(used),
        "training": gather.training(results, manifests),
        "scores": [decoding.scores(name, rows, confidence) for name, rows in scores.items()],
        "comparisons": [decoding.comparisons(name, rows) for name, rows in comparisons.items()],
        "usage": gather.usage(results, scope),
    }
    shown = {
        "results": "Results in short",
        "warnings": "Warnings",
        "asked": "What was asked",
        "data": "Data",
        "training": "Pretraining" if manifests else "",
        "decoding": "Decoding",
        "maps": "Brain maps",
        "methods": "Methods" if about else "",
        "versions": "Versions and cost",
    }
    viewers = figures.viewers(results, scope)
    has_maps = bool(viewers) or any(picture.category == "maps" for picture in pictures)
    if not has_maps:
        del shown["maps"]
    return {
        "title": f"boldly: {', '.join(_of_interest(config, runs))}",
        "version": __version__,
        "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "folder": results,
        "style": Markup((HERE / "page.css").read_text(encoding="utf-8")),
        "script": Markup((HERE / "page.js").read_text(encoding="utf-8")),
        "sections": [(key, name) for key, name in shown.items() if name],
        "headlines": _headlines(results, scope, scores, comparisons, splits),
        "warnings": guards.warnings(
            scores, splits, manifests, downstream, about, gather.moving(used, guards.MUCH_MOTION_MM)
        ),
        "controls": guards.controls(scores),
        "description": figures.from_template(CAPTIONS / "workflow.rst", config) if config else None,
        "asked": _asked(config) if config else "",
        "config_text": _config_text(config) if config else "",
        "tables": tables,
        "figures": pictures,
        "others": [picture for picture in pictures if picture.category == "other"],
        "viewers": viewers,
        "has_maps": has_maps,
    }


def _of_interest(config: Record | None, runs: Iterable[str]) -> list[str]:
    """Return the datasets that the title names: those that are decoded, or all."""
    every = list(runs)
    decoded = [name for name, one in config["datasets"].items() if one["role"] == "downstream"] if config else []
    names = [name for name in every if name in decoded] or every
    return names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]


def _asked(config: Record) -> str:
    """Say in a sentence what the config asks for."""
    kinds = [one["role"] for one in config["datasets"].values()]
    parts = [
        f"{counted(kinds.count('upstream'), 'dataset')} to pretrain on",
        f"{counted(kinds.count('downstream'), 'dataset')} to decode",
        counted(len(config["pretrain"]["experiments"]), "pretraining"),
    ]
    number = len(config["adapt"]["experiments"])
    return (
        f"The config asks for {enumerated([*parts, counted(number, 'decoder')])}, baselines and controls included."
    )


def _complete(config: Config) -> Record:
    """Return a config as JSON, in which datasets that are prepared in another way say all that holds for them."""
    content: Record = config.model_dump(mode="json")
    own = config.own_options()
    for name, options in content["datasets"].items():
        options |= {"preprocess": None, "parcellate": None, **own.get(name, {})}
    return content


def _config_text(config: Record) -> str:
    """Write the config as a user could have: without what is as by default."""
    content = Config.model_validate(config).model_dump(mode="json", exclude_defaults=True)
    for name, options in content["datasets"].items():
        # Of its own a dataset has what is not as in the study, be it a default or not.
        for section in ("preprocess", "parcellate"):
            own, common = config["datasets"][name][section], config[section]
            if own:
                options[section] = {key: value for key, value in own.items() if value != common[key]}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _headlines(
    results: Path,
    scope: Scope,
    scores: dict[str, pd.DataFrame],
    comparisons: dict[str, pd.DataFrame],
    splits: list[Record],
) -> list[Record]:
    experiments = scope.config["adapt"]["experiments"] if scope.config else {}
    members = {name: one["members"] for name, one in experiments.items() if one.get("members")}
    units = {split["dataset"]: "runs" if split.get("by") == "run" else "people" for split in splits}
    found = []
    for dataset, rows in scores.items():
        choices = decoding.read_choices(results, dataset)
        if one := decoding.headline(dataset, rows, comparisons.get(dataset), choices, members):
            one |= {"unit": units.get(dataset, "people"), "drawing": _drawing(one)}
            found.append(one)
    return found


def _in_a_line(one: Record) -> str:
    """Say the result of a dataset for the terminal."""
    parts = [
        f"{kind} {one[key]['experiment']} {_with_interval(one[key], 'value', '')}"
        for kind, key in (("pretrained:", "decoder"), ("best baseline:", "baseline"))
        if one[key]
    ]
    parts += [] if one["chance"] is None else [f"chance {one['chance']:.3f}"]
    return f"{one['dataset']}, accuracy at n = {one['n']}: {', '.join(parts)}"


def _drawing(one: Record) -> Markup:
    """Draw two accuracies with their intervals, and chance, on one axis from 0 to 1."""
    left, width = 130, 470

    def x(value: float) -> str:
        return f"{left + width * min(max(value, 0.0), 1.0):.1f}"

    rows = [(kind, one[key]) for kind, key in (("pretrained", "decoder"), ("baseline", "baseline")) if one[key]]
    bottom = 14 + 22 * len(rows)
    parts = [f'<line class="axis" x1="{left}" x2="{left + width}" y1="{bottom}" y2="{bottom}"/>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<text class="quiet" x="{x(tick)}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>')
    if one["chance"] is not None:
        parts.append(
            f'<line class="chance" x1="{x(one["chance"])}" x2="{x(one["chance"])}" y1="6" y2="{bottom}"/>'
        )
    for place, (kind, row) in enumerate(rows):
        y = 16 + 22 * place
        if row["ci_low"] == row["ci_low"]:  # of a single unit there is no interval
            ends = f'x1="{x(row["ci_low"])}" x2="{x(row["ci_high"])}" y1="{y}" y2="{y}"'
            parts.append(f'<line class="{kind}" stroke-width="2" {ends}/>')
        parts.append(f'<circle class="{kind}" cx="{x(row["value"])}" cy="{y}" r="4.5"/>')
        name = Markup.escape(str(row["experiment"])[:20])
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{name}</text>')
    body = "".join(parts)
    label = "Accuracy with its interval; chance is dashed"
    return Markup(f'<svg viewBox="0 0 620 {bottom + 22}" role="img" aria-label="{label}">{body}</svg>')


def _methods(
    about: Record,
    runs: dict[str, list[Any]],
    splits: dict[str, Record],
    contract: Record,
    environments: list[Record],
) -> Methods:
    """Return the methods, of the versions that trained the models where these say so."""
    version = environments[0].get("boldly", __version__) if environments else __version__
    commit = environments[0].get("git_commit") if environments else None
    cited = {}
    for name, found in about["datasets"].items():
        reference = references.of_dataset(name, found.get("raw") or found.get("derivatives") or {})
        # A name that says no more than the config does is no citation.
        if reference is not None:
            cited[name] = reference
    counts = {}
    for name, rows in runs.items():
        used = [one for one in rows if one.status == "ok"]
        counts[name] = {
            "runs": len(used),
            "people": len({one.subject for one in used}),
            "excluded": len(rows) - len(used),
        }
    for name in about["config"]["datasets"]:
        counts.setdefault(name, {"runs": 0, "people": 0, "excluded": 0})
    return methods(
        environment=_environment(),
        config=about["config"],
        counts=counts,
        splits=splits,
        descriptions={name: found.get("derivatives", {}) for name, found in about["datasets"].items()},
        own=references.software(version, commit if commit and commit != "None" else None),
        datasets=cited,
        n_parcels=contract.get("n_parcels"),
        version=version,
    )


def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
    )
    found.filters.update(filters())
    found.filters["thousands"] = lambda number: f"{number:,}"
    found.filters["accuracy"] = lambda row: _with_interval(row, "value", "")
    found.filters["difference"] = lambda row: _with_interval(row, "difference", "+")
    found.filters["p_value"] = lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}"
    return found


def _with_interval(row: Record, key: str, sign: str) -> str:
    low, high = row["ci_low"], row["ci_high"]
    text = f"{row[key]:{sign}.3f}"
    return text if low != low else f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
