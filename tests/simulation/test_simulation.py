"""The model behind the demo study: its statistics, its ceilings, and confounds that explain the artefacts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from nilearn.glm.first_level.design_matrix import create_cosine_drift
from scipy.stats import multivariate_normal

from boldly.simulation import artefacts, ceilings, confounds, networks, states, study
from boldly.simulation.anatomy import anatomy, parcel_names

PAIR_STATES = [name for pair in states.PAIRS for name in pair]
DOWNSTREAM = [dataset for dataset in study.DATASETS if dataset.states]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("t_r", [0.72, 2.0])
def test_background_has_its_covariance_at_any_repetition_time(rng, t_r):
    steps = [0, 2, 5]
    n_draws, n_volumes = 1500, 8
    draws = np.stack([networks.draw_background(rng, n_volumes, t_r) for _ in range(n_draws)])
    expected = networks.background_covariance(np.array(steps) * t_r)
    for which, step in enumerate(steps):
        found = draws[:, 0].T @ draws[:, step] / n_draws
        # The standard error of a covariance of two unit normals is at most sqrt(2 / 1500) = 0.037.
        np.testing.assert_allclose(found, expected[..., which], atol=4.5 * 0.037)


def test_background_of_networks_is_lagged_not_simultaneous():
    lags = np.arange(-10.0, 10.1, 0.5)
    covariance = networks.background_covariance(lags)
    best = np.array([lags[np.abs(covariance[i, j]).argmax()] for i, j in itertools.combinations(range(8), 2)])
    assert (best != 0).mean() > 0.5


def test_parcel_noise_has_its_covariance(rng):
    t_r = 0.72
    noise = networks.draw_parcel_noise(rng, 20000, t_r)
    expected = networks.parcel_noise_covariance(np.array([0.0, t_r]), t_r)
    assert np.isclose((noise**2).mean(), expected[0], rtol=0.01)
    assert np.isclose((noise[1:] * noise[:-1]).mean(), expected[1], atol=0.1)


def test_haemodynamic_response_peaks_at_five_seconds_and_has_unit_area():
    times = np.arange(0, 40, 0.01)
    response = states.haemodynamic_response(times)
    assert times[response.argmax()] == pytest.approx(5.0, abs=0.05)
    assert response.sum() * 0.01 == pytest.approx(1.0, abs=1e-3)
    assert not states.haemodynamic_response(np.array([-1.0, 0.0])).any()


@pytest.mark.parametrize("duration", study.TRIAL_DURATIONS_S)
@pytest.mark.parametrize("name", [*PAIR_STATES, "s1"])
def test_window_of_a_trial_holds_the_pattern_and_averages_the_wave_away(name, duration):
    times = np.arange(0.0, duration, 0.1) + states.RECOMMENDED_DELAY_S
    pattern, wave, later = states.response(states.library()[name], duration, times)
    assert np.abs(pattern.mean(axis=0)).min() > 0.6 * states.PATTERN_AMPLITUDE
    for part in (wave, later):
        assert part.std(axis=0).min() > 0.2
        np.testing.assert_allclose(part.mean(axis=0), 0.0, atol=1e-9)


@pytest.mark.parametrize("pair", states.PAIRS)
def test_states_of_a_pair_differ_in_order_alone(pair):
    one, other = (states.library()[name] for name in pair)
    times = np.arange(0.0, 30.0, 0.5)
    np.testing.assert_array_equal(one.pattern, other.pattern)
    first, second = (states.response(state, 20.0, times)[1] for state in (one, other))
    # Reversing the order mirrors the phases: what one network does first the other order does last.
    assert not np.allclose(first, second, atol=0.2)
    np.testing.assert_allclose(np.sort(np.abs(one.phase)), np.sort(np.abs(other.phase)))


def test_states_leave_the_mean_over_networks_unchanged():
    times = np.arange(0.0, 40.0, 0.5)
    for name, state in states.library().items():
        total = states.response(state, 20.0, times).sum(axis=-1)
        np.testing.assert_allclose(total, 0.0, atol=1e-9, err_msg=name)


def test_subjects_differ_in_topography_gain_and_lag(rng):
    one, other = networks.draw_subject(rng), networks.draw_subject(rng)
    alike = np.corrcoef(one.mixing.ravel(), other.mixing.ravel())[0, 1]
    assert 0.2 < alike < 0.8
    assert one.response_lag_s != other.response_lag_s


def test_a_pair_is_decoded_from_the_window_and_not_from_its_mean():
    durations = study.TRIAL_DURATIONS_S
    known = {}
    for decoder in ("any", "mean_signal"):
        correct, total = ceilings.observed_correct(decoder, ["p1a", "p1b"], durations, 1.0, n_subjects=150)
        known[decoder] = correct / total
    assert known["any"] > 0.9
    # Chance is 0.5, three standard errors are 0.027, and the lags of subjects unbalance the mean a little.
    assert known["mean_signal"] < 0.56


@pytest.mark.parametrize("dataset", DOWNSTREAM, ids=lambda dataset: dataset.name)
def test_ceilings_are_where_the_study_wants_them(dataset):
    processes = list(dataset.states.values())
    reached = {}
    for decoder in ("any", "mean_signal"):
        correct, total = ceilings.observed_correct(
            decoder, processes, study.TRIAL_DURATIONS_S, dataset.t_r, n_subjects=150
        )
        reached[decoder] = correct / total
    paired = sum(sum(name in processes for name in pair) == 2 for pair in states.PAIRS)
    # Of each pair a mean-signal decoder can name one.
    assert reached["mean_signal"] < 1 - paired / len(processes) + 0.03
    assert reached["mean_signal"] > 0.6
    assert 0.9 < reached["any"] < 0.99
    assert 2 * paired >= len(processes) / 3


def test_ceiling_is_the_accuracy_of_bayes_rule_on_drawn_windows(rng):
    """Redo the observer without its shortcuts: real windows of all parcels, and dense Gaussian densities."""
    t_r, duration, names = 2.0, 16.0, ["p1a", "p1b", "s1", "s2"]
    times = np.arange(states.RECOMMENDED_DELAY_S, duration + states.RECOMMENDED_DELAY_S, t_r)
    correct, n_subjects, n_trials = 0, 6, 100
    for _ in range(n_subjects):
        subject = networks.draw_subject(rng)
        shift = [states.response(states.library()[n], duration, times - subject.response_lag_s) for n in names]
        densities = [_dense_density(part, subject.mixing, times, t_r) for part in shift]
        truth = rng.integers(len(names), size=n_trials)
        windows = []
        for state in truth:
            task = np.tensordot(states.draw_weights(rng), shift[state], 1)
            background = networks.draw_background(rng, len(times), t_r)
            noise = networks.draw_parcel_noise(rng, len(times), t_r)
            windows.append(((task + background) @ subject.mixing.T + noise).ravel())
        scores = np.stack([density.logpdf(np.array(windows)) for density in densities])
        correct += int((scores.argmax(axis=0) == truth).sum())
    expected_correct, total = ceilings.observed_correct(
        "any", names, [duration], t_r, n_subjects=300, n_trials=20, seed=3
    )
    dense, expected = correct / (n_subjects * n_trials), expected_correct / total
    # 600 trials of six subjects: subjects differ by about 0.03, the binomial error is below 0.012.
    assert dense == pytest.approx(expected, abs=0.05)


def _dense_density(parts, mixing, times, t_r):
    lags = times[None, :] - times[:, None]
    shared = networks.background_covariance(lags.ravel()).reshape(8, 8, len(times), len(times))
    covariance = np.einsum("pi,ijtu,qj->tpuq", mixing, shared, mixing, optimize=True)
    covariance += np.einsum("tu,pq->tpuq", networks.parcel_noise_covariance(lags, t_r), np.eye(len(mixing)))
    size = len(times) * len(mixing)
    seen = (parts @ mixing.T).reshape(3, size)
    spread = seen * states.WEIGHT_SDS[:, None]
    return multivariate_normal(
        states.WEIGHT_MEANS @ seen, covariance.reshape(size, size) + spread.T @ spread, allow_singular=False
    )


def test_parcels_are_overlapping_blobs_that_least_squares_tells_apart():
    maps = anatomy().maps
    assert maps.shape == (anatomy().brain.sum(), networks.N_PARCELS)
    assert maps.min() == 0
    np.testing.assert_allclose(maps.max(axis=0), 1.0)
    assert ((maps > 0).sum(axis=1) > 1).mean() > 0.3
    assert np.linalg.cond(maps) < 5
    assert len({name for name, _ in parcel_names()}) == networks.N_PARCELS


def test_confounds_explain_the_artefacts(rng):
    t_r, n_volumes = 1.0, 260
    subject = networks.draw_subject(rng)
    signals = networks.draw_background(rng, n_volumes, t_r) @ subject.mixing.T
    signals += networks.draw_parcel_noise(rng, n_volumes, t_r)
    scan = artefacts.draw_scan(rng, signals, t_r, motion_scale=3.0)
    columns, _ = confounds.confounds_table(scan.bold, scan.motion, t_r)
    extracted = scan.bold @ np.linalg.pinv(anatomy().maps).T
    names = [*confounds.MOTION, *confounds.TISSUES, *(name for name in columns if name.startswith("cosine"))]
    nuisance = np.column_stack(
        [np.ones(n_volumes), np.linspace(-1, 1, n_volumes), *(columns[name] for name in names)]
    )
    nuisance /= np.linalg.norm(nuisance, axis=0)
    cleaned = extracted - nuisance @ np.linalg.lstsq(nuisance, extracted, rcond=None)[0]
    assert _mean_correlation(extracted, signals) < 0.6
    # What is left is voxel noise, and the signal that 14 regressors of 260 frames take along.
    assert _mean_correlation(cleaned, signals) > 0.8


def _mean_correlation(one, other):
    one, other = ((x - x.mean(axis=0)) / x.std(axis=0) for x in (one, other))
    return float((one * other).mean())


def test_confounds_table_has_the_columns_of_fmriprep(rng):
    scan = artefacts.draw_scan(rng, networks.draw_parcel_noise(rng, 150, 2.0), 2.0)
    columns, metadata = confounds.confounds_table(scan.bold, scan.motion, 2.0)
    for name in (*confounds.MOTION, *confounds.TISSUES):
        np.testing.assert_allclose(columns[f"{name}_power2"], columns[name] ** 2)
        assert np.isnan(columns[f"{name}_derivative1"][0])
        np.testing.assert_allclose(columns[f"{name}_derivative1"][1:], np.diff(columns[name]))
        np.testing.assert_allclose(
            columns[f"{name}_derivative1_power2"][1:], columns[f"{name}_derivative1"][1:] ** 2
        )
    np.testing.assert_allclose(columns["global_signal"], scan.bold.mean(axis=1), rtol=1e-5)
    for name in ("framewise_displacement", "dvars", "std_dvars"):
        assert np.isnan(columns[name][0])
        assert np.isfinite(columns[name][1:]).all()
    # DVARS of white noise is the standard deviation times sqrt(2), and its standardised form is near 1.
    assert np.nanmedian(columns["std_dvars"]) == pytest.approx(1.0, abs=0.25)
    assert metadata["a_comp_cor_00"]["Mask"] == "combined"
    assert all(entry["Retained"] for name, entry in metadata.items() if "comp_cor" in name)


def test_cosines_are_those_of_the_usual_cutoff():
    frames = np.arange(200) * 1.5
    expected = create_cosine_drift(1 / 128.0, frames)[:, :-1]
    found = confounds.cosine_drifts(200, 1.5)
    assert found.shape[1] >= 3
    np.testing.assert_allclose(
        found / found.std(axis=0), expected[:, : found.shape[1]] / expected.std(axis=0)[0], atol=1e-6
    )


def test_a_short_run_has_no_cosines_and_few_components(rng):
    scan = artefacts.draw_scan(rng, networks.draw_parcel_noise(rng, 8, 2.0), 2.0)
    columns, _ = confounds.confounds_table(scan.bold, scan.motion, 2.0)
    assert not [name for name in columns if name.startswith("cosine")]
    assert all(len(course) == 8 for course in columns.values())


def test_framewise_displacement_counts_rotations_on_a_sphere_of_50_mm():
    motion = np.zeros((3, 6))
    motion[1, 0], motion[2, 3] = 0.2, 0.01
    np.testing.assert_allclose(artefacts.framewise_displacement(motion)[1:], [0.2, 0.2 + 0.5])


@pytest.mark.parametrize("dataset", DOWNSTREAM, ids=lambda dataset: dataset.name)
def test_every_subject_has_four_trials_of_each_state(dataset):
    runs = study.plan_subject(dataset, 2, "demo", 1234)
    processes = [segment.state for run in runs for segment in run.segments if segment.state != states.CUE]
    assert {process: processes.count(process) for process in processes} == dict.fromkeys(
        dataset.states.values(), 4
    )
    for run in runs:
        last = max(event.onset + event.duration for event in run.events)
        assert last + states.RECOMMENDED_DELAY_S < run.n_volumes * dataset.t_r


@pytest.mark.parametrize("dataset", study.DATASETS, ids=lambda dataset: dataset.name)
def test_subjects_and_runs_of_a_dataset_are_drawn_apart_and_again(dataset):
    run = study.plan_subject(dataset, 1, "tiny", 5)[0]
    scans = [study.scan_run(dataset, 1, 0, run, 5), study.scan_run(dataset, 2, 0, run, 5)]
    np.testing.assert_array_equal(study.scan_run(dataset, 1, 0, run, 5).bold, scans[0].bold)
    assert not np.array_equal(scans[0].bold, scans[1].bold)


def test_a_movie_is_the_same_for_all_and_a_task_is_not():
    def course(name, subject):
        dataset = next(d for d in study.DATASETS if d.name == name)
        run = study.plan_subject(dataset, subject, "tiny", 1234)[0]
        return [(segment.onset, segment.state) for segment in run.segments]

    assert course("demo03", 1) == course("demo03", 2)
    assert course("demo02", 1) != course("demo02", 2)
