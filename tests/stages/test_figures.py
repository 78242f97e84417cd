from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_parts
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from safetensors.numpy import save_file

from boldly.config import Config, FiguresOptions, parse
from boldly.files import read_tsv, write_json, write_tsv
from boldly.records import (
    Comparison,
    Event,
    InputError,
    Run,
    Score,
    read_comparisons,
    read_scores,
    write_comparisons,
    write_runs,
    write_scores,
    write_trials,
)
from boldly.samples.timeseries import write_timeseries
from boldly.signals.confounds import Nuisance, write_nuisance
from boldly.stages import figures
from boldly.stages.figures import style, tables
from tests.samples import examples

REPORT = Path(__file__).resolve().parents[2] / "workflow" / "report"
OPTIONS = FiguresOptions(dpi=60)  # small: only looked at by tests
VIEWS = ("accuracy", "curves", "maps", "agreement")  # of captions that serve several figures
FAMILIES = ("autoencoding", "csm", "sequence_bert", "network_bert")

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # a layout that collapses or text that has no glyph


def run_table(folder: Path, dataset: str, n_subjects: int, n_runs: int, n_excluded: int = 0) -> Path:
    runs = []
    for number in range(n_subjects * n_runs):
        subject, run = f"{number // n_runs + 1:02d}", str(number % n_runs + 1)
        short = number < n_excluded
        status, reason = ("excluded", f"{number + 2} volumes, fewer than 10") if short else ("ok", "")
        key = f"ds-{dataset}_sub-{subject}_task-rest_run-{run}"
        files = ("b.nii.gz", "m.nii.gz", "c.tsv", "")
        head = (dataset, subject, "", "rest", "", "", run, "MNI")
        runs.append(Run(*head, key, *files, 2.0, 180, status, reason))  # type: ignore[arg-type]
    write_runs(folder / f"{dataset}_runs.tsv", runs)
    return folder / f"{dataset}_runs.tsv"


def trials(folder: Path, dataset: str, n_people: int) -> Path:
    """A table of trials: six of two states, one of a third that the first person alone has, one event without."""
    events = []
    for number in range(n_people):
        key = f"ds-{dataset}_sub-{number + 1:02d}_task-a"
        names = ["face", "house"] * 6 + (["huose"] if number == 0 else [])
        for trial, name in enumerate(names):
            place = (10.0 * trial, 5.0, trial, 5 * trial, 5 * trial + 5, 5, 2.0)
            events.append(Event(key, f"{number + 1:02d}", name, name, *place))
        nothing = (500.0, 0.0, None, None, None, 0, 2.0, "excluded", "no duration: 0 s")
        events.append(Event(key, f"{number + 1:02d}", "press", "press", *nothing))  # type: ignore[arg-type]
    write_trials(folder / f"{dataset}_trials.tsv", events)
    return folder / f"{dataset}_trials.tsv"


def qc_folder(folder: Path, runs: Path, limit_mm: float = 0.4) -> Path:
    """Quality tables as preprocess writes them, one per subject, in a folder."""
    rng = np.random.default_rng(0)
    table = read_tsv(runs, ("subject",))
    for subject, rows in table[table["status"] == "ok"].groupby("subject"):
        movement = rng.lognormal(np.log(0.25), 0.6, len(rows)).round(6)
        over = movement > limit_mm
        quality = pd.DataFrame(
            {
                "key": rows["key"],
                "status": np.where(over, "excluded", "ok"),
                "reason": [
                    f"mean FD {v:.3g} mm is over 0.4 mm" if o else None
                    for v, o in zip(movement, over, strict=True)
                ],
                "mean_fd_mm": movement,
                "mean_std_dvars": rng.normal(1.1, 0.1, len(rows)),
                "degrees_of_freedom": 160,
            }
        )
        write_tsv(folder / f"sub-{subject}_qc.tsv", quality)
    return folder


def history(folder: Path, name: str, *, parts: bool = False, validation: bool = True) -> list[Path]:
    step = np.arange(10, 5001, 10)
    train = pd.DataFrame({"step": step, "loss": 0.7 + 0.3 * np.exp(-step / 500), "learning_rate": 1e-4})
    every = step[49::50]
    l1 = 0.71 + 0.3 * np.exp(-every / 500)
    evaluated = pd.DataFrame({"step": every, "loss": l1 + 1.2 * parts, "l1": l1, "l1_zero": 0.798})
    paths = [folder / name / "train_history.csv", folder / name / "eval_history.csv"]
    paths[0].parent.mkdir(parents=True)
    train.to_csv(paths[0], index=False)
    if validation:
        evaluated.to_csv(paths[1], index=False)
    else:
        paths[1].write_text("\n")
    return paths


def scores(
    folder: Path,
    dataset: str,
    families: tuple[str, ...] = FAMILIES,
    sizes: tuple[int, ...] = (1, 3, 6),
    baselines: tuple[str, ...] = ("linear", "mean_mlp"),
    ceilings: bool = True,
    untrained: bool = False,
) -> Path:
    rows: list[Score] = []

    def add(experiment: str, n: int, value: float, kind: str, start: str = "", metric: str = "accuracy") -> None:
        where = (dataset, experiment, n, "all", "all", "all")
        rows.append(Score(*where, metric, value, value - 0.05, value + 0.04, 300, kind, start))

    add("chance_uniform", 0, 0.111, "chance")
    add("chance_majority", 0, 0.125, "chance")
    for n in sizes:
        for baseline in baselines:
            add(baseline, n, 0.3 + 0.05 * np.log2(n), "baseline", baseline)
        add("control_length", n, 0.95, "control")
        for family in families:
            add(family, n, 0.5 + 0.04 * np.log2(n), "pretrained", family)
            add(family, n, 0.05, "pretrained", family, "log_loss")
            add(f"{family}_scratch", n, 0.3 + 0.08 * np.log2(n), "scratch", family)
            if untrained:
                add(f"{family}_untrained", n, 0.25 + 0.05 * np.log2(n), "untrained", family)
    if ceilings:
        add("ceiling_any", 0, 0.9, "ceiling")
        add("ceiling_mean_signal", 0, 0.7, "ceiling")
    fit = Score(dataset, "linear", sizes[0], "0", "1", "all", "accuracy", 0.01, 0.0, 0.02, 300, "baseline")
    write_scores(folder / f"{dataset}_scores.tsv", [*rows, fit])
    return folder / f"{dataset}_scores.tsv"


def predictions(folder: Path, dataset: str, n_labels: int) -> Path:
    rng = np.random.default_rng(0)
    label = rng.integers(n_labels, size=40 * n_labels)
    table = pd.DataFrame({"experiment": "csm", "n": 3, "draw": "0", "seed": "1", "label": label})
    table["key"] = [f"ds-{dataset}_sub-01_task-t_sample_{i:03d}" for i in range(len(table))]
    table["label_name"] = [f"state number {value} with a long name" for value in label]
    table["predicted"] = np.where(rng.random(len(table)) < 0.6, label, (label + 1) % n_labels)
    said = np.full((len(table), n_labels), 0.3 / n_labels)
    said[np.arange(len(table)), table["predicted"]] += 0.7
    table = table.join(pd.DataFrame(said, columns=[f"p_{number}" for number in range(n_labels)]))
    worse = table.assign(experiment="linear", predicted=0)
    write_tsv(folder / f"{dataset}_predictions.tsv.gz", pd.concat([worse, table]))
    return folder / f"{dataset}_predictions.tsv.gz"


def upstream_experiment(
    folder: Path,
    name: str,
    framework: str = "csm",
    size: tuple[int, int] = (2, 24),
    people: int = 10,
    shift: float = 0.0,
    **options: Any,
) -> list[Path]:
    """Histories with forecasts by dataset, record and model of a training; `shift` adds to the L1."""
    paths = history(folder, name)
    evaluated = pd.read_csv(paths[1])
    forecasts = {"skill_ar1_one": 0.02, "skill_var_one": 0.01, "skill_ar1_two": 0.03, "skill_var_two": -0.01}
    l1 = evaluated["l1"] + shift
    evaluated.assign(l1=l1, loss=l1, l1_var=0.76, **forecasts).to_csv(paths[1], index=False)
    layers, width = size
    sizes = {"framework": framework, "layers": layers, "width": width, **options}
    shards = {f"ds-one_sub-{number:02d}.tar": "checksum" for number in range(people)}
    write_json(paths[0].parent / "manifest.json", {"options": sizes, "training": shards})
    write_json(paths[0].parent / "config.json", {**sizes, "n_parcels": 48, "window_frames": 50, "heads": 4})
    weights: dict[str, np.ndarray] = {
        "embedder.linear.weight": np.zeros((width, 48), np.float32),
        "decoder.h.weight": np.zeros((width, 7)),
    }
    save_file({**weights, "coupling": np.zeros((48, 48))}, paths[0].parent / "model.safetensors")
    return paths


def trained_decoder(folder: Path, dataset: str, experiment: str, kind: str = "pretrained") -> Path:
    """The record of a downstream experiment with fits of two sizes, two draws and two seeds.

    A third draw is of an earlier split: its folder was left, the record does not name it.
    """
    fits = []
    for n in (1, 3):
        for draw_ in (0, 1, 2):
            for seed in (1, 2):
                fit = folder / dataset / experiment / f"n-{n}_draw-{draw_}_seed-{seed}"
                fit.mkdir(parents=True)
                step = np.arange(1, 61)
                loss = pd.DataFrame({"step": step, "loss": 2 - 0.01 * step + 0.1 * draw_ + 0.2 * seed})
                loss.to_csv(fit / "train_history.csv", index=False)
                accuracy = pd.DataFrame({"step": [20, 40, 60], "loss": 1.0, "accuracy": [0.2, 0.4, 0.5]})
                accuracy.to_csv(fit / "eval_history.csv", index=False)
                fits.append({"folder": fit.name, "n": n, "draw": draw_, "seed": seed})
    record = folder / dataset / experiment / "adapt.json"
    known = [fit for fit in fits if fit["draw"] != 2]
    write_json(record, {"dataset": dataset, "experiment": experiment, "kind": kind, "fits": known})
    return record


def fits_of_two_seeds(folder: Path, dataset: str) -> Path:
    """Scores with a row for each draw and seed of two decoders, and of one that has one seed alone."""
    rows = []
    for name, seeds in (("csm", ("1", "2")), ("linear", ("1", "2")), ("mean_lda", ("1",))):
        for n in (1, 3):
            rows += [
                Score(dataset, name, n, draw_, seed, "all", "accuracy", 0.5 + 0.1 * (seed == "2"), 0.4, 0.6, 30,
                      "pretrained" if name == "csm" else "baseline", name)
                for seed in seeds
                for draw_ in ("0", "1")
            ]  # fmt: skip
    write_scores(folder / f"{dataset}_scores.tsv", rows)
    return folder / f"{dataset}_scores.tsv"


def draw(name: str, paths: list[Path], folder: Path) -> pd.DataFrame:
    output = folder / "figures" / f"{name}.png"
    figures.run(figure=name, tables=paths, options=OPTIONS, output=output)
    assert output.read_bytes().startswith(b"\x89PNG")
    assert output.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    return read_tsv(output.with_suffix(".tsv"))


def picture(name: str, paths: list[Path]) -> Figure:
    with style.styled():
        figure, _ = figures.FIGURES[name](paths)
        figure.canvas.draw()
        return figure


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def carpet_inputs(folder: Path, dataset: str) -> list[Path]:
    """A run table, and the folders of a dataset with nuisance tables and time series."""
    runs = run_table(folder, dataset, 2, 2)
    qc, parcellate = folder / "preprocess" / dataset, folder / "parcellate" / dataset
    keys = read_tsv(runs)["key"]
    for subject, of_subject in keys.groupby(keys.str.extract("sub-([0-9]+)", expand=False)):
        moved = np.r_[np.nan, np.linspace(0.1, 0.9, 11)]
        kept = np.arange(12) != 5
        write_nuisance(
            qc / f"sub-{subject}_nuisance.tsv",
            {key: Nuisance(kept, np.zeros((12, 0)), (), displacement_mm=moved) for key in of_subject},
        )
        series = [examples.run_series(key, frames=np.flatnonzero(kept)) for key in of_subject]
        write_timeseries(parcellate / f"sub-{subject}_timeseries.safetensors", series, examples.contract())
    return [runs, qc, parcellate]


def test_a_carpet_shows_any_run_with_its_motion(tmp_path):
    paths = carpet_inputs(tmp_path, "one")
    key = read_tsv(paths[0])["key"].iloc[-1]
    output = tmp_path / "figures" / "x.png"
    figures.run(figure="carpet", tables=paths, options=OPTIONS, output=output, key=key)
    table = read_tsv(output.with_suffix(".tsv"))
    assert set(table["key"]) == {key}
    assert table["kept"].tolist() == [1] * 5 + [0] + [1] * 6
    assert table["framewise_displacement_mm"].iloc[-1] == pytest.approx(0.9)
    with pytest.raises(InputError, match="no run in use has this key"):
        figures.run(figure="carpet", tables=paths, options=OPTIONS, output=output, key="ds-one_sub-99")
    with pytest.raises(InputError, match="the figure is of many runs"):
        figures.run(figure="quality", tables=paths, options=OPTIONS, output=output, key=key)


def explained(folder: Path, experiment: str, figure: str) -> Path:
    """The table of stage explain behind a figure: four methods, three states, eight parcels."""
    rng = np.random.default_rng(1)
    methods = ("integrated_gradients", "occlusion", "patterns", "mean_difference")
    states = ("face", "house", "cat")
    head: dict[str, Any] = {"dataset": "demohcp", "experiment": experiment}
    if figure == "explain_maps":
        rows = [
            {**head, "state": state, "method": method, "index": number, "name": f"parcel {number}"}
            | {"value": size, "direction": size}
            for method in (*methods, "glm", "truth")
            for state in states
            for number, size in enumerate(rng.standard_normal(8).round(4), start=1)
        ]
    elif figure == "explain_curves":
        rows = [
            {**head, "method": method, "state": state, "share": share, "accuracy": 0.9 - fall * share}
            | {"low": 0.8 - fall * share, "high": 1 - fall * share}
            for method, fall in zip((*methods, "random"), (0.6, 0.5, 0.45, 0.4, 0.3), strict=True)
            for state in ("all", *states)
            for share in (0.0, 0.25, 0.5, 1.0)
        ]
    else:
        rows = [
            {**head, "method": method, "state": state, "area": 0.1, "area_of_chance": 0.02}
            | {"glm_r": 0.5, "reliability": 0.7}
            for method in methods
            for state in ("all", *states)
        ]
    path = folder / experiment / f"{figure}.tsv"
    write_tsv(path, pd.DataFrame(rows))
    return path


def inputs(name: str, folder: Path) -> list[Path]:
    """What the rule of a figure gives it."""
    if name == "carpet":
        return [path for dataset in ("one", "two") for path in carpet_inputs(folder, dataset)]
    if name in ("upstream_data", "quality", "excluded"):
        runs = [run_table(folder, "one", 5, 2, n_excluded=1), run_table(folder, "two", 8, 3)]
        return [*runs, *(qc_folder(folder / path.stem, path) for path in runs)]
    if name in ("upstream_sizes", "upstream_largest"):
        sizes = [(layers, width) for layers in (1, 2) for width in (16, 32)]
        return [
            path
            for family in ("csm", "autoencoding")
            for number, size in enumerate(sizes)
            for path in upstream_experiment(folder, f"{family}_{number}", family, size, shift=-0.01 * number)
        ]
    if name == "upstream_scaling":
        many = [(5, 0.02), (10, 0.01), (20, 0.005), (40, 0.0)]
        return [
            path for n, shift in many for path in upstream_experiment(folder, f"csm_{n}", people=n, shift=shift)
        ]
    if name == "upstream_skill":
        return [
            run_table(folder, "one", 2, 1),
            run_table(folder, "two", 2, 1),
            *upstream_experiment(folder, "csm"),
        ]
    if name == "upstream_warm_start":
        return upstream_experiment(folder, "csm") + upstream_experiment(folder, "warm", initialise="models/gpt2")
    if name == "upstream_frameworks":
        families = [upstream_experiment(folder, family, family) for family in FAMILIES]
        return [paths[0].with_name("config.json") for paths in families]
    if name == "upstream_errors":
        path = folder / "csm" / "parcel_errors.tsv"
        write_tsv(path, pd.DataFrame({"parcel": [1, 2], "l1": [0.7, 0.75], "l1_zero": 0.8, "values": 9}))
        return [path]
    if name == "downstream_training":
        return [trained_decoder(folder, "one", "csm"), trained_decoder(folder, "one", "linear", "baseline")]
    if name == "downstream_replication":
        return [fits_of_two_seeds(folder, "one"), fits_of_two_seeds(folder, "two")]
    if name == "upstream_losses":
        return [path for family in FAMILIES for path in history(folder, family, parts="bert" in family)]
    if name == "downstream_trials":
        return [trials(folder, "one", 5), trials(folder, "two", 40)]
    if name in ("downstream_confusion", "downstream_reliability", "downstream_embedding"):
        return [predictions(folder, "one", 6)]
    if name == "downstream_comparisons":
        return [paired_differences(folder, "one"), paired_differences(folder, "two", (10,))]
    if name.startswith("explain_"):
        return [explained(folder, experiment, name) for experiment in ("csm", "linear")]
    return [scores(folder, "one"), scores(folder, "two", sizes=(1, 2, 4, 8)), paired_differences(folder, "one")]


@pytest.mark.parametrize("name", list(figures.FIGURES))
def test_the_same_tables_give_the_same_bytes(name, tmp_path):
    paths = inputs(name, tmp_path)
    contents = []
    for number in range(2):
        draw(name, paths, tmp_path / str(number))
        written = sorted((tmp_path / str(number) / "figures").iterdir())
        assert [path.suffix for path in written] == [".pdf", ".png", ".tsv"]
        contents.append([path.read_bytes() for path in written])
    assert contents[0] == contents[1]


def test_the_overview_counts_what_is_used_and_what_is_not(tmp_path):
    runs = run_table(tmp_path, "one", 5, 2, n_excluded=3)  # both runs of subject 01, one of 02
    row = draw("upstream_data", [runs], tmp_path).iloc[0]
    assert row[["subjects", "runs", "subjects_found", "runs_found", "runs_excluded"]].tolist() == [4, 7, 5, 10, 3]
    assert row["hours"] == pytest.approx(7 * 180 * 2 / 3600, abs=0.005)
    assert "4 subjects, 7 runs, 42 min" in words(picture("upstream_data", [runs]))


def test_the_overview_names_few_datasets_and_lists_many(tmp_path):
    few = [run_table(tmp_path / "few", f"ds{number:03d}", 3 + number, 2) for number in range(5)]
    assert all(path.stem.removesuffix("_runs") in words(picture("upstream_data", few)) for path in few)
    many = [run_table(tmp_path / "many", f"ds{number:06d}", 2 + number % 7, 2) for number in range(34)]
    figure = picture("upstream_data", many)
    assert "ds000033" in words(figure)
    assert figure.get_figwidth() == style.PAGE


def test_quality_counts_reasons_and_leaves_out_unknown_runs(tmp_path):
    runs = run_table(tmp_path, "one", 20, 2, n_excluded=4)
    folder = qc_folder(tmp_path / "one", runs)
    stale = read_tsv(folder / "sub-20_qc.tsv").assign(key="ds-one_sub-99_task-rest_run-1").head(1)
    write_tsv(folder / "sub-99_qc.tsv", stale)
    table = draw("quality", [runs, folder], tmp_path)
    assert len(table) == 40
    moved = table["reason"].str.startswith("mean FD", na=False).sum()
    assert moved > 1
    text = words(picture("quality", [runs, folder]))
    assert f"{4 + moved} of 40 runs excluded" in text
    assert "mean FD … mm is over 0.4 mm" in text  # the threshold is the same in all, the value is not
    assert "… volumes, fewer than 10" in text


def test_reasons_without_numbers_and_with_several_parts():
    reasons = pd.Series(
        ["no mask; no confounds", "no mask", "2 frames left (3 of 9 kept)", "4 frames left (1 of 9 kept)", ""]
    )
    kinds = tables.kinds_of_reasons(reasons)
    assert kinds.tolist() == ["no mask", "no mask", "… frames left", "… frames left", "no reason given"]


def test_excluded_runs_are_all_in_the_table(tmp_path):
    runs = run_table(tmp_path, "one", 60, 1, n_excluded=55)
    assert len(draw("excluded", [runs], tmp_path)) == 55
    assert "and 15 more" in words(picture("excluded", [runs]))
    used = run_table(tmp_path, "two", 3, 1)
    assert draw("excluded", [used], tmp_path).empty
    assert "all 3 runs are used" in words(picture("excluded", [used]))


def test_panels_of_pretraining_show_the_same_quantity(tmp_path):
    # Of one experiment the loss is the L1, of the other it has further parts (horizons, order of windows).
    paths = history(tmp_path, "csm") + history(tmp_path, "sequence_bert", parts=True)
    table = draw("upstream_losses", paths, tmp_path)
    parts = table.groupby("experiment")["part"].unique()
    assert set(parts["csm"]) == {"train", "validation"}
    assert set(parts["sequence_bert"]) == {"validation"}  # its training loss is something else
    last = table[table["part"] == "validation"].groupby("experiment")["skill"].last()
    assert last.tolist() == pytest.approx([1 - 0.71 / 0.798] * 2, abs=1e-4)
    panels = picture("upstream_losses", paths).axes
    assert len({axes.get_ylim() for axes in panels}) == 1


def test_pretraining_shows_what_linear_forecasts_reach(tmp_path):
    train, evaluated = history(tmp_path, "csm")
    pd.read_csv(evaluated).assign(l1_ar1=0.77, l1_var=0.76).to_csv(evaluated, index=False)
    table = draw("upstream_losses", [train, evaluated], tmp_path)
    assert table.loc[table["part"] == "VAR", "skill"].tolist() == pytest.approx([1 - 0.76 / 0.798] * 10)
    assert "AR(1) 0.035 · VAR 0.048" in words(picture("upstream_losses", [train, evaluated]))


def test_repetitions_are_thin_lines_of_their_experiment_and_components_have_no_panel(tmp_path):
    paths = [path for name in ("csm_seed-1", "csm", "csm_seed-20") for path in history(tmp_path, name)]
    for kind in ("train", "eval"):
        path = tmp_path / "components" / f"{kind}_history.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("step,loss\n0,0.24\n")
        paths.append(path)
    table = draw("upstream_losses", paths, tmp_path)
    assert set(table["experiment"]) == {"csm"}
    assert set(table["repetition"]) == {"csm", "csm_seed-1", "csm_seed-20"}
    figure = picture("upstream_losses", paths)
    (axes,) = figure.axes
    assert sorted(line.get_linewidth() for line in axes.lines if np.size(line.get_xdata()) == 10) == [
        0.6,
        0.6,
        1.4,
    ]
    assert "2 more seeds" in words(figure)
    # Alone, a repetition is an experiment like any other.
    assert set(draw("upstream_losses", paths[:2], tmp_path)["experiment"]) == {"csm_seed-1"}
    assert draw("upstream_losses", paths[-2:], tmp_path).empty


@pytest.mark.parametrize("forecasts", [{}, {"l1_ar1": 0.797, "l1_var": 0.76}])
def test_the_labels_of_losses_never_overlap(forecasts, tmp_path):
    train, evaluated = history(tmp_path, "sequence_bert")
    pd.read_csv(evaluated).assign(**forecasts).to_csv(evaluated, index=False)
    figure = picture("upstream_losses", [train, evaluated])
    figure.draw_without_rendering()
    (title,) = (text for text in figure.axes[0].findobj(Text) if text.get_text() == "Sequence-BERT")
    boxes = [text.get_window_extent() for text in (*figure.axes[0].texts, title) if text.get_text()]
    assert len(boxes) == (3 if forecasts else 2)
    for number, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[number + 1 :])
        assert one.y0 >= figure.axes[0].get_window_extent().y1


def test_a_long_training_curve_is_averaged_not_cut(tmp_path):
    paths = history(tmp_path, "csm")
    train = draw("upstream_losses", paths, tmp_path).query("part == 'train'")
    assert len(train) == 300
    assert train["step"].max() > 4900


def test_losses_without_validation(tmp_path):
    # What predicting zero reaches is not known, so there is no skill.
    paths = history(tmp_path, "csm", validation=False)
    assert draw("upstream_losses", paths, tmp_path).empty
    assert "not validated" in words(picture("upstream_losses", paths))


def test_the_heat_map_orders_rows_and_marks_the_best(tmp_path):
    figure = picture("downstream_accuracy", [scores(tmp_path, "one", families=("csm",))])
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["linear", "mean MLP", "CSM scratch", "CSM"]
    groups = [text.get_text() for text in figure.axes[0].texts if text.get_fontstyle() == "italic"]
    assert groups == ["baselines", "from scratch", "pretrained"]
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == ["0.50", "0.56", "0.60"]  # CSM at n = 1, 3, 6
    written = words(figure)
    for reference in ("chance 0.12", "best control 0.95", "best possible on means 0.70", "best possible 0.90"):
        assert reference in written


def marks_of(paths: list[Path], folder: Path) -> dict[str, str]:
    table = draw("downstream_accuracy", paths, folder).query("n == 1")
    return dict(zip(table["experiment"], table["mark"].fillna(""), strict=True))


def test_decoders_that_may_be_as_good_as_the_best_are_marked(tmp_path):
    rows = [
        Score("one", name, 1, "all", "all", "all", "accuracy", value, value - 0.06, value + 0.06, 300, kind, start)
        for name, value, kind, start in [
            ("far", 0.3, "baseline", "linear"),
            ("near", 0.46, "baseline", "mean_lda"),
            ("close", 0.47, "pretrained", "a"),
            ("first", 0.5, "pretrained", "b"),
        ]
    ]
    path = tmp_path / "one_scores.tsv"
    write_scores(path, rows)
    assert marks_of([path], tmp_path) == {"far": "", "near": "not worse", "close": "not worse", "first": "best"}
    # The paired difference tells them apart, although their intervals overlap.
    paired = comparisons(tmp_path, "one", {("first", "near"): (0.04, 0.01), ("first", "far"): (0.2, 0.01)})
    marks = marks_of([path, paired], tmp_path)
    assert marks == {"far": "", "near": "", "close": "not worse", "first": "best"}
    # And may leave open what intervals tell apart.
    unsure = comparisons(tmp_path, "one", {("first", "far"): (0.2, 0.3)})
    assert marks_of([path, unsure], tmp_path)["far"] == "not worse"


def test_maps_beside_each_other_have_the_same_rows(tmp_path):
    paths = [scores(tmp_path, "one"), scores(tmp_path, "two", families=("csm", "other"))]
    figure = picture("downstream_accuracy", paths)
    one, two = (axes for axes in figure.axes if axes.get_xlabel().startswith(style.LABELLED))
    assert one.get_ylim() == two.get_ylim()
    assert one.get_yticks().tolist() == two.get_yticks().tolist()
    names = [label.get_text() for label in one.get_yticklabels()]
    assert {"CSM", "other", "Network-BERT"} <= set(names)


def test_decoders_of_several_networks_stand_last_and_share_a_panel_of_the_curves(tmp_path):
    path = scores(tmp_path, "one", families=("csm", "sequence_bert"))
    rows = read_tsv(path)
    both = rows[rows["experiment"] == "csm"].assign(experiment="ensemble", start="csm+sequence_bert")
    write_tsv(path, pd.concat([both, both.assign(experiment="chosen"), rows]))
    heat = picture("downstream_accuracy", [path])
    names = [label.get_text() for label in heat.axes[0].get_yticklabels()]
    assert names[-4:] == ["CSM", "Sequence-BERT", "ensemble", "chosen"]
    figure = picture("downstream_curves", [path])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["CSM", "Sequence-BERT", "several networks"]
    written = {text.get_text() for text in figure.axes[2].texts}
    assert {"ensemble", "chosen"} <= written


def test_panels_of_a_dataset_have_one_scale(tmp_path):
    names = ("autoencoding", "csm", "sequence_bert", "network_bert", "five", "six")
    path = scores(tmp_path, "one", families=names, baselines=())
    rows = read_tsv(path)
    # The networks of the second line are much better than those of the first.
    rows["value"] = rows["value"].where(~rows["experiment"].isin(names[4:]), 0.99)
    write_tsv(path, rows)
    figure = picture("downstream_curves", [path])
    limits = {axes.get_ylim() for axes in figure.axes if axes.axison}
    assert len(limits) == 1
    assert limits.pop()[1] > 0.99
    ticks = [axes.yaxis.get_tick_params()["labelleft"] for axes in figure.axes if axes.axison]
    assert ticks.count(True) == 2  # one for each line of panels


BASELINES = ("mean_lda", "linear", "mean_mlp", "components", "tangent", "mean_logistic")


def test_many_baselines_are_a_band_and_three_lines(tmp_path):
    path = scores(tmp_path, "one", families=("csm",), baselines=BASELINES)
    figure = picture("downstream_curves", [path])
    written = words(figure).split("\n")
    band = "all 6 baselines, worst to best"
    assert {"linear", "mean logistic", "components", band, "best control, sees no signal"} <= set(written)
    assert not {"tangent", "mean LDA", "mean MLP"} & set(written)
    assert max(map(written.count, ("components", "linear", "pretrained"))) == 1  # each line is named once
    few = picture("downstream_curves", [scores(tmp_path, "two", families=("csm",), baselines=BASELINES[:3])])
    written = words(few).split("\n")
    assert {"linear", "mean LDA", "mean MLP"} <= set(written)
    assert not any("worst to best" in text for text in written)


Pairs = dict[tuple[str, str], tuple[float, float]]


def comparisons(folder: Path, dataset: str, pairs: Pairs, sizes: tuple[int, ...] = (1,)) -> Path:
    """Write differences (value, half width) of pairs; those that are sure have a small p-value."""
    rows = []
    for n in sizes:
        for (one, other), (difference, half) in pairs.items():
            kind, other_kind = (
                next((k for k in ("scratch", "untrained") if k in name), "") for name in (one, other)
            )
            p = 0.001 if abs(difference) > half else 0.4
            bounds = (difference - half, difference + half, p, p, 9, 5, 1)
            kinds = (kind or "pretrained", other_kind or "baseline")
            rows.append(Comparison(dataset, n, one, kinds[0], other, kinds[1], difference, *bounds))
    write_comparisons(folder / f"{dataset}_comparisons.tsv", rows)
    return folder / f"{dataset}_comparisons.tsv"


def paired_differences(folder: Path, dataset: str, sizes: tuple[int, ...] = (1, 3)) -> Path:
    pairs: Pairs = {(one, other): (0.1, 0.05) for one in ("csm", "chosen") for other in ("linear", "tangent")}
    pairs |= {("csm", "csm_scratch"): (0.02, 0.05), ("csm", "csm_untrained"): (-0.1, 0.02)}
    pairs |= {("csm_scratch", "linear"): (0.3, 0.01)}
    return comparisons(folder, dataset, pairs, sizes)


def test_paired_differences_are_drawn_against_baselines_and_own_controls(tmp_path):
    paths = [paired_differences(tmp_path, "one"), paired_differences(tmp_path, "two", (10,))]
    table = draw("downstream_comparisons", paths, tmp_path)
    assert len(table) == 6 * 3  # six pairs at two sizes and at one: networks from scratch are not pretrained
    figure = picture("downstream_comparisons", paths)
    panels = [axes for axes in figure.findobj(Axes) if axes.get_xlabel()]
    assert [axes.get_title(loc="left") for axes in panels] == ["one, n = 1", "n = 3", "two, n = 10"]
    rows = [label.get_text() for label in panels[0].get_yticklabels()]
    assert rows == ["linear", "tangent", "the same network, from scratch", "the same network, untrained"]
    dots = [line for line in panels[0].lines if line.get_marker() == "o"]
    unsure = [line for line in dots if line.get_markerfacecolor() == "white"]
    assert [np.ravel(line.get_xdata())[0] for line in unsure] == [0.02]


def test_an_ensemble_of_baselines_has_its_differences_and_its_curve(tmp_path):
    path = comparisons(tmp_path, "one", {("ensemble", "linear"): (0.1, 0.05), ("csm", "linear"): (0.2, 0.05)})
    rows = read_comparisons(path)
    write_tsv(path, rows.assign(kind=rows["kind"].mask(rows["experiment"] == "ensemble", "baseline")))
    assert set(draw("downstream_comparisons", [path], tmp_path)["experiment"]) == {"ensemble", "csm"}
    names = {"linear": "linear", "mean_lda": "mean_lda", "tangent": "tangent", "mean_mlp": "mean_mlp"}
    names["ensemble"] = "mean_lda+tangent"
    scores = [
        Score("one", name, n, "all", "all", "all", "accuracy", 0.5, 0.4, 0.6, 30, "baseline", start)
        for name, start in names.items()
        for n in (1, 3)
    ]
    write_scores(tmp_path / "one_scores.tsv", scores)
    (axes,) = picture("downstream_curves", [tmp_path / "one_scores.tsv"]).axes
    assert {text.get_text() for text in axes.texts} == {"linear", "ensemble"}


def test_without_pretrained_decoders_there_is_nothing_to_compare(tmp_path):
    path = comparisons(tmp_path, "one", {})
    assert draw("downstream_comparisons", [path], tmp_path).empty
    with pytest.raises(InputError, match="not a table of comparisons"):
        draw("downstream_comparisons", [run_table(tmp_path, "one", 2, 1)], tmp_path)


@pytest.mark.parametrize("subjects", [(5,), (24, 30, 22), (16, 20, 24), (900, 40, 8)])
def test_logarithmic_axes_have_three_ticks_at_least(subjects, tmp_path):
    paths = [run_table(tmp_path, f"ds{number}", number, 2) for number in subjects]
    (axes,) = picture("upstream_data", paths).axes
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = [place for place in axis.get_majorticklocs() if low <= place <= high]
        assert len(ticks) >= 3
        assert all(tick == int(tick) for tick in ticks)


def test_dots_at_the_edge_of_a_panel_are_whole(tmp_path):
    runs = run_table(tmp_path, "one", 20, 2)
    figure = picture("quality", [runs, qc_folder(tmp_path / "one", runs)])
    for axes in figure.findobj(Axes):
        assert not any(dots.get_clip_on() for dots in axes.collections)


def test_a_carpet_has_a_scale(tmp_path):
    written = words(picture("carpet", carpet_inputs(tmp_path, "one")))
    assert "standard deviations" in written
    assert "\N{MINUS SIGN}2.5" in written


@pytest.mark.parametrize("name", ["downstream_accuracy", "downstream_curves"])
@pytest.mark.parametrize(
    "given",
    [
        {"families": (), "sizes": (10,), "ceilings": False},  # Haxby: one n, baselines only
        {"families": ("csm",), "sizes": (3,), "baselines": ()},
        {"families": tuple(f"csm_of_width_{768 + number}_and_a_long_name" for number in range(9))},
        {"families": ("csm",), "sizes": (1, 3, 6, 12, 24, 48)},
        {"baselines": BASELINES, "sizes": (1,), "untrained": True},
    ],
)
def test_hard_cases_of_decoding_are_drawn(name, given, tmp_path):
    table = draw(name, [scores(tmp_path, "one", **given)], tmp_path)
    assert table["value"].min() > 0.1  # summary accuracies only: that of a single fit is 0.01
    assert table["experiment"].tolist().count("chance") == 1
    assert table.loc[table["experiment"] == "chance", "value"].tolist() == [0.125]  # the higher of the two


def test_curves_of_a_dataset_that_lacks_an_experiment(tmp_path):
    paths = [scores(tmp_path, "one"), scores(tmp_path, "two", families=("csm",))]
    assert words(picture("downstream_curves", paths)).count("not trained") == 3


def test_curves_pair_pretrained_and_scratch_in_one_colour(tmp_path):
    figure = picture("downstream_curves", [scores(tmp_path, "one", families=("csm",), baselines=())])
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len({line.get_color() for line in lines}) == 1
    assert {line.get_linestyle() for line in lines} == {"-", "--"}


def test_the_same_network_is_shown_untrained(tmp_path):
    paths = [scores(tmp_path, "one", families=("csm", "sequence_bert"), baselines=(), untrained=True)]
    figure = picture("downstream_curves", paths)
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(lines) == 3  # each network's three in one panel
    assert len({line.get_color() for line in lines}) == 1
    assert len(figure.axes) == 2
    assert "untrained" in words(figure)
    heat = picture("downstream_accuracy", paths)
    rows = [label.get_text() for label in heat.axes[0].get_yticklabels()]
    assert rows[:2] == ["CSM untrained", "Sequence-BERT untrained"]


def test_confusion_shows_one_decoder_by_one_rule(tmp_path):
    table = draw(
        "downstream_confusion", [predictions(tmp_path, "one", 26), predictions(tmp_path, "two", 3)], tmp_path
    )
    assert set(table["experiment"]) == {"csm"}
    assert table.groupby(["dataset", "true"])["share"].sum().to_numpy() == pytest.approx(1)


@pytest.mark.parametrize("names", [("01", "02"), ("true", "false")])
@pytest.mark.parametrize("name", ["downstream_confusion", "downstream_embedding", "downstream_reliability"])
def test_states_and_experiments_may_look_like_numbers(name, names, tmp_path):
    path = predictions(tmp_path, "one", 2)
    table = read_tsv(path)
    table["label_name"] = table["label"].map(dict(enumerate(names)))
    write_tsv(path, table.assign(experiment=table["experiment"].map({"linear": "007", "csm": "08"})))
    drawn = draw(name, [path], tmp_path)
    assert drawn.columns[drawn.isna().any()].empty
    content = (tmp_path / "figures" / f"{name}.tsv").read_text().splitlines()
    rows = [dict(zip(content[0].split("\t"), line.split("\t"), strict=True)) for line in content[1:]]
    assert {row["experiment"] for row in rows} <= {"007", "08"}
    if name != "downstream_reliability":
        assert {row["true" if name == "downstream_confusion" else "state"] for row in rows} == set(names)


def test_trials_are_counted_by_state_and_person_and_rare_states_stand_out(tmp_path):
    table = draw("downstream_trials", [trials(tmp_path, "one", 5)], tmp_path)
    assert table.groupby("state")["trials"].sum().to_dict() == {"face": 30, "house": 30, "huose": 1}
    drawn = picture("downstream_trials", [trials(tmp_path, "one", 5)])
    assert "events that are no trials: 5 no duration" in words(drawn)
    colours = {label.get_text().split()[0]: label.get_color() for label in drawn.axes[0].get_yticklabels()}
    assert colours == {"face": style.INK, "house": style.INK, "huose": style.ALERT}
    nothing = tmp_path / "none_trials.tsv"
    write_trials(nothing, [])
    assert draw("downstream_trials", [nothing], tmp_path).empty


def test_names_keep_their_colour_and_differ():
    assert style.colours(["csm"])["csm"] == style.colours(["network_bert", "csm"])["csm"]
    several = style.colours(["csm", "csm_small", "csm_large", "linear"])
    assert len(set(several.values())) == 4
    together = style.colours(["ensemble", "chosen", "components", "mean_logistic", "linear"])
    alone = {name: style.colours([name])[name] for name in together}
    assert alone == together
    # A second decoder of a network is a shade of it: no other name's colour.
    mixed = style.colours(["csm", "network_bert", "csm_probe", "network_bert_probe", "chosen", "components"])
    assert len(set(mixed.values())) == 6
    assert mixed["csm_probe"] == style.colours(["csm", "csm_probe", "ensemble"])["csm_probe"]


def test_a_framework_whose_name_holds_that_of_another_has_its_own_colour():
    alone = {name: style.colours([name])[name] for name in ("autoencoding", "masked_autoencoding")}
    assert len(set(alone.values())) == 2
    assert style.colours(list(alone)) == alone
    small = style.colours(["masked_autoencoding_small"])
    assert list(small.values()) == [alone["masked_autoencoding"]]


@pytest.mark.parametrize("name", ["explain_curves", "explain_maps"])
def test_figures_of_a_single_explained_decoder_have_no_texts_on_each_other(name, tmp_path):
    figure = picture(name, [explained(tmp_path, "network_bert", name)])
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in texts]
    touching = [
        (a, b) for place, (a, one) in enumerate(boxes) for b, other in boxes[place + 1 :] if one.overlaps(other)
    ]
    assert touching == []


def test_maps_of_a_decoder_stand_at_equal_distances(tmp_path):
    figure = picture("explain_maps", [explained(tmp_path, "network_bert", "explain_maps")])
    lefts = [axes.get_position().x0 for axes in figure.axes[:4]]
    assert np.ptp(np.diff(lefts)) < 0.01  # of the width of the page


def test_quality_that_is_not_known_is_said_so(tmp_path):
    runs = run_table(tmp_path, "one", 3, 2)
    folder = qc_folder(tmp_path / "one", runs)
    for path in folder.glob("*_qc.tsv"):
        write_tsv(path, read_tsv(path).assign(mean_std_dvars=np.nan))
    (axes,) = (a for a in picture("quality", [runs, folder]).axes if a.get_xlabel() == "mean std DVARS")
    assert [text.get_text() for text in axes.texts] == ["not known"]
    assert not len(axes.get_xticks())


def test_quality_says_what_its_colours_mean(tmp_path):
    runs = run_table(tmp_path, "one", 20, 2, n_excluded=4)
    paths = [runs, qc_folder(tmp_path / "one", runs)]
    assert "an excluded run" in words(picture("quality", paths))


def test_reliability_shows_what_validation_chose_however_many_networks_there_are(tmp_path):
    path = predictions(tmp_path, "one", 4)
    table = read_tsv(path)
    names = [*(f"csm_{number}" for number in range(8)), "chosen"]
    write_tsv(path, pd.concat([table[table["experiment"] == "csm"].assign(experiment=name) for name in names]))
    figure = picture("downstream_reliability", [path])
    assert [line.get_linewidth() for line in figure.axes[0].lines].count(0.9) == 6
    assert "chosen" in words(figure).split("\n")
    assert "in the table alone: 3 decoders" in words(figure)
    assert set(draw("downstream_reliability", [path], tmp_path)["experiment"]) == set(names)


def test_small_differences_between_seeds_are_pale(tmp_path):
    table = read_scores(fits_of_two_seeds(tmp_path, "one"))
    moved = table.assign(value=0.5 + 0.02 * (table["seed"].astype(str) == table["seed"].astype(str).max()))
    write_tsv(tmp_path / "two_scores.tsv", moved)
    figure = picture("downstream_replication", [tmp_path / "two_scores.tsv"])
    shades = np.array([to_rgb(patch.get_facecolor()) for patch in figure.axes[2].patches])
    assert shades.min() > 0.6


def test_labels_are_moved_apart_and_keep_their_order():
    places = style.spread([0.5, 0.5, 0.52, 0.9], 0.1, 0.0, 1.0)
    assert places == sorted(places)
    assert np.diff(places) == pytest.approx([0.1, 0.1, places[3] - places[2]])
    assert np.diff(places).min() > 0.0999
    assert style.spread([0.1, 0.8], 0.1, 0.0, 1.0) == [0.1, 0.8]
    assert style.spread([0.99, 1.0, 1.0], 0.1, 0.0, 1.0) == pytest.approx([0.8, 0.9, 1.0])


def test_unknown_figures_and_unsuitable_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="downstream_accuracy"):
        draw("nothing", [], tmp_path)
    with pytest.raises(InputError, match="not a score table"):
        draw("downstream_curves", [run_table(tmp_path, "one", 2, 1)], tmp_path)
    with pytest.raises(InputError, match="no such table"):
        draw("quality", [tmp_path / "missing.tsv"], tmp_path)
    assert not (tmp_path / "figures").exists()


SMALL_CONFIG: dict[str, Any] = {
    "atlas": {"path": "atlas_dseg.nii.gz"},
    "datasets": {
        "rest": {"role": "upstream", "derivatives": "rest"},
        "blocks": {"role": "downstream", "derivatives": "blocks", "bids": "raw", "task": {}},
    },
    "pretrain": {"experiments": {"csm": {"framework": "csm"}}},
    "adapt": {
        "experiments": {"csm": {"pretrained": "csm"}, "again": {"scratch": "csm"}, "mlp": {"baseline": "mean_mlp"}}
    },
}


def render(name: str, config: dict[str, Any], view: str = "accuracy") -> str:
    """Render a caption as Snakemake does; the workflow writes experiments out that are added by themselves."""
    complete = parse(Config, config, "config").model_dump(mode="json")
    config = config | {section: complete[section] for section in ("pretrain", "adapt")}
    snakemake = types.SimpleNamespace(config=config, wildcards=types.SimpleNamespace(view=view))
    source = (REPORT / name).read_text(encoding="utf-8")
    text = jinja2.Environment().from_string(source).render(snakemake=snakemake)
    publish_parts(text, writer="html", settings_overrides={"halt_level": 2})  # warnings of the markup are errors
    return " ".join(text.split())


@pytest.mark.parametrize("name", sorted(path.name for path in REPORT.glob("*.rst")))
def test_captions_print_the_parameters_that_are_used(name):
    complete = parse(Config, SMALL_CONFIG, "config").model_dump(mode="json")
    for view in VIEWS:
        short, full = (render(name, config, view) for config in (SMALL_CONFIG, complete))
        assert short == full  # what a config leaves out is printed with its default
        assert "{" not in full
        assert "None" not in full.replace("None.", "")


def test_captions_follow_the_config():
    changed = parse(
        Config,
        SMALL_CONFIG
        | {
            "preprocess": {"strategy": ["motion"], "motion": "full", "exclude": {"mean_fd_mm": 0.25}},
            "parcellate": {"smoothing_fwhm_mm": None, "high_pass_hz": 0.01},
            "split": {
                "downstream": {"train": [2, 4], "test": "leave_one_out", "by": "run", "draws": 1}
                | {"validation": 3, "group": "family", "stratify": "site"}
            },
            "evaluate": {"confidence": 0.9},
        },
        "config",
    ).model_dump(mode="json")
    text = render("workflow.rst", changed)
    for words_ in (
        "motion full",
        "over 0.25 mm",
        "filtered at 0.01 Hz",
        "2, 4 training runs",
        "3 more for validation (n counts both)",
        "each run tested in turn; those of one family stay on one side; each site has its share",
    ):
        assert words_ in text
    assert "Preset" not in text
    changed["preprocess"]["preset"] = "24p"
    assert "Preset 24p. Regressors: motion; motion full." in render("workflow.rst", changed)
    assert "the same person trains and tests" in text
    assert "smoothed" not in text
    assert "0.25 mm" in render("quality.rst", changed)
    assert "signal-to-noise ratio any" in render("quality.rst", changed)
    changed["parcellate"]["exclude"]["median_tsnr"] = 20.0
    assert "signal-to-noise ratio at least 20.0" in render("quality.rst", changed)
    assert "90 % intervals" in render("downstream.rst", changed)


def test_the_report_describes_decoders_and_guards():
    config = SMALL_CONFIG | {
        "pretrain": {
            "experiments": {"csm": {"framework": "csm", "repeats": [1, 2]}, "bert": {"framework": "csm"}}
        },
        "adapt": {
            "experiments": {
                "csm": {"pretrained": "csm", "read_outs": ["tangent", "mean"], "penalties": [2.0, 0.5]},
                "further": {"pretrained": "bert", "method": "network", "steps": 70, "seeds": [1, 2]},
                "tuned": {"pretrained": "bert", "method": "finetune", "steps": 30, "layer_decay": 0.5},
                "all": {"members": ["csm", "mean_lda"]},
                "both": {"members": ["csm", "mean_lda"], "combine": "best"},
            }
        },
    }
    text = render("workflow.rst", config)
    for words_ in (
        "csm: csm, 4 layers of width 768, windows of 10 to 50 frames, 10000 steps of 64 windows, learning rate "
        "0.0001, repeated with 2 more seeds.",
        "components: 64 principal components",
        "csm: probe of csm; read-outs tangent or mean; layers all; classifier logistic; penalties 2, 0.5; "
        "3 seeds.",
        "csm_untrained: probe of csm with random weights; read-outs tangent or mean",
        "csm_scratch: the network of csm from scratch, 10000 steps of 64 trials, learning rate 0.0001, 1 seed.",
        "further: the network of bert, all weights trained further, 70 steps of 64 trials, learning rate 0.0001, "
        "2 seeds.",
        "tuned: fine-tuned probe of bert; read-outs",
        "then at most 30 steps of 64 trials, learning rate 0.0001, that of each layer 0.5 of that of the layer "
        "above.",
        "all: csm and mean_lda together, the mean of their probabilities, weighted by how well each validates.",
        "both: csm and mean_lda together, the one that validates best.",
        "mean_lda: baseline, shrinkage LDA on the mean signal of a trial.",
        "linear: baseline linear by gradient steps",
        "those for validation too",
        "<dataset>_choices.tsv",
        "by whatever name, is refused",
    ):
        assert words_ in text
    assert "csm_seed-1" not in text
    allowed = render("workflow.rst", config | {"evaluate": {"allow_pretrained_test_runs": True}})
    assert "is scored all the same, and flagged" in allowed


@pytest.mark.parametrize("name", sorted(path.name for path in REPORT.glob("*.rst")))
def test_captions_do_without_sections_that_are_not_there(name):
    bare = {"datasets": {"blocks": {"role": "downstream", "shards": "blocks"}}}
    for view in VIEWS:
        assert render(name, bare, view)


def test_each_figure_of_the_workflow_has_a_caption():
    for name in figures.FIGURES:
        shared = {"downstream_accuracy": "downstream", "downstream_curves": "downstream"}
        caption = "explain" if name.startswith("explain_") else shared.get(name, name)
        assert (REPORT / f"{caption}.rst").is_file()
