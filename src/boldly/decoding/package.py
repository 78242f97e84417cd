"""Tool package: from a trained fit among the results of a study to a folder that other people use."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from boldly import layout
from boldly.config import AtlasOptions, Config, TaskOptions, load_config, with_one_high_pass
from boldly.decoders.apply import WEIGHTS, LoadedFit
from boldly.decoders.encoders import ENCODERS, SIGNAL
from boldly.decoders.probe import ARRAYS, Probe
from boldly.decoders.probe import CONFIG as PROBE
from boldly.decoding.card import write_card
from boldly.decoding.folder import (
    ATLAS,
    COMPARISONS,
    FIT,
    SCORES,
    SEEN,
    About,
    AtlasReference,
    Training,
    write_about,
)
from boldly.decoding.labelled import check_task, read_labelled
from boldly.decoding.picking import Picked, pick
from boldly.files import atomic_path, read_tsv, write_json, write_tsv
from boldly.layout import names_table
from boldly.provenance import Contract, check_same, file_sha256
from boldly.records import InputError, Problem, read_comparisons, read_runs, read_scores, read_trials
from boldly.samples.seen import MANIFEST as PRETRAINED_ON
from boldly.sharing import check_replaced
from boldly.stages.atlas import ORIGINS
from boldly.words import in_bytes

logger = logging.getLogger(__name__)

# Files of a fit and of an encoder that are needed to apply them.
_OF_FIT = (PROBE, ARRAYS, "config.json", WEIGHTS, "contract.json")
_OF_ENCODER = ("config.json", WEIGHTS, "contract.json", "basis.safetensors", PRETRAINED_ON)
# Runs of the training cover more or less; a new one may cover a bit less than the worst of them.
_LEAST_COVERED = 0.8


def run(
    *,
    source: Path,
    output: Path,
    dataset: str | None = None,
    config: Path | None = None,
    name: str | None = None,
    licence: str = "not stated",
    include_atlas: bool | None = None,
) -> About:
    """Write the folder of a decoder.

    Parameters
    ----------
    source : Path
        A fit, an experiment, or all experiments of a dataset in ``results/models/downstream``, or the folder of
        all results. Where there is a choice, it is the largest number of training units and the lowest loss in
        validation; test scores are not looked at.
    output : Path
        The folder; a decoder that is there is replaced once the new one is whole.
    dataset : str, optional
        Dataset, where `source` is the folder of all results.
    config : Path, optional
        Config of the study; default: config/config.yaml beside the results.
    name : str, optional
        Name of the decoder; default: ``<dataset>-<experiment>``.
    licence : str, optional
        Terms of the decoder, an identifier as hub cards have it (``cc0-1.0``).
    include_atlas : bool, optional
        Whether the image of the atlas is copied into the folder; default: an image of one's own, and published
        ones whose licence allows it.

    Returns
    -------
    About
        What was written.

    Raises
    ------
    InputError
        For an output that holds something else than a decoder, results that are incomplete, or of a version whose
        networks this one cannot read, and a config that is not the one the decoder was trained with.
    """
    check_replaced(output, (FIT, SEEN))
    picked = pick(source, dataset)
    if picked.why:
        logger.info("%s", picked.why)
    study = _study(picked, config)
    contract = _contract(picked.folder)
    atlas = _atlas(study, picked.root, contract)
    about = _about(picked, study, contract, name or f"{picked.dataset}-{picked.experiment.name}", licence)
    labelled = read_labelled(
        picked, picked.root / layout.Layout(study).shard_folder(picked.dataset), about.training
    )
    if study.datasets[picked.dataset].derivatives is not None:
        check_task(picked, study, labelled)
    with atomic_path(output) as temporary:
        _copy_fit(picked, temporary)
        # Weights that this version cannot read are noticed here, not by those who are given the folder.
        LoadedFit(temporary, FIT)
        if atlas is not None:
            about = about.model_copy(update={"atlas": _copy_atlas(atlas, contract, temporary, include_atlas)})
        # By these decoding notices that it meets a run of the training again.
        write_json(temporary / SEEN, {"fingerprints": sorted(labelled.fingerprints)})
        scores, comparisons = _copy_scores(picked, temporary)
        write_about(temporary, about, contract)
        write_card(temporary, about, contract, scores, comparisons)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    logger.info("%s: %s, %s", about.name, output, in_bytes(size))
    return about


def _study(picked: Picked, config: Path | None) -> Config:
    path = config or picked.root / "config" / "config.yaml"
    if not path.is_file():
        remedy = "give the config that the decoder was trained with: --config config/mine.yaml"
        raise InputError(Problem(str(path), picked.dataset, "no such config", remedy))
    study = load_config(path, path.resolve().parent.parent)
    if picked.dataset not in study.datasets:
        message = f"has no dataset {picked.dataset} (has: {', '.join(study.datasets)})"
        remedy = "give the config that the decoder was trained with: --config config/mine.yaml"
        raise InputError(Problem(str(path), picked.dataset, message, remedy))
    return study


def _contract(folder: Path) -> Contract:
    from boldly.models.build import load_contract

    return load_contract(folder)


def _atlas(study: Config, root: Path, contract: Contract) -> AtlasOptions | None:
    """Return the atlas of a study, with paths that exist, once its image is found to be that of the contract."""
    options = study.atlas
    if options is None:
        return None
    places = {
        field: str(root / value)
        for field in ("path", "labels", "cache")
        if (value := getattr(options, field)) and not Path(value).exists() and (root / value).exists()
    }
    options = options.model_copy(update=places)
    if not Path(options.image).is_file():
        remedy = "run this where the study was, or correct atlas.path in the config"
        raise InputError(Problem(options.image, "atlas", "no such file", remedy))
    if file_sha256(options.image) != contract.atlas_sha256:
        message = f"its checksum is not that of the atlas {contract.atlas} that the decoder was trained with"
        raise InputError(Problem(options.image, "atlas", message, "give the config of that time with --config"))
    return options


def _about(picked: Picked, study: Config, contract: Contract, name: str, licence: str) -> About:
    dataset, fit = picked.dataset, picked.fit
    options = study.datasets[dataset]
    preprocess = study.preprocess_of(dataset)
    parcellate = with_one_high_pass(study.parcellate_of(dataset), preprocess)
    if options.derivatives is not None:
        _check_options(picked, study, contract)
    about = _described_fit(picked)
    events = read_trials(picked.result(layout.TRIALS))
    # Rows that were merged are one trial.
    trials = {(event.key, event.trial): event for event in events if event.trial is not None}.values()
    t_rs = [run.t_r for run in read_runs(picked.result(layout.RUNS), usable=True) if not math.isnan(run.t_r)]
    lengths = sorted(trial.n_frames * trial.t_r for trial in trials)
    if not lengths or not t_rs:
        raise InputError(Problem(str(picked.result(layout.TRIALS)), dataset, "no trial", "rerun index"))
    t_r_s = (min(t_rs), max(t_rs)) if study.shard.t_r_s is None else (study.shard.t_r_s,) * 2
    task = options.task if isinstance(options.task, TaskOptions) else None
    return About(
        name=name,
        kind=about["kind"],
        labels=list(about["labels"]),
        longest_frames=about["longest"],
        t_r_s=t_r_s,
        window_s=round(lengths[len(lengths) // 2], 6),
        least_covered=_least_covered(picked),
        layout=options.layout,
        image_suffix=options.image_suffix,
        task=None if task is None else task.model_copy(update={"labels": list(about["labels"])}),
        preprocess=preprocess.model_copy(update={"preset": None}),
        parcellate=parcellate,
        shard=study.shard,
        training=Training(
            experiment=picked.experiment.name,
            kind=str(picked.manifest["kind"]),
            start=str(picked.manifest["start"]),
            dataset=dataset,
            by=_by(picked),
            picked=picked.why,
            choice=str(fit.get("choice", f"step {fit['step']}" if "step" in fit else "")),
            **{key: fit[key] for key in ("n", "draw", "seed", "train", "validation", "test")},
        ),
        licence=licence,
    )


def _check_options(picked: Picked, study: Config, contract: Contract) -> None:
    """Refuse a config whose options changed since the decoder was trained."""
    # Which images these are is said in another way in contracts.
    fields = {name: value for name, value in study.prepared(picked.dataset).items() if name != "images"}
    check_same(contract, dataclasses.replace(contract, **fields), "the config", picked.dataset)


def _described_fit(picked: Picked) -> dict[str, Any]:
    """Return kind, labels and longest trial of a fit."""
    from boldly.models.build import load_config as load_network_config

    has_network = (picked.folder / WEIGHTS).exists()
    if (picked.folder / PROBE).exists():
        probe = Probe.load(picked.folder)
        kind = "fine-tuned" if has_network else "probe"
        return {"kind": kind, "labels": probe.labels, "longest": probe.longest}
    sizes = load_network_config(picked.folder)
    return {"kind": "network", "labels": sizes.labels, "longest": sizes.window_frames}


def _by(picked: Picked) -> str:
    units = [*picked.fit["train"], *picked.fit["test"]]
    return "run" if any(unit.startswith("ds-") for unit in units) else "subject"


def _least_covered(picked: Picked) -> float:
    """Return the share of parcels that a run has to cover: 80 %, less where the training had less."""
    n_parcels = _contract(picked.folder).n_parcels
    pattern = picked.result(layout.QUALITY)
    tables = sorted(pattern.parent.glob(pattern.name))
    marked = [read_tsv(path, columns=("n_marked",)) for path in tables]
    known = [table["n_marked"].max() for table in marked if "n_marked" in table and len(table)]
    lowest = 1 - max(known, default=0) / n_parcels
    return round(min(_LEAST_COVERED, float(lowest)), 4)


def _copy_fit(picked: Picked, output: Path) -> None:
    """Copy the fit, the encoders that it reads from, and what a network of its own was pretrained on."""
    encoders: list[str] = []
    if (picked.folder / PROBE).exists():
        encoders = [member.encoder for member in Probe.load(picked.folder).members if member.encoder != SIGNAL]
    _copy(picked.folder, output / FIT, _OF_FIT)
    for name in dict.fromkeys(encoders):
        _copy(picked.experiment / ENCODERS / name, output / ENCODERS / name, _OF_ENCODER)
    # Weights that were trained further leave no encoder to read from, but know its people all the same.
    if (picked.folder / WEIGHTS).exists() and picked.manifest["kind"] == "pretrained":
        for path in sorted((picked.experiment / ENCODERS).glob(f"*/{PRETRAINED_ON}")):
            if path.parent.name not in encoders:
                _copy(path.parent, output / ENCODERS / path.parent.name, (PRETRAINED_ON,))


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    target.mkdir(parents=True)
    for name in names:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


def _copy_atlas(options: AtlasOptions, contract: Contract, output: Path, include: bool | None) -> AtlasReference:
    """Copy image and names of the atlas where they may be passed on, and say where they are from."""
    reference = AtlasReference(name=contract.atlas, sha256=contract.atlas_sha256)
    if options.fetched:
        origin = ORIGINS[str(options.name)]
        about = {"source": origin.source, "citation": origin.citation, "licence": origin.licence}
        fetch = AtlasOptions.model_validate(
            options.model_dump(include={"name", "dimension", "resolution_mm", "variant"})
        )
        reference = reference.model_copy(update={**about, "fetch": fetch})
        include = origin.may_be_shared if include is None else include
    if include is False:
        return reference
    (output / ATLAS).mkdir(parents=True, exist_ok=True)
    update = {"file": f"{ATLAS}/{Path(options.image).name}"}
    shutil.copyfile(options.image, output / update["file"])
    if (table := names_table(options)) is not None:
        update["labels"] = f"{ATLAS}/{table.name}"
        shutil.copyfile(table, output / update["labels"])
    return reference.model_copy(update=update)


def _copy_scores(picked: Picked, output: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Copy what evaluate says of the fit, its experiment, and what stands beside it at the same n."""
    n, experiment = picked.fit["n"], picked.experiment.name
    path = picked.result(layout.SCORES)
    if not path.is_file():
        command = f"snakemake --cores 1 --directory {picked.root} --configfile CONFIG -- evaluate"
        logger.warning("no scores (%s): the card will say so; run `%s` first, with its config", path, command)
        return pd.DataFrame(), pd.DataFrame()
    scores = read_scores(path)
    summary = (scores["draw"] == "all") & (scores["seed"] == "all") & (scores["subject"] == "all")
    own = scores["experiment"] == experiment
    this = own & (scores["draw"] == str(picked.fit["draw"])) & (scores["seed"] == str(picked.fit["seed"]))
    scores = scores[scores["n"].isin([n, 0]) & ((summary & (own | (scores["label"] == "all"))) | this)]
    write_tsv(output / SCORES, scores)
    path = picked.result(layout.COMPARISONS)
    comparisons = read_comparisons(path) if path.is_file() else pd.DataFrame()
    if len(comparisons):
        one = (comparisons["experiment"] == experiment) | (comparisons["baseline"] == experiment)
        comparisons = comparisons[(comparisons["n"] == n) & one]
        write_tsv(output / COMPARISONS, comparisons)
    return scores, comparisons
