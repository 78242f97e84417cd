"""Tool import-weights: a run of the published system (LfB) becomes a model of boldly, and a model such a run.

Parameters have the same names on both sides (`boldly.models.lfb`), so that the tensors go over bit by bit.
"""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from boldly.files import atomic_path, read_json, write_json
from boldly.models.build import CONFIG, WEIGHTS, build_network, load_config, load_weights, save_network
from boldly.models.network import NetworkConfig, NetworkName
from boldly.provenance import file_sha256
from boldly.records import InputError, Problem
from boldly.samples.lfb_shards import contract

logger = logging.getLogger(__name__)

RUN_WEIGHTS = Path("model_final", "pytorch_model.bin")
RUN_CONFIG = "train_config.json"

_ARCHITECTURES: dict[str, NetworkName] = {
    "autoencoder": "autoencoding",
    "GPT": "csm",
    "BERT": "sequence_bert",
    "NetBERT": "network_bert",
    "LinearBaseline": "linear",
}
_STYLES = {"csm": "CSM", "sequence_bert": "BERT", "network_bert": "NetBERT", "autoencoding": "autoencoder"}
_ATTENTION = ("csm", "sequence_bert", "network_bert")
# What the networks are built with; other values cannot be imported.
_FIXED = {"hidden_activation": "gelu_new", "t_r_precision": 0.2, "t_r_max": 300, "n_positions": 512}

# Of the released models, where a run does not say.
_DROPOUT, _WINDOW_FRAMES = 0.1, 50

# Constants that older Transformers versions kept among the weights.
_BUFFER = re.compile(r"\.attn\.(masked_)?bias$|\.(position_ids|token_type_ids)$")
_LAYER = re.compile(r"^decoder\.(?:transformer\.h|transformer\.encoder\.layer|encoder\.lstms)\.(\d+)\.")
_EMBEDDING_LAYER = re.compile(r"^embedder\.embed_model\.model\.(\d+)\.weight$")
# Linear, LayerNorm, activation, dropout.
_PARTS_PER_LAYER = 4


def run(*, source: Path, output: Path, heads: int | None = None, labels: Path | None = None) -> None:
    """Import a run of LfB.

    Sizes come from its train_config.json (beside the weights or in a folder above), else from the weights. The
    contract is that of LfB's published data.

    Parameters
    ----------
    source : Path
        Run directory (with ``model_final/pytorch_model.bin`` or ``pytorch_model.bin``), or a ``.bin`` file.
    output : Path
        Folder for model.safetensors, config.json, contract.json, manifest.json, and histories if there are any.
    heads : int, optional
        Attention heads, where train_config.json does not say; they cannot be seen in the weights.
    labels : Path, optional
        JSON file ``{"labels": [...]}`` with the names of a decoder's states in order; default: their numbers.

    Raises
    ------
    InputError
        If a file is missing or not plain weights, with all weights that are missing, unknown or misshapen, and all
        options that the networks cannot be built with.
    """
    path = _find_weights(source)
    about, above = _find_config(path)
    weights = {name: tensor for name, tensor in _read(path).items() if not _BUFFER.search(name)}
    config = _sizes(path, weights, about, heads, _names(labels))
    _check(path, weights, config, about)
    if above is not None:
        _convert_histories(above, output)
    manifest = {"imported": {path.name: file_sha256(path)}, "source": str(source), "train_config": about}
    write_json(output / "manifest.json", manifest)
    save_network(output, config, weights, contract(config.n_parcels))
    kind = f"decoder of {len(config.labels)} states" if config.labels else "pretrained network"
    logger.info("%s: %s %s, %d tensors", output, config.framework, kind, len(weights))


def export(*, source: Path, output: Path) -> None:
    """Write a model of variant lfb as a run of LfB: ``model_final/pytorch_model.bin`` and ``train_config.json``.

    Parameters
    ----------
    source : Path
        Model folder.
    output : Path
        Run directory.

    Raises
    ------
    InputError
        If the model is of another variant, or incomplete.
    """
    config = load_config(source)
    if config.variant != "lfb":
        message = f"a network of variant {config.variant}: LfB has no place for its weights"
        raise InputError(Problem(str(source / CONFIG), "", message, "train it with variant: lfb"))
    weights = load_weights(source)
    _check(source / WEIGHTS, weights, config, {})
    manifest = source / "manifest.json"
    about = read_json(manifest).get("train_config", {}) if manifest.exists() else {}
    write_json(output / RUN_CONFIG, {**about, **_run_config(config)})
    # By way of memory: torch writes the name of a file into it.
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    with atomic_path(output / RUN_WEIGHTS) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _find_weights(source: Path) -> Path:
    for path in (source, source / RUN_WEIGHTS, source / RUN_WEIGHTS.name):
        if path.is_file():
            return path
    message = f"neither a file nor a folder with {RUN_WEIGHTS} or {RUN_WEIGHTS.name}"
    raise InputError(Problem(str(source), "", message, "give a run directory of LfB, or its .bin file"))


def _find_config(path: Path) -> tuple[dict[str, Any], Path | None]:
    """Return the content of the nearest train_config.json, and its folder."""
    for folder in path.absolute().parents[:3]:
        if (folder / RUN_CONFIG).is_file():
            try:
                content = read_json(folder / RUN_CONFIG)
                if isinstance(content, dict):
                    return content, folder
                raise ValueError("no JSON object")
            except ValueError as error:
                where = str(folder / RUN_CONFIG)
                raise InputError(
                    Problem(where, "", f"not readable: {error}", "restore it, or move it away")
                ) from None
    return {}, None


def _read(path: Path) -> dict[str, Tensor]:
    remedy = "copy the file again, or save it with torch.save(model.state_dict(), ...)"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage has many names, and so has what the restricted unpickler refuses
        message = f"not plain weights: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise InputError(Problem(str(path), "", message, remedy)) from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(Problem(str(path), "", "not a table of named tensors", remedy))
    # Tensors that DeepSpeed left in one block of memory get memory of their own.
    return {name: tensor.contiguous().clone() for name, tensor in content.items()}


def _names(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        return tuple(str(name) for name in read_json(path)["labels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"no label names: {type(error).__name__}: {error}"
        raise InputError(Problem(str(path), "", message, 'give a JSON file {"labels": [...]}')) from None


def _sizes(
    path: Path, weights: dict[str, Tensor], about: dict[str, Any], heads: int | None, names: tuple[str, ...]
) -> NetworkConfig:
    """Put the sizes together, from the run's config where it has them."""
    framework = _ARCHITECTURES.get(str(about.get("architecture"))) or _framework(weights)
    heads = _whole(about, "num_attention_heads") or heads or 0
    classes = _size(weights, "decoder.decoding_head.0.weight", 0) or 0
    dropout = about.get("dropout")
    if framework == "linear":
        n_parcels = _size(weights, "decoder.decoding_head.0.weight", 1)
        width = _size(weights, "unembedder.model.0.weight", 1) or n_parcels
        window_frames = _size(weights, "decoder.timseries_model.0.weight", 1)
    else:
        n_parcels = _size(weights, "embedder.embed_model.model.0.weight", 1)
        width = _size(weights, "embedder.embed_model.model.0.weight", 0)
        window_frames = _WINDOW_FRAMES
    n_parcels, width = _whole(about, "in_dim") or n_parcels, _whole(about, "embed_dim") or width
    if framework is None or not (n_parcels and width and window_frames):
        raise InputError(Problem(str(path), "", "its names are not those of LfB's networks", "give another file"))
    problems = []
    if framework in _ATTENTION and not heads:
        message = f"no {RUN_CONFIG} with num_attention_heads beside or above"
        problems.append(Problem(str(path), "", message, "restore it, or give --heads"))
    elif framework in _ATTENTION and width % heads:
        message = f"{heads} attention heads do not divide a width of {width}"
        problems.append(Problem(str(path), "", message, f"correct {RUN_CONFIG}, or --heads"))
    if names and len(names) != classes:
        message = f"{len(names)} names for {classes} states"
        problems.append(Problem(str(path), "", message, "correct the file of --labels"))
    if problems:
        raise InputError(problems)
    embedding = [int(match[1]) for name in weights if (match := _EMBEDDING_LAYER.match(name))]
    return NetworkConfig(
        framework=framework,
        n_parcels=n_parcels,
        width=width,
        layers=0 if framework == "linear" else _whole(about, "num_hidden_layers") or _layers(weights),
        heads=heads or 1,
        dropout=float(dropout) if isinstance(dropout, int | float) else _DROPOUT,
        window_frames=_whole(about, "seq_max") or window_frames,
        labels=names or tuple(str(label) for label in range(classes)),
        variant="lfb",
        embedding_layers=max(embedding, default=0) // _PARTS_PER_LAYER + 1,
    )


def _framework(weights: dict[str, Tensor]) -> NetworkName | None:
    names = " ".join(weights)
    if "decoder.timseries_model." in names:
        return "linear"
    if "decoder.encoder.lstms." in names:
        return "autoencoding"
    if "decoder.transformer.h." in names:
        return "csm"
    if "decoder.transformer.encoder.layer." in names:
        return "network_bert" if (_size(weights, "embedder.msk_embed", 1) or 1) > 1 else "sequence_bert"
    return None


def _whole(about: dict[str, Any], key: str) -> int | None:
    """Return a positive whole number, None where there is none."""
    value = about.get(key)
    return value if isinstance(value, int) and value > 0 else None


def _layers(weights: dict[str, Tensor]) -> int:
    return 1 + max((int(match[1]) for name in weights if (match := _LAYER.match(name))), default=0)


def _size(weights: dict[str, Tensor], name: str, axis: int) -> int | None:
    tensor = weights.get(name)
    return None if tensor is None or tensor.ndim <= axis else tensor.shape[axis]


def _check(path: Path, weights: dict[str, Tensor], config: NetworkConfig, about: dict[str, Any]) -> None:
    """Refuse weights that are not those of the network, and options that it does not have; all at once."""
    fixed = {name: value for name, value in _FIXED.items() if config.framework in _ATTENTION or "t_r" in name}
    problems = [
        Problem(str(path), key, f"{about[key]!r}, the networks are built with {value!r}", "it cannot be imported")
        for key, value in fixed.items()
        if about.get(key, value) != value and config.framework != "linear"
    ]
    with torch.device("meta"):
        wanted = build_network(config, seed=0).state_dict()
    remedy = "give the whole file of such a network, and its train_config.json"
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights:
            message = f"is missing, of shape {tuple(wanted[name].shape)}"
        elif name not in wanted:
            message = f"is no weight of a {config.framework} network"
        elif weights[name].shape != wanted[name].shape:
            message = f"has shape {tuple(weights[name].shape)}, not {tuple(wanted[name].shape)}"
        elif not weights[name].is_floating_point():
            message = f"holds {weights[name].dtype}, not real numbers"
        else:
            continue
        problems.append(Problem(str(path), name, message, remedy))
    if problems:
        raise InputError(problems)


def _convert_histories(folder: Path, output: Path) -> None:
    for name in ("train_history.csv", "eval_history.csv"):
        if (folder / name).is_file():
            table = pd.read_csv(folder / name).rename(columns={"lr": "learning_rate"})
            with atomic_path(output / name) as temporary:
                table.to_csv(temporary, index=False, lineterminator="\n")


def _run_config(config: NetworkConfig) -> dict[str, Any]:
    architecture = next(name for name, framework in _ARCHITECTURES.items() if framework == config.framework)
    return {
        "architecture": architecture,
        "training_style": "decoding" if config.labels else _STYLES[config.framework],
        "in_dim": config.n_parcels,
        "embed_dim": config.width,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_hidden_layers_embedding": config.embedding_layers,
        "seq_max": config.window_frames,
        "num_decoding_classes": len(config.labels) or None,
        "dropout": config.dropout,
        **_FIXED,
    }
