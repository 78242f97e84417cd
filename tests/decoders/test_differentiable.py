"""Decoders as differentiable functions say what decoders of arrays say, and their gradients are right."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from boldly.config import ReadOut
from boldly.decoders.apply import predict_fits
from boldly.decoders.differentiable import DifferentiableDecoder, TrialBatch, load_differentiable
from boldly.decoders.torch_readouts import READ_OUTS, Timing
from boldly.records import InputError
from boldly.samples.corpus import Corpus
from boldly.stages import adapt
from tests.decoders.test_apply import Study, corpus, fitted, models, names, pair, study

__all__ = ["corpus", "models", "pair", "study"]  # fixtures

TRAINED = {"steps": 2, "batch_size": 4, "evaluate_every": 2, "learning_rate": 0.05}
CASES = [
    *({"pretrained": "csm", "read_outs": [word]} for word in get_args(ReadOut)),
    {"pretrained": "csm", "read_outs": ["slices+covariance+tangent"], "classifiers": ["mlp"], "penalties": [0.1]},
    {"pretrained": "autoencoding"},
    {"pretrained": "components"},
    {"untrained": "csm"},
    {"baseline": "components"},
    {"baseline": "mean_lda"},
    {"baseline": "mean_logistic"},
    {"baseline": "connectivity"},
    {"baseline": "tangent"},
    {"baseline": "linear", **TRAINED},
    {"baseline": "mean_mlp", **TRAINED},
    {"pretrained": "csm", "method": "network", **TRAINED},
    {"pretrained": "csm", "method": "finetune", **TRAINED},
]


def words(options: dict[str, Any]) -> str:
    kept = (value for name, value in options.items() if name not in {*TRAINED, "penalties"})
    return "-".join("+".join(value) if isinstance(value, list) else value for value in kept)


def scrubbed(whole: Corpus) -> Corpus:
    """The trials, every other one of which lacks two frames in its middle, which scrubbing took."""
    starts, lengths = whole.starts, whole.lengths.copy()
    numbers = np.zeros(len(whole.frames), np.int32)
    for trial, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        own = np.arange(length) + (np.arange(length) >= length // 2) * 2 * (trial % 2)
        numbers[start : start + length] = own
    return dataclasses.replace(whole, numbers=numbers)


def said(decoder: DifferentiableDecoder, trials: Corpus) -> np.ndarray:
    batch = TrialBatch.cut(trials, decoder.longest)
    with torch.no_grad():
        return decoder(batch.inputs, torch.arange(len(batch)), batch).exp().numpy()


@pytest.mark.parametrize("options", CASES, ids=words)
def test_the_same_probabilities_as_those_of_arrays(
    study: Study, models: list[adapt.UpstreamModel], corpus: Corpus, tmp_path: Path, options: dict[str, Any]
) -> None:
    start = options.get("pretrained") or options.get("untrained") or "components"
    needs = options.get("baseline") in (None, "components", "tangent")
    fits = fitted(study, tmp_path, [m for m in models if m.name == start] if needs else [], **options)
    for trials in (corpus, scrubbed(corpus)):
        for name, expected in predict_fits(tmp_path, fits, trials):
            decoder = load_differentiable(tmp_path, name, trials)
            # Single precision of the networks, whose batches are padded in another way.
            np.testing.assert_allclose(said(decoder, trials), expected, atol=1e-5)


def test_an_ensemble_is_the_mixture_of_its_members(pair: Path, corpus: Corpus) -> None:
    for name, expected in predict_fits(pair, names(pair), corpus):
        np.testing.assert_allclose(said(load_differentiable(pair, name, corpus), corpus), expected, atol=1e-5)


@pytest.mark.parametrize("word", get_args(ReadOut))
def test_gradients_are_those_of_finite_differences(word: ReadOut) -> None:
    rng = np.random.default_rng(0)
    timing = Timing.of(np.array([12, 9]), np.array([2.0, 0.8]), None)
    # Components of falling variance, as those of states are; two share theirs, where eigenvectors are not unique.
    scale = torch.tensor([2.0, 1.0, 1.0, 0.5])
    signals = torch.from_numpy(rng.standard_normal((2, 12, 4))) * scale * timing.valid[..., None]
    variance = scale.double() ** 2
    assert torch.autograd.gradcheck(
        lambda values: READ_OUTS[word](values * timing.valid[..., None], timing, variance),
        signals.double().requires_grad_(),
    )


def test_the_logarithm_of_equal_eigenvalues_has_a_gradient() -> None:
    timing = Timing.of(np.array([8]), np.array([2.0]), None)
    # A trial that does not vary gets the covariance that is expected: here a sphere.
    still = torch.zeros(1, 8, 3, dtype=torch.float64, requires_grad=True)
    features = READ_OUTS["tangent"](still, timing, torch.ones(3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(features.sum(), still)
    assert gradient.isfinite().all()


def test_what_is_linear_is_known(
    study: Study, models: list[adapt.UpstreamModel], corpus: Corpus, tmp_path: Path
) -> None:
    found = {}
    choices: list[dict[str, Any]] = [{"baseline": "mean_lda"}, {"baseline": "connectivity"}, {"pretrained": "csm"}]
    for options in choices:
        folder = tmp_path / "-".join(options.values())
        (name, *_) = fitted(study, folder, models[:1] if "pretrained" in options else [], **options)
        decoder = load_differentiable(folder, name, corpus)
        found[next(iter(options.values()))] = (decoder.is_linear, decoder.is_scale_free)
    assert found["mean_lda"] == (True, False)
    assert found["connectivity"] == (False, True)
    assert not found["csm"][0]


def test_contracts_are_compared(pair: Path, corpus: Corpus) -> None:
    other = dataclasses.replace(corpus, contract=dataclasses.replace(corpus.contract, detrend=False))
    with pytest.raises(InputError, match="detrend"):
        load_differentiable(pair, names(pair)[0], other)
