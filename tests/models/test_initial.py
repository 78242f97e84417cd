from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, GPT2Model

from boldly.files import write_json
from boldly.models.build import build_network, save_network
from boldly.models.initial import initialise
from boldly.models.network import NetworkConfig
from boldly.records import InputError
from tests.training import synthetic

SIZES: dict[str, Any] = {"n_parcels": 16, "width": 16, "layers": 2, "heads": 2}


def network(framework, **changes):
    return build_network(NetworkConfig(framework=framework, **(SIZES | changes)), seed=0)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(5)
    GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=9, n_embd=16, n_layer=3, n_head=2)).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def test_the_first_layers_of_gpt2_are_taken_and_the_maps_of_parcels_are_not(gpt2):
    started, untrained = network("csm"), network("csm")
    initialise(started, gpt2)
    source = GPT2LMHeadModel.from_pretrained(gpt2).transformer
    for number in range(2):
        torch.testing.assert_close(started.decoder.h[number].state_dict(), source.h[number].state_dict())
    torch.testing.assert_close(started.decoder.ln_f.state_dict(), source.ln_f.state_dict())
    torch.testing.assert_close(started.embedder.state_dict(), untrained.embedder.state_dict())


@pytest.mark.parametrize("framework", ["sequence_bert", "network_bert"])
def test_the_layers_of_bert_are_taken(bert, framework):
    started = network(framework)
    initialise(started, bert)
    source = BertForMaskedLM.from_pretrained(bert).bert
    torch.testing.assert_close(started.decoder.encoder.state_dict(), source.encoder.state_dict())


def test_an_old_bin_file_with_old_names_gives_the_same(bert, tmp_path):
    weights = BertForMaskedLM.from_pretrained(bert).state_dict()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in weights.items()
    }
    torch.save(old, tmp_path / "pytorch_model.bin")
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    one, two = network("sequence_bert"), network("sequence_bert")
    initialise(one, bert)
    initialise(two, tmp_path)
    torch.testing.assert_close(one.state_dict(), two.state_dict())


def test_the_faithful_network_takes_the_first_positions_too(tmp_path):
    torch.manual_seed(5)
    config = GPT2Config(vocab_size=11, n_positions=600, n_embd=16, n_layer=2, n_head=2)
    source = GPT2LMHeadModel(config)
    source.save_pretrained(tmp_path)
    started = network("csm", variant="lfb")
    initialise(started, tmp_path)
    (blocks,) = [module for module in started.modules() if isinstance(module, GPT2Model)]
    torch.testing.assert_close(blocks.wpe.weight, source.transformer.wpe.weight[: len(blocks.wpe.weight)])
    torch.testing.assert_close(blocks.h[1].state_dict(), source.transformer.h[1].state_dict())


class Payload:
    def __reduce__(self):
        return print, ("run",)


def test_a_bin_file_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"h.0": Payload()}, tmp_path / "pytorch_model.bin")
    write_json(tmp_path / "config.json", {"model_type": "gpt2"})
    with pytest.raises(InputError, match="not plain weights"):
        initialise(network("csm"), tmp_path)
    assert capsys.readouterr().out == ""


def test_too_many_layers_and_another_width_are_refused_with_names(gpt2):
    with pytest.raises(InputError, match=r"h\.3\.ln_1\.weight is missing"):
        initialise(network("csm", layers=4), gpt2)
    with pytest.raises(InputError, match=r"h\.0\.ln_1\.weight has shape \(16,\), not \(32,\)"):
        initialise(network("csm", width=32), gpt2)


def test_weights_of_another_number_of_heads_are_refused_though_their_shapes_agree(gpt2, bert, tmp_path):
    for framework, folder in (("csm", gpt2), ("network_bert", bert)):
        with pytest.raises(InputError, match="2 attention heads, those of the network 4") as error:
            initialise(network(framework, heads=4), folder)
        assert "set heads of the experiment to 2" in str(error.value)
    sizes = NetworkConfig("csm", **SIZES)
    save_network(tmp_path, sizes, build_network(sizes, seed=7).state_dict(), synthetic.contract(16))
    with pytest.raises(InputError, match="2 attention heads"):
        initialise(network("csm", heads=4), tmp_path)


@pytest.mark.parametrize("framework", ["sequence_bert", "autoencoding"])
def test_a_language_model_of_another_kind_is_refused(gpt2, framework):
    with pytest.raises(InputError, match="a gpt2 model"):
        initialise(network(framework), gpt2)


def test_a_network_of_boldly_gives_all_its_weights(tmp_path):
    sizes = NetworkConfig("csm", n_parcels=16, width=16, layers=2, heads=2)
    source = build_network(sizes, seed=7)
    save_network(tmp_path, sizes, source.state_dict(), synthetic.contract(16))
    started = network("csm")
    initialise(started, tmp_path)
    torch.testing.assert_close(started.state_dict(), source.state_dict())


def test_a_network_of_another_framework_gives_the_parts_that_both_have(tmp_path):
    sizes = NetworkConfig("network_bert", n_parcels=24, width=16, layers=2, heads=2)
    source = build_network(sizes, seed=7)
    save_network(tmp_path, sizes, source.state_dict(), synthetic.contract(24))
    started, untrained = (network("sequence_bert", n_parcels=24) for _ in range(2))
    initialise(started, tmp_path)
    for part in ("embedder", "decoder", "unembedder"):
        torch.testing.assert_close(getattr(started, part).state_dict(), getattr(source, part).state_dict())
    # One hides parcels, the other frames: what stands for them has another shape.
    torch.testing.assert_close(started.mask_vector, untrained.mask_vector)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="no model"):
        initialise(network("csm"), tmp_path)
