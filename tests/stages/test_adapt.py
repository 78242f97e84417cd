import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from boldly.config import AdaptOptions, PretrainOptions
from boldly.files import read_json, write_json
from boldly.models.build import CONTRACT, load_config, load_contract, load_weights
from boldly.records import InputError
from boldly.samples.corpus import load_corpus
from boldly.stages import adapt, pretrain
from boldly.stages.adapt import networks
from boldly.training.decoding import predict
from tests.training import synthetic


def options(**changes):
    values = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "evaluate_every": 3}
    return AdaptOptions.model_validate(values | changes)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return synthetic.downstream_study(tmp_path_factory.mktemp("downstream"), sizes=(1, 2))


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    data = synthetic.upstream_study(folder / "data", n_subjects=3)
    for framework in ("autoencoding", "csm", "sequence_bert", "network_bert"):
        chosen = PretrainOptions(
            framework=framework,
            layers=1,
            width=16,
            heads=2,
            steps=2,
            batch_size=4,
            validation_windows=8,
            window_frames=(6, 12),
            keep_untrained=True,
        )
        pretrain.run(name=framework, options=chosen, data=data, output=folder / framework)
    return folder


def model(folder, name="csm", seed=1234):
    return adapt.UpstreamModel(name, seed, folder)


def run(study, output, chosen, *models):
    split, shards = study
    adapt.run(
        name="toy",
        options=chosen,
        dataset="task",
        split=split,
        shards=shards,
        models=list(models),
        output=output,
    )


@pytest.mark.parametrize("framework", ["autoencoding", "csm", "sequence_bert", "network_bert"])
@pytest.mark.parametrize("start", ["pretrained", "scratch"])
def test_networks_adapt(study, upstream, tmp_path, framework, start):
    chosen = options(**{start: framework}, method="network")
    run(study, tmp_path, chosen, model(upstream / framework, framework))
    folder = tmp_path / "n-2_draw-0_seed-1234"
    assert load_config(folder).labels == ("state0", "state1", "state2", "state3")
    assert load_contract(folder) == synthetic.contract(16)
    evaluation = pd.read_csv(folder / "eval_history.csv")
    assert list(evaluation.columns) == ["step", "loss", "accuracy"]
    assert evaluation["step"].tolist() == [3, 6]


def test_pretrained_starts_from_the_upstream_weights_and_scratch_does_not(study, upstream, tmp_path):
    """With frozen parts the weights at the start are those at the end."""
    source = load_weights(upstream / "csm")["embedder.projection.weight"]
    for start in ("pretrained", "scratch"):
        chosen = options(**{start: "csm"}, freeze=["embedder"], method="network")
        run(study, tmp_path / start, chosen, model(upstream / "csm"))
        weights = load_weights(tmp_path / start / "n-2_draw-0_seed-1234")
        assert weights["embedder.projection.weight"].equal(source) == (start == "pretrained")


@pytest.mark.parametrize("baseline", ["linear", "mean_mlp"])
def test_baselines_learn_what_is_easy(study, tmp_path, baseline):
    run(study, tmp_path, options(baseline=baseline, steps=150, evaluate_every=10, learning_rate=5e-3))
    manifest = read_json(tmp_path / adapt.MANIFEST)
    corpus = load_corpus([study[1] / "ds-task_sub-05.tar"])
    accuracy: dict[int, list[float]] = {}
    for fit in manifest["fits"]:
        probabilities = predict(tmp_path / fit["folder"], corpus)
        assert probabilities.shape == (12, 4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        accuracy.setdefault(fit["n"], []).append(np.mean(probabilities.argmax(axis=1) == corpus.labels))
    assert np.mean(accuracy[3]) > 0.5  # chance is 0.25


def test_the_manifest_lists_every_draw_and_seed(study, tmp_path):
    run(study, tmp_path, options(baseline="linear", seeds=[1, 2]))
    manifest = read_json(tmp_path / adapt.MANIFEST)
    assert (manifest["experiment"], manifest["dataset"], manifest["kind"]) == ("toy", "task", "baseline")
    found = [(fit["n"], fit["draw"], fit["seed"]) for fit in manifest["fits"]]
    assert found == [(n, draw, seed) for seed in (1, 2) for n in (2, 3) for draw in (0, 1)]
    assert all((tmp_path / fit["folder"] / "model.safetensors").exists() for fit in manifest["fits"])


def test_predictions_do_not_depend_on_the_company_of_a_trial(study, tmp_path):
    run(study, tmp_path, options(baseline="mean_mlp"))
    corpus = load_corpus([study[1] / "ds-task_sub-05.tar"])
    folder = tmp_path / "n-2_draw-0_seed-1234"
    np.testing.assert_allclose(predict(folder, corpus)[4:5], predict(folder, corpus.select([4])), atol=1e-6)


def test_an_interrupted_job_goes_on_with_the_missing_fits(study, tmp_path, monkeypatch):
    run(study, tmp_path / "whole", options(baseline="mean_mlp"))
    real, calls = networks.fit, []

    def limited(*args, **kwargs):
        calls.append(kwargs["name"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(networks, "fit", limited)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "killed", options(baseline="mean_mlp"))
    assert not (tmp_path / "killed" / adapt.MANIFEST).exists()
    calls.clear()
    calls.extend(["", "", ""])
    run(study, tmp_path / "killed", options(baseline="mean_mlp"))
    assert len(calls) == 3 + 2  # two of four fits were missing
    for fit in read_json(tmp_path / "killed" / adapt.MANIFEST)["fits"]:
        one, other = (tmp_path / name / fit["folder"] / "model.safetensors" for name in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes()


def test_fits_of_another_config_or_model_are_not_reused(study, upstream, tmp_path, monkeypatch):
    chosen = options(pretrained="csm", method="network")
    run(study, tmp_path, chosen, model(upstream / "csm"))
    calls: list[str] = []
    real = networks.fit

    def counted(*args, **kwargs):
        calls.append(kwargs["name"])
        return real(*args, **kwargs)

    monkeypatch.setattr(networks, "fit", counted)
    run(study, tmp_path, chosen, model(upstream / "csm"))
    assert calls == []
    changed = options(pretrained="csm", method="network", learning_rate=2e-3)
    run(study, tmp_path, changed, model(upstream / "csm"))
    assert len(calls) == 4


def test_what_an_earlier_config_was_pretrained_on_is_forgotten(study, upstream, tmp_path, monkeypatch):
    def kept():
        return sorted(path.name for path in tmp_path.glob("encoders/*"))

    chosen = {"method": "network", "steps": 2, "batch_size": 4, "evaluate_every": 1}
    csm, autoencoding = model(upstream / "csm"), model(upstream / "autoencoding", "autoencoding")
    run(study, tmp_path, options(pretrained="csm", **chosen), csm)
    assert kept() == ["csm_seed-1234"]
    # evaluate takes whatever stands there for what the decoders know.
    run(study, tmp_path, options(pretrained="autoencoding", **chosen), autoencoding)
    assert kept() == ["autoencoding_seed-1234"]
    # A job that goes on, here with nothing left to train, keeps it.
    monkeypatch.setattr(networks, "fit", None)
    run(study, tmp_path, options(pretrained="autoencoding", **chosen), autoencoding)
    assert kept() == ["autoencoding_seed-1234"]
    monkeypatch.undo()
    run(study, tmp_path, options(scratch="csm", **chosen), csm)
    assert kept() == []


def test_test_subjects_are_not_even_read(study, tmp_path):
    split, shards = study
    for shard in shards.iterdir():
        (tmp_path / "shards").mkdir(exist_ok=True)
        (tmp_path / "shards" / shard.name).write_bytes(
            b"not a tar" if "sub-05" in shard.name else shard.read_bytes()
        )
    run((split, tmp_path / "shards"), tmp_path / "out", options(baseline="linear"))


def test_a_model_of_another_contract_is_refused(study, upstream, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (upstream / "csm").glob("*.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    other = dataclasses.replace(synthetic.contract(16), smoothing_fwhm_mm=3.0, atlas="another")
    (folder / CONTRACT).write_text(other.to_json())
    for start in ("pretrained", "untrained", "scratch"):
        with pytest.raises(InputError, match=r"atlas: 'another' != 'toy'.*smoothing_fwhm_mm"):
            run(study, tmp_path / "out", options(**{start: "csm"}), model(folder))
    assert not (tmp_path / "out").exists()


def test_decoding_with_another_contract_is_refused(study, tmp_path):
    run(study, tmp_path, options(baseline="linear"))
    corpus = load_corpus([study[1] / "ds-task_sub-05.tar"])
    other = dataclasses.replace(corpus, contract=dataclasses.replace(corpus.contract, detrend=False))
    folder = tmp_path / "n-2_draw-0_seed-1234"
    with pytest.raises(InputError, match="detrend: True != False"):
        predict(folder, other)
    assert predict(folder, other, allow_mismatch=["detrend"]).shape == (12, 4)


def test_a_pretrained_network_does_not_decode(study, upstream):
    corpus = load_corpus([study[1] / "ds-task_sub-05.tar"])
    with pytest.raises(InputError, match="not a decoder"):
        predict(upstream / "csm", corpus)


def test_a_split_by_run_divides_the_runs_of_a_subject(study, tmp_path):
    split, shards = study
    run_key = "ds-task_sub-00_task-t_run-{}".format
    draw = {"n": 1, "draw": 0, "train": [run_key(1)], "validation": [], "test": [run_key(2)]}
    content = {**json.loads(split.read_text()), "by": "run", "draws": [draw]}
    write_json(tmp_path / "split.json", content)
    run((tmp_path / "split.json", shards), tmp_path / "out", options(baseline="linear"))
    (fit,) = read_json(tmp_path / "out" / adapt.MANIFEST)["fits"]
    assert fit["step"] == 6  # no validation units: the last step
    assert (tmp_path / "out" / fit["folder"] / "eval_history.csv").read_text() == "step,loss\n"
