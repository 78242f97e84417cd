"""Probes: fitted, kept in a folder, read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from boldly.config import ClassifierName, ReadOut
from boldly.decoders.encoders import States
from boldly.decoders.probe import ARRAYS, CONFIG, Choices, FeatureCache, Member, Probe, fit_member, layer_numbers
from boldly.decoders.selection import folds
from boldly.files import read_json, write_json
from boldly.models.basis import fit_basis
from boldly.records import InputError

LOGISTIC: tuple[tuple[ClassifierName, float], ...] = (("logistic", 1.0), ("logistic", 0.1))
LABELS = np.tile(np.arange(3), 20)
UNITS = [f"{unit:02d}" for unit in np.repeat(np.arange(5), 12)]


def states(seed: int = 0) -> States:
    """Return 60 trials of two layers; the first knows nothing, the mean of the second tells three states apart."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(6, 15, 60)
    values = rng.standard_normal((lengths.sum(), 2, 8)).astype(np.float32)
    patterns = np.random.default_rng(9).standard_normal((3, 8))
    values[:, 1] += 0.7 * np.repeat(patterns[LABELS], lengths, axis=0)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return States(values, starts, np.full(60, 2.0))


def member(
    read_outs: tuple[tuple[ReadOut, ...], ...] = (("mean",),),
    layers: tuple[str, ...] = ("all",),
    candidates: tuple[tuple[ClassifierName, float], ...] = LOGISTIC,
    *,
    own_basis: bool = False,
    name: str = "net_seed-1",
    left_out: Sequence[np.ndarray] | None = None,
) -> Member:
    """Fit a member to all trials."""
    given = states()
    basis = fit_basis([given.values])
    everything = np.ones(60, bool)
    cache = FeatureCache(given, basis)
    parts = folds([UNITS], LABELS) if left_out is None else left_out
    choices = Choices(read_outs, layers, candidates)
    own = basis if own_basis else None
    member, _ = fit_member(
        name, lambda words, found: cache(everything, words, found), 2, LABELS, 3, parts, choices, own
    )
    return member


@pytest.mark.parametrize(
    ("word", "expected"), [("all", (0, 1, 2, 3, 4)), ("first", (0,)), ("middle", (2,)), ("last", (4,))]
)
def test_words_for_layers(word: str, expected: tuple[int, ...]) -> None:
    assert layer_numbers(word, 5) == expected
    assert layer_numbers(word, 1) == (0,)


def test_the_layers_and_read_outs_that_tell_states_apart_are_chosen() -> None:
    found = member((("covariance",), ("mean",)), ("first", "last"))
    assert (found.read_outs, found.layers) == (("mean",), (1,))
    assert found.chosen["layers"] == "last"
    assert found.chosen["accuracy"] > 0.8
    assert "net_seed-1: mean, last layers, logistic" in str(found)


def test_read_outs_that_are_used_together_stand_side_by_side() -> None:
    found = member((("mean", "slices"),), ("all",))
    # Two layers of eight components, their means and eight parts.
    assert found.classifier.weights[0].shape == (2 * (8 + 64), 3)


def test_without_anything_to_leave_out_the_first_choice_is_kept_in_a_file(tmp_path: Path) -> None:
    found = member((("slices",), ("mean",)), ("first", "last"), left_out=[])
    assert (found.read_outs, found.layers, found.chosen["penalty"]) == (("slices",), (0,), 1.0)
    Probe((found,), ("a", "b", "c"), 20).save(tmp_path)
    assert Probe.load(tmp_path).members[0].chosen["loss"] is None


def test_features_are_computed_once_and_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    given = states()
    cache = FeatureCache(given, fit_basis([given.values]))
    chosen = np.arange(60) < 7
    first = cache(chosen, ["mean", "slices"], [0, 1])
    monkeypatch.setattr("boldly.decoders.probe.read_out", None)
    again = cache(~chosen, ["slices", "mean"], [1])
    assert [block.shape for block in first] == [(7, 8), (7, 64), (7, 8), (7, 64)]
    assert [block.shape for block in again] == [(53, 64), (53, 8)]


@pytest.fixture
def probe() -> Probe:
    mlp: tuple[tuple[ClassifierName, float], ...] = (("mlp", 1.0),)
    members = (member(own_basis=True), member((("tangent", "mean"),), ("last",), mlp, name="other_seed-2"))
    return Probe(members, ("a", "b", "ä"), 20)


def test_a_probe_goes_to_a_folder_and_back(probe: Probe, tmp_path: Path) -> None:
    probe.save(tmp_path)
    found = Probe.load(tmp_path)
    assert (found.labels, found.longest, str(found)) == (("a", "b", "ä"), 20, str(probe))
    cache = FeatureCache(states(1), fit_basis([states().values]))
    for one, other in zip(probe.members, found.members, strict=True):
        assert (one.encoder, one.read_outs, one.layers) == (other.encoder, other.read_outs, other.layers)
        assert one.chosen == other.chosen
        assert (one.basis is None) == (other.basis is None)
        blocks = cache(np.ones(60, bool), one.read_outs, one.layers)
        np.testing.assert_array_equal(one.probabilities(blocks), other.probabilities(blocks))
    own, kept = probe.members[0].basis, found.members[0].basis
    assert own is not None
    assert kept is not None
    np.testing.assert_array_equal(own.components, kept.components)


def test_the_same_trials_give_the_same_bytes(probe: Probe, tmp_path: Path) -> None:
    probe.save(tmp_path / "one")
    again = (
        member(own_basis=True),
        member((("tangent", "mean"),), ("last",), (("mlp", 1.0),), name="other_seed-2"),
    )
    Probe(again, ("a", "b", "ä"), 20).save(tmp_path / "two")
    for name in (ARRAYS, CONFIG):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_members_tell_new_trials_apart() -> None:
    found = member()
    cache = FeatureCache(states(1), fit_basis([states().values]))
    said = found.probabilities(cache(np.ones(60, bool), found.read_outs, found.layers))
    np.testing.assert_allclose(said.sum(axis=1), 1)
    assert np.mean(said.argmax(axis=1) == LABELS) > 0.8


@pytest.mark.parametrize("name", [ARRAYS, CONFIG])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text"])
def test_damaged_files_are_input_errors(probe: Probe, tmp_path: Path, name: str, damage: str) -> None:
    probe.save(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"[1, 2]"}[damage])
    with pytest.raises(InputError, match="not a decoder"):
        Probe.load(tmp_path)


def test_a_config_that_does_not_fit_the_arrays_is_an_input_error(probe: Probe, tmp_path: Path) -> None:
    probe.save(tmp_path)
    content = read_json(tmp_path / CONFIG)
    first, second = content["members"]
    for members in (
        [],
        [first, second, second],
        [{**first, "read_outs": ["median"]}],
        [{**first, "layers": None}],
        [{key: value for key, value in first.items() if key != "encoder"}],
        ["first"],
        None,
    ):
        write_json(tmp_path / CONFIG, {**content, "members": members})
        with pytest.raises(InputError, match="not a decoder"):
            Probe.load(tmp_path)
