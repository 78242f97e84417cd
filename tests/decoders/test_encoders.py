"""Trials to hidden states."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from boldly.decoders.encoders import States, network_states, signal_states
from boldly.models.build import build_network
from boldly.models.network import NetworkConfig
from tests.training import synthetic

LENGTHS = [9, 3, 50, 1, 14, 2]
T_R = [2.0, 0.72, 1.5, 3.0, 2.0, 0.8]


def trials():
    # One frame cannot be standardised.
    corpus = synthetic.corpus([max(length, 2) for length in LENGTHS], t_r=T_R, labels=[0] * 6, n_labels=1)
    frames = [np.nan_to_num(corpus.frames[a : a + n]) for a, n in zip(corpus.starts, LENGTHS, strict=False)]
    lengths = np.array(LENGTHS)
    starts = np.cumsum(lengths) - lengths
    return dataclasses.replace(corpus, frames=np.concatenate(frames), starts=starts, lengths=lengths)


def test_signals_are_states_of_one_layer() -> None:
    corpus = trials()
    states = signal_states(corpus, 100)
    assert states.n_layers == 1
    assert len(states) == 6
    np.testing.assert_array_equal(states.values[:, 0], corpus.frames)
    np.testing.assert_array_equal(states.starts[:-1], corpus.starts)
    np.testing.assert_array_equal(states.t_r, T_R)


def test_long_trials_are_cut_behind_the_longest_length() -> None:
    corpus = trials()
    states = signal_states(corpus, 10)
    np.testing.assert_array_equal(states.lengths, [9, 3, 10, 1, 10, 2])
    for trial, start in enumerate(corpus.starts):
        own = states.values[states.starts[trial] : states.starts[trial + 1], 0]
        np.testing.assert_array_equal(own, corpus.frames[start : start + states.lengths[trial]])


def test_selected_trials_keep_their_frames_and_repetition_times() -> None:
    values = np.arange(10, dtype=np.float32)[:, None, None]
    states = States(values, np.array([0, 3, 4, 8, 10]), np.array([1.0, 2.0, 3.0, 4.0]))
    chosen = states.select(np.array([True, False, True, False]))
    assert chosen.values.ravel().tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert chosen.starts.tolist() == [0, 3, 7]
    assert chosen.lengths.tolist() == [3, 4]
    assert chosen.t_r.tolist() == [1, 3]
    assert len(states.select(np.zeros(4, bool))) == 0


@pytest.mark.parametrize("variant", ["boldly", "lfb"])
@pytest.mark.parametrize("framework", ["csm", "sequence_bert", "network_bert", "autoencoding"])
def test_a_trial_has_the_same_states_in_any_company(framework: str, variant: str) -> None:
    sizes = NetworkConfig(framework, 16, 16, layers=2, heads=2, dropout=0.5, variant=variant)  # type: ignore[arg-type]
    network = build_network(sizes, seed=0)
    corpus = trials()
    states = network_states(network, corpus, 20)
    assert states.values.shape == (9 + 3 + 20 + 1 + 14 + 2, 3, 16)
    for trial in range(6):
        alone = network_states(network, corpus.select([trial]), 20)
        own = states.values[states.starts[trial] : states.starts[trial + 1]]
        # Products of other shapes: the last digits of single precision.
        np.testing.assert_allclose(own, alone.values, atol=1e-5)
    assert not np.allclose(states.values[:, 1], states.values[:, 2])


def test_more_trials_than_a_batch_holds_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network(NetworkConfig("csm", 16, 16, layers=1, heads=2), seed=0)
    corpus = trials()
    whole = network_states(network, corpus, 20)
    monkeypatch.setattr("boldly.samples.windows.TRIALS_PER_BATCH", 4)
    np.testing.assert_allclose(network_states(network, corpus, 20).values, whole.values, atol=1e-5)


def test_nothing_to_encode_is_an_error() -> None:
    network = build_network(NetworkConfig("csm", 16, 16, layers=1, heads=2), seed=0)
    with pytest.raises(ValueError, match="no trials"):
        network_states(network, trials().select([]), 20)
