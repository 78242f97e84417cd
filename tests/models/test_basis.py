"""Principal components of hidden states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldly.models.basis import FILE, MOST_COMPONENTS, Basis, fit_basis, load_basis, save_basis
from boldly.records import InputError


def states(n_frames: int = 300, n_layers: int = 2, width: int = 12, seed: int = 0) -> np.ndarray:
    """Return states with a different spread in each direction, far from zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n_frames, n_layers, width)) * np.geomspace(5, 0.1, width)
    mixing = rng.standard_normal((n_layers, width, width))
    return (np.einsum("nlw,lwv->nlv", values, mixing) + 3).astype(np.float32)


def test_components_are_those_of_the_covariance() -> None:
    values = states()
    basis = fit_basis([values])
    for layer in range(2):
        own = values[:, layer].astype(np.float64)
        np.testing.assert_allclose(basis.mean[layer], own.mean(axis=0), rtol=1e-5)
        _, singular, directions = np.linalg.svd(own - own.mean(axis=0), full_matrices=False)
        np.testing.assert_allclose(basis.variance[layer], singular**2 / len(own), rtol=1e-4)
        # Signs are arbitrary.
        overlap = np.abs(np.diag(directions @ basis.components[layer]))
        np.testing.assert_allclose(overlap, 1, atol=1e-4)
        np.testing.assert_allclose(basis.components[layer].T @ basis.components[layer], np.eye(12), atol=1e-5)


def test_blocks_give_what_the_whole_gives() -> None:
    values = states()
    whole = fit_basis([values])
    for blocks in (
        np.array_split(values, 7),
        [values[:0], values[:1], values[1:]],
        iter([values[:250], values[250:]]),
    ):
        parts = fit_basis(blocks)
        # Sums in another order: the last digits of single precision.
        np.testing.assert_allclose(parts.components, whole.components, atol=1e-5)
        np.testing.assert_allclose(parts.variance, whole.variance, rtol=1e-5)


def test_signs_are_the_same_whatever_the_sign_of_the_states() -> None:
    values = states()
    one, other = fit_basis([values]), fit_basis([-values])
    np.testing.assert_allclose(one.components, other.components, atol=1e-6)
    assert (np.take_along_axis(one.components, np.abs(one.components).argmax(axis=1)[:, None], axis=1) > 0).all()


def test_no_more_components_are_kept_than_read_outs_look_at() -> None:
    basis = fit_basis([states(200, 1, MOST_COMPONENTS + 20)])
    assert basis.components.shape == (1, MOST_COMPONENTS + 20, MOST_COMPONENTS)
    assert basis.variance.shape == (1, MOST_COMPONENTS)
    assert (np.diff(basis.variance) <= 0).all()


def test_fewer_frames_than_width_leave_components_without_variance() -> None:
    basis = fit_basis([states(3, 1, 12)])
    assert basis.components.shape == (1, 12, 12)
    assert np.isfinite(basis.components).all()
    # Three frames span two directions.
    assert (basis.variance[0, 2:] < 1e-4 * basis.variance[0, 0]).all()
    assert (basis.variance >= 0).all()


@pytest.mark.parametrize("blocks", [[], [states(1)]])
def test_a_single_frame_has_no_components(blocks: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least two frames"):
        fit_basis(blocks)


def test_a_basis_goes_to_a_file_and_back(tmp_path: Path) -> None:
    basis = fit_basis([states()])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_basis(tmp_path / name, basis)
    assert (tmp_path / "one" / FILE).read_bytes() == (tmp_path / "two" / FILE).read_bytes()
    found = load_basis(tmp_path / "one")
    assert isinstance(found, Basis)
    for name in ("mean", "components", "variance"):
        np.testing.assert_array_equal(getattr(found, name), getattr(basis, name))


def test_a_missing_file_is_no_error_and_a_damaged_one_is(tmp_path: Path) -> None:
    assert load_basis(tmp_path) is None
    save_basis(tmp_path, fit_basis([states()]))
    whole = (tmp_path / FILE).read_bytes()
    for damaged in (whole[:-10], whole[:20], b"", whole.replace(b"variance", b"varianze")):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(InputError, match="no components"):
            load_basis(tmp_path)
