"""Stage explain: attributions, patterns, faithfulness, comparison with a GLM and the truth, tables and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from nilearn.glm.first_level import compute_regressor

from boldly.cli import main
from boldly.config import AdaptOptions, AtlasOptions, ExplainOptions, FiguresOptions, parse
from boldly.decoders.differentiable import TrialBatch, load_differentiable
from boldly.files import read_json, write_tsv
from boldly.records import Event, InputError, write_trials
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.timeseries import RunSeries, write_timeseries
from boldly.signals.atlas import load_atlas
from boldly.stages import adapt, explain, figures
from boldly.stages.explain import agreement, faithfulness
from boldly.stages.explain.attributions import integrated_gradients, occlusion, said, weights
from boldly.stages.explain.contrasts import state_contrasts
from boldly.stages.explain.decoders import choose_trials
from boldly.stages.explain.maps import file_names, volumes
from boldly.stages.explain.patterns import activation_patterns, mean_differences
from tests.training import synthetic

P = 16
STATES = [f"state{i}" for i in range(4)]
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "csm": {"pretrained": "csm", "read_outs": ["slices"]},
    "mean_logistic": {"baseline": "mean_logistic"},
    "connectivity": {"baseline": "connectivity"},
}
QUICK: dict[str, Any] = {"fits": 2, "trials_per_state": 3, "steps": 8, "removed": [0.25, 0.5], "random_orders": 3}
NO_IMAGES: dict[str, Any] = {"images": [], "pictures": [], "views": []}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards (task/) and three adapted experiments (models/)."""
    folder = tmp_path_factory.mktemp("explain")
    split, shards = synthetic.downstream_study(folder, sizes=(2,))
    (model,) = synthetic.pretrained_models(folder / "upstream", [("csm", 1234)])
    for name, options in EXPERIMENTS.items():
        adapt.run(
            name=name,
            options=AdaptOptions.model_validate({"window_frames": 12, **options}),
            dataset="task",
            split=split,
            shards=shards,
            models=[adapt.UpstreamModel("csm", 1234, model)] if "pretrained" in options else [],
            output=folder / "models" / name,
        )
    return folder


@pytest.fixture(scope="module")
def corpus(study: Path) -> Corpus:
    return load_corpus([study / "task/ds-task_sub-05.tar"])


def first_fit(study: Path, name: str) -> str:
    return str(read_json(study / "models" / name / adapt.MANIFEST)["fits"][0]["folder"])


def loaded(study: Path, name: str, corpus: Corpus) -> tuple[Any, TrialBatch]:
    decoder = load_differentiable(study / "models" / name, first_fit(study, name), corpus)
    return decoder, TrialBatch.cut(corpus, decoder.longest)


@pytest.mark.parametrize(
    ("name", "reference"), [("csm", "zero"), ("mean_logistic", "zero"), ("connectivity", "trials")]
)
def test_integrated_gradients_sum_to_the_difference_of_outputs(
    study: Path, corpus: Corpus, name: str, reference: Any
) -> None:
    decoder, batch = loaded(study, name, corpus)
    found = integrated_gradients(decoder, batch, steps=48, reference=reference, references=2)
    # Completeness (Sundararajan et al. 2017), up to the error of 48 points.
    np.testing.assert_allclose(
        found.values.sum(axis=1), found.difference, atol=0.03 * np.abs(found.difference).max()
    )
    assert found.gap < 0.03
    if reference == "zero":
        start = said(decoder, batch, torch.zeros_like(batch.inputs))
        change = (said(decoder, batch, batch.inputs) - start).gather(1, batch.labels[:, None])[:, 0]
        np.testing.assert_allclose(found.difference, change.numpy(), atol=1e-5)


def test_of_a_linear_decoder_all_methods_say_the_same(study: Path, corpus: Corpus) -> None:
    decoder, batch = loaded(study, "mean_logistic", corpus)
    gradients, taken = integrated_gradients(decoder, batch, steps=2), occlusion(decoder, batch)
    np.testing.assert_allclose(gradients.values, taken.values, atol=1e-4)
    # Signals of the mean read-out count with their weight each.
    mean = batch.inputs.double().sum(dim=1) / batch.timing.frames[:, None]
    expected = mean.numpy() * weights(decoder, batch)[:, batch.labels.numpy()].T
    np.testing.assert_allclose(gradients.values, expected, atol=1e-4)


def test_occlusion_is_what_is_lost_without_a_parcel(study: Path, corpus: Corpus) -> None:
    decoder, batch = loaded(study, "csm", corpus)
    found = occlusion(decoder, batch)
    without = batch.inputs.clone()
    without[:, :, 5] = 0
    lost = (said(decoder, batch, batch.inputs) - said(decoder, batch, without)).gather(1, batch.labels[:, None])
    np.testing.assert_allclose(found.values[:, 5], lost[:, 0].numpy(), atol=1e-5)


def test_occlusion_of_many_parcels_takes_fewer_trials(study: Path, corpus: Corpus) -> None:
    decoder, batch = loaded(study, "mean_logistic", corpus)
    some = occlusion(decoder, batch, most_windows=2 * 4 * P).values
    there = ~np.isnan(some[:, 0])
    # 4 states, two trials of each.
    assert sorted(batch.labels.numpy()[there]) == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_allclose(some[there], occlusion(decoder, batch).values[there], atol=1e-5)


def test_patterns_are_weights_times_the_covariance_of_signals() -> None:
    rng = np.random.default_rng(0)
    signals = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 5))
    w = rng.standard_normal((5, 3))
    evidence = signals @ w
    covariance = np.cov(signals.T)
    expected = covariance @ w / np.var(evidence, axis=0, ddof=1)  # Haufe et al. 2014, eq. 7
    np.testing.assert_allclose(activation_patterns(signals, evidence), expected, atol=1e-9)


def test_patterns_do_not_show_what_weights_use_to_cancel_noise() -> None:
    """The example of Haufe et al. (2014): the second signal is noise alone, which weights take away."""
    rng = np.random.default_rng(1)
    source, noise = rng.standard_normal((2, 5000))
    signals = np.stack([source + noise, noise], axis=1)
    evidence = (signals @ [1.0, -1.0])[:, None]
    pattern = activation_patterns(signals, evidence)[:, 0]
    # The standard error of a correlation of 5,000 numbers is 0.014.
    np.testing.assert_allclose(pattern, [1, 0], atol=0.05)


def test_mean_differences_of_states() -> None:
    signals = np.array([[1.0, 0], [3, 0], [0, 2], [0, 0]])
    found = mean_differences(signals, np.array([0, 0, 1, 2]), 4)
    np.testing.assert_allclose(found[:, 0], [2, -1])
    assert np.isnan(found[:, 3]).all()


def test_trials_are_chosen_from_all_units_and_states(corpus: Corpus) -> None:
    chosen = corpus.select(choose_trials(corpus, tuple(set(corpus.runs)), 2, seed=1))
    # 2 of each of 4 states, one of each of the two runs.
    assert len(chosen) == 8
    pairs = set(zip(chosen.labels.tolist(), chosen.runs, strict=True))
    assert len(pairs) == 8
    again = choose_trials(corpus, tuple(set(corpus.runs)), 2, seed=1)
    assert chosen.keys == corpus.select(again).keys


def test_a_map_that_names_what_is_used_is_more_faithful_than_chance(study: Path, corpus: Corpus) -> None:
    decoder, batch = loaded(study, "mean_logistic", corpus)
    best = faithfulness.rank(occlusion(decoder, batch).values)
    orders = faithfulness.Orders({"best": best, "worst": best[:, ::-1]}, faithfulness.random_orders(8, P, seed=3))
    counts = faithfulness.counts_of([0.1, 0.25, 0.5, 0.75], P)
    assert counts == [0, 2, 4, 8, 12, 16]
    table = faithfulness.hits(decoder, batch, orders, counts).assign(fit=0)
    table["label"] = batch.labels.numpy()[table["trial"]]
    curves = faithfulness.curves(table, STATES)
    lines = dict(iter(curves[curves["state"] == "all"].groupby("method")))
    random = lines[faithfulness.RANDOM]
    assert faithfulness.area(lines["best"], random) > 0 > faithfulness.area(lines["worst"], random)
    for line in lines.values():  # nothing and everything removed is the same in any order
        np.testing.assert_allclose(line["accuracy"].iloc[[0, -1]], random["accuracy"].iloc[[0, -1]])
    assert random["low"].le(random["accuracy"]).all()


def test_orders_come_from_trials_of_other_units() -> None:
    units = np.array(["a", "a", "b", "c"])
    seen = []

    def values(chosen: np.ndarray) -> np.ndarray:
        seen.append(units[chosen].tolist())
        return np.full((4, 2), float(chosen.sum()))

    found = faithfulness.without_own_unit(units, values)
    np.testing.assert_array_equal(found[:, 0], [2, 2, 3, 3])
    assert all(len(set(part)) == 2 for part in seen)
    np.testing.assert_array_equal(faithfulness.without_own_unit(np.array(["a"] * 4), values)[:, 0], [4] * 4)


def test_auc_is_the_rank_of_the_positive_parcels() -> None:
    positive = np.array([True, False, True, False])
    assert agreement.auc(np.array([4.0, 1, 3, 2]), positive) == 1
    assert agreement.auc(np.array([1.0, 1, 1, 1]), positive) == 0.5
    assert np.isnan(agreement.auc(np.ones(4), np.ones(4, bool)))


def response(onset: float, n_frames: int) -> np.ndarray:
    """Return the canonical response to an event of 10 s."""
    times = np.arange(n_frames, dtype=float)
    return compute_regressor(([onset], [10.0], [1.0]), "glover", times)[0][:, 0]


@pytest.fixture
def events_study(tmp_path: Path) -> tuple[dict[str, Path], Path]:
    """Two people: the first of six parcels follows state0, the second state1; scrubbing took two frames of one."""
    rng = np.random.default_rng(5)
    events, series = [], {}
    t_r, n_frames = 1.0, 200
    for subject in ("01", "02"):
        key = f"ds-task_sub-{subject}_task-t"
        frames = np.delete(np.arange(n_frames), [50, 51]) if subject == "02" else np.arange(n_frames)
        data = 0.3 * rng.standard_normal((n_frames, 6))
        for number, onset in enumerate(range(10, 180, 20)):
            state = number % 2
            data[:, state] += response(onset, n_frames)
            row: dict[str, Any] = {"onset": float(onset), "duration": 10.0, "trial": number, "n_frames": 10}
            row |= {"first": onset, "stop": onset + 10, "t_r": t_r}
            events.append(Event(key=key, subject=subject, event=f"e{state}", label=f"state{state}", **row))
        nothing = np.ones(6, np.float32)
        signals = data[frames].astype(np.float32)
        run = RunSeries(key, signals, frames, nothing, nothing, nothing, nothing, {"t_r": t_r})
        series[subject] = tmp_path / f"sub-{subject}_timeseries.safetensors"
        write_timeseries(series[subject], [run], synthetic.contract(6))
    write_trials(tmp_path / "trials.tsv", events)
    return series, tmp_path / "trials.tsv"


def test_contrasts_of_a_general_linear_model(events_study: tuple[dict[str, Path], Path]) -> None:
    series, trials = events_study
    found = state_contrasts(series, trials, ["state0", "state1", "state2"])
    assert found is not None
    assert np.isnan(found[:, 2]).all()
    # Effects of 1 in the first parcel for state0, in the second for state1; noise of 0.3 over some 100 frames.
    np.testing.assert_allclose(found[0, :2], [1, -1], atol=0.1)
    np.testing.assert_allclose(found[1, :2], [-1, 1], atol=0.1)
    assert np.abs(found[2:, :2]).max() < 0.1
    only = state_contrasts(series, trials, ["state0", "state1"], runs={"ds-task_sub-01_task-t"})
    assert only is not None
    assert not np.allclose(only, found[:, :2])


def atlas(tmp_path: Path, kind: str) -> AtlasOptions:
    image = np.zeros((4, 4, 2), np.float32)
    image[0, 0, 0], image[1, 1, 1] = 3, 7
    if kind == "maps":
        image = np.stack([image == 3, (image == 7) | (image == 3)], axis=3).astype(np.float32) * 0.5
    path = tmp_path / ("a_probseg.nii.gz" if kind == "maps" else "a_dseg.nii.gz")
    nib.save(nib.Nifti1Image(image, np.diag([2.0, 2, 2, 1])), path)
    return AtlasOptions(path=str(path))


def test_values_of_parcels_go_to_their_voxels(tmp_path: Path) -> None:
    values = np.array([[1.0, -2], [10, np.nan]])
    found = volumes(load_atlas(atlas(tmp_path, "labels")), values)
    np.testing.assert_array_equal(found[0, 0, 0], [1, -2])
    np.testing.assert_array_equal(found[1, 1, 1], [10, 0])
    assert np.count_nonzero(found) == 3
    found = volumes(load_atlas(atlas(tmp_path, "maps")), values)
    # Both maps reach the first voxel with their peak: the mean of their values.
    np.testing.assert_allclose(found[0, 0, 0], [5.5, -1])
    np.testing.assert_allclose(found[1, 1, 1], [10, 0])


def test_states_have_file_names_of_their_own() -> None:
    assert file_names(["MOTOR lh", "MOTOR/lh", "motor-LH", "…"]) == {
        "MOTOR lh": "MOTOR-lh",
        "MOTOR/lh": "MOTOR-lh-2",
        "motor-LH": "motor-LH-3",
        "…": "state",
    }


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    patterns = np.random.default_rng(98).standard_normal((4, P))
    rows = [
        {
            "dataset": "task",
            "state": state,
            "index": k + 1,
            "name": f"p{k}",
            "mean": patterns[s, k],
            "strength": 1 + k,
        }
        for s, state in enumerate(STATES)
        for k in range(P)
    ]
    path = tmp_path_factory.mktemp("truth") / "truth.tsv"
    write_tsv(path, pd.DataFrame(rows))
    return path


@pytest.fixture(scope="module")
def explained(study: Path, truth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage writes of all three experiments, without images."""
    output = tmp_path_factory.mktemp("out")
    explain.run(
        dataset="task",
        shards=study / "task",
        models=[study / "models" / name for name in EXPERIMENTS],
        options=parse(ExplainOptions, {**QUICK, **NO_IMAGES}, "test"),
        output=output,
        known=explain.Known(truth=truth),
    )
    return output


@pytest.mark.parametrize("states", [("1", "2"), ("01", "02"), ("true", "false")])
def test_the_truth_of_states_that_look_like_numbers_is_found(states: tuple[str, str], tmp_path: Path) -> None:
    rows = [
        {"dataset": "01", "state": state, "index": k + 1, "name": f"p{k}", "mean": number + k, "strength": 1.0}
        for number, state in enumerate(states)
        for k in range(3)
    ]
    write_tsv(tmp_path / "truth.tsv", pd.DataFrame(rows))
    found = agreement.read_truth(tmp_path / "truth.tsv", "01", states, 3)
    # Against the other state, which is one less, or more, in each parcel.
    np.testing.assert_array_equal(found["mean"], [[-1, 1]] * 3)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t")


def test_tables_of_the_stage(explained: Path) -> None:
    maps = read(explained / "mean_logistic/maps.tsv")
    methods = ["integrated_gradients", "occlusion", "patterns", "weights", "mean_difference", "truth"]
    assert list(dict.fromkeys(maps["method"])) == methods
    assert len(maps) == len(methods) * 4 * P
    # Weights are of linear decoders alone.
    assert "weights" not in set(read(explained / "csm/maps.tsv")["method"])
    summary = read(explained / "mean_logistic/summary.tsv").query("state == 'all'").set_index("method").to_dict()
    # The states differ by half a pattern of 1 SD in all parcels: what a linear decoder learns is near the truth.
    assert summary["truth_r"]["patterns"] > 0.5
    assert summary["truth_auc"]["integrated_gradients"] > 0.6
    assert summary["gap"]["integrated_gradients"] < 1e-3
    curves = read(explained / "csm/curves.tsv")
    assert set(curves["share"]) == {0, 0.25, 0.5, 1}
    assert curves["accuracy"].between(0, 1).all()


def test_paths_to_connectivity_start_at_other_trials(explained: Path) -> None:
    assert read_json(explained / "connectivity/about.json")["reference"] == "trials"
    assert read_json(explained / "csm/about.json")["reference"] == "zero"


def test_the_same_input_gives_the_same_tables(study: Path, truth: Path, explained: Path, tmp_path: Path) -> None:
    explain.run(
        dataset="task",
        shards=study / "task",
        models=[study / "models/csm"],
        options=parse(ExplainOptions, {**QUICK, **NO_IMAGES}, "test"),
        output=tmp_path,
        known=explain.Known(truth=truth),
    )
    for name in (explain.MAPS, explain.CURVES, explain.SUMMARY):
        assert (tmp_path / "csm" / name).read_bytes() == (explained / "csm" / name).read_bytes()


@pytest.mark.parametrize("figure", ["maps", "curves", "agreement"])
def test_figures_are_drawn_from_tables_alone(explained: Path, tmp_path: Path, figure: str) -> None:
    table = {"agreement": "summary"}.get(figure, figure)
    tables = [explained / name / f"{table}.tsv" for name in EXPERIMENTS]
    output = tmp_path / f"explain_{figure}.png"
    figures.run(figure=f"explain_{figure}", tables=tables, options=FiguresOptions(), output=output)
    assert output.stat().st_size > 5000
    assert set(read(output.with_suffix(".tsv"))["experiment"]) == set(EXPERIMENTS)
    wrong = explained / "csm" / ("curves.tsv" if figure != "curves" else "maps.tsv")
    with pytest.raises(InputError, match="columns found"):
        figures.run(figure=f"explain_{figure}", tables=[wrong], options=FiguresOptions(), output=output)


def test_a_packaged_decoder_is_explained_by_the_command(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = tmp_path / "my-decoder"
    model.mkdir()
    source = study / "models/csm"
    (model / "fit").symlink_to(source / first_fit(study, "csm"))
    (model / "encoders").symlink_to(source / "encoders")
    arguments = ["explain", "--model", str(model), "--shards", str(study / "task/ds-task_sub-05.tar")]
    options = '{"fits": 1, "trials_per_state": 2, "steps": 2, "images": [], "pictures": [], "views": []}'
    assert main([*arguments, "--output", str(tmp_path / "out"), "--options", options]) == 0
    assert read_json(tmp_path / "out/about.json")["experiment"] == "my-decoder"
    assert main(["explain", "--shards", str(study / "task"), "--output", str(tmp_path / "out")]) == 1
    assert "either --models or --model" in capsys.readouterr().err


def test_images_pictures_and_pages(study: Path, tmp_path: Path) -> None:
    image = np.arange(P, dtype=np.int16).reshape(4, 4, 1) + 1
    nib.save(nib.Nifti1Image(image, np.diag([3.0, 3, 3, 1])), tmp_path / "a_dseg.nii.gz")
    options = AtlasOptions(path=str(tmp_path / "a_dseg.nii.gz"))
    arguments: dict[str, Any] = {
        "dataset": "task",
        "shards": study / "task",
        "models": [study / "models/mean_logistic"],
        "output": tmp_path / "out",
        "known": explain.Known(atlas=options),
    }
    chosen = {**QUICK, "methods": ["patterns"], "pictures": ["patterns"], "views": ["patterns"]}
    with pytest.raises(InputError, match="those of another atlas"):
        explain.run(**arguments, options=parse(ExplainOptions, chosen, "test"))
    from boldly.stages.explain import pictures

    found = nib.Nifti1Image(np.linspace(-1, 1, P, dtype=np.float32).reshape(4, 4, 1), np.diag([3.0, 3, 3, 1]))
    pictures.draw(tmp_path / "map.png", [found], ["a state"], title="t", unit="u", scale=1.0, in_mni=False)
    sizes = []
    for states in (["a"], ["a", "b</script>"]):
        chart: dict[str, Any] = {"title": "t", "scale": 1.0, "in_mni": False}
        pictures.write_view(tmp_path / "map.html", [found] * len(states), states, **chart)
        sizes.append((tmp_path / "map.html").stat().st_size)
    assert (tmp_path / "map.png").stat().st_size > 5000
    page = (tmp_path / "map.html").read_text()
    assert "<option>a</option><option>b&lt;/script&gt;</option>" in page
    # No name ends the script that holds the pages; scripts that all states share stand in it once.
    assert page.count("</script>") == 1
    assert sizes[1] < 1.2 * sizes[0]
    assert not pictures.has_depth(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pictures": ["occlusion"], "methods": ["patterns"]}, "not among the methods"),
        ({"removed": [1.5]}, "less than 1"),
    ],
)
def test_wrong_options_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(ExplainOptions, change, "test")


def test_wrong_manifests_are_input_errors(study: Path, tmp_path: Path) -> None:
    for dataset, n, message in (("other", None, "adapted on dataset task"), ("task", 9, "there are: 3")):
        with pytest.raises(InputError, match=message):
            explain.run(
                dataset=dataset,
                shards=study / "task",
                models=[study / "models/csm"],
                options=parse(ExplainOptions, {"n": n}, "test"),
                output=tmp_path,
            )
