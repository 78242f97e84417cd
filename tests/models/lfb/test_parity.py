"""Agreement with the published code: weights, inputs and outputs of three of its networks, of random numbers.

The files keep of the tables of times and positions only the rows in use, of gradients their norms.
"""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from boldly.models.build import build_network
from boldly.models.lfb.network import losses
from tests.models.lfb import reference

NAMES = {"csm": "CSM", "decoding_gpt": "decoding_GPT", "autoencoder": "autoencoder"}


def case(name):
    """Return the network with the given weights, its batch, and what it should give."""
    content = load_file(reference.HERE / f"parity_{name}.safetensors")
    network = build_network(reference.sizes(NAMES[name]), seed=0)
    given = {key.removeprefix("weight."): value for key, value in content.items() if key.startswith("weight.")}
    state = network.state_dict() | given
    times, rows = state["embedder.wt_re.weight"], content["row.embedder.wt_re.weight"]
    times[: len(rows) - 1], times[-1] = rows[:-1], rows[-1]
    positions = "decoder.transformer.wpe.weight"
    if positions in state:
        state[positions][: len(content[f"row.{positions}"])] = content[f"row.{positions}"]
    network.load_state_dict(state)
    batch = {key: content[key] for key in ("inputs", "seconds", "valid", "masked") if key in content}
    return network.eval(), batch, content


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_the_published_code(name):
    network, batch, expected = case(name)
    tokens = network.prepare(**batch)
    for part in ("inputs_embeds", "t_rs", "attention_mask"):
        assert torch.equal(getattr(tokens, part), expected[f"tokens.{part}"])


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_the_published_code(name):
    network, batch, expected = case(name)
    tokens = network.prepare(**batch)
    embedded = network.embedder(tokens.inputs_embeds, tokens.t_rs)
    torch.testing.assert_close(embedded, expected["embedded"], atol=1e-6, rtol=0)
    outputs = network.predict(tokens)
    wanted = {key.removeprefix("outputs."): v for key, v in expected.items() if key.startswith("outputs.")}
    for key, value in wanted.items():
        # The autoencoder feeds its outputs to itself, so that errors would grow: a tighter bound.
        torch.testing.assert_close(outputs[key], value, atol=1e-6 if name == "autoencoder" else 1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_the_published_code(name):
    network, batch, expected = case(name)
    tokens = network.prepare(**batch)
    outputs = network.predict(tokens)
    if "labels" in expected:
        loss = functional.cross_entropy(outputs["decoding_logits"], expected["labels"])
    else:
        loss = losses(tokens, outputs)["loss"]
    torch.testing.assert_close(loss, expected["loss"], atol=1e-6, rtol=0)
    loss.backward()
    found = {name: p.grad.norm() for name, p in network.named_parameters() if p.grad is not None}
    wanted = {
        key.removeprefix("gradient_norm."): v for key, v in expected.items() if key.startswith("gradient_norm.")
    }
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-4)
