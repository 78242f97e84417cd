import dataclasses
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from boldly.config import PretrainOptions
from boldly.files import read_json, read_tsv, write_json
from boldly.models.build import build_objective, load_contract, load_network
from boldly.provenance import file_sha256
from boldly.records import InputError, Problem
from boldly.samples.corpus import load_corpus
from boldly.samples.shards import read_shard, write_shard
from boldly.samples.windows import WindowOptions, Windows
from boldly.stages import pretrain
from boldly.stages.pretrain.material import validation_of
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.loop import Interrupted
from boldly.training.processes import Processes
from boldly.training.validation import UpstreamValidation
from tests.training import launcher, synthetic

CHECKOUT = Path(__file__).resolve().parents[2]


def options(framework="csm", **changes):
    values = {"framework": framework, "layers": 1, "width": 16, "heads": 2, "steps": 8, "batch_size": 8}
    values |= {"learning_rate": 1e-3, "evaluate_every": 4, "validation_windows": 16, "window_frames": (6, 12)}
    return PretrainOptions.model_validate(values | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return synthetic.upstream_study(tmp_path_factory.mktemp("upstream"), n_subjects=4)


@pytest.mark.parametrize(
    "framework", ["autoencoding", "csm", "sequence_bert", "network_bert", "masked_autoencoding"]
)
def test_each_framework_leaves_a_complete_folder(data, tmp_path, framework):
    # Eight steps need not make anything better.
    pretrain.run(name="toy", options=options(framework, keep_untrained=True), data=data, output=tmp_path)
    network = load_network(tmp_path)
    assert sum(parameter.numel() for parameter in network.parameters()) > 1000
    assert load_contract(tmp_path) == synthetic.contract(16)
    assert pd.read_csv(tmp_path / "train_history.csv")["step"].tolist() == list(range(1, 9))
    evaluation = pd.read_csv(tmp_path / "eval_history.csv")
    assert evaluation["step"].tolist() == [0, 4, 8]
    # Both datasets are validated on subjects that did not train (defect 8.4).
    assert {"l1_one", "l1_two"} <= set(evaluation.columns)
    manifest = read_json(tmp_path / "manifest.json")
    assert sorted(manifest["validation"]) == ["ds-one_sub-03.tar", "ds-two_sub-03.tar"]
    assert not set(manifest["validation"]) & set(manifest["training"])
    assert manifest["options"]["framework"] == framework
    parcels = read_tsv(tmp_path / "parcel_errors.tsv")
    assert parcels["parcel"].tolist() == list(range(1, 17))
    # The kept weights have the lowest loss; windows weigh alike there, values here.
    kept = evaluation.iloc[1 + int(evaluation["loss"].iloc[1:].argmin())]
    for column in ("l1", "l1_zero"):
        mean = np.average(parcels[column], weights=parcels["values"])
        assert mean == pytest.approx(kept[column], rel=0.05)
    assert not (tmp_path / "checkpoints").exists()
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize("framework", ["csm", "sequence_bert"])
def test_a_compiled_network_learns_the_same(data, tmp_path, framework):
    for compiled in (False, True):
        chosen = options(framework, compile=compiled, dropout=0.0, keep_untrained=True)
        pretrain.run(name="toy", options=chosen, data=data, output=tmp_path / str(compiled))
    plain, fast = (load_file(tmp_path / name / "model.safetensors") for name in ("False", "True"))
    assert plain.keys() == fast.keys()
    assert max(float((plain[name] - fast[name]).abs().max()) for name in plain) < 1e-4


def test_compiling_without_a_compiler_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"no C\+\+ compiler no-such-compiler"):
        pretrain.run(name="toy", options=options(compile=True), data=data, output=tmp_path)


def test_only_the_chosen_datasets_are_read(data, tmp_path):
    pretrain.run(name="toy", options=options(datasets=["two"]), data=data, output=tmp_path)
    assert all("ds-two" in name for name in read_json(tmp_path / "manifest.json")["training"])


def test_the_same_seed_gives_the_same_bytes(data, tmp_path):
    for name in ("one", "two"):
        pretrain.run(name=name, options=options(), data=data, output=tmp_path / name)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_without_held_out_subjects_the_last_step_counts(data, tmp_path):
    split, shards = data[0]
    content = json.loads(split.read_text())
    write_json(tmp_path / "split.json", {**content, "validation": []})
    pretrain.run(name="toy", options=options(), data=[(tmp_path / "split.json", shards)], output=tmp_path / "out")
    assert read_json(tmp_path / "out" / "manifest.json")["step"] == 8
    assert (tmp_path / "out" / "eval_history.csv").read_text() == "step,loss\n"
    # Nobody measured what the blocks add to the forecast, and with one subject it may do harm to others.
    network: Any = load_network(tmp_path / "out")
    assert network.share.tolist() == [0.0]
    batch = {name: value for name, value in _windows_of(shards).items() if name != "valid"}
    with torch.inference_mode():
        said, start = network.predict_next(**batch), batch["inputs"] @ network.coupling[0]
    assert torch.equal(said, start)


def _windows_of(shards):
    corpus = load_corpus([next(iter(sorted(shards.iterdir())))])
    return Windows(corpus, WindowOptions(8, 8, 4), seed=1, count=4).__getitems__(range(4))


def test_shards_of_another_contract_are_refused(data, tmp_path):
    folder = tmp_path / "shards"
    for shard in sorted(data[0][1].iterdir()):
        samples = [sample if "sub-01" not in sample.key else _other_space(sample) for sample in read_shard(shard)]
        write_shard(folder / shard.name, samples)
    with pytest.raises(InputError, match="space: 'toy' != 'elsewhere'"):
        pretrain.run(name="toy", options=options(), data=[(data[0][0], folder)], output=tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()
    for name, more in {"memory": {}, "streamed": {"stream_shards": 2, "stream_steps": 4}}.items():
        allowed = options(allow_mismatch=["space"], keep_untrained=True, **more)
        pretrain.run(name="toy", options=allowed, data=[(data[0][0], folder)], output=tmp_path / name)
        # Subject 00 is the first.
        assert load_contract(tmp_path / name).space == "toy"
    assert load_contract(tmp_path / "memory").varied == {"space": ["toy", "elsewhere"]}
    linear = PretrainOptions(framework="components", width=8, allow_mismatch=["space"])
    pretrain.run(name="components", options=linear, data=[(data[0][0], folder)], output=tmp_path / "linear")
    assert load_contract(tmp_path / "linear").varied == {"space": ["toy", "elsewhere"]}
    other = linear.model_copy(update={"allow_mismatch": ["confounds"]})
    with pytest.raises(InputError, match="space: 'toy' != 'elsewhere'"):
        pretrain.run(name="components", options=other, data=[(data[0][0], folder)], output=tmp_path / "other")


def _other_space(sample):
    return dataclasses.replace(sample, contract=dataclasses.replace(sample.contract, space="elsewhere"))


def test_shares_of_the_subjects_are_nested(data, tmp_path):
    names = []
    for fraction in (0.4, 0.7, 1.0):
        pretrain.run(name="toy", options=options(steps=1, subjects_fraction=fraction), data=data, output=tmp_path)
        names.append(set(read_json(tmp_path / "manifest.json")["training"]))
    assert [len(chosen) for chosen in names] == [2, 4, 6]
    assert names[0] < names[1] < names[2]


def test_another_experiment_gives_the_first_weights(data, tmp_path):
    pretrain.run(name="first", options=options(), data=data, output=tmp_path / "first")
    still = options(steps=1, learning_rate=1e-12, initialise="first", keep_untrained=True)
    pretrain.run(name="next", options=still, data=data, output=tmp_path / "next", initial=tmp_path / "first")
    first, then = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "next"))
    assert all(torch.allclose(first[name], then[name], atol=1e-6) for name in first)
    assert read_json(tmp_path / "next" / "manifest.json")["initial"].keys() == {"model.safetensors"}


@pytest.mark.parametrize("end", [Interrupted(15), InputError(Problem("batch", "toy", "diverged", "look")), None])
def test_processes_part_however_a_training_ends(data, tmp_path, monkeypatch, end):
    """One that ends while it is joined to others is aborted now and then, and with it the whole job."""
    parted = []
    monkeypatch.setattr(PartialState, "destroy_process_group", lambda self: parted.append(True))
    if end is not None:
        monkeypatch.setattr(pretrain, "fit", Mock(side_effect=end))
    with pytest.raises(type(end)) if end is not None else nullcontext():
        pretrain.run(name="toy", options=options(keep_untrained=True), data=data, output=tmp_path)
    assert parted == [True]


def test_checkpoints_are_those_of_the_settings_of_deepspeed(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "fit", Mock(side_effect=Interrupted(15)))
    settings, claimed = tmp_path / "zero.json", []
    for stage in (1, 2):
        write_json(settings, {"zero_optimization": {"stage": stage}})
        with pytest.raises(Interrupted):
            pretrain.run(name="toy", options=options(deepspeed=str(settings)), data=data, output=tmp_path / "out")
        claimed.append(read_json(tmp_path / "out/checkpoints/experiment.json")["deepspeed"])
        assert claimed[-1] == {"zero.json": file_sha256(settings)}
    assert claimed[0] != claimed[1]


def test_a_training_that_made_nothing_better_is_refused_and_can_be_kept(data, tmp_path, monkeypatch):
    worse = {"learning_rate": 1.0, "framework": "autoencoding", "warmup_fraction": 0.0}
    with pytest.raises(InputError) as caught:
        pretrain.run(name="toy", options=options(**worse), data=data, output=tmp_path)
    (problem,) = caught.value.problems
    history = pd.read_csv(tmp_path / "eval_history.csv").set_index("step")["loss"]
    assert problem.where == str(tmp_path / "eval_history.csv")
    assert f"loss {history[0]:.4f} then, {history[[4, 8]].min():.4f} at best" in problem.message
    assert "pretrain.experiments.toy.keep_untrained: true" in problem.remedy
    assert not (tmp_path / "model.safetensors").exists()
    # Nothing is lost, nothing is trained again.
    monkeypatch.setattr("boldly.training.loop.learning_rate_share", None)
    pretrain.run(name="toy", options=options(**worse, keep_untrained=True), data=data, output=tmp_path)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["step"] == history[[4, 8]].idxmin()
    assert manifest["options"]["keep_untrained"] is True
    assert load_network(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("gain", "level", "told"), [(1, 0, False), (35, 10_000, True), (0.01, 0, True)])
def test_signals_that_were_not_standardised_are_told(data, tmp_path, caplog, gain, level, told):
    split, shards = data[0]
    for shard in sorted(shards.iterdir()):
        samples = [
            dataclasses.replace(sample, bold=(gain * sample.bold.astype(np.float32) + level))
            for sample in read_shard(shard)
        ]
        write_shard(tmp_path / "shards" / shard.name, samples)
    chosen = options(steps=1, keep_untrained=True)
    pretrain.run(name="toy", options=chosen, data=[(split, tmp_path / "shards")], output=tmp_path / "out")
    found = [record.getMessage() for record in caplog.records if "z-score runs" in record.getMessage()]
    assert len(found) == told


def test_weights_that_are_no_better_than_zeros_are_told(data, tmp_path, caplog):
    """Too few steps at a low learning rate: better than the random weights at first, and that is all."""
    for name, changes in {"short": {"learning_rate": 1e-6}, "long": {"steps": 60, "learning_rate": 1e-2}}.items():
        chosen = options("autoencoding", keep_untrained=True, **changes)
        pretrain.run(name=name, options=chosen, data=data, output=tmp_path / name)
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    (short,) = [message for message in told if "predicting zero" in message]
    row = pd.read_csv(tmp_path / "short/eval_history.csv").iloc[-1]
    assert f"short: the weights of step 8 err no less than predicting zero (L1 {row['l1']:.4f}" in short


def test_a_start_that_nothing_improves_is_not_passed_off_as_pretrained(data, tmp_path):
    # The next frame alone, which the start says as well as it can be said, and steps that do harm.
    chosen = options(horizons_s=[], learning_rate=1.0, warmup_fraction=0.0)
    with pytest.raises(InputError, match="no validation was better"):
        pretrain.run(name="toy", options=chosen, data=data, output=tmp_path)
    history = pd.read_csv(tmp_path / "eval_history.csv")
    # All that the blocks add is dropped: the forecast is that of the start.
    assert history["forecast_share"].tolist() == [0.0, 0.0, 0.0]
    assert history["l1"].nunique() == 1


def test_the_kept_forecast_is_no_worse_than_the_start_and_than_linear_ones(data, tmp_path):
    # A high learning rate on few windows: the blocks' part does harm, and most of it must go.
    chosen = options(steps=40, learning_rate=2e-2, evaluate_every=10, validation_windows=64, datasets=["one"])
    pretrain.run(name="toy", options=chosen, data=data, output=tmp_path)
    history = pd.read_csv(tmp_path / "eval_history.csv").set_index("step")
    step = read_json(tmp_path / "manifest.json")["step"]
    kept, start = history.loc[step], history.loc[0]
    assert step >= 1
    assert kept["l1"] <= start["l1"]
    assert kept["l1"] < min(kept["l1_var"], kept["l1_ar1"])
    assert 0 <= kept["forecast_share"] < 1
    # The weights are those that were validated: share and all.
    validation = validation_of(
        load_corpus([data[0][1] / "ds-one_sub-03.tar"]),
        chosen,
        load_corpus([data[0][1] / "ds-one_sub-00.tar"]),
        CheckpointFolder(tmp_path / "none"),
        None,
    )
    assert validation is not None
    with torch.inference_mode():
        objective = build_objective(load_network(tmp_path))
        again = UpstreamValidation(validation.windows, 32)(objective, Processes())
    assert again["l1"] == pytest.approx(kept["l1"], abs=1e-6)
    assert again["loss"] == pytest.approx(kept["loss"], abs=1e-6)


def test_with_several_repetition_times_the_kept_forecast_is_no_worse_in_any_dataset(data, tmp_path):
    # One start for all would err more than the VAR of each dataset, which knows the rhythm of its own frames.
    pretrain.run(name="toy", options=options(keep_untrained=True), data=data, output=tmp_path)
    history = pd.read_csv(tmp_path / "eval_history.csv").set_index("step")
    kept, start = history.loc[read_json(tmp_path / "manifest.json")["step"]], history.loc[0]
    for part in ("", "_one", "_two"):
        assert kept[f"l1{part}"] <= start[f"l1{part}"]
        assert start[f"l1{part}"] <= min(kept[f"l1_var{part}"], kept[f"l1_ar1{part}"]) + 1e-6  # rounding


@pytest.mark.parametrize(
    "deepspeed",
    [
        pytest.param(None, id="ddp"),
        pytest.param("config/deepspeed/zero1.json", id="zero1", marks=pytest.mark.slow),
        pytest.param("config/deepspeed/zero2.json", id="zero2"),
        pytest.param("config/deepspeed/zero3.json", id="zero3", marks=pytest.mark.slow),
    ],
)
def test_two_processes_agree_with_one(data, tmp_path, monkeypatch, deepspeed):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "compiled"))
    pretrain.run(name="one", options=options(dropout=0.0), data=data, output=tmp_path / "one")
    chosen = options(dropout=0.0, deepspeed=str(CHECKOUT / deepspeed) if deepspeed else None)
    launcher.torchrun("-m", "boldly", *launcher.pretrain(data, tmp_path / "two", chosen))
    assert_same_training(tmp_path / "one", tmp_path / "two")
    # A process that is killed while it compiles leaves a lock for which all later ones wait for ever.
    assert not (tmp_path / "compiled").exists()


@pytest.mark.parametrize("device_batch_size", [None, 1])
def test_two_nodes_of_two_processes_agree_with_one(data, tmp_path, device_batch_size):
    pretrain.run(name="toy", options=options(dropout=0.0), data=data, output=tmp_path / "one")
    chosen = options(dropout=0.0, device_batch_size=device_batch_size)
    launcher.torchrun("-m", "boldly", *launcher.pretrain(data, tmp_path / "four", chosen), nodes=2)
    assert_same_training(tmp_path / "one", tmp_path / "four")


def assert_same_training(first, second):
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    # The same global batch in another order of summation; AdamW enlarges rounding, hence not 1e-7.
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4
    assert one["embedder.projection.weight"].dtype == torch.float32
    for history in ("train_history.csv", "eval_history.csv"):
        pd.testing.assert_frame_equal(pd.read_csv(first / history), pd.read_csv(second / history), rtol=1e-4)
