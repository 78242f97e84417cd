"""Pretraining that starts from weights of another: a network of boldly, or a language model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertModel, GPT2Model

from boldly.files import read_json
from boldly.models.build import CONFIG, WEIGHTS, load_weights, transfer
from boldly.models.network import NetworkConfig
from boldly.records import InputError, Problem

_MODELS: dict[type[nn.Module], str] = {GPT2Model: "gpt2", BertModel: "bert"}
_BIN = "pytorch_model.bin"
# Of CSM: what is fitted to the runs of each training, not learned.
_FITTED = ("coupling", "share", "ahead")
# Parts that all frameworks of boldly share. Other weights belong to an objective, such as what stands for hidden
# frames or parcels.
_SHARED = ("embedder.", "decoder.", "unembedder.")
# What the number of attention heads is called: by boldly, GPT-2 and BERT.
_HEADS = ("heads", "n_head", "num_attention_heads")
# Vectors of words: there are none here.
_WORDS = ("wte.weight", "embeddings.word_embeddings.weight")
# Vectors of positions (of the faithful networks alone): the first ones are taken.
_POSITIONS = ("wpe.weight", "embeddings.position_embeddings.weight")
# What the original BERT files call the parameters of LayerNorm.
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}


def initialise(network: nn.Module, folder: Path | str) -> None:
    """Give an untrained network weights to start from.

    Parameters
    ----------
    network : nn.Module
        A network to pretrain.
    folder : Path or str
        A model folder of boldly with the same sizes (all weights of the same framework are taken, of another one
        those of embedder, decoder and unembedder), or a folder of GPT-2 (for csm) or BERT (for sequence_bert,
        network_bert) as Transformers saves it, which gives the first layers as the supplement of Thomas et al.
        2022 does; the maps from and to parcels start untrained.

    Raises
    ------
    InputError
        If weights are missing or of another shape, with all their names.
    """
    folder = Path(folder)
    try:
        content = read_json(folder / CONFIG)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(
            Problem(str(folder / CONFIG), "", f"no model: {error}", "correct pretrain's initialise")
        ) from None
    _check_heads(network, content, folder)
    if "model_type" not in content:
        sizes: NetworkConfig = network.sizes  # type: ignore[assignment]
        is_same = content.get("framework") == sizes.framework
        kept = {
            name: tensor
            for name, tensor in network.state_dict().items()
            if name in _FITTED or not (is_same or name.startswith(_SHARED))
        }
        transfer(network, {**load_weights(folder), **kept}, str(folder / WEIGHTS))
        return
    module, kind = _language_model(network)
    if kind != content["model_type"]:
        message = f"a {content['model_type']} model, the network has {f'the layers of {kind}' if kind else 'none'}"
        raise InputError(
            Problem(str(folder), "", message, "use GPT-2 for csm, BERT for sequence_bert, network_bert")
        )
    _fill(module, _read(folder), folder)


def _check_heads(network: nn.Module, content: dict[str, Any], folder: Path) -> None:
    """Refuse weights of another number of attention heads: their shapes agree, and they would be cut wrongly."""
    sizes: NetworkConfig = network.sizes  # type: ignore[assignment]
    its = next((content[name] for name in _HEADS if name in content), None)
    has_attention = "autoencoding" not in (sizes.framework, content.get("framework"))
    if has_attention and its not in (None, sizes.heads):
        message = f"its layers have {its} attention heads, those of the network {sizes.heads}"
        raise InputError(Problem(str(folder / CONFIG), "", message, f"set heads of the experiment to {its}"))


def _language_model(network: nn.Module) -> tuple[nn.Module, str]:
    for module in network.modules():
        for known, kind in _MODELS.items():
            if isinstance(module, known):
                return module, kind
    return network, ""


def _read(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a language model, names without the prefix that a task head adds."""
    path = folder / WEIGHTS if (folder / WEIGHTS).exists() else folder / _BIN
    try:
        weights = (
            load_file(path) if path.name == WEIGHTS else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise InputError(Problem(str(path), "", f"no weights: {error}", "save the language model again")) from None
    except Exception as error:  # what the restricted unpickler refuses
        message = f"not plain weights: {type(error).__name__}"
        raise InputError(Problem(str(path), "", message, f"save the model as {WEIGHTS}")) from None
    plain = {}
    for name, tensor in weights.items():
        name = re.sub(r"^(transformer|bert)\.", "", name)
        plain[re.sub(r"\.(gamma|beta)$", lambda match: f".{_OLD_NAMES[match[1]]}", name)] = tensor
    return plain


def _fill(module: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    own = {name: tensor for name, tensor in module.state_dict().items() if name not in _WORDS}
    weights = {
        name: tensor[: len(own[name])] if name in _POSITIONS and name in own else tensor
        for name, tensor in weights.items()
    }
    wrong = []
    for name, tensor in own.items():
        if name not in weights:
            wrong.append(f"{name} is missing")
        elif weights[name].shape != tensor.shape:
            wrong.append(f"{name} has shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}")
    if wrong:
        message = "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        remedy = "give the experiment the width and heads of the language model, and no more layers than it has"
        raise InputError(Problem(str(folder), "", message, remedy))
    module.load_state_dict({name: weights[name] for name in own}, strict=False)
