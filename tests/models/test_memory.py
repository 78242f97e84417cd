"""The persistence of next-frame prediction starts from the memory that the data have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boldly.models.build import build_network
from boldly.models.csm import CausalNetwork
from boldly.models.network import NetworkConfig
from boldly.provenance import Contract
from boldly.samples.corpus import Corpus

T_R = 2.0
MEMORY_S = np.array([1.0, 4.0, 10.0])


def corpus() -> Corpus:
    """Return one long run of three first-order processes."""
    rng = np.random.default_rng(7)
    decay = np.exp(-T_R / MEMORY_S)
    frames = np.zeros((20_000, 3))
    for t in range(1, len(frames)):
        frames[t] = decay * frames[t - 1] + np.sqrt(1 - decay**2) * rng.standard_normal(3)
    contract = Contract("atlas", "", 3, "MNI", {}, None, None, None, True, "zscore")
    nothing = np.zeros((1, 3), bool)
    starts, t_r, labels = np.array([0, len(frames)]), np.array([T_R]), np.array([-1])
    return Corpus(
        frames.astype(np.float16), starts, t_r, nothing, labels, (), ("k",), ("d",), ("s",), ("r",), contract
    )


def test_memory_of_first_order_processes() -> None:
    # 20,000 frames leave an error of about 3 % (10 s: 2,000 independent stretches).
    np.testing.assert_allclose(corpus().memory_s(), MEMORY_S, rtol=0.1)


def test_prediction_starts_as_the_first_order_process() -> None:
    network = build_network(NetworkConfig("csm", n_parcels=3, width=8, layers=1, heads=2), seed=1)
    assert isinstance(network, CausalNetwork)
    network.eval().start_dynamics(MEMORY_S)
    torch.nn.init.zeros_(network.unembedder.weight)  # type: ignore[union-attr]
    inputs = torch.randn(1, 5, 3)
    predicted = network.predict_next(
        inputs, torch.arange(5.0)[None] * T_R, torch.tensor([T_R]), torch.zeros(1, 3, dtype=torch.bool)
    )
    expected = inputs * torch.as_tensor(np.exp(-T_R / MEMORY_S), dtype=torch.float32)
    assert predicted.detach().numpy() == pytest.approx(expected.numpy(), abs=1e-5)
