import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from boldly.config import PretrainOptions
from boldly.models import build
from boldly.models.build import build_objective, pretraining_config, window_options
from boldly.samples.windows import Windows, number_of
from boldly.training import linear
from boldly.training.forecasts import forecast
from boldly.training.linear import fit_linear, fitted_couplings
from boldly.training.processes import Processes
from boldly.training.validation import UpstreamValidation
from tests.training import synthetic

P = 6
NOISE = 0.5


def build_network(config, seed) -> Any:
    return build.build_network(config, seed)


def fit_forecasts(corpus, wanted) -> Any:
    fitted = linear.fit_forecasts(corpus, wanted)
    return {
        group: {name: None if value is None else torch.from_numpy(value) for name, value in found.items()}
        for group, found in fitted.items()
    }


def coupling(t_r=1.0, memory_s=1e9):
    """A rotation of pairs of parcels, so that each says what the next one will be."""
    matrix = 0.8 * np.roll(np.eye(P), 1, axis=1)
    return matrix * np.exp(-t_r / memory_s)


def study(lengths, *, t_r=2.0, memory_s=1e9, datasets=None, seed=0):
    """A corpus whose runs follow the coupling."""
    corpus = synthetic.corpus(lengths, t_r=t_r, datasets=datasets, n_parcels=P)
    rng, runs = np.random.default_rng(seed), []
    for length, step in zip(lengths, corpus.t_r, strict=True):
        frames = rng.standard_normal((length, P))
        for t in range(1, length):
            frames[t] = frames[t - 1] @ coupling(step, memory_s) + NOISE * frames[t]
        runs.append(frames)
    return dataclasses.replace(corpus, frames=np.concatenate(runs).astype(np.float16))


def test_the_var_of_a_group_is_that_of_its_runs():
    fitted = fit_forecasts(study([4000, 4000], seed=1), [("toy", 2.0)])["toy", 2.0]
    # 8,000 frames: standard error of a coefficient about 0.01.
    np.testing.assert_allclose(fitted["var"].numpy(), coupling(), atol=0.06)
    assert fitted["ar1"].abs().max() < 0.1
    assert fitted["last_frame"] is None


def test_groups_have_fits_of_their_own_and_unknown_ones_take_what_is_nearest():
    one = study([3000, 3000, 60], datasets=["a", "b", "b"])
    halved = dataclasses.replace(one, frames=np.concatenate([one.frames[:3000], one.frames[3000:][::-1]]))
    fitted = fit_forecasts(halved, [("a", 2.0), ("b", 2.0), ("a", 9.0), ("new", 2.0)])
    assert not torch.allclose(fitted["a", 2.0]["var"], fitted["b", 2.0]["var"], atol=0.2)
    assert torch.equal(fitted["a", 9.0]["var"], fitted["a", 2.0]["var"])
    whole = fit_forecasts(dataclasses.replace(halved, datasets=("all",) * 3), [("all", 2.0)])
    assert torch.equal(fitted["new", 2.0]["var"], whole["all", 2.0]["var"])


def test_repetition_times_that_differ_by_rounding_are_one():
    """A header holds single precision, a JSON 0.72: apart, each run would have a VAR of its own."""
    t_r = [0.72, float(np.float32(0.72)), 0.72001, 2.0]
    corpus = dataclasses.replace(study([400] * 4), t_r=np.array(t_r))
    assert set(corpus.groups) == {("toy", 0.72), ("toy", 2.0)}
    fitted = fit_forecasts(corpus, corpus.groups)
    alike = fit_forecasts(dataclasses.replace(corpus, t_r=np.array([0.72] * 3 + [2.0])), corpus.groups)
    assert torch.equal(fitted["toy", 0.72]["var"], alike["toy", 0.72]["var"])


def test_the_ridge_is_larger_where_data_are_few():
    few, many = (fit_forecasts(study([n, n]), [("toy", 2.0)])["toy", 2.0]["var"] for n in (12, 3000))
    assert few.norm() < many.norm()
    held_out = torch.from_numpy(study([500], seed=5).frames).float()[None]
    seen = torch.ones(1, 500, dtype=torch.bool)
    error = (forecast(held_out, seen, few) - held_out).abs().mean()
    assert error < held_out.abs().mean()


def test_what_is_not_seen_is_forecast_from_the_forecast():
    frames = torch.randn(2, 6, P)
    seen = torch.tensor([True, True, False, False, True, True]).expand(2, 6)
    decay = torch.full((P,), 0.5)
    said = forecast(frames, seen, decay, split=5)
    for place, expected in ((1, frames[:, 0] / 2), (2, frames[:, 1] / 2), (3, frames[:, 1] / 4)):
        torch.testing.assert_close(said[:, place], expected)
    torch.testing.assert_close(said[:, 4], frames[:, 1] / 8)
    assert not said[:, 0].any()
    assert not said[:, 5].any()  # a pair's second window starts anew
    torch.testing.assert_close(forecast(frames, seen, None)[:, 3], frames[:, 1])


def test_each_dataset_and_repetition_time_has_a_coupling_of_its_own():
    corpus = study([4000] * 4, t_r=[1.0, 1.0, 4.0, 4.0], memory_s=4.0, datasets=["a", "a", "a", "b"])
    fitted = fitted_couplings(fit_linear(corpus, None))
    assert list(fitted) == [("a", 1.0), ("a", 4.0), ("b", 4.0)]
    for (_, t_r), found in fitted.items():
        # 4,000 frames: standard error of a coefficient about 0.015.
        np.testing.assert_allclose(found, coupling(t_r, 4.0), atol=0.08)


def own(n_frames, runs=1, seed=0):
    """Runs of parcels that each follow themselves alone."""
    rng, corpus = np.random.default_rng(seed), synthetic.corpus([n_frames] * runs, t_r=2.0, n_parcels=P)
    noise = rng.standard_normal((runs, n_frames, P))
    for t in range(1, n_frames):
        noise[:, t] += 0.7 * noise[:, t - 1]
    return dataclasses.replace(corpus, frames=noise.reshape(-1, P).astype(np.float32))


def test_with_one_short_run_dynamics_are_no_worse_than_those_of_each_parcel_by_itself():
    training, held_out = own(30), torch.from_numpy(own(2000, seed=7).frames)
    fitted = fit_forecasts(training, [("toy", 2.0)])["toy", 2.0]
    start = fitted["coupling"]

    def error(forecast_of):
        return float((held_out[1:] - forecast_of(held_out[:-1])).square().mean())

    alone = error(lambda frames: frames * fitted["ar1"])
    assert error(lambda frames: frames @ start) < 1.02 * alone
    # One run is parted in its middle: without a part left out the least penalty would seem best.
    plain = error(lambda frames: frames @ fitted["var"])
    assert plain < float(held_out.square().mean())


def test_with_many_runs_the_penalty_towards_ar1_does_not_hide_what_parcels_say_of_each_other():
    fitted = fit_forecasts(study([4000, 4000], seed=1), [("toy", 2.0)])["toy", 2.0]
    np.testing.assert_allclose(fitted["coupling"].numpy(), coupling(), atol=0.06)


def chooser(corpus, training):
    """Validate on windows of a corpus."""
    wanted = window_options(PretrainOptions(framework="csm", window_frames=(6, 12)), 8)
    return UpstreamValidation(Windows(corpus, wanted, 1, 200), 8, training=training)


def test_a_coupling_that_only_one_subject_has_is_left_out_of_the_start():
    """One subject with coupled parcels, others whose parcels each follow themselves alone."""
    training = dataclasses.replace(study([300, 300]), subjects=("00", "00"))
    fits: Any = fit_linear(training, None)
    alike, others = study([300] * 2, seed=5), own(300, 2, seed=5)
    (same,), (other,) = (chooser(c, training).choose_couplings(fits).values() for c in (alike, others))
    fit = fits["toy", 2.0]
    assert min(abs(same - fit[name]).max() for name in ("coupling", "var")) < 1e-6
    np.testing.assert_allclose(other, np.diag(fit["ar1"]))


def test_groups_choose_by_themselves_and_those_without_a_window_keep_their_fit():
    training = study([300] * 6, datasets=["a", "a", "b", "b", "c", "c"])
    fits: Any = fit_linear(training, None)
    alike, others = study([300] * 2, seed=5), own(300, 2, seed=5)
    frames = np.concatenate([alike.frames, others.frames.astype(np.float16)])
    held_out = dataclasses.replace(study([300] * 4, datasets=["a", "a", "b", "b"]), frames=frames)
    found = chooser(held_out, training).choose_couplings(fits)
    np.testing.assert_allclose(found["a", 2.0], coupling(), atol=0.2)
    np.testing.assert_allclose(found["b", 2.0], np.diag(fits["b", 2.0]["ar1"]))
    np.testing.assert_allclose(found["c", 2.0], fits["c", 2.0]["coupling"], atol=1e-6)


def starting(groups):
    options = PretrainOptions(framework="csm", layers=1, width=8, heads=2)
    return build_network(pretraining_config(options, P, groups), 1).eval()


def test_in_each_group_the_start_is_as_good_as_its_fit_ar1_and_var_on_the_windows_that_choose():
    datasets = ["a", "a", "b", "b"]
    # Few frames, so that fits err; in b parcels say nothing of each other.
    training = study([40] * 4, t_r=[0.8, 0.8, 2.0, 2.0], memory_s=2.0, datasets=datasets)
    training = dataclasses.replace(training, subjects=("00", "00", "01", "01"))
    held_out = study([300] * 4, t_r=[0.8, 0.8, 2.0, 2.0], memory_s=2.0, datasets=datasets, seed=3)
    held_out = dataclasses.replace(
        held_out, frames=np.concatenate([held_out.frames[:600], own(300, 2, seed=3).frames.astype(np.float16)])
    )
    validate, fits = chooser(held_out, training), fit_linear(training, held_out)
    errors = []
    for couplings in (validate.choose_couplings(fits), fitted_couplings(fits)):
        network = starting(sorted(fits))
        network.start_dynamics(couplings)
        with torch.inference_mode():
            errors.append(validate(build_objective(network), Processes()))
    chosen, fitted = errors
    for part in ("", "_a", "_b"):
        best = min(fitted[f"l1{part}"], fitted[f"l1_ar1{part}"], fitted[f"l1_var{part}"])
        assert chosen[f"l1{part}"] <= best + 1e-6  # rounding


def test_csm_starts_from_the_coupling_of_its_dataset_and_the_nearest_repetition_time():
    groups = [("a", 0.8), ("a", 2.0), ("b", 2.0)]
    network = starting(groups)
    couplings = {group: (number + 1) * coupling() for number, group in enumerate(groups)}
    network.start_dynamics(couplings)
    inputs = torch.randn(5, 5, P)
    marked = torch.zeros(5, P, dtype=torch.bool)
    t_r = torch.tensor([0.8, 2.0, 2.0, 1.9, 0.7])
    datasets = torch.tensor([number_of(name) for name in ("a", "a", "b", "a", "new")])
    said = network.predict_next(inputs, torch.arange(5.0) * t_r[:, None], t_r, marked, datasets)
    for row, place in enumerate((0, 1, 2, 1, 0)):
        torch.testing.assert_close(said[row], inputs[row] @ torch.from_numpy(couplings[groups[place]]).float())
    unknown = network.predict_next(inputs, torch.arange(5.0) * t_r[:, None], t_r, marked)
    torch.testing.assert_close(unknown[0], said[0])


@torch.inference_mode()
def test_each_group_keeps_the_share_of_the_blocks_that_errs_least():
    """The blocks are made to say the rest of the forecast in one dataset, and nonsense in the other."""
    corpus = study([300] * 4, datasets=["a", "a", "b", "b"], seed=3)
    groups = sorted(set(corpus.groups))
    network = starting(groups)
    network.start_dynamics({("a", 2.0): coupling(), ("b", 2.0): np.zeros((P, P))})
    says = torch.nn.Linear(P, P, bias=False)
    says.weight.copy_(torch.from_numpy(coupling()).T)
    network.encode = lambda inputs, *parts: [inputs]
    network.unembedder, network.coming = says, None
    objective = build_objective(network)
    wanted = window_options(PretrainOptions(framework="csm", window_frames=(6, 12)), 8)
    windows = Windows(corpus, wanted, 1, 100)
    row = UpstreamValidation(windows, 8, calibrate=True)(objective, Processes())
    assert (row["forecast_share_a_2s"], row["forecast_share_b_2s"]) == (0.0, 1.0)
    assert row["forecast_share"] == 0.5
    network.load_state_dict(objective.settle(network.state_dict(), row))
    again = UpstreamValidation(windows, 8)(objective, Processes())
    assert again["l1"] == pytest.approx(row["l1"], abs=1e-6)
    # Of both datasets only the noise is left.
    assert again["l1"] == pytest.approx(NOISE * np.sqrt(2 / np.pi), rel=0.05)


def validation(framework="csm", cache=None, training=None):
    training = training or study([300] * 4, t_r=[2.0, 2.0, 0.8, 2.0], datasets=["a", "a", "a", "b"])
    options = PretrainOptions(framework=framework, layers=1, width=8, heads=2, window_frames=(6, 12))
    held_out = dataclasses.replace(training, frames=study([300] * 4, seed=9).frames)
    windows = Windows(held_out, window_options(options, 8), 99, 40)
    objective = build_objective(build_network(pretraining_config(options, P), 1).eval())
    return UpstreamValidation(windows, 8, training=training, cache=cache), objective


@torch.inference_mode()
def test_validation_compares_by_dataset_and_repetition_time():
    compare, objective = validation()
    row = compare(objective, Processes())
    for part in ("", "_a", "_b", "_a_2s", "_a_0.8s"):
        for other in ("zero", "last_frame", "ar1", "var"):
            skill = f"skill{part}" if other == "zero" else f"skill_{other}{part}"
            assert row[skill] == pytest.approx(1 - row[f"l1{part}"] / row[f"l1_{other}{part}"])
    assert "l1_b_2s" not in row
    # Predicted from its neighbour a parcel is left with the noise alone.
    assert row["l1_var"] == pytest.approx(NOISE * np.sqrt(2 / np.pi), rel=0.05)
    assert row["l1_var"] < row["l1_ar1"] <= row["l1_zero"] * 1.02
    batch = compare.windows.__getitems__(range(40))
    frames, valid = batch["inputs"], batch["valid"]
    again = (frames[:, 1:] - frames[:, :-1]).abs().mean(dim=2) * valid[:, 1:]
    assert row["l1_last_frame"] == pytest.approx(float((again.sum(1) / valid[:, 1:].sum(1)).mean()), rel=1e-4)


@pytest.mark.parametrize("framework", ["autoencoding", "sequence_bert", "network_bert"])
@torch.inference_mode()
def test_other_objectives_compare_with_what_they_could_see(framework):
    compare, objective = validation(framework)
    row = compare(objective, Processes())
    if framework == "network_bert":
        assert not any(name.startswith("l1_var") for name in row)  # parcels are hidden at all times
    else:
        assert row["l1_var"] < row["l1_ar1"]


@torch.inference_mode()
def test_comparisons_are_kept_and_not_fitted_again(tmp_path, monkeypatch):
    first, objective = validation(cache=tmp_path / "comparisons.json")
    row = first(objective, Processes())

    def fail(*arguments):
        raise AssertionError("fitted again")

    monkeypatch.setattr("boldly.training.validation.fit_forecasts", fail)
    assert first(objective, Processes()) == row
    again, _ = validation(cache=tmp_path / "comparisons.json")
    assert again(objective, Processes()) == row
    assert json.loads((tmp_path / "comparisons.json").read_text())["l1_var"]


@pytest.mark.filterwarnings("ignore:invalid value")  # what a process without a share knows by itself
@torch.inference_mode()
def test_comparisons_add_up_over_processes_even_without_a_share():
    compare, objective = validation()
    alone = compare(objective, Processes())
    tables = []

    def keep(table):
        tables.append(table.clone())
        return table

    count = 7  # more processes than the five batches
    for rank in range(count):
        one, _ = validation()
        one(objective, Processes(rank, count, keep))
    totals = iter([sum(tables[0::2]), sum(tables[1::2])])
    both, _ = validation()
    assert both(objective, Processes(0, count, lambda table: next(totals))) == pytest.approx(alone)


def test_what_lies_behind_a_gap_is_not_the_next_frame():
    parts = synthetic.corpus([50, 40, 60, 30], n_parcels=P)
    split = dataclasses.replace(parts, subjects=("0", "0", "1", "1"))
    whole = synthetic.corpus([90, 90], n_parcels=P)
    numbers = np.concatenate([np.arange(90) + 7 * (np.arange(90) >= gap) for gap in (50, 60)])
    gapped = dataclasses.replace(whole, frames=parts.frames, subjects=("0", "1"), numbers=numbers.astype(np.int32))
    expected, found = (fit_forecasts(c, [("toy", 2.0)])["toy", 2.0]["coupling"] for c in (split, gapped))
    assert torch.equal(found, expected)
