import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from boldly.files import read_json, write_json
from boldly.models import build
from boldly.models.build import build_objective, load_config, load_network, save_network, transfer
from boldly.models.network import NetworkConfig, TrialNorm, parcel_scale
from boldly.records import InputError
from boldly.samples.windows import Trials, WindowOptions, Windows
from tests.training import synthetic

P = 16
FRAMEWORKS = ("autoencoding", "csm", "sequence_bert", "network_bert", "masked_autoencoding")
DECODERS = (*FRAMEWORKS, "linear", "mean_mlp")
MASKING: dict[str, Any] = {
    "autoencoding": "frames",
    "csm": "none",
    "sequence_bert": "frames",
    "network_bert": "parcels",
    "masked_autoencoding": "blocks",
}


def build_network(config, seed) -> Any:
    """An untrained network whose predictions are not zero: the layers that start there are drawn."""
    network = build.build_network(config, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if name.startswith("unembedder"):
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return network


def sizes(framework, labels=()):
    groups = 3 if framework == "masked_autoencoding" else 0  # no divisor of P: groups of several sizes
    return NetworkConfig(
        framework,
        P,
        width=16,
        layers=2,
        heads=4,
        dropout=0.0,
        window_frames=20,
        labels=labels,
        parcel_groups=groups,
    )


def windows(framework, *, longest=20, run_frames=60):
    options = WindowOptions(
        8,
        longest,
        batch_size=8,
        pairs="bert" in framework,
        masking=MASKING[framework],
        mask_fraction=0.4,
        parcel_groups=3,
    )
    return Windows(synthetic.corpus([run_frames] * 4, n_parcels=P), options, seed=1, count=8000)


def trial_batch(numbers=range(6)):
    corpus = synthetic.corpus([9, 12, 7, 10, 12, 8], n_parcels=P, labels=[0, 1, 2, 0, 1, 2], n_labels=3)
    return Trials(corpus, longest=20).__getitems__(numbers)


def pad(batch, n_frames):
    """Put frames of nonsense behind each window of an unpadded batch."""
    B, L = batch["inputs"].shape[:2]
    extra = {
        "inputs": torch.full((B, n_frames, P), 7.0),
        "seconds": torch.full((B, n_frames), 3.0),
        "valid": torch.zeros(B, n_frames, dtype=torch.bool),
        "masked": torch.zeros(B, n_frames, *batch.get("masked", torch.empty(0, 0)).shape[2:], dtype=torch.bool),
    }
    batch = {**batch, "valid": batch.get("valid", torch.ones(B, L, dtype=torch.bool))}
    for name, values in extra.items():
        if name in batch and batch[name].shape[1] == L:
            batch[name] = torch.cat([batch[name], values], dim=1)
    return batch


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_gradient_reaches_every_parameter_of_a_pretraining_network(framework):
    network = build_network(sizes(framework), seed=0)
    build_objective(network)(**windows(framework).__getitems__(range(8)))["loss"].backward()
    # What CSM starts from is fitted, not trained.
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in trained.values())


@pytest.mark.parametrize("framework", ["sequence_bert", "network_bert"])
def test_masked_modeling_reads_single_windows_too(framework):
    network = build_network(dataclasses.replace(sizes(framework), pairs=False), seed=0)
    source = WindowOptions(8, 20, batch_size=8, masking=MASKING[framework])
    batch = Windows(synthetic.corpus([60] * 4, n_parcels=P), source, seed=1, count=8).__getitems__(range(8))
    losses = build_objective(network)(**batch)
    losses["loss"].backward()
    torch.testing.assert_close(losses["window_loss"], losses["l1"])
    # What CSM starts from is fitted, not trained.
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_what_is_hidden_has_no_say_in_masked_autoencoding():
    objective = build_objective(build_network(sizes("masked_autoencoding"), seed=0).eval())
    batch = windows("masked_autoencoding").__getitems__(range(8))
    call = {name: value for name, value in batch.items() if name != "masked"}
    hidden = batch["masked"][..., torch.arange(P) % 3]
    changed = torch.where(hidden, 100.0, batch["inputs"])
    said = [
        objective.network(**{**call, "inputs": inputs}, masked=batch["masked"])
        for inputs in (batch["inputs"], changed)
    ]
    torch.testing.assert_close(said[0][hidden], said[1][hidden])
    # And what is visible has one.
    other = objective.network(
        **{**call, "inputs": torch.where(hidden, batch["inputs"], 1.0)}, masked=batch["masked"]
    )
    assert (other - said[0])[hidden].abs().max() > 1e-3


@pytest.mark.parametrize("framework", DECODERS)
def test_gradient_reaches_every_parameter_of_a_decoder(framework):
    network = build_network(sizes(framework, ("a", "b", "c")), seed=0)
    outputs = network(**trial_batch())
    outputs["loss"].backward()
    assert outputs["logits"].shape == (6, 3)
    # What CSM starts from is fitted, not trained.
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(
    ("framework", "n_steps"),
    [
        ("autoencoding", 60),
        ("csm", 60),
        ("sequence_bert", 200),
        ("network_bert", 60),
        ("masked_autoencoding", 200),
    ],
)
def test_training_lowers_the_loss(framework, n_steps):
    network, source = build_network(sizes(framework), seed=0), windows(framework)
    objective = build_objective(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    held_out = source.__getitems__(range(4000, 4032))
    with torch.no_grad():
        before = objective(**held_out)["l1"].mean()
    for step in range(n_steps):
        optimiser.zero_grad()
        objective(**source.__getitems__(range(8 * step, 8 * step + 8)))["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        after = objective(**held_out)["l1"].mean()
    # Half of the variance is noise that nobody can predict: 3 % of the error is a clear step, these are few steps.
    assert after < 0.97 * before


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_padding_has_no_influence(framework):
    objective = build_objective(build_network(sizes(framework), seed=0).eval())
    batch = windows(framework).__getitems__(range(8))
    expected = objective(**batch)["window_loss"]
    torch.testing.assert_close(objective(**pad(batch, 5))["window_loss"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("framework", DECODERS)
def test_padding_has_no_influence_on_decoding(framework):
    network = build_network(sizes(framework, ("a", "b", "c")), seed=0).eval()
    batch = trial_batch(range(1))
    expected = network(**batch)["logits"]
    torch.testing.assert_close(network(**pad(batch, 4))["logits"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_marked_parcels_have_no_influence(framework):
    objective = build_objective(build_network(sizes(framework), seed=0).eval())
    batch = windows(framework).__getitems__(range(8))
    batch["marked"] = torch.zeros_like(batch["marked"])
    batch["marked"][:, 3:5] = True
    expected = objective(**batch)["window_loss"]
    changed = batch["inputs"].clone()
    changed[:, :, 3:5] += 100
    torch.testing.assert_close(objective(**{**batch, "inputs": changed})["window_loss"], expected)


@pytest.mark.parametrize("framework", DECODERS)
def test_marked_parcels_have_no_influence_on_decoding(framework):
    network = build_network(sizes(framework, ("a", "b", "c")), seed=0).eval()
    batch = trial_batch()
    batch["marked"][:, 3:5] = True
    expected = network(**batch)["logits"]
    batch["inputs"][:, :, 3:5] += 100
    torch.testing.assert_close(network(**batch)["logits"], expected)


def test_marking_keeps_the_variance_of_the_input():
    marked = torch.zeros(1, 100, dtype=torch.bool)
    marked[:, :36] = True
    scaled = torch.randn(20_000, 100, generator=torch.Generator().manual_seed(0)) * parcel_scale(marked)
    assert abs(scaled.sum(dim=1).var().item() / 100 - 1) < 0.05  # standard error of a variance of 20,000: 1 %


def test_csm_does_not_see_the_future():
    network = build_network(sizes("csm"), seed=0).eval()
    batch = windows("csm").__getitems__(range(8))
    parts = {name: batch[name] for name in ("seconds", "t_r", "marked")}
    changed = batch["inputs"].clone()
    changed[:, 5:] += 1
    before = network.predict_next(batch["inputs"], **parts)
    after = network.predict_next(changed, **parts)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("width", [16, 256])
def test_the_first_predictions_are_almost_none(framework, width):
    config = dataclasses.replace(sizes(framework), width=width)
    objective = build_objective(build.build_network(config, seed=0).eval())
    batch = windows(framework).__getitems__(range(8))
    # Those of CSM, without fitted dynamics, are none.
    tolerance = 0 if framework == "csm" else 0.1
    torch.testing.assert_close(
        objective(**batch)["l1"], objective.naive(**batch)["l1_zero"], rtol=tolerance, atol=1e-6
    )


def test_csm_supervises_every_frame():
    batch = windows("csm").__getitems__(range(8))
    batch["inputs"].requires_grad_()
    error = build_objective(build_network(sizes("csm"), seed=0).eval())(**batch)["loss"]
    assert (torch.autograd.grad(error, batch["inputs"])[0].abs().sum(dim=2) > 0).all()


def test_sequence_bert_does_not_see_masked_frames():
    network = build_network(sizes("sequence_bert"), seed=0).eval()
    batch = windows("sequence_bert").__getitems__(range(8))
    batch.pop("follows")
    hidden = torch.where(batch["masked"][..., None], torch.randn_like(batch["inputs"]), batch["inputs"])
    expected, order = network.predict(**batch)
    frames, same_order = network.predict(**{**batch, "inputs": hidden})
    torch.testing.assert_close(frames, expected)
    torch.testing.assert_close(same_order, order)


def test_network_bert_does_not_see_masked_parcels_and_counts_only_them():
    network = build_network(sizes("network_bert"), seed=0).eval()
    batch = windows("network_bert").__getitems__(range(8))
    hidden = torch.where(batch["masked"][:, None], torch.randn_like(batch["inputs"]), batch["inputs"])
    call = {name: value for name, value in batch.items() if name != "follows"}
    torch.testing.assert_close(network.predict(**{**call, "inputs": hidden})[0], network.predict(**call)[0])
    error = (network.predict(**call)[0] - batch["inputs"]).abs().transpose(1, 2)[batch["masked"]]
    expected = error.view(8, -1).mean(dim=1)
    torch.testing.assert_close(build_objective(network)(**batch)["l1"], expected)


def test_the_order_label_is_the_right_way_round():
    network = build_network(sizes("sequence_bert"), seed=0)
    with torch.no_grad():
        network.follows_head.bias.fill_(10)
    batch = windows("sequence_bert").__getitems__(range(32))
    loss = build_objective(network.eval())(**batch)["order_loss"]
    # A network that always says "follows" is right where B follows (defect 8.12).
    assert loss[batch["follows"] == 1].max() < 0.1
    assert loss[batch["follows"] == 0].min() > 5


def test_the_autoencoder_decodes_from_masked_frames_without_seeing_the_frame_to_restore():
    network = build_network(sizes("autoencoding"), seed=0).eval()
    batch = windows("autoencoding").__getitems__(range(8))
    everything_masked = {**batch, "masked": torch.ones_like(batch["masked"])}
    frames = network.predict(**everything_masked)
    # All that the decoder knows comes through one vector: the same vector, the same frames.
    summary = network._encode(network.embedder(*(batch[k] for k in ("inputs", "seconds", "t_r", "marked"))), None)[
        1
    ]
    assert summary.shape == (8, 16)
    assert not torch.allclose(frames[0], frames[1])
    # Teacher forcing is shifted (defect 8.16): with the encoder's vector fixed, frame 4 changes nothing before 5.
    network._encode = lambda hidden, valid: (hidden, summary)
    unmasked = {**batch, "masked": torch.zeros_like(batch["masked"])}
    changed = batch["inputs"].clone()
    changed[:, 4] += 1
    before, after = network.predict(**unmasked), network.predict(**{**unmasked, "inputs": changed})
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_any_time_and_any_length_has_a_place(framework):
    """Defect 8.11: beyond 300 s the reference crashes; longer windows than trained are fine too."""
    objective = build_objective(build_network(sizes(framework), seed=0).eval())
    batch = windows(framework, longest=20, run_frames=200).__getitems__(range(8))
    batch["seconds"] = batch["seconds"] * 40 + 0.123
    assert torch.isfinite(objective(**batch)["loss"])
    assert batch["seconds"].max() > 300
    longer = WindowOptions(90, 90, 4, pairs="bert" in framework, masking=MASKING[framework], parcel_groups=3)
    corpus = synthetic.corpus([200] * 3, n_parcels=P)
    assert torch.isfinite(objective(**Windows(corpus, longer, 1, 4).__getitems__(range(4)))["loss"])


def test_attention_takes_the_fused_kernel():
    for framework in ("csm", "sequence_bert"):
        assert build_network(sizes(framework), seed=0).decoder.config._attn_implementation == "sdpa"


def test_the_head_starts_with_the_mean_over_real_frames_of_every_layer():
    head = build_network(sizes("csm", ("a", "b")), seed=0).head
    layers = [torch.randn(3, 6, 16) for _ in range(3)]
    valid = torch.arange(6) < torch.tensor([6, 4, 2])[:, None]
    means = [(hidden * valid[..., None]).sum(dim=1) / valid.sum(dim=1, keepdim=True) for hidden in layers]
    torch.testing.assert_close(head.pool(layers, valid), torch.cat(means, dim=1))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, two, other = (build_network(sizes("csm"), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embedder.projection.weight"], other["embedder.projection.weight"])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("framework", DECODERS)
def test_a_folder_gives_back_the_network(tmp_path, framework):
    config = sizes(framework, ("a", "b", "c"))
    network = build_network(config, seed=0).eval()
    save_network(tmp_path, config, network.state_dict(), synthetic.contract(P))
    assert load_config(tmp_path) == config
    batch = trial_batch()
    assert torch.equal(load_network(tmp_path)(**batch)["logits"], network(**batch)["logits"])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_decoder_takes_over_all_but_the_head(framework):
    weights = build_network(sizes(framework), seed=1).state_dict()
    decoder = build_network(sizes(framework, ("a", "b")), seed=2)
    new = transfer(decoder, weights, "there")
    assert new
    assert all(name.startswith("head.") for name in new)
    assert torch.equal(decoder.state_dict()["embedder.projection.weight"], weights["embedder.projection.weight"])


def test_weights_that_do_not_fit_are_named():
    weights = build_network(sizes("csm"), seed=1).state_dict()
    decoder = build_network(dataclasses.replace(sizes("csm", ("a", "b")), n_parcels=P + 1), seed=2)
    with pytest.raises(InputError, match=r"embedder\.projection\.weight has shape \(16, 16\), not \(16, 17\)"):
        transfer(decoder, weights, "there")
    del weights["decoder.ln_f.weight"]
    with pytest.raises(InputError, match=r"decoder\.ln_f\.weight is missing"):
        transfer(build_network(sizes("csm", ("a", "b")), seed=2), weights, "there")


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no trained model"):
        load_network(tmp_path)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_decoder_trains_on_single_trials(framework):
    network = build_network(sizes(framework, ("a", "b", "c")), 1).train()
    for number in range(6):
        network(**trial_batch([number]))["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)
    assert network.head.query.grad.abs().sum() > 0
    # Running numbers are those of scaling, so that evaluation scales as the training did.
    assert (network.head.norm.running_var > 0).all()
    assert (network.head.norm.running_mean != 0).any()


def test_single_trials_move_mean_and_variance_towards_those_of_all_trials():
    norm: Any = TrialNorm(1).train()
    trials = 5 + 3 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(1))
    found = []
    for trial in trials:
        norm(trial[None])
        found.append((float(norm.running_mean), float(norm.running_var)))
    # Averaged over time: single values lean on the last ten trials or so.
    mean, variance = torch.tensor(found[100:]).mean(dim=0)
    assert mean == pytest.approx(5, abs=0.2)
    # Of 9 the share that this average has in the long run: 2 (1 - m) / (2 - m) with m = 0.1.
    assert variance == pytest.approx(9 * 2 * 0.9 / 1.9, rel=0.1)


def test_horizons_are_times_so_that_frames_ahead_follow_the_repetition_time():
    corpus = synthetic.corpus([60, 60, 60, 12], t_r=[2.0, 0.8, 3.0, 2.0], n_parcels=P)
    options = WindowOptions(12, 14, batch_size=1)
    batch = Windows(corpus, options, seed=1, count=60).__getitems__(range(24))
    config = dataclasses.replace(sizes("csm"), horizons_s=(1.0, 4.0, 8.0))
    network = build_network(config, 1).eval()
    network.start_targets(np.random.default_rng(0).standard_normal(network.ahead.shape))
    found = build_objective(network)(**batch)
    hidden = network.encode(batch["inputs"], batch["seconds"], batch["t_r"], batch["marked"])[-1]
    frames_ahead = {2.0: (1, 2, 4), 0.8: (1, 5, 10), 3.0: (1, 1, 3)}  # 1 s is the next frame at the earliest
    assert {round(t_r, 1) for t_r in batch["t_r"].tolist()} == frames_ahead.keys()
    lengths = batch["valid"].sum(dim=1).tolist()
    for row, (t_r, length) in enumerate(zip(batch["t_r"].tolist(), lengths, strict=True)):
        ahead = frames_ahead[round(t_r, 1)]
        now = torch.arange(length - max(ahead))
        target = sum(batch["inputs"][row, now + by] @ network.ahead[place] for place, by in enumerate(ahead))
        error = (network.coming(hidden[row, now]) - target).square().mean()
        torch.testing.assert_close(found["window_loss"][row], found["l1"][row] + error)


def test_a_model_from_before_horizons_were_seconds_is_read(tmp_path):
    config = sizes("csm")
    network = build_network(config, 1)
    save_network(tmp_path, config, network.state_dict(), synthetic.contract(P))
    write_json(tmp_path / "config.json", {**read_json(tmp_path / "config.json"), "horizons": []})
    assert load_config(tmp_path) == config
    torch.testing.assert_close(load_network(tmp_path).state_dict(), network.state_dict(), rtol=0, atol=0)
