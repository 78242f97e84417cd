"""Linear fits as a file beside a corpus."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from boldly.config import PretrainOptions
from boldly.models.build import build_network, build_objective, pretraining_config, window_options
from boldly.records import InputError
from boldly.samples.corpus import Corpus
from boldly.samples.windows import Windows
from boldly.training import linear
from boldly.training.linear import Forecasts, fit_forecasts, fit_linear, read_linear, write_linear
from boldly.training.validation import Processes, UpstreamValidation
from tests.training import synthetic


def corpora() -> tuple[Corpus, Corpus]:
    training = synthetic.corpus([60, 50, 70, 55], datasets=["a", "a", "b", "b"], t_r=[2.0, 2.0, 0.8, 2.0])
    return training, synthetic.corpus([60, 40], datasets=["a", "b"], t_r=[2.0, 0.8], seed=3)


def same(one: Forecasts, other: Forecasts) -> bool:
    return one.keys() == other.keys() and all(
        one[group].keys() == other[group].keys()
        and all(np.array_equal(a, other[group][name]) for name, a in one[group].items())  # type: ignore[arg-type]
        for group in one
    )


def test_fits_come_back_bit_for_bit(tmp_path: Path) -> None:
    training, validation = corpora()
    fits = fit_linear(training, validation)
    # Those that train and those that validate.
    assert list(fits) == [("a", 2.0), ("b", 0.8), ("b", 2.0)]
    write_linear(tmp_path / "linear.safetensors", fits, "made of")
    assert same(read_linear(tmp_path / "linear.safetensors", "made of"), fits)
    # The same fits give the same bytes.
    write_linear(tmp_path / "again.safetensors", fit_linear(training, validation), "made of")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "linear.safetensors").read_bytes()


def test_without_validation_the_groups_are_those_of_the_training() -> None:
    training, validation = corpora()
    assert same(fit_linear(training, None), fit_linear(training, validation))


def test_what_datasets_have_in_common_helps_those_with_few_frames_and_harms_none() -> None:
    """Two datasets follow one law at two repetition times, a third one, with few frames too, another."""
    rng, n_parcels = np.random.default_rng(3), 12
    law = np.eye(n_parcels) * 0.5 + 0.45 * np.roll(np.eye(n_parcels), 1, axis=1)

    def runs(length: int, coupling: np.ndarray) -> np.ndarray:
        frames = rng.standard_normal((length, n_parcels))
        for place in range(1, length):
            frames[place] = frames[place - 1] @ coupling + frames[place]
        return frames / frames.std(axis=0)

    laws = {("long", 1.0): law, ("short", 2.0): np.exp(-1 / 8) * law, ("strange", 1.0): -0.5 * np.eye(n_parcels)}
    lengths = {"long": 3000, "short": 40, "strange": 40}
    names = [name for name in lengths for _ in range(2)]
    training = synthetic.corpus(
        [lengths[name] for name in names],
        t_r=[t_r for _, t_r in laws for _ in range(2)],
        datasets=names,
        n_parcels=n_parcels,
    )
    frames = np.concatenate([runs(lengths[name], laws[group]) for group in laws for name in [group[0]] * 2])
    fits = fit_forecasts(dataclasses.replace(training, frames=frames.astype(np.float32)), sorted(laws))
    for group, coupling in laws.items():
        held_out = runs(3000, coupling)
        errors = {}
        for name in ("ar1", "var", "coupling"):
            fit = fits[group][name]
            assert fit is not None
            errors[name] = np.abs(held_out[1:] - held_out[:-1] @ (np.diag(fit) if fit.ndim == 1 else fit)).mean()
        assert errors["coupling"] <= 1.01 * min(errors.values())
        if group[0] == "short":
            # 80 frames say next to nothing of 144 numbers; those of the long dataset do.
            assert errors["coupling"] < 0.93 * min(errors["ar1"], errors["var"])


def test_fits_to_other_shards_and_damaged_ones_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "linear.safetensors"
    with pytest.raises(InputError, match="boldly corpus"):
        read_linear(path, "made of")
    write_linear(path, fit_linear(corpora()[0], None), "made of")
    with pytest.raises(InputError, match="other shards"):
        read_linear(path, "made of others")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="boldly corpus"):
        read_linear(path, "made of")


def test_validation_takes_fits_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    training, held_out = corpora()
    options = PretrainOptions(framework="csm", layers=1, width=16, heads=2, window_frames=(6, 12))
    objective = build_objective(build_network(pretraining_config(options, 16), 1)).eval()
    windows = Windows(held_out, window_options(options, 8), 3, 32)
    fits = fit_linear(training, held_out)
    with torch.inference_mode():
        expected = UpstreamValidation(windows, 8, training=training)(objective, Processes())

        def fail(*arguments: object) -> None:
            raise AssertionError("fitted again")

        monkeypatch.setattr("boldly.training.validation.fit_forecasts", fail)
        found = UpstreamValidation(windows, 8, training=training, fitted=fits)
        assert found(objective, Processes()) == expected
    assert fits.keys() >= fit_forecasts(training, [("a", 2.0), ("b", 0.8)]).keys()


def test_the_errors_of_all_penalties_are_those_of_each_solved_alone() -> None:
    training, held_out = corpora()
    here, there = (
        moments_of(corpus.signals(0).astype(np.float64) @ np.diag(np.linspace(0.5, 2, 16)))
        for corpus in (training, held_out)
    )
    penalties = np.array([0.01, 3.0, 500.0])
    for prior in (np.zeros((16, 16)), np.diag(linear.ar1_of(here))):
        expected = []
        for penalty in penalties:
            missing = here.lagged - here.now @ prior
            coupling = prior + np.linalg.solve(here.now + penalty * np.eye(16), missing)
            signals = held_out.signals(0).astype(np.float64) @ np.diag(np.linspace(0.5, 2, 16))
            expected.append(np.square(signals[1:] - signals[:-1] @ coupling).sum())
        np.testing.assert_allclose(linear._held_out_errors(here, there, penalties, prior), expected, rtol=1e-9)


def moments_of(signals: np.ndarray) -> linear.Moments:
    before, after = signals[:-1], signals[1:]
    return linear.Moments(before.T @ before, before.T @ after, float(np.square(after).sum()))
