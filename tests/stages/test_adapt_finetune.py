import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax, softmax

from boldly.bids import shard_name
from boldly.config import AdaptOptions, PretrainOptions
from boldly.decoders.apply import predict_fits
from boldly.decoders.encoders import network_states
from boldly.decoders.probe import Probe
from boldly.decoders.readouts import read_out
from boldly.decoders.selection import folds, left_out_logits
from boldly.files import read_json, write_json
from boldly.models.basis import load_basis
from boldly.models.build import (
    WEIGHTS,
    build_network,
    layers_from_head,
    load_encoder,
    load_weights,
    save_network,
)
from boldly.models.network import NetworkConfig
from boldly.models.objective import Decoding
from boldly.records import InputError
from boldly.samples.corpus import load_corpus
from boldly.samples.shards import write_shard
from boldly.samples.windows import Trials
from boldly.stages import adapt, pretrain
from boldly.stages.adapt import finetuning
from boldly.training.decoding import predict_logits
from boldly.training.loop import adamw, fit
from tests.training import synthetic

N_PARCELS, N_TRIALS = 16, 32
FRAMEWORKS = ("autoencoding", "csm", "sequence_bert", "network_bert")
FIT = "n-{}_draw-0_seed-1".format


def options(**changes):
    values = {"pretrained": "csm", "method": "finetune", "steps": 60, "batch_size": 32, "learning_rate": 1e-2}
    values |= {"evaluate_every": 10, "warmup_fraction": 0.1, "penalties": [1.0, 0.1]}
    return AdaptOptions.model_validate(values | changes)


def write_study(folder, kind, *, train, validation=0, n_test=4):
    """Write a study whose states differ in the way that `kind` says; return its split and shards.

    nonlinear: each of two patterns is there or its opposite is, and the state is whether they agree: no linear
    function of means tells it, and covariances do not know the sign of means. noise: states are random.
    """
    rng = np.random.default_rng(5)
    patterns = np.random.default_rng(97).standard_normal((2, N_PARCELS))
    names = ["agree", "differ"]
    subjects = [f"{number:02d}" for number in range(train + validation + n_test)]
    for subject in subjects:
        samples = []
        for number in range(N_TRIALS):
            first, second = (1 - 2 * (number // power % 2) for power in (1, 2))
            label = int(first != second) if kind == "nonlinear" else int(rng.integers(2))
            series = synthetic.signal(rng, 10, 2.0, N_PARCELS)
            if kind == "nonlinear":
                series += first * patterns[0] + second * patterns[1]
            run_key = f"ds-task_sub-{subject}_task-t_run-{1 + 2 * number // N_TRIALS}"
            meta = {"dataset": "task", "subject": subject, "run_key": run_key, "t_r": 2.0, "entities": {}}
            meta |= {"marked": [], "n_volumes": 10, "number": number, "label": label, "labels": names}
            meta |= {"label_name": names[label], "onset": 0.0, "duration": 20.0}
            samples.append(synthetic.sample(f"{run_key}_sample_{number:03d}", series, meta))
        write_shard(folder / "task" / shard_name("task", subject), samples)
    parts = {
        "train": subjects[:train],
        "validation": subjects[train : train + validation],
        "test": subjects[-n_test:],
    }
    draws = [{"n": train + validation, "draw": 0, **parts}]
    write_json(
        folder / "task.json", {"dataset": "task", "role": "downstream", "by": "subject", "seed": 1, "draws": draws}
    )
    return folder / "task.json", folder / "task"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    data = synthetic.upstream_study(folder / "data", n_subjects=3)
    chosen = PretrainOptions(
        framework="csm",
        layers=1,
        width=16,
        heads=2,
        steps=40,
        batch_size=16,
        validation_windows=8,
        window_frames=(6, 12),
        keep_untrained=True,
    )
    pretrain.run(name="csm", options=chosen, data=data, output=folder / "csm")
    return folder / "csm"


@pytest.fixture(scope="module")
def nonlinear(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("nonlinear"), "nonlinear", train=4)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("noise"), "noise", train=2)


def run(study, upstream, output, chosen):
    split, shards = study
    models = [adapt.UpstreamModel("csm", 1, upstream)]
    adapt.run(name="toy", options=chosen, dataset="task", split=split, shards=shards, models=models, output=output)
    return read_json(output / adapt.MANIFEST)["fits"]


def corpus_of_tests(study):
    split, shards = study
    return load_corpus([shards / shard_name("task", unit) for unit in read_json(split)["draws"][0]["test"]])


def log_loss(study, folder):
    corpus = corpus_of_tests(study)
    (name,) = (fit["folder"] for fit in read_json(folder / adapt.MANIFEST)["fits"])
    ((_, said),) = predict_fits(folder, [name], corpus)
    return -np.log(said[np.arange(len(said)), corpus.labels]).mean()


# A probe that is linear in the signals, to which the states of `nonlinear` all look the same.
LINEAR = {"read_outs": ["slices"], "layers": ["first"]}


@pytest.fixture(scope="module")
def tuned(nonlinear, upstream, tmp_path_factory):
    output = tmp_path_factory.mktemp("tuned")
    return run(nonlinear, upstream, output, options(**LINEAR))[0], output


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_before_the_first_step_the_decoder_is_the_probe(framework):
    config = NetworkConfig(framework, N_PARCELS, 16, 1, 2, labels=("a", "b", "c"))
    network = finetuning.FineTuning(build_network(config, 0), 1.0)
    corpus = synthetic.corpus([9, 8, 7], labels=[0, 1, 2], n_labels=3)
    offsets = np.random.default_rng(0).standard_normal((3, 3))
    batch = Trials(corpus, 50, offsets=offsets).__getitems__(range(3))
    for training in (True, False):
        outputs = network.train(training)(**batch)
        np.testing.assert_array_equal(outputs["logits"].detach().numpy(), offsets.astype(np.float32))
    loss = -log_softmax(offsets, axis=1)[np.arange(3), np.arange(3)].mean()
    assert outputs["loss"].item() == pytest.approx(loss, rel=1e-6)


def test_seeds_that_are_asked_for_are_those_of_trainings_from_one_network(nonlinear, upstream, tmp_path, tuned):
    wanted = options(seeds=[3, 4], steps=10, evaluate_every=5, **LINEAR)
    fits = run(nonlinear, upstream, tmp_path, wanted)
    assert [fit["seed"] for fit in fits] == [3, 4]
    first, second = ((tmp_path / fit["folder"] / "train_history.csv").read_text() for fit in fits)
    assert first != second
    # Both start from the one network that there is, and its seed names the only training otherwise.
    assert [folder.name for folder in (tmp_path / "encoders").iterdir()] == ["csm_seed-1"]
    assert tuned[0]["seed"] == 1


def test_states_that_a_linear_probe_cannot_tell_are_learned(nonlinear, upstream, tmp_path, tuned):
    fit, output = tuned
    run(nonlinear, upstream, tmp_path, options(method="probe", **LINEAR))
    chance = np.log(2)
    assert log_loss(nonlinear, tmp_path) > chance - 0.05
    assert log_loss(nonlinear, output) < 0.1 * chance
    assert fit["step"] > 0
    assert fit["choice"].endswith(f"fine-tuned {fit['step']} steps")
    assert fit["validation_accuracy"] > 0.95  # of two states that occur alike


def test_where_there_is_nothing_to_learn_the_decoder_is_the_probe(noise, upstream, tmp_path):
    (fit,) = run(noise, upstream, tmp_path / "tuned", options(**LINEAR))
    run(noise, upstream, tmp_path / "probe", options(method="probe", **LINEAR))
    assert (fit["step"], fit["choice"].endswith("; probe alone")) == (0, True)
    assert log_loss(noise, tmp_path / "tuned") == log_loss(noise, tmp_path / "probe")


def test_the_validation_loss_is_never_above_that_of_the_probe(upstream, tmp_path):
    for kind in ("nonlinear", "noise"):
        study = write_study(tmp_path / kind, kind, train=2, validation=1)
        (probe,) = run(study, upstream, tmp_path / kind / "probe", options(method="probe"))
        (fit,) = run(study, upstream, tmp_path / kind / "tuned", options())
        history = pd.read_csv(tmp_path / kind / "tuned" / fit["folder"] / "eval_history.csv")
        assert history["step"].tolist() == [0, 10, 20, 30, 40, 50, 60]
        # The probe that chose among classifiers and step 0 of the training are the same.
        assert history["loss"][0] == pytest.approx(probe["validation_loss"], rel=1e-4)
        assert fit["validation_loss"] <= history["loss"][0]
        assert fit["validation_loss"] == history.set_index("step")["loss"][fit["step"]]


def test_gains_within_the_standard_error_are_chance():
    rng = np.random.default_rng(0)
    before = rng.uniform(0.5, 1.5, 100).astype(np.float32)
    steps = [0, 10, 20]
    noisy = before + rng.standard_normal(100).astype(np.float32)
    noisy += np.float32(before.mean() - noisy.mean() - 0.05)  # a gain of 0.05 with a standard error of 0.1
    one = ["01"] * 100
    assert finetuning.choose_step(steps, np.stack([before, noisy, before + 1]), one) == 0
    assert finetuning.choose_step(steps, np.stack([before, before + 1, before - 0.05 * before]), one) == 20
    assert finetuning.choose_step(steps, np.stack([before, before, before]), one) == 0
    assert finetuning.choose_step([0, 10], np.array([[1.0], [0.1]], np.float32), ["01"]) == 0


def test_gains_of_one_person_are_no_gains_of_people():
    """By trials the gain is twice its standard error; by units one of three gains and two lose."""
    before = np.ones(99, np.float32)
    gain = np.repeat([1.0, -0.3, -0.3], 33)
    gain += np.random.default_rng(0).standard_normal(99) * 0.01
    losses = np.stack([before, before - gain]).astype(np.float32)
    assert finetuning.choose_step([0, 10], losses, ["01"] * 33 + ["02"] * 33 + ["03"] * 33) == 0
    assert finetuning.choose_step([0, 10], losses, ["01"] * 99) == 10
    assert finetuning.choose_step([0, 10], losses, [str(number % 3) for number in range(99)]) == 10


def captured(monkeypatch):
    """Return the list of what `fit` will be called with, as (objective, trials, settings)."""
    calls = []
    real = finetuning.fit

    def spy(objective, trials, chosen, **settings):
        calls.append((objective, trials, settings))
        return real(objective, trials, chosen, **settings)

    monkeypatch.setattr(finetuning, "fit", spy)
    return calls


def offsets_of(trials):
    return Trials.__getitems__(trials, range(len(trials)))["offsets"].numpy()


def test_training_trials_get_the_logits_of_probes_that_do_not_know_them(noise, upstream, tmp_path, monkeypatch):
    """A hardly penalised probe knows by heart the states of trials, which are random; others' are at chance."""
    calls = captured(monkeypatch)
    run(noise, upstream, tmp_path, options(read_outs=["tangent"], penalties=[1e-4], steps=2))
    (member,) = Probe.load(tmp_path / FIT(2)).members
    _, shards = noise
    corpus = load_corpus([shards / shard_name("task", unit) for unit in ("00", "01")])
    ((_, known),) = predict_fits(tmp_path, [FIT(2)], corpus)
    assert member.chosen["accuracy"] < 0.7
    assert (known.argmax(axis=1) == corpus.labels).mean() > 0.95
    assert calls
    for _, trials, settings in calls:
        for part in (trials, settings["validate"]):
            batch = part.__getitems__(range(len(part.corpus))) if part is trials else part.batches[0]
            right = batch["offsets"].argmax(dim=1) == batch["labels"]
            # 32 or 64 trials by chance: at most 0.5 and three standard deviations of 0.09.
            assert right.float().mean() < 0.77


def test_left_out_logits_do_not_depend_on_the_states_of_the_trials_left_out():
    rng = np.random.default_rng(0)
    # More features than trials, and fewer; state 2 of 4 has no trial.
    for width in (50, 5):
        features, labels = rng.standard_normal((24, width)), np.tile([0, 1, 3], 8)
        parts = folds([[str(number // 8) for number in range(24)]], labels)
        said = left_out_logits(features, labels, 4, parts, "logistic", 1.0, 2.0)
        other = labels.copy()
        other[parts[0]] = np.roll(labels[parts[0]], 1)
        again = left_out_logits(features, other, 4, parts, "logistic", 1.0, 2.0)
        np.testing.assert_array_equal(again[parts[0]], said[parts[0]])
        assert not np.allclose(again[parts[1]], said[parts[1]])
        assert (said[:, 2] < said[:, [0, 1, 3]].min(axis=1) - 5).all()


def test_fits_add_the_logits_of_probe_and_network(nonlinear, tuned):
    _, output = tuned
    corpus = corpus_of_tests(nonlinear)
    ((name, said),) = predict_fits(output, [FIT(4)], corpus)
    assert name == FIT(4)
    (member,) = Probe.load(output / name).members
    states = network_states(load_encoder(output / "encoders" / member.encoder), corpus, 50)
    basis = load_basis(output / "encoders" / member.encoder)
    assert basis is not None
    blocks = read_out(states, basis, member.read_outs, member.layers)
    logits = member.classifier.logits(member.scaling(blocks)) + predict_logits(output / name, corpus)
    np.testing.assert_allclose(said, softmax(logits, axis=1), atol=1e-5)
    ((_, alone),) = predict_fits(output, [FIT(4)], corpus.select([7]))
    np.testing.assert_allclose(alone, said[7:8], atol=1e-5)


def test_lower_layers_have_lower_learning_rates(noise, upstream, tmp_path, monkeypatch):
    calls = captured(monkeypatch)
    run(noise, upstream, tmp_path, options(steps=1, layer_decay=0.5))
    names = ("head.classes.weight", "head.query", "decoder.h.0.ln_1.weight", "embedder.projection.weight")
    assert [calls[0][0].rate(name) for name in names] == [1, 1, 0.5, 0.25]


@pytest.mark.parametrize("part", ["embedder", "decoder"])
def test_frozen_parts_keep_the_pretrained_weights(nonlinear, upstream, tmp_path, part):
    run(nonlinear, upstream, tmp_path, options(freeze=[part], steps=20, **LINEAR))
    before, after = load_weights(upstream), load_weights(tmp_path / FIT(4))
    for name in after:
        if name in before:
            assert before[name].equal(after[name]) == name.startswith(part), name


def test_an_interrupted_job_goes_on_with_the_missing_fits(noise, upstream, tmp_path, monkeypatch):
    split, shards = noise
    content = read_json(split)
    draw = {"train": ["01"], "validation": ["00"], "test": content["draws"][0]["test"]}
    second = tmp_path / "split.json"
    # The same units twice: draws are told apart by their number.
    write_json(second, {**content, "draws": [{**draw, "n": 2, "draw": number} for number in (0, 1)]})
    chosen = options(steps=4, evaluate_every=2)
    run((second, shards), upstream, tmp_path / "whole", chosen)
    real, calls = finetuning.fit, []

    def killed(*args, **settings):
        calls.append(settings["name"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **settings)

    monkeypatch.setattr(finetuning, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        run((second, shards), upstream, tmp_path / "killed", chosen)
    assert not (tmp_path / "killed" / adapt.MANIFEST).exists()
    fits = run((second, shards), upstream, tmp_path / "killed", chosen)
    assert len(calls) == 3  # the first fit was done
    for about in fits:
        one, other = (tmp_path / name / about["folder"] for name in ("whole", "killed"))
        for file in ("decoder.safetensors", "eval_history.csv"):
            assert (one / file).read_bytes() == (other / file).read_bytes()


def test_a_network_of_an_earlier_method_is_no_part_of_a_probe(nonlinear, upstream, tmp_path):
    run(nonlinear, upstream, tmp_path, options(steps=20, **LINEAR))
    assert (tmp_path / FIT(4) / WEIGHTS).exists()
    run(nonlinear, upstream, tmp_path, options(method="probe", **LINEAR))
    assert not (tmp_path / FIT(4) / WEIGHTS).exists()


def test_one_trial_of_a_state_leaves_the_probe_alone(noise, upstream, tmp_path, monkeypatch):
    """Nothing can be left out: no trial tells what a probe says of trials that it does not know."""
    real = adapt.load_corpus

    def few(paths):
        corpus = real(paths)
        return corpus.select([int(np.flatnonzero(corpus.labels == label)[0]) for label in (0, 1)])

    monkeypatch.setattr(adapt, "load_corpus", few)
    (fit,) = run(noise, upstream, tmp_path, options())
    assert (fit["step"], fit["choice"].endswith("; probe alone")) == (0, True)


def test_what_cannot_be_fine_tuned_is_refused(nonlinear, tmp_path):
    config = NetworkConfig("components", N_PARCELS, 4)
    save_network(tmp_path / "model", config, build_network(config, 0).state_dict(), synthetic.contract(N_PARCELS))
    with pytest.raises(InputError, match="principal components have nothing to fine-tune"):
        run(nonlinear, tmp_path / "model", tmp_path / "out", options())


def test_learning_rates_of_layers_reach_the_optimiser():
    """Weights far below the head, which get next to no rate, stay; those of the head move."""
    config = NetworkConfig("csm", N_PARCELS, 16, 2, 2, dropout=0.0, labels=("a", "b"))
    network = build_network(config, 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    corpus = synthetic.corpus([9, 8, 7, 9], labels=[0, 1, 0, 1], n_labels=2)
    chosen = options(steps=3, batch_size=4, learning_rate=1e-2)
    objective = finetuning.FineTuning(network, layer_decay=1e-6)
    # The head is silent; a last layer of zeros would pass on no gradient in the first step.
    network.load_state_dict(before)
    rates = {id(p): group["lr"] for group in adamw(objective, chosen).param_groups for p in group["params"]}
    outcome = fit(objective, Trials(corpus, 50, 1, 12), chosen, name="toy", validate=None, seed=1)
    moved = {name: float((outcome.weights[name] - before[name]).abs().max()) for name in before}
    # Three steps of Adam move a weight by about three learning rates, at most 3e-2, 3e-8, ...
    assert moved["head.classes.weight"] > 1e-3
    assert all(size < 1e-6 for name, size in moved.items() if not name.startswith("head."))
    for name, parameter in network.named_parameters():
        assert rates[id(parameter)] == pytest.approx(1e-2 * 1e-6 ** layers_from_head(name, 2))


def test_a_training_that_ends_early_is_the_first_part_of_the_whole():
    config = NetworkConfig("csm", N_PARCELS, 16, 1, 2, labels=("a", "b"))
    corpus = synthetic.corpus([9, 8, 7, 9], labels=[0, 1, 0, 1], n_labels=2)
    chosen = options(steps=12, batch_size=2, evaluate_every=5)
    seen = []

    def look(objective, processes):
        seen.append({name: tensor.clone() for name, tensor in objective.network.state_dict().items()})
        return {"loss": 0.0, "criterion": 0.0}

    def train(validate, **settings):
        trials = Trials(corpus, 50, 1, 24)
        return fit(
            Decoding(build_network(config, 0)), trials, chosen, name="", validate=validate, seed=1, **settings
        )

    train(look)
    early = train(None, last_step=5)
    assert early.step == 5
    assert early.train_rows[-1]["step"] == 5
    for name, tensor in early.weights.items():
        assert tensor.equal(seen[0][name]), name


def test_layers_are_counted_from_the_head():
    names = {
        "csm": ("decoder.h.2.ln_1.bias", "decoder.h.0.ln_1.bias", "decoder.ln_f.weight"),
        "autoencoding": ("decoder.2.norm.bias", "decoder.0.norm.bias", "decoder.2.norm.weight"),
        "network_bert": (
            "decoder.encoder.layer.2.output.dense.bias",
            "decoder.encoder.layer.0.output.dense.bias",
            "decoder.encoder.layer.2.output.LayerNorm.bias",
        ),
    }
    for framework, (last, first, norm) in names.items():
        sizes = NetworkConfig(framework, N_PARCELS, 16, 3, 2, labels=("a", "b"))  # type: ignore[arg-type]
        network = build_network(sizes, 0)
        known = dict(network.named_parameters())
        assert {last, first, norm} <= known.keys()
        assert [layers_from_head(name, 3) for name in (last, first, norm)] == [1, 3, 1]
        assert layers_from_head("embedder.projection.weight", 3) == 4
        assert {layers_from_head(name, 3) for name in known if name.startswith("head.")} == {0}


def test_offsets_follow_their_trials():
    corpus = synthetic.corpus([9, 8, 7], labels=[0, 1, 2], n_labels=3)
    offsets = np.eye(3) * [[1], [2], [3]]
    batch = Trials(corpus, 50, 1, 9, offsets=offsets).__getitems__(range(9))
    np.testing.assert_array_equal(batch["offsets"].numpy(), offsets[batch["labels"].numpy()])
    assert "offsets" not in Trials(corpus, 50).__getitems__([0])
