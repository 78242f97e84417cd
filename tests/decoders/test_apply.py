"""Applying the decoders of an experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldly.config import AdaptOptions
from boldly.decoders.apply import predict_fits
from boldly.decoders.encoders import network_states
from boldly.decoders.probe import FeatureCache, Probe
from boldly.files import read_json
from boldly.models.basis import load_basis
from boldly.models.build import load_encoder
from boldly.records import InputError
from boldly.samples.corpus import Corpus, load_corpus
from boldly.stages import adapt
from tests.training import synthetic

Study = tuple[Path, Path]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return synthetic.downstream_study(tmp_path_factory.mktemp("downstream"), sizes=(1, 2))


@pytest.fixture(scope="module")
def corpus(study: Study) -> Corpus:
    return load_corpus([study[1] / "ds-task_sub-05.tar"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[adapt.UpstreamModel]:
    names = ("csm", "autoencoding", "components")
    folders = synthetic.pretrained_models(tmp_path_factory.mktemp("model"), [(name, 1234) for name in names])
    return [adapt.UpstreamModel(name, 1234, folder) for name, folder in zip(names, folders, strict=True)]


def fitted(
    study: Study,
    output: Path,
    models: list[adapt.UpstreamModel],
    folders: Sequence[Path] = (),
    **options: Any,
) -> list[str]:
    """Adapt, and return the folders of the fits."""
    split, shards = study
    chosen = AdaptOptions.model_validate({"window_frames": 10, **options})
    adapt.run(
        name="toy",
        options=chosen,
        dataset="task",
        split=split,
        shards=shards,
        models=models,
        output=output,
        members=folders,
    )
    return [fit["folder"] for fit in read_json(output / adapt.MANIFEST)["fits"]]


@pytest.fixture(scope="module")
def pair(study: Study, models: list[adapt.UpstreamModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Probes of two networks."""
    folder = tmp_path_factory.mktemp("pair")
    for model in models[:2]:
        fitted(study, folder / model.name, [model], pretrained=model.name)
    members = [folder / model.name for model in models[:2]]
    fitted(study, folder / "pair", [], members, members=[path.name for path in members])
    return folder / "pair"


def names(folder: Path) -> list[str]:
    return [fit["folder"] for fit in read_json(folder / adapt.MANIFEST)["fits"]]


def test_all_decoders_predict_what_their_members_say(pair: Path, corpus: Corpus) -> None:
    found = dict(predict_fits(pair, names(pair), corpus))
    assert sorted(found) == sorted(names(pair))
    states = {}
    for name in ("csm_seed-1234", "autoencoding_seed-1234"):
        encoder = pair / "encoders" / name
        basis = load_basis(encoder)
        assert basis is not None
        states[name] = FeatureCache(network_states(load_encoder(encoder), corpus, 10), basis)
    for name, probabilities in found.items():
        members = Probe.load(pair / name).members
        assert {member.encoder for member in members} == set(states)
        said = [
            member.weight
            * member.probabilities(states[member.encoder](np.ones(12, bool), member.read_outs, member.layers))
            for member in members
        ]
        np.testing.assert_allclose(probabilities, np.sum(said, axis=0), atol=1e-6)
        assert probabilities.dtype == np.float32


@pytest.mark.parametrize(
    "options",
    [
        {"pretrained": "csm"},
        {"untrained": "csm"},
        {"baseline": "components"},
        {"baseline": "connectivity"},
        {"baseline": "mean_lda"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_predictions_do_not_depend_on_the_company_of_a_trial(
    study: Study,
    models: list[adapt.UpstreamModel],
    corpus: Corpus,
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    used = models[:1] if "baseline" not in options else models[2:]
    own = [] if options.get("baseline") in ("connectivity", "mean_lda") else used
    fits = fitted(study, tmp_path, own, **options)
    whole = dict(predict_fits(tmp_path, fits, corpus))
    for trial in (3, 11):
        alone = dict(predict_fits(tmp_path, fits, corpus.select([trial])))
        for name in fits:
            np.testing.assert_allclose(alone[name][0], whole[name][trial], atol=1e-4)


@pytest.mark.parametrize("options", [{"baseline": "mean_lda"}, {"baseline": "mean_mlp", "steps": 2}])
def test_trials_whose_numbers_mean_other_states_are_refused(
    study: Study, corpus: Corpus, tmp_path: Path, options: dict[str, Any]
) -> None:
    fits = fitted(study, tmp_path, [], **options)
    names = corpus.label_names
    other = dataclasses.replace(corpus, label_names=(names[1], names[0], *names[2:]))
    with pytest.raises(InputError, match=f"state 0 is '{names[0]}' for it and '{names[1]}' in the trials"):
        list(predict_fits(tmp_path, fits, other))
    # A state that no trial has may be without a name.
    unnamed = dataclasses.replace(corpus, label_names=("0", *names[1:]))
    assert len(list(predict_fits(tmp_path, fits, unnamed))) == len(fits)


def test_components_that_were_fitted_to_training_trials_are_used_as_they_are(
    study: Study, corpus: Corpus, tmp_path: Path
) -> None:
    # Without upstream runs.
    fits = fitted(study, tmp_path, [], baseline="components")
    assert all(Probe.load(tmp_path / name).members[0].basis is not None for name in fits)
    (one,) = predict_fits(tmp_path, fits[:1], corpus.select([4]))
    (all_,) = predict_fits(tmp_path, fits[:1], corpus)
    np.testing.assert_allclose(one[1][0], all_[1][4], atol=1e-4)


def test_networks_and_probes_of_one_experiment_are_told_apart(
    study: Study, models: list[adapt.UpstreamModel], corpus: Corpus, tmp_path: Path
) -> None:
    """An experiment that changes its method leaves nothing that would be scored in its place."""
    trained: dict[str, Any] = {"steps": 2, "batch_size": 4, "evaluate_every": 2, "method": "network"}
    fits = fitted(study, tmp_path, models[:1], pretrained="csm")
    probes = dict(predict_fits(tmp_path, fits, corpus))
    fitted(study, tmp_path, models[:1], pretrained="csm", **trained)
    networks = dict(predict_fits(tmp_path, fits, corpus))
    fitted(study, tmp_path, models[:1], pretrained="csm")
    again = dict(predict_fits(tmp_path, fits, corpus))
    for name in fits:
        assert not np.allclose(probes[name], networks[name], atol=1e-3)
        np.testing.assert_array_equal(probes[name], again[name])


def test_trials_of_another_contract_are_refused(pair: Path, corpus: Corpus) -> None:
    other = dataclasses.replace(corpus, contract=dataclasses.replace(corpus.contract, detrend=False))
    with pytest.raises(InputError, match="detrend: True != False"):
        list(predict_fits(pair, names(pair), other))
    assert len(list(predict_fits(pair, names(pair), other, allow_mismatch=["detrend"]))) == 4


def test_missing_decoders_and_encoders_are_input_errors(
    study: Study, models: list[adapt.UpstreamModel], corpus: Corpus, tmp_path: Path
) -> None:
    fits = fitted(study, tmp_path, models[:1], pretrained="csm")
    with pytest.raises(InputError, match="n-9_draw-0_seed-1234"):
        list(predict_fits(tmp_path, ["n-9_draw-0_seed-1234"], corpus))
    encoder = tmp_path / "encoders" / "csm_seed-1234"
    # Without its components, those of the trials that are tested must not take their place.
    for name in ("basis.safetensors", "model.safetensors"):
        (encoder / name).unlink()
        with pytest.raises(InputError, match=name):
            list(predict_fits(tmp_path, fits, corpus))
