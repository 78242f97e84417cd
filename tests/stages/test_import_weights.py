import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from boldly.cli import main
from boldly.config import AdaptOptions, PretrainOptions
from boldly.decoders.apply import predict_fits
from boldly.decoders.probe import Probe
from boldly.files import read_json, write_json
from boldly.models.basis import load_basis
from boldly.models.build import load_config, load_contract, load_network, load_weights
from boldly.records import InputError
from boldly.samples.corpus import load_corpus
from boldly.samples.lfb_shards import contract, write_lfb_shards
from boldly.samples.shards import read_shard
from boldly.stages import adapt, import_weights, pretrain
from boldly.training.decoding import predict
from tests.models.lfb import reference
from tests.training import synthetic

ALL = list(reference.FRAMEWORKS)


def run_folder(folder, network, weights=None, **changes):
    """Write the run directory of a published network with random weights."""
    path = folder / "model_final" / "pytorch_model.bin"
    path.parent.mkdir(parents=True)
    torch.save(reference.weights(network) if weights is None else weights, path)
    write_json(folder / "train_config.json", {"num_attention_heads": 4, "seq_max": 20, "seed": 1234} | changes)
    return folder


def old_buffers(weights):
    """Return what Transformers kept among the weights until 2023."""
    found = {}
    for name in weights:
        if name.endswith("attn.c_attn.weight"):
            layer = name.removesuffix("c_attn.weight")
            found[f"{layer}bias"] = torch.ones(1, 1, 512, 512, dtype=torch.uint8)
            found[f"{layer}masked_bias"] = torch.tensor(-1e4)
        if name.endswith("word_embeddings.weight"):
            found["decoder.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    return found


def complaints(**arguments):
    with pytest.raises(InputError) as caught:
        import_weights.run(**arguments)
    return str(caught.value)


@pytest.mark.parametrize("network", ALL)
def test_a_run_of_each_network_goes_in_and_out_bit_by_bit(network, tmp_path):
    weights = reference.weights(network)
    run_folder(tmp_path / "run", network)
    import_weights.run(source=tmp_path / "run", output=tmp_path / "model")
    layers = 0 if network == "decoding_LinearBaseline" else 2
    assert load_config(tmp_path / "model") == reference.sizes(network, layers=layers)
    assert load_contract(tmp_path / "model") == contract(reference.P)
    assert isinstance(load_network(tmp_path / "model"), torch.nn.Module)
    import_weights.export(source=tmp_path / "model", output=tmp_path / "back")
    back = torch.load(tmp_path / "back" / "model_final" / "pytorch_model.bin", weights_only=True)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    # What else the run knew about itself comes back too, and the way in is open again.
    assert read_json(tmp_path / "back" / "train_config.json")["seed"] == 1234
    import_weights.run(source=tmp_path / "back", output=tmp_path / "again")
    assert load_config(tmp_path / "again") == load_config(tmp_path / "model")


@pytest.mark.parametrize("network", ["CSM", "BERT"])
def test_buffers_of_old_transformers_are_dropped(network, tmp_path):
    weights = reference.weights(network)
    buffers = old_buffers(weights)
    assert buffers
    run_folder(tmp_path / "run", network, weights | buffers)
    import_weights.run(source=tmp_path / "run", output=tmp_path / "model")
    assert load_weights(tmp_path / "model").keys() == weights.keys()


def test_half_precision_and_shared_memory_stay_what_they_are(tmp_path):
    weights = reference.weights("CSM")
    # As DeepSpeed leaves them: pieces of one block.
    block = torch.cat([tensor.flatten() for tensor in weights.values()]).half()
    pieces = block.split([tensor.numel() for tensor in weights.values()])
    halves = {name: piece.view(weights[name].shape) for name, piece in zip(weights, pieces, strict=True)}
    run_folder(tmp_path / "run", "CSM", halves)
    import_weights.run(source=tmp_path / "run", output=tmp_path / "model")
    found = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(found[name], halves[name]) and found[name].dtype == torch.float16 for name in halves)


def test_everything_wrong_with_the_weights_is_listed_at_once(tmp_path):
    weights = reference.weights("CSM")
    del weights["decoder.transformer.ln_f.bias"], weights["embedder.cls_embed"]
    weights["unembedder.model.0.bias"] = torch.zeros(3)
    weights["decoder.surprise"] = torch.zeros(1)
    message = complaints(
        source=run_folder(tmp_path / "run", "CSM", weights, hidden_activation="relu"), output=tmp_path / "model"
    )
    assert "decoder.transformer.ln_f.bias: is missing, of shape (64,)" in message
    assert "embedder.cls_embed: is missing" in message
    assert "unembedder.model.0.bias: has shape (3,), not (128,)" in message
    assert "decoder.surprise: is no weight of a csm network" in message
    assert "'relu', the networks are built with 'gelu_new'" in message
    assert not (tmp_path / "model").exists()


class _Trap:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_code_in_a_weight_file_is_not_run(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": _Trap(tmp_path / "marker")}, protocol=2))
    assert "not plain weights" in complaints(source=tmp_path, output=tmp_path / "model")
    torch.save({"weight": _Trap(tmp_path / "marker")}, tmp_path / "pytorch_model.bin")
    assert "not plain weights" in complaints(source=tmp_path, output=tmp_path / "model")
    assert not (tmp_path / "marker").exists()


def test_missing_and_strange_files_are_named(tmp_path):
    assert "neither a file nor a folder with model_final" in complaints(source=tmp_path, output=tmp_path / "m")
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    assert "its names are not those of LfB's networks" in complaints(source=tmp_path, output=tmp_path / "m")
    torch.save([torch.zeros(2)], tmp_path / "pytorch_model.bin")
    assert "not a table of named tensors" in complaints(source=tmp_path, output=tmp_path / "m")
    (tmp_path / "pytorch_model.bin").write_bytes(b"cut")
    assert "not plain weights" in complaints(source=tmp_path, output=tmp_path / "m")


def test_heads_are_asked_for_where_nothing_tells_them(tmp_path):
    folder = run_folder(tmp_path / "run", "CSM")
    (folder / "train_config.json").unlink()
    assert "restore it, or give --heads" in complaints(source=folder, output=tmp_path / "model")
    assert "5 attention heads do not divide a width of 64" in complaints(
        source=folder, output=tmp_path / "model", heads=5
    )
    status = main(["import-weights", str(folder), "--output", str(tmp_path / "model"), "--heads", "4"])
    assert status == 0
    assert load_config(tmp_path / "model").heads == 4


def test_histories_and_label_names_come_along(tmp_path):
    folder = run_folder(tmp_path / "run", "decoding_GPT")
    (folder / "train_history.csv").write_text("step,loss,lr\n1000,0.9,0.0005\n")
    (folder / "eval_history.csv").write_text("step,loss,accuracy\n1000,0.8,0.5\n")
    names = [f"state{i}" for i in range(7)]
    write_json(tmp_path / "labels.json", {"labels": names})
    import_weights.run(source=folder, output=tmp_path / "model", labels=tmp_path / "labels.json")
    assert list(load_config(tmp_path / "model").labels) == names
    assert list(pd.read_csv(tmp_path / "model" / "train_history.csv")) == ["step", "loss", "learning_rate"]
    assert list(pd.read_csv(tmp_path / "model" / "eval_history.csv")) == ["step", "loss", "accuracy"]
    write_json(tmp_path / "labels.json", {"labels": names[1:]})
    message = complaints(source=folder, output=tmp_path / "model", labels=tmp_path / "labels.json")
    assert "6 names for 7 states" in message


def test_only_networks_of_the_variant_go_out(tmp_path):
    run_folder(tmp_path / "run", "CSM")
    import_weights.run(source=tmp_path / "run", output=tmp_path / "model")
    content = read_json(tmp_path / "model" / "config.json")
    write_json(tmp_path / "model" / "config.json", {**content, "variant": "boldly"})
    with pytest.raises(InputError, match="a network of variant boldly"):
        import_weights.export(source=tmp_path / "model", output=tmp_path / "back")
    write_json(tmp_path / "model" / "config.json", content)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file({name: t for name, t in weights.items() if "ln_f" not in name}, tmp_path / "model/model.safetensors")
    with pytest.raises(InputError, match=r"ln_f\.bias: is missing"):
        import_weights.export(source=tmp_path / "model", output=tmp_path / "back")


def test_exported_files_have_the_same_bytes_each_time(tmp_path):
    run_folder(tmp_path / "run", "CSM")
    import_weights.run(source=tmp_path / "run", output=tmp_path / "model")
    for name in ("one", "two"):
        assert main(["import-weights", str(tmp_path / "model"), "--export", "--output", str(tmp_path / name)]) == 0
    one, two = (tmp_path / name / "model_final" / "pytorch_model.bin" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.fixture(scope="module")
def lfb_study(tmp_path_factory):
    """A small downstream study as LfB's tars."""
    folder = tmp_path_factory.mktemp("study")
    split, shards = synthetic.downstream_study(folder, n_parcels=reference.P, n_subjects=3, draws=1)
    samples = [sample for path in sorted(shards.glob("*.tar")) for sample in read_shard(path)]
    write_lfb_shards(folder / "lfb", samples)
    return split, folder / "lfb"


def adapted(study, output, model, **changes):
    split, shards = study
    values = {"steps": 2, "batch_size": 8, "evaluate_every": 2, "window_frames": 20} | changes
    options = AdaptOptions.model_validate(values)
    models = [adapt.UpstreamModel("toy", 1234, model)] if model else []
    adapt.run(
        name="toy", options=options, dataset="task", split=split, shards=shards, models=models, output=output
    )
    return output / "n-2_draw-0_seed-1234"


@pytest.mark.parametrize("network", reference.PRETRAINING)
def test_imported_weights_adapt_to_shards_in_the_published_layout(network, lfb_study, tmp_path):
    run_folder(tmp_path / "run", network)
    import_weights.run(source=tmp_path / "run", output=tmp_path / "model")
    folder = adapted(
        lfb_study,
        tmp_path / "out",
        tmp_path / "model",
        pretrained=network,
        method="network",
        freeze=["embedder", "decoder"],
    )
    found, before = load_weights(folder), reference.weights(network)
    changed = {name for name, tensor in found.items() if name not in before or not tensor.equal(before[name])}
    # Frozen parts are still those of the file; pooler and head have learned.
    pooler = "decoder.encoder.pooler_layer.1" if network == "autoencoder" else "decoder.pooler_layer.0"
    layers = (pooler, "decoder.decoding_head.0")
    assert changed == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    corpus = load_corpus(sorted(lfb_study[1].glob("*sub-02*.tar")))
    assert predict(folder, corpus).shape == (12, 4)
    # An adapted network goes out as well.
    import_weights.export(source=folder, output=tmp_path / "back")
    assert json.loads((tmp_path / "back" / "train_config.json").read_text())["training_style"] == "decoding"


@pytest.mark.parametrize("network", reference.PRETRAINING)
def test_imported_weights_are_probed(network, lfb_study, tmp_path):
    run_folder(tmp_path / "run", network)
    import_weights.run(source=tmp_path / "run", output=tmp_path / "model")
    assert load_basis(tmp_path / "model") is None
    folder = adapted(lfb_study, tmp_path / "out", tmp_path / "model", pretrained=network, layers=["all", "first"])
    corpus = load_corpus(sorted(lfb_study[1].glob("*sub-02*.tar")))
    # What the published weights lack, components of their states, comes with the decoder.
    (member,) = Probe.load(folder).members
    assert member.basis is not None
    assert member.basis.components.shape[:2] == (3, reference.W)
    (found,) = predict_fits(tmp_path / "out", [folder.name], corpus)
    assert found[1].shape == (12, 4)
    np.testing.assert_allclose(found[1].sum(axis=1), 1, atol=1e-5)
    assert (
        load_weights(tmp_path / "out" / "encoders" / "toy_seed-1234").keys() == reference.weights(network).keys()
    )


def test_imported_weights_without_states_of_frames_are_not_probed(lfb_study, tmp_path):
    run_folder(tmp_path / "run", "decoding_LinearBaseline")
    import_weights.run(source=tmp_path / "run", output=tmp_path / "model")
    with pytest.raises(InputError, match="no states of single frames"):
        adapted(lfb_study, tmp_path / "out", tmp_path / "model", pretrained="linear")


def test_the_linear_baseline_of_the_variant_adapts(lfb_study, tmp_path):
    folder = adapted(lfb_study, tmp_path / "out", None, baseline="linear", variant="lfb")
    assert set(load_weights(folder)) == set(reference.shapes("decoding_LinearBaseline"))


def test_shards_prepared_in_another_way_do_not_meet_imported_weights(tmp_path):
    study = synthetic.downstream_study(tmp_path, n_parcels=reference.P, n_subjects=3, draws=1)
    run_folder(tmp_path / "run", "CSM")
    import_weights.run(source=tmp_path / "run", output=tmp_path / "model")
    with pytest.raises(InputError, match=r"high_pass_hz: 0\.008 != None"):
        adapted(study, tmp_path / "out", tmp_path / "model", pretrained="csm")
    waved = ["atlas", "atlas_sha256", "space", "confounds", "smoothing_fwhm_mm", "high_pass_hz"]
    folder = adapted(study, tmp_path / "out", tmp_path / "model", pretrained="csm", allow_mismatch=waved)
    # A decoder states what its own trials are.
    assert load_contract(folder) == synthetic.contract(reference.P)


@pytest.mark.parametrize("framework", ["autoencoding", "csm", "sequence_bert", "network_bert"])
def test_networks_of_the_variant_pretrain_adapt_and_go_out(framework, tmp_path):
    data = synthetic.upstream_study(tmp_path / "data", n_subjects=2)
    values = {"framework": framework, "variant": "lfb", "layers": 2, "width": 8, "heads": 2, "steps": 2}
    values |= {"batch_size": 4, "evaluate_every": 2, "validation_windows": 4, "window_frames": (6, 12)}
    values |= {"keep_untrained": True}
    chosen = PretrainOptions.model_validate(values)
    pretrain.run(name="toy", options=chosen, data=data, output=tmp_path / "model")
    history = pd.read_csv(tmp_path / "model" / "eval_history.csv")
    assert {"loss", "l1", "l1_zero", "skill"} <= set(history.columns)
    assert load_config(tmp_path / "model").variant == "lfb"
    study = synthetic.downstream_study(tmp_path / "task", n_subjects=3, draws=1)
    for method in ("network", "probe"):
        adapted(study, tmp_path / method, tmp_path / "model", pretrained="toy", method=method)
    # Components of the hidden states are kept as for other networks.
    assert load_basis(tmp_path / "model") is not None
    import_weights.export(source=tmp_path / "model", output=tmp_path / "back")
    import_weights.run(source=tmp_path / "back", output=tmp_path / "again")
    assert load_config(tmp_path / "again") == load_config(tmp_path / "model")
