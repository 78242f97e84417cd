"""What is fitted to unlabelled runs without gradients."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boldly.models.build import build_network, build_objective
from boldly.models.network import NetworkConfig
from boldly.records import InputError
from boldly.samples.corpus import load_corpus
from boldly.samples.shards import read_shard, write_shard
from boldly.samples.windows import WindowOptions, Windows
from boldly.training.components import (
    coming_components,
    hidden_basis,
    leading_components,
    signal_basis,
    unexplained,
)
from tests.training import synthetic


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    data = synthetic.upstream_study(tmp_path_factory.mktemp("upstream"), n_subjects=3)
    return [path for _, folder in data for path in sorted(folder.iterdir())]


def test_shards_one_by_one_give_the_components_of_all_frames(shards: list[Path]) -> None:
    basis, covariance, contract = signal_basis(shards)
    frames = load_corpus(shards).frames.astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(frames.T, bias=True))
    np.testing.assert_allclose(basis.variance[0], values[::-1], rtol=1e-4, atol=1e-6)
    # Two oscillations stand out; below them directions of equal variance are arbitrary.
    overlap = np.abs(np.diag(vectors[:, ::-1][:, :2].T @ basis.components[0][:, :2]))
    np.testing.assert_allclose(overlap, 1, atol=1e-3)
    np.testing.assert_allclose(covariance, frames.T @ frames / len(frames), rtol=1e-6)
    assert contract == synthetic.contract(16)


def test_an_embedding_starts_from_the_components_of_all_frames(shards: list[Path]) -> None:
    corpus = load_corpus(shards)
    leading = leading_components(corpus)
    assert leading.shape == (16, 4)
    np.testing.assert_allclose(leading[:, :2], signal_basis(shards)[0].components[0][:, :2], atol=1e-3)
    network: Any = build_network(NetworkConfig("network_bert", 16, width=8, layers=1, heads=2), seed=0)
    network.start_embedding(leading)
    inputs = torch.from_numpy(corpus.frames[:20].astype(np.float32))[None]
    seconds, t_r, marked = torch.zeros(1, 20), torch.ones(1), torch.zeros(1, 16, dtype=torch.bool)
    change = network.embedder.eval()(inputs, seconds, t_r, marked)[0].diff(dim=0)
    # Time is the same in all frames: what changes from frame to frame are the components, and nothing else.
    expected = inputs[0].diff(dim=0) @ torch.from_numpy(leading)
    torch.testing.assert_close(change[:, :4], expected, atol=1e-4, rtol=1e-4)
    assert change[:, 4:].abs().max() < 1e-6


def test_sequence_bert_learns_from_noise_where_its_embedding_starts_at_components() -> None:
    """From random weights it ended at the error of predicting zeros, on the demo after all of its steps."""
    clean = synthetic.corpus([200] * 12, n_parcels=48)
    # 9 % of the variance is signal: about as much as in single frames of the demo.
    noise = np.random.default_rng(0).standard_normal(clean.frames.shape)
    frames = (0.3 * clean.frames + np.sqrt(1 - 0.3**2) * noise).astype(np.float32)
    corpus = dataclasses.replace(clean, frames=frames)
    source = Windows(corpus, WindowOptions(20, 30, 16, masking="frames"), seed=1, count=10_000)
    held_out = source.__getitems__(range(9000, 9128))
    sizes = NetworkConfig("sequence_bert", 48, width=16, layers=2, heads=4, dropout=0.0, pairs=False)
    skill = {}
    for start in ("random", "components"):
        network: Any = build_network(sizes, seed=0)
        objective = build_objective(network)
        if start == "components":
            network.start_embedding(leading_components(corpus))
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for step in range(120):
            optimiser.zero_grad()
            objective(**source.__getitems__(range(16 * step, 16 * step + 16)))["loss"].backward()
            optimiser.step()
        with torch.no_grad():
            error, zero = objective(**held_out)["l1"].mean(), objective.naive(**held_out)["l1_zero"].mean()
        skill[start] = 1 - float(error / zero)
    # Measured: 0.0005 and 0.0101.
    assert skill["random"] < 0.003
    assert skill["components"] > 0.005


def test_the_share_that_components_leave_falls_from_one_to_zero(shards: list[Path]) -> None:
    basis, covariance, _ = signal_basis(shards)
    left = [unexplained(covariance, basis.components[0][:, :number]) for number in range(17)]
    assert left[0] == 1
    assert left[16] == pytest.approx(0, abs=1e-6)
    assert (np.diff(left) < 0).all()
    # The signals have zero mean: what is left is the share of the other components' variance.
    assert left[3] == pytest.approx(basis.variance[0, 3:].sum() / basis.variance[0].sum(), abs=1e-3)


def test_shards_of_another_contract_are_refused(shards: list[Path], tmp_path: Path) -> None:
    other = tmp_path / shards[1].name
    samples = read_shard(shards[1])
    write_shard(
        other, [dataclasses.replace(s, contract=dataclasses.replace(s.contract, space="else")) for s in samples]
    )
    with pytest.raises(InputError, match="space: 'toy' != 'else'"):
        signal_basis([shards[0], other])
    with pytest.raises(InputError, match="space"):
        signal_basis([other], like=synthetic.contract(16))


def test_no_shards_are_an_input_error() -> None:
    with pytest.raises(InputError, match="nothing to fit components to"):
        signal_basis([])


class _Echo(nn.Module):
    """The signals, and twice the signals, as two layers."""

    def encode(self, inputs: Tensor, **_: Tensor) -> list[Tensor]:
        return [inputs, 2 * inputs]


def test_the_components_of_an_encoder_are_those_of_its_states() -> None:
    # Of one dominant direction, which windows of any kind have.
    corpus = synthetic.corpus([60, 80, 45])
    direction = np.ones(16) / 4
    frames = (corpus.frames + 5 * np.random.default_rng(0).standard_normal((185, 1)) * direction).astype(
        np.float16
    )
    basis = hidden_basis(_Echo(), dataclasses.replace(corpus, frames=frames), (10, 20))
    assert basis.components.shape == (2, 16, 16)
    for layer in range(2):
        assert abs(basis.components[layer, :, 0] @ direction) > 0.98
    np.testing.assert_allclose(basis.variance[1], 4 * basis.variance[0], rtol=1e-3)


def test_padding_of_short_runs_is_no_state() -> None:
    corpus = synthetic.corpus([12, 60])
    shifted = dataclasses.replace(corpus, frames=(corpus.frames + 10).astype(np.float16))
    basis = hidden_basis(_Echo(), shifted, (10, 40))
    # Frames of padding are zero: they would pull the mean down and add a direction of great variance.
    assert basis.mean[0].min() > 9
    assert basis.variance[0, 0] < 16


@pytest.mark.parametrize("framework", ["csm", "sequence_bert", "network_bert", "autoencoding"])
def test_a_network_stays_as_it_was_and_gives_the_same_components_again(framework: str) -> None:
    sizes = NetworkConfig(framework, 16, 16, layers=2, heads=2, dropout=0.5)  # type: ignore[arg-type]
    network = build_network(sizes, seed=0).train()
    corpus = synthetic.corpus([60, 40])
    one, other = (hidden_basis(network, corpus, (6, 12)) for _ in range(2))
    assert network.training
    assert one.components.shape == (3, 16, 16)
    assert np.isfinite(one.components).all()
    np.testing.assert_array_equal(one.components, other.components)
    assert not any(torch.is_inference(parameter) for parameter in network.parameters())


def test_leading_components_look_at_the_chosen_runs_alone() -> None:
    whole = synthetic.corpus([60, 80, 70], n_parcels=12)
    chosen = whole.select([0, 2])
    # The frames of all stay: those that were not chosen are other people's.
    frames = whole.frames.copy()
    frames[60:140] = 100.0
    changed = dataclasses.replace(chosen, frames=frames)
    np.testing.assert_array_equal(leading_components(changed), leading_components(chosen))


def test_components_of_coming_frames_have_variance_one_and_keep_repetition_times_apart() -> None:
    corpus = synthetic.corpus([400, 300, 4], t_r=[2.0, 1.0, 2.0])
    found = coming_components(corpus, [2.0, 4.0, 8.0], 6)
    assert found.shape == (3, 16, 6)
    said = []
    for run, frames_ahead in ((0, (1, 2, 4)), (1, (2, 4, 8))):
        signals = corpus.signals(run).astype(np.float32)
        count = len(signals) - frames_ahead[-1]
        parts = [signals[by : by + count] @ found[place] for place, by in enumerate(frames_ahead)]
        said.append(np.sum(parts, axis=0))
    together = np.concatenate(said)
    np.testing.assert_allclose(together.T @ together / len(together), np.eye(6), atol=1e-3)


def test_where_coming_frames_are_one_frame_no_component_is_made_of_rounding() -> None:
    corpus = synthetic.corpus([200], t_r=[8.0])
    found = coming_components(corpus, [1.0, 2.0], 8)
    # A quarter of 16 parcels, said once.
    assert (np.abs(found).sum(axis=(0, 1)) > 0).sum() == 4
    assert np.abs(found).max() < 100


def test_without_a_run_that_is_long_enough_nothing_is_to_be_said() -> None:
    assert not coming_components(synthetic.corpus([12, 14], t_r=2.0), [4.0, 100.0], 5).any()
