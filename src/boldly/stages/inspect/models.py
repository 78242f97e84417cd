"""What inspect says of folders with weights: networks, decoders of the workflow, and packaged ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from boldly.files import read_json
from boldly.provenance import Contract
from boldly.records import InputError, Problem
from boldly.stages.inspect.text import KINDS, Rows, each_once, size, span
from boldly.words import counted

_WEIGHTS, _CONFIG, _CONTRACT = "model.safetensors", "config.json", "contract.json"
# Of a decoder that is no network.
_PROBE, _ARRAYS = "decoder.json", "decoder.safetensors"
# Of a downstream experiment: one folder for each fit.
_ADAPTED = "adapt.json"
_TRAIN_AGAIN = "train the model again"


def is_model(folder: Path) -> bool:
    """Tell whether weights in a folder belong to a model, and are no time series."""
    return any((folder / name).exists() for name in (_CONFIG, _PROBE))


def describe_folder(folder: Path) -> Rows:
    """Describe a model by the files of its folder.

    Raises
    ------
    InputError
        For a folder that is none of those known, or is not complete.
    """
    if (folder / _ADAPTED).exists():
        return _experiment(folder)
    if (folder / _PROBE).exists():
        return _probe(folder)
    config = _read(folder / _CONFIG)
    if "training" in config and "kind" in config:
        return _packaged(folder, config)
    return _network(folder, config)


def describe_contract(contract: Contract) -> Rows:
    """Describe how signals came about."""
    checksum = contract.atlas_sha256[:12] or "unknown"
    strategy = contract.confounds.get("strategy", [])
    band = [
        f"{name} {value:g} Hz"
        for name, value in (("high-pass", contract.high_pass_hz), ("low-pass", contract.low_pass_hz))
        if value is not None
    ]
    smoothing = f"smoothed {contract.smoothing_fwhm_mm:g} mm" if contract.smoothing_fwhm_mm else "not smoothed"
    place = ["inside the brain mask"] if contract.mask else []
    trend = ["detrended"] if contract.detrend else []
    treated = [smoothing, *place, *trend, *band, f"scaled: {contract.standardize}"]
    return [
        ("contract", f"{contract.sha256[:12]}, written by version {contract.version}"),
        ("  atlas", f"{contract.atlas}, {contract.n_parcels:,} parcels, checksum {checksum}"),
        ("  space", contract.space),
        ("  confounds", each_once(strategy)),
        ("  signals", ", ".join(treated)),
        *([("  images", contract.images)] if contract.images else []),
        *(("  varies", f"{name}: {_variants(name, values)}") for name, values in contract.varied.items()),
    ]


def _network(folder: Path, config: dict[str, Any]) -> Rows:
    shapes = _shapes(folder / _WEIGHTS)
    contract = _contract(folder / _CONTRACT)
    parts: Counter[str] = Counter()
    for name, shape in shapes.items():
        parts[name.partition(".")[0]] += int(np.prod(shape))
    labels = list(config.get("labels") or [])
    kind = f"decoder of {len(labels)} states" if labels else "pretrained network"
    rows = [
        ("model", f"{kind}, framework {config.get('framework', 'unknown')}"),
        ("parameters", _parameters(folder / _WEIGHTS, shapes)),
        ("parts", each_once(f"{name} {count:,}" for name, count in parts.items())),
        ("sizes", each_once(f"{k} {v}" for k, v in config.items() if isinstance(v, int | float))),
    ]
    if labels:
        rows.append(("states", each_once(labels)))
    return rows + describe_contract(contract)


def _probe(folder: Path) -> Rows:
    """Describe a decoder that is a classifier on frozen encoders."""
    config = _read(folder / _PROBE)
    labels, members = list(config.get("labels") or []), list(config.get("members") or [])
    shapes = _shapes(folder / _ARRAYS)
    rows = [
        ("model", f"decoder of {len(labels)} states, a probe"),
        ("parameters", _parameters(folder / _ARRAYS, shapes)),
        *(("reads", _reads(member)) for member in members),
        ("states", each_once(labels)),
    ]
    return rows + describe_contract(_contract(folder / _CONTRACT))


def _reads(member: dict[str, Any]) -> str:
    """Say what a member of a probe reads, and what validation chose."""
    chosen = member.get("chosen") or {}
    words = [f"{'+'.join(member.get('read_outs', []))} of {member.get('encoder', 'unknown')}"]
    words += [f"{name} {chosen[name]}" for name in ("layers", "classifier", "penalty") if name in chosen]
    return ", ".join(words)


def _experiment(folder: Path) -> Rows:
    """Describe a downstream experiment by its fits, and one of these as an example."""
    config = _read(folder / _ADAPTED)
    fits = [fit for fit in config.get("fits") or [] if isinstance(fit, dict) and "folder" in fit]
    numbers = sorted({int(fit["n"]) for fit in fits if "n" in fit})
    rows = [
        ("experiment", f"{config.get('experiment', folder.name)} on {config.get('dataset', 'unknown')}"),
        ("kind", f"{config.get('kind', 'unknown')}, from {config.get('start', 'unknown')}"),
        ("fits", f"{len(fits)}, each a folder; with {each_once(map(str, numbers))} labelled units"),
    ]
    if choices := Counter(str(fit["choice"]) for fit in fits if fit.get("choice")):
        rows += [("chosen", f"{count} x {choice}") for choice, count in choices.most_common(3)]
    if not fits:
        return rows
    # What all fits share: that they differ in labels, weights and choices stands above.
    example = folder / str(fits[-1]["folder"])
    return [*rows, ("example", example.name), *describe_folder(example)]


def _packaged(folder: Path, config: dict[str, Any]) -> Rows:
    """Describe what `boldly package` wrote."""
    training, labels = config["training"], list(config.get("labels") or [])
    units = "runs" if training.get("by") == "run" else "people"
    repetition = config.get("t_r_s") or []
    rows = [
        ("decoder", f"{config.get('name', folder.name)}, of {len(labels)} states, {config['kind']}"),
        ("trained on", f"{training.get('dataset')}, {training.get('n')} labelled {units}"),
        ("experiment", f"{training.get('experiment')} ({training.get('kind')}, from {training.get('start')})"),
        *([("chosen", str(training["choice"]))] if training.get("choice") else []),
        ("states", each_once(labels)),
        ("t_r", f"{span(repetition)} s" if repetition else "unknown"),
        ("window", f"{config.get('window_s', 0):g} s"),
        ("licence", str(config.get("licence", "not stated"))),
        ("written by", f"version {config.get('boldly', 'unknown')}"),
    ]
    if missing := [name for name in config.get("files") or {} if not (folder / name).is_file()]:
        message = f"{counted(len(missing), 'file')} of the decoder missing: {each_once(missing)}"
        raise InputError(Problem(str(folder), "", message, "copy the folder again"))
    return rows + describe_contract(_contract(folder / _CONTRACT))


def _parameters(path: Path, shapes: dict[str, list[int]]) -> str:
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    return f"{count:,} in {counted(len(shapes), 'tensor')}, {size(path)}"


def _variants(name: str, values: Sequence[Any]) -> str:
    """Tell the values of a field in which the runs of a model differ."""
    if name == "confounds":
        values = [each_once(value.get("strategy", [])) for value in values]
    return "; or ".join(str(value) for value in values)


def _contract(path: Path) -> Contract:
    try:
        return Contract.from_json(json.dumps(_read(path)))
    except (KeyError, TypeError) as error:
        raise InputError(Problem(str(path), "", f"not a contract: {error}", _TRAIN_AGAIN)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError:
        message = f"no {path.name}: not a complete model folder"
        raise InputError(Problem(str(path.parent), "", message, f"give {KINDS}")) from None
    except ValueError as error:
        raise InputError(Problem(str(path), "", f"not JSON: {error}", _TRAIN_AGAIN)) from None
    if not isinstance(content, dict):
        raise InputError(Problem(str(path), "", "not a JSON object", _TRAIN_AGAIN))
    return content


def _shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of weights from the header alone: nothing large is read, and no torch is needed."""
    try:
        with safe_open(path, "numpy") as stream:
            return {name: stream.get_slice(name).get_shape() for name in stream.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError) as error:
        message = f"no readable weights: {error}"
        raise InputError(Problem(str(path), "", message, _TRAIN_AGAIN)) from None
