import dataclasses
from typing import Any

import pytest
import torch
from torch.nn import functional

from boldly.config import AdaptOptions, PretrainOptions, parse
from boldly.models.build import build_network, build_objective, is_encoder
from boldly.models.lfb.network import LfbNetwork
from boldly.records import InputError
from tests.models.lfb import reference
from tests.models.lfb.reference import DECODING, FRAMEWORKS, PRETRAINING, P, W


def network(name, **changes) -> Any:
    built = build_network(reference.sizes(name, **changes), seed=0)
    assert isinstance(built, LfbNetwork)
    built.load_state_dict(reference.weights(name))
    return built.eval()


def batch(name):
    return reference.trial_batch() if name in DECODING else reference.pretraining_batch(name)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_published_weight_exists_with_its_shape_and_no_other(name):
    built = build_network(reference.sizes(name), seed=0)
    assert {key: tuple(value.shape) for key, value in built.state_dict().items()} == reference.shapes(name)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_published_weights_get_gradients_and_the_idle_ones_none(name):
    built = network(name)
    build_objective(built)(**batch(name))["loss"].backward()
    none = {key for key, parameter in built.named_parameters() if parameter.grad is None}
    assert none == reference.idle(name)
    # With several processes torch must know beforehand which they are.
    assert none == {key for key, parameter in built.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("name", [name for name in FRAMEWORKS if "emb2" not in name])
def test_the_unembedder_is_absent_where_width_and_parcels_agree(name):
    built = build_network(dataclasses.replace(reference.sizes(name), n_parcels=W), seed=0)
    assert not any(key.startswith("unembedder") for key in built.state_dict())


@pytest.mark.parametrize("name", ["BERT", "NetBERT"])
def test_the_loss_of_a_pair_compares_the_next_output_and_asks_whether_b_does_not_follow(name):
    built, given = network(name), batch(name)
    follows = given.pop("follows")
    tokens = built.prepare(**given)
    outputs = built.predict(tokens)
    split, valid, masked = given["split"], given["valid"], given["masked"]
    errors = []
    for row in range(len(valid)):
        n_a, n_b = int(valid[row, :split].sum()), int(valid[row, split:].sum())
        frames = [(t, t) for t in range(n_a)] + [(split + t, n_a + 1 + t) for t in range(n_b)]
        for source, place in frames:
            for p in range(P):
                if masked[row, p if name == "NetBERT" else source]:
                    errors.append(abs(outputs["outputs"][row, place + 1, p] - given["inputs"][row, source, p]))
    pooled = outputs["pooler_outputs"]
    logit = built.decoder.is_next_head(pooled)[:, 0]
    order = functional.binary_cross_entropy_with_logits(logit, 1 - follows)
    found = build_objective(built)(**given, follows=follows)
    torch.testing.assert_close(found["loss"], torch.stack(errors).mean() + order, atol=1e-5, rtol=1e-5)
    assert found["window_loss"].shape == (len(valid),)


@pytest.mark.parametrize("name", ["decoding_BERT", "decoding_NetBERT"])
def test_bert_decoders_read_the_first_frame(name):
    built, given = network(name), batch(name)
    tokens = built.prepare(**{key: value for key, value in given.items() if key != "labels"})
    outputs = built.predict(tokens)
    pooled = torch.tanh(built.decoder.pooler_layer[0](outputs["outputs"][:, 0]))
    torch.testing.assert_close(outputs["pooler_outputs"], pooled)
    torch.testing.assert_close(outputs["decoding_logits"], built.decoder.decoding_head(pooled))


@pytest.mark.parametrize("name", ["CSM", "BERT", "NetBERT", "decoding_GPT", "decoding_BERT"])
def test_transformers_do_not_read_padding(name):
    built, given = network(name), batch(name)
    expected = build_objective(built)(**given)["loss"]
    changed = {**given, "inputs": given["inputs"].masked_fill(~given["valid"][..., None], 9.0)}
    torch.testing.assert_close(build_objective(built)(**changed)["loss"], expected)


def test_the_autoencoder_reads_padding_up_to_the_longest_window():
    built, given = network("decoding_autoencoder"), reference.trial_batch()
    short = {
        key: value[:1, :9] if key in ("inputs", "seconds", "valid") else value[:1] for key, value in given.items()
    }
    torch.testing.assert_close(built(**short)["logits"], built(**given)["logits"][:1], atol=1e-5, rtol=1e-5)
    shorter_windows = network("decoding_autoencoder", window_frames=9)
    assert not torch.allclose(shorter_windows(**short)["logits"], built(**short)["logits"], atol=1e-3)


def plain_lstm(lstm, frames, h, c, suffix=""):
    """Run one direction of an LSTM over (L, W), frame by frame."""
    w_ih, w_hh, b_ih, b_hh = (
        getattr(lstm, f"{part}_l0{suffix}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    outputs = []
    for x in frames:
        i, f, g, o = (w_ih @ x + b_ih + w_hh @ h + b_hh).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs), h, c


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_autoencoder_restores_what_a_loop_restores(training, forced):
    built, given = network("autoencoder", dropout=0.0).train(training), batch("autoencoder")
    given["masked"] = torch.full_like(given["masked"], not forced)
    tokens = built.prepare(**given)
    embedded = built.embedder(tokens.inputs_embeds, tokens.t_rs)
    found = built.predict(tokens)["outputs"]
    encoder, generator = built.decoder.encoder, built.decoder.decoder
    for row in range(2):
        hidden = embedded[row]
        zero = torch.zeros(W)
        ahead, back = (zero, zero), (zero, zero)
        for number, lstm in enumerate(encoder.lstms):
            out_ahead, *ahead = plain_lstm(lstm, hidden, *ahead)
            out_back, *back = plain_lstm(lstm, hidden.flip(0), *back, "_reverse")
            if number < len(encoder.lstms) - 1:
                hidden = encoder.layer_norms[number](hidden + (out_ahead + out_back.flip(0)) / 2)
        h, c = (ahead[0] + back[0]) / 2, zero
        restored = torch.tanh(encoder.pooler_layer[1](h))
        for t in range(embedded.shape[1]):
            # Out of training it always runs freely.
            x = embedded[row, t] if training and forced else restored
            for number, lstm in enumerate(generator.lstms):
                out, h, c = plain_lstm(lstm, x[None], h, c)
                x = generator.layer_norms[number](x + out[0]) if number == 0 else out[0]
            restored = generator.linear_output_layer[1](x)
            torch.testing.assert_close(found[row, t], built.unembedder(restored), atol=1e-5, rtol=1e-4)
    error = (found - tokens.inputs_embeds).abs()[tokens.attention_mask]
    torch.testing.assert_close(build_objective(built)(**given)["loss"], error.mean())


def test_the_linear_baseline_reads_padding_as_zeros():
    built, given = network("decoding_LinearBaseline"), reference.trial_batch()
    time, classes = built.decoder.timseries_model[0], built.decoder.decoding_head[0]
    for row, n in enumerate(given["valid"].sum(dim=1)):
        mean = sum(time.weight[0, t] * given["inputs"][row, t] for t in range(n)) + time.bias
        torch.testing.assert_close(built(**given)["logits"][row], classes(mean), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PRETRAINING)
def test_the_same_batch_gives_the_same_losses_whatever_comes_beside_them(name):
    objective, given = build_objective(network(name)), batch(name)
    windows = objective(**given)["window_loss"]
    one = {key: value[:1] if isinstance(value, torch.Tensor) else value for key, value in given.items()}
    torch.testing.assert_close(objective(**one)["window_loss"], windows[:1], atol=1e-5, rtol=1e-5)
    assert objective.naive(**given)["l1_zero"].shape == windows.shape


ENCODERS = [name for name in FRAMEWORKS if "Linear" not in name]


def unlabelled_trials():
    given = reference.trial_batch()
    del given["labels"]
    return given


@pytest.mark.parametrize("name", ENCODERS)
def test_states_of_frames_come_for_the_embedding_and_each_layer(name):
    built, given = network(name), unlabelled_trials()
    states = built.encode(**given)
    assert [tuple(layer.shape) for layer in states] == [(*given["inputs"].shape[:2], W)] * 3
    # Padding is not read: by transformers through their mask, by the autoencoder as the zeros that it is.
    changed = {**given, "inputs": given["inputs"].masked_fill(~given["valid"][..., None], 9.0)}
    for one, other in zip(states, built.encode(**changed), strict=True):
        torch.testing.assert_close(one[given["valid"]], other[given["valid"]])
    alone = {key: value[:1, :9] if key in ("inputs", "seconds") else value[:1] for key, value in given.items()}
    del alone["valid"]
    for one, other in zip(states, built.encode(**alone), strict=True):
        torch.testing.assert_close(one[:1, :9], other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["decoding_GPT", "decoding_BERT", "decoding_NetBERT"])
def test_the_last_states_are_those_that_a_decoder_reads(name):
    built, given = network(name), unlabelled_trials()
    outputs = built.predict(built.prepare(**given))["outputs"]
    valid = given["valid"]
    torch.testing.assert_close(built.encode(**given)[-1][valid], outputs[:, :-1][valid])


@pytest.mark.parametrize("name", ["CSM", "CSM_emb2"])
def test_states_of_frames_before_a_mask_are_those_of_pretraining(name):
    """GPT-2 looks back only: neither MASK behind a frame nor CLS changes its states."""
    built, given = network(name), reference.pretraining_batch("CSM")
    masked = given.pop("masked")
    hidden = []
    built.decoder.transformer.register_forward_hook(lambda *call: hidden.append(call[-1].last_hidden_state))
    built(**given, masked=masked)
    before = masked.int().cumsum(dim=1) == 0
    assert before.any()
    torch.testing.assert_close(built.encode(**given)[-1][before], hidden[0][before], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["decoding_BERT", "NetBERT"])
def test_states_of_bert_are_those_of_its_layers_one_after_the_other(name):
    built, given = network(name), unlabelled_trials()
    given = {key: value[1:2] for key, value in given.items() if key != "valid"}  # the longest: no padding
    states = built.encode(**given)
    layers = built.decoder.transformer.encoder.layer
    # CLS is a token of the window for all frames.
    cls = {"inputs": built.embedder.cls_embed, "seconds": torch.tensor([[-1.0]])}
    frames = torch.cat([given["inputs"], cls["inputs"]], dim=1)
    embedded = built.embedder(frames, torch.cat([given["seconds"], cls["seconds"]], dim=1))
    hidden = built.decoder.transformer.embeddings(inputs_embeds=embedded)
    for number, state in enumerate(states):
        torch.testing.assert_close(hidden[:, :-1], state, atol=1e-5, rtol=1e-5)
        if number < len(layers):
            output = layers[number](hidden)
            hidden = output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", ["autoencoder", "decoding_autoencoder"])
def test_the_last_states_of_the_autoencoder_are_means_of_its_directions(name):
    built, given = network(name), unlabelled_trials()
    found = []
    lstms = built.decoder.encoder.lstms
    lstms[-1].register_forward_hook(lambda *call: found.append(call[-1][0]))
    states = built.encode(**given)
    embedded = built.embedder(given["inputs"], given["seconds"] * given["valid"])
    torch.testing.assert_close(states[0], embedded)
    ahead, back = found[0][:, : states[-1].shape[1]].chunk(2, dim=2)
    torch.testing.assert_close(states[-1], (ahead + back) / 2)
    # It starts from, and ends with, padding up to the longest window.
    assert found[0].shape[1] == reference.WINDOW


@pytest.mark.parametrize(("name", "longest"), [("autoencoder", 20), ("CSM", 511), ("BERT", 511)])
def test_windows_that_are_longer_than_the_network_reads_are_refused(name, longest):
    built = network(name)
    # Memory of one frame: nothing is computed before the check.
    frames = torch.zeros(1, 1, P).expand(1, longest + 1, P)
    seconds, marked = torch.zeros(1, longest + 1), torch.zeros(1, P, dtype=torch.bool)
    with pytest.raises(InputError, match=f"{longest} at most.*\n.*\n.*set it to {longest}"):
        built.encode(frames, seconds, torch.ones(1), marked)


@pytest.mark.parametrize("name", ["decoding_GPT", "decoding_BERT", "decoding_NetBERT"])
def test_trials_that_are_longer_than_a_decoder_reads_are_refused(name):
    built = network(name)
    frames, seconds = torch.zeros(1, 1, P).expand(1, 512, P), torch.zeros(1, 512)
    with pytest.raises(InputError, match=r"trials of 512 frames.*511 at most"):
        built.prepare(frames, seconds)
    assert built.prepare(frames[:, 1:], seconds[:, 1:]).inputs_embeds.shape[1] == 512


def test_the_linear_baseline_has_no_states_of_frames():
    assert not is_encoder(network("decoding_LinearBaseline"))
    assert all(is_encoder(network(name)) for name in ENCODERS)


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (
            PretrainOptions,
            {"framework": "csm", "embedding_layers": 2},
            "embedding_layers above 1 need variant lfb",
        ),
        (PretrainOptions, {"framework": "csm", "variant": "lfb", "window_frames": (50, 50)}, "shortest < longest"),
        (PretrainOptions, {"framework": "csm", "variant": "lfb", "window_frames": (50, 255)}, "longest <= 254"),
        (AdaptOptions, {"baseline": "mean_mlp", "variant": "lfb"}, "variant is for the linear baseline"),
        (AdaptOptions, {"pretrained": "csm", "variant": "lfb"}, "that of its upstream experiment"),
    ],
)
def test_options_that_the_variant_has_not_are_refused(model, values, message):
    with pytest.raises(InputError, match=message):
        parse(model, values, "config")
