"""From sizes to networks, and the folder that a trained network is kept in."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from boldly.config import AdaptOptions, PretrainOptions
from boldly.files import atomic_path, read_json, write_json
from boldly.models.network import NetworkConfig
from boldly.models.objective import Decoding, Objective
from boldly.provenance import Contract
from boldly.records import InputError, Problem
from boldly.samples.corpus import Group
from boldly.samples.windows import WindowOptions

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CONTRACT = "contract.json"

# Module, network and objective of each framework, by variant; without an objective it is a baseline. Imported when
# one is built: the transformers library takes a second to import.
FRAMEWORKS: dict[str, dict[str, tuple[str, str, str]]] = {
    "boldly": {
        "autoencoding": ("boldly.models.autoencoding", "AutoencodingNetwork", "Autoencoding"),
        "csm": ("boldly.models.csm", "CausalNetwork", "CausalModeling"),
        "sequence_bert": ("boldly.models.bert", "MaskedNetwork", "FrameModeling"),
        "network_bert": ("boldly.models.bert", "MaskedNetwork", "ParcelModeling"),
        "masked_autoencoding": (
            "boldly.models.masked_autoencoding",
            "MaskedAutoencodingNetwork",
            "MaskedAutoencoding",
        ),
        "components": ("boldly.models.components", "ComponentsNetwork", ""),
        "linear": ("boldly.models.baselines", "LinearBaseline", ""),
        "mean_mlp": ("boldly.models.baselines", "MeanMlp", ""),
    },
    "lfb": {
        "autoencoding": ("boldly.models.lfb.network", "LfbAutoencoder", "LfbModeling"),
        "csm": ("boldly.models.lfb.network", "LfbTransformer", "LfbModeling"),
        "sequence_bert": ("boldly.models.lfb.network", "LfbTransformer", "LfbModeling"),
        "network_bert": ("boldly.models.lfb.network", "LfbTransformer", "LfbModeling"),
        "linear": ("boldly.models.lfb.network", "LfbLinear", ""),
    },
}

# Of decoders: what no pretrained network holds, and adaptation always trains.
_HEADS = ("head.", "decoder.decoding_head.")
# LfB's poolers, part of its sequence networks by name, are read-outs all the same.
_READ_OUTS = (*_HEADS, "decoder.pooler_layer.", "decoder.encoder.pooler_layer.", "decoder.is_next_head.")
# The layer of a head that gives the logits.
_CLASSES = ("head.classes.", "decoder.decoding_head.")


def build_network(config: NetworkConfig, seed: int) -> nn.Module:
    """Build an untrained network; the same seed gives the same weights.

    Parameters
    ----------
    config : NetworkConfig
        Sizes. With labels it is a decoder of mental states, else a network to pretrain.
    seed : int
        Seed of the weights. The state of torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, name, _ = FRAMEWORKS[config.variant][config.framework]
        network: nn.Module = getattr(importlib.import_module(module), name)(config)
        return network


def build_objective(network: nn.Module) -> Objective:
    """Return what a network is trained for: the objective of its framework, or decoding if it has labels."""
    sizes: Any = network.sizes
    return Decoding(network) if sizes.labels else _objective(sizes.framework, sizes.variant)(network)


def window_options(options: PretrainOptions, batch_size: int) -> WindowOptions:
    """Return what the objective of an upstream experiment wants to see."""
    return _objective(options.framework, options.variant).view(options, batch_size)


def _objective(framework: str, variant: str) -> type[Objective]:
    module, _, name = FRAMEWORKS[variant][framework]
    objective: type[Objective] = getattr(importlib.import_module(module), name)
    return objective


def pretraining_config(options: PretrainOptions, n_parcels: int, groups: Sequence[Group] = ()) -> NetworkConfig:
    """Return the sizes of an upstream experiment's network.

    Parameters
    ----------
    options : PretrainOptions
        The experiment.
    n_parcels : int
        Parcels of the runs.
    groups : sequence of (str, float), optional
        Datasets and repetition times (s) of the runs.
    """
    is_csm = (options.framework, options.variant) == ("csm", "boldly")
    return NetworkConfig(
        framework=options.framework,
        n_parcels=n_parcels,
        width=options.width,
        layers=options.layers,
        heads=options.heads,
        dropout=options.dropout,
        window_frames=options.window_frames[1],
        variant=options.variant,
        embedding_layers=options.embedding_layers,
        horizons_s=tuple(options.horizons_s) if is_csm else (),
        groups=tuple(groups) if is_csm else (),
        pairs=options.pairs or options.variant == "lfb",
        parcel_groups=options.parcel_groups if options.framework == "masked_autoencoding" else 0,
    )


def decoder_config(
    options: AdaptOptions, labels: tuple[str, ...], n_parcels: int, upstream: NetworkConfig | None
) -> NetworkConfig:
    """Return the sizes of a downstream experiment's network: the upstream one with a head, or a baseline."""
    if upstream is not None:
        return dataclasses.replace(
            upstream, labels=labels, dropout=options.dropout, window_frames=options.window_frames
        )
    if options.baseline not in ("linear", "mean_mlp"):
        raise ValueError("a network without upstream config must be a baseline that takes gradient steps")
    return NetworkConfig(
        framework=options.baseline,
        n_parcels=n_parcels,
        width=options.width,
        dropout=options.dropout,
        window_frames=options.window_frames,
        labels=labels,
        variant=options.variant,
    )


def save_network(
    folder: Path | str, config: NetworkConfig, weights: dict[str, Tensor], contract: Contract
) -> None:
    """Write weights, config and contract, each atomically; the weights come last."""
    folder = Path(folder)
    write_json(folder / CONFIG, dataclasses.asdict(config))
    with atomic_path(folder / CONTRACT) as temporary:
        temporary.write_text(contract.to_json() + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, {"format": "pt"})


def load_config(folder: Path | str) -> NetworkConfig:
    """Read the sizes of a network.

    Raises
    ------
    InputError
        If there is no model in the folder, or one that this version does not know.
    """
    path = Path(folder) / CONFIG
    try:
        content = read_json(path)
        # Models of earlier versions have a field for horizons in frames.
        content.pop("horizons", None)
        sequences = {name: tuple(content.get(name, ())) for name in ("labels", "horizons_s")}
        groups = tuple((str(dataset), float(t_r)) for dataset, t_r in content.get("groups", ()))
        config = NetworkConfig(**{**content, **sequences, "groups": groups})
        if config.framework not in FRAMEWORKS.get(config.variant, {}):
            raise ValueError(f"no network {config.framework} of variant {config.variant}")
        return config
    except FileNotFoundError:
        raise InputError(
            Problem(str(path), "", "no such file: there is no trained model", "run pretrain, or correct the path")
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(str(path), "", f"not a model of boldly: {error}", "train it again")) from None


def load_contract(folder: Path | str) -> Contract:
    """Read what a model's input must be."""
    path = Path(folder) / CONTRACT
    try:
        return Contract.from_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(str(path), "", f"no contract: {error}", "train the model again")) from None


def load_weights(folder: Path | str) -> dict[str, Tensor]:
    """Read the weights of a model.

    Raises
    ------
    InputError
        If the file is missing or cut.
    """
    path = Path(folder) / WEIGHTS
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise InputError(Problem(str(path), "", f"no weights: {error}", "train the model again")) from None


def load_network(folder: Path | str) -> nn.Module:
    """Read a trained network, in evaluation mode.

    Raises
    ------
    InputError
        If a file is missing or the weights do not fit the config.
    """
    config = load_config(folder)
    network = build_network(config, seed=0)
    try:
        network.load_state_dict(load_weights(folder))
    except RuntimeError as error:
        raise InputError(
            Problem(
                str(Path(folder) / WEIGHTS), "", f"weights and config differ: {error}", "train the model again"
            )
        ) from None
    return network.eval()


def load_encoder(folder: Path | str) -> nn.Module:
    """Read a network of which the states of frames are wanted.

    Raises
    ------
    InputError
        As `load_network`, and for a network that has no states of frames.
    """
    network = load_network(folder)
    if not is_encoder(network):
        message = "this network gives no states of single frames, which a probe reads"
        raise InputError(Problem(str(folder), "", message, "set method: network for this experiment"))
    return network


def is_encoder(network: nn.Module) -> bool:
    """Tell whether a network gives states of single frames."""
    return hasattr(network, "encode")


def encode_with(network: nn.Module) -> Callable[..., list[Tensor]]:
    """Return what turns a batch into the states of all layers, each (B, L, W)."""
    encode: Callable[..., list[Tensor]] = network.encode  # type: ignore[assignment]
    return encode


def transfer(network: nn.Module, weights: dict[str, Tensor], where: str) -> list[str]:
    """Give a decoder every pretrained weight that it has a place for.

    Parameters
    ----------
    network : nn.Module
        The decoder; its head keeps its weights.
    weights : dict
        Weights of the pretrained network.
    where : str
        File of the weights, for the error.

    Returns
    -------
    list of str
        Names of the weights that were not pretrained.

    Raises
    ------
    InputError
        If a weight has another shape, or an embedder or decoder weight is missing.
    """
    own = network.state_dict()
    wrong = [
        f"{name} has shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    new = [name for name in own if name not in weights]
    wrong += [f"{name} is missing" for name in new if not name.startswith(_HEADS)]
    if wrong:
        raise InputError(Problem(where, "", "; ".join(wrong), "pretrain a network with the same sizes"))
    network.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)
    return new


def part_of(name: str) -> str:
    """Return the part of a network that a parameter belongs to: embedder, decoder, unembedder, head, ..."""
    return "head" if name.startswith(_READ_OUTS) else name.split(".")[0]


def layers_from_head(name: str, n_layers: int) -> int:
    """Return how many layers lie between a parameter and the logits.

    Parameters
    ----------
    name : str
        Parameter of a decoder.
    n_layers : int
        Number of its layers.

    Returns
    -------
    int
        0 for the head, 1 for the last layer, ``n_layers`` for the first, and one more for what embeds frames.
    """
    part = part_of(name)
    if part == "head":
        return 0
    if part == "decoder":
        # The norm behind the last layer.
        if ".ln_f." in name:
            return 1
        if number := re.search(r"\.(\d+)\.", name):
            return max(n_layers - int(number[1]), 1)
    return n_layers + 1


def silence(network: nn.Module) -> None:
    """Set the last layer of a decoder's head to zero: all its logits are zero, whatever the trial."""
    for name, parameter in network.named_parameters():
        if name.startswith(_CLASSES):
            nn.init.zeros_(parameter)
