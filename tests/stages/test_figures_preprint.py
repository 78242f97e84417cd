"""Figures of the preprint and beyond it: what they show of small tables, and what is wrong with others."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from boldly.config import FiguresOptions
from boldly.files import read_tsv, write_json, write_tsv
from boldly.records import InputError, read_scores
from boldly.stages import figures
from boldly.stages.figures.carpet import read_networks
from boldly.stages.figures.experiments import fit_power_law
from boldly.stages.figures.tables import drawn_decoder, tasks_of
from tests.stages.test_figures import (
    carpet_inputs,
    draw,
    fits_of_two_seeds,
    history,
    inputs,
    picture,
    predictions,
    trained_decoder,
    upstream_experiment,
    words,
)

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def test_the_size_search_marks_the_best_size_of_each_framework(tmp_path):
    table = draw("upstream_sizes", inputs("upstream_sizes", tmp_path), tmp_path)
    kept = table[table["is_kept"]]
    assert len(kept) == 8  # four sizes of two frameworks
    best = kept[kept["is_best"]]
    assert best[["layers", "width"]].to_numpy().tolist() == [[2, 32], [2, 32]]  # its L1 is the lowest by 0.01
    assert "width 32" in words(picture("upstream_sizes", inputs("upstream_sizes", tmp_path / "again")))


def test_of_several_trainings_of_a_size_the_map_shows_the_best(tmp_path):
    paths = inputs("upstream_sizes", tmp_path)
    before = words(picture("upstream_sizes", paths))
    # The same sizes with another learning rate, which was too high: they stand behind the others.
    worse = [
        path
        for number, size in enumerate(((1, 16), (2, 32)))
        for path in upstream_experiment(tmp_path, f"csm_high_{number}", size=size, shift=0.05)
    ]
    after = words(picture("upstream_sizes", paths + worse))
    cells = [re.findall(r"\d\.\d{3,4}", text) for text in (before, after)]
    # Four sizes of two frameworks.
    assert len(cells[0]) == len(cells[1]) >= 8
    assert before.count("\N{BLACK CIRCLE}") == after.count("\N{BLACK CIRCLE}")


def test_one_size_alone_is_no_search(tmp_path):
    paths = upstream_experiment(tmp_path, "csm")
    assert draw("upstream_sizes", paths, tmp_path).empty
    assert "no framework has validated experiments of several sizes" in words(picture("upstream_sizes", paths))


def test_a_history_without_its_record_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no record of the training") as error:
        draw("upstream_sizes", history(tmp_path, "csm"), tmp_path)
    assert "csm/manifest.json" in str(error.value)
    (tmp_path / "csm/manifest.json").write_text("{}")
    with pytest.raises(InputError, match="not the record of a training"):
        draw("upstream_scaling", [tmp_path / "csm/train_history.csv"], tmp_path)


@pytest.mark.parametrize("name", ["upstream_sizes", "upstream_scaling", "upstream_skill", "upstream_largest"])
def test_tables_that_are_no_histories_are_named(name, tmp_path):
    path = tmp_path / "csm" / "eval_history.csv"
    path.parent.mkdir()
    path.write_text("time,value\n1,2\n")
    with pytest.raises(InputError, match="not a training history"):
        draw(name, [path], tmp_path)


@pytest.mark.parametrize("name", ["downstream_reliability", "downstream_embedding", "downstream_confusion"])
def test_tables_that_are_no_predictions_are_named(name, tmp_path):
    write_tsv(tmp_path / "wrong.tsv", pd.DataFrame({"experiment": ["csm"], "n": [1]}))
    with pytest.raises(InputError, match="not a table of predictions"):
        draw(name, [tmp_path / "wrong.tsv"], tmp_path)


def test_a_power_law_is_found_with_its_floor():
    n = np.array([4.0, 8.0, 16.0, 32.0, 64.0])
    law = fit_power_law(n, 0.7 + 0.3 * n**-0.5)
    assert law is not None
    # The floor is searched in steps of 0.25 % of the lowest loss.
    assert law.floor == pytest.approx(0.7, abs=0.003)
    assert law.exponent == pytest.approx(0.5, abs=0.05)
    assert fit_power_law(n[:2], n[:2]) is None
    assert fit_power_law(n, 0.7 + 0.01 * n) is None  # it rises


def test_scaling_counts_the_people_of_each_training(tmp_path):
    table = draw("upstream_scaling", inputs("upstream_scaling", tmp_path), tmp_path)
    assert table["people"].tolist() == [5, 10, 20, 40]
    assert (table["exponent"] > 0).all()
    assert "people$^{-" in words(picture("upstream_scaling", inputs("upstream_scaling", tmp_path / "again")))


def test_networks_of_two_sizes_have_a_power_law_each(tmp_path):
    paths = inputs("upstream_scaling", tmp_path)
    alone = draw("upstream_scaling", paths, tmp_path)
    large = [
        path
        for n in (10, 40)
        for path in upstream_experiment(tmp_path, f"csm_large_{n}", size=(4, 48), people=n, shift=-0.2)
    ]
    table = draw("upstream_scaling", paths + large, tmp_path)
    small = table[table["width"] == 24].reset_index(drop=True)
    pd.testing.assert_frame_equal(small, alone)
    assert table.loc[table["width"] == 48, "people"].tolist() == [10, 40]
    text = words(picture("upstream_scaling", paths + large))
    assert "CSM 2 x 24" in text
    assert "CSM 4 x 48" in text


def test_skill_by_dataset_stands_with_its_repetition_time(tmp_path):
    paths = inputs("upstream_skill", tmp_path)
    table = draw("upstream_skill", paths, tmp_path)
    by = table.set_index(["dataset", "against"])["skill"]
    assert by["two", "VAR"] == pytest.approx(-0.01)
    assert by["one", "AR(1)"] == pytest.approx(0.02)
    assert set(table["t_r"]) == {2.0}
    assert "one, 2 s" in words(picture("upstream_skill", paths))


def test_warm_starts_stand_beside_the_same_network_without(tmp_path):
    paths = inputs("upstream_warm_start", tmp_path)
    paths += upstream_experiment(tmp_path, "wider", size=(2, 64))
    table = draw("upstream_warm_start", paths, tmp_path)
    assert dict(zip(table["curve"], table["experiment"], strict=True)) == {"warm": "warm", "cold": "csm"}
    assert "from gpt2" in words(picture("upstream_warm_start", paths))
    assert draw("upstream_warm_start", upstream_experiment(tmp_path / "x", "csm"), tmp_path).empty


def test_a_warm_start_stands_beside_the_training_that_is_most_alike(tmp_path):
    paths = [
        *upstream_experiment(tmp_path, "few_people", subjects_fraction=0.1, steps=100),
        *upstream_experiment(tmp_path, "csm", subjects_fraction=1.0, steps=100),
        *upstream_experiment(tmp_path, "warm", subjects_fraction=1.0, steps=100, initialise="models/gpt2"),
    ]
    table = draw("upstream_warm_start", paths, tmp_path)
    assert dict(zip(table["curve"], table["experiment"], strict=True)) == {"warm": "warm", "cold": "csm"}


def test_the_largest_network_of_each_framework_is_shown(tmp_path):
    table = draw("upstream_largest", inputs("upstream_largest", tmp_path), tmp_path)
    assert set(table["experiment"]) == {"csm_3", "autoencoding_3"}  # two layers, width 32


def test_a_model_is_drawn_with_shapes_and_numbers_of_weights(tmp_path):
    paths = inputs("upstream_frameworks", tmp_path)
    table = draw("upstream_frameworks", paths, tmp_path)
    csm = table[table["experiment"] == "csm"].set_index("part")
    assert csm.loc["embedder", "output"] == "(B, 50, 24)"
    assert csm.loc["embedder", "parameters"] == 24 * 48
    assert csm.loc["coupling", "parameters"] == 48 * 48
    assert "each next frame, from those before it" in words(picture("upstream_frameworks", paths)).replace(
        "\n", " "
    )
    paths[0].with_name("model.safetensors").unlink()
    with pytest.raises(InputError, match="no model"):
        draw("upstream_frameworks", paths, tmp_path)


def test_published_end_points_are_marked_where_they_are_asked_for(tmp_path):
    paths = history(tmp_path, "csm") + history(tmp_path, "network_bert", parts=True)
    output = tmp_path / "losses.png"
    options = FiguresOptions(dpi=60, published=True)
    figures.run(figure="upstream_losses", tables=paths, options=options, output=output)
    table = read_tsv(output.with_suffix(".tsv"))
    marks = table[table["repetition"] == "Thomas et al. 2022"].set_index("experiment")
    # 1 - 0.725 / 0.798; the loss of BERT holds more than the L1.
    assert marks.loc["csm", "skill"] == pytest.approx(0.0915, abs=1e-4)
    assert marks.loc["csm", "part"] == "published"
    assert marks.loc["network_bert", "part"] == "at least"
    assert "Thomas et al. 2022" not in words(picture("upstream_losses", paths))


def test_losses_define_skill_and_name_their_lines(tmp_path):
    text = words(picture("upstream_losses", history(tmp_path, "csm")))
    assert "skill: 1 \N{MINUS SIGN} L1 / L1 of zero" in text
    assert {"held-out subjects", "predicting zero"} <= set(text.split("\n"))


def test_curves_of_adaptation_are_means_over_draws(tmp_path):
    paths = inputs("downstream_training", tmp_path)
    table = draw("downstream_training", paths, tmp_path)
    assert set(table["experiment"]) == {"csm", "linear"}
    assert set(table["n_draws"]) == {2}
    first = table.query("measure == 'loss' and n == 1 and seed == 1").iloc[0]
    assert first["value"] == pytest.approx(2 - 0.01 + 0.05 + 0.2)  # draws add 0 and 0.1
    assert table.query("measure == 'accuracy'")["value"].max() == 0.5
    text = words(picture("downstream_training", paths))
    assert "seed 2" in text
    scratch = trained_decoder(tmp_path, "one", "csm_scratch", "scratch")
    assert draw("downstream_training", [scratch], tmp_path).empty
    write_json(tmp_path / "other.json", {"n": 1})
    with pytest.raises(InputError, match="not the record of a downstream experiment"):
        draw("downstream_training", [tmp_path / "other.json"], tmp_path)


def test_trainings_that_end_at_different_steps_have_points_in_common(tmp_path):
    # Fine-tuning ends where cross-validation says: after 40 rows of one draw, after 200 of another.
    fits = []
    for number, rows in enumerate((40, 200)):
        fit = tmp_path / f"n-3_draw-{number}_seed-1"
        fit.mkdir()
        step = 50 * np.arange(1, rows + 1)
        pd.DataFrame({"step": step, "loss": 2 + number}).to_csv(fit / "train_history.csv", index=False)
        fits.append({"folder": fit.name, "n": 3, "draw": number, "seed": 1})
    record = tmp_path / "adapt.json"
    write_json(record, {"dataset": "one", "experiment": "csm", "kind": "pretrained", "fits": fits})
    table = draw("downstream_training", [record], tmp_path)
    assert (np.diff(table["step"]) > 0).all()
    assert table["n_draws"].tolist() == [2] * 20 + [1] * 80
    assert table["value"].tolist() == [2.5] * 20 + [3.0] * 80


def test_replication_shows_decoders_with_two_seeds(tmp_path):
    table = draw("downstream_replication", [fits_of_two_seeds(tmp_path, "one")], tmp_path)
    assert set(table["experiment"]) == {"csm", "linear"}
    means = table.groupby("seed")["value"].mean()
    assert means.tolist() == pytest.approx([0.5, 0.6])
    text = words(picture("downstream_replication", [fits_of_two_seeds(tmp_path / "again", "one")]))
    assert "mean size 0.100" in text


def test_the_seed_of_decoders_that_have_one_alone_does_not_count_for_the_replication(tmp_path):
    path = fits_of_two_seeds(tmp_path, "one")
    rows = read_scores(path)
    # Most decoders have the default seed and no other, which the repeated ones do not have.
    single = rows[rows["experiment"] == "mean_lda"].assign(seed="1234")
    others = [single.assign(experiment=name) for name in ("mean_lda", "tangent", "connectivity", "components")]
    write_tsv(path, pd.concat([rows[rows["experiment"] != "mean_lda"], *others]))
    table = draw("downstream_replication", [path], tmp_path)
    assert set(table["experiment"]) == {"csm", "linear"}
    assert set(table["seed"]) == {1, 2}


def test_reliability_parts_predictions_into_groups_of_equal_size(tmp_path):
    table = draw("downstream_reliability", [predictions(tmp_path, "one", 6)], tmp_path)
    csm = table[table["experiment"] == "csm"]
    assert csm["predictions"].sum() == 240  # 40 of each of six states
    assert len(csm) == 10
    # All are as sure: 0.7 and a sixth of 0.3; about 60 % are right.
    assert csm["confidence"].to_numpy() == pytest.approx(0.75)
    assert csm["calibration_error"].iloc[0] >= abs(0.75 - csm["accuracy"].mean()) - 1e-9


def test_the_map_of_trials_has_a_point_for_each(tmp_path):
    table = draw("downstream_embedding", [predictions(tmp_path, "one", 3)], tmp_path)
    assert len(table) == 120
    assert table["key"].is_unique
    assert set(table["share_right"]) <= {0.0, 1.0}


def test_few_trials_are_mapped_too(tmp_path):
    path = predictions(tmp_path, "one", 3)
    write_tsv(path, read_tsv(path).groupby("experiment").head(5))
    assert len(draw("downstream_embedding", [path], tmp_path)) == 5


def test_one_rule_chooses_the_decoder_of_all_datasets(tmp_path):
    tables = [read_tsv(predictions(tmp_path, name, 3)) for name in ("one", "two")]
    found = drawn_decoder(tables)
    assert "CSM, highest test accuracy of all" in found.title(found.tables[0])
    chosen = [
        pd.concat([table, table[table["experiment"] == "linear"].assign(experiment="chosen")]) for table in tables
    ]
    found = drawn_decoder(chosen)
    # Worse on the test trials, which have no say.
    assert {name for table in found.tables for name in table["experiment"]} == {"chosen"}
    assert "decoder chosen by validation" in found.title(found.tables[0])
    # Of a single dataset that has it, the rule is the other one for all.
    assert "highest" in drawn_decoder([chosen[0], tables[1]]).rule


def test_states_of_a_task_are_known_by_their_first_word():
    assert tasks_of(["MOTOR lh", "REST rest", "MOTOR rh", "nBack"]) == ["MOTOR", "REST rest", "MOTOR", "nBack"]


def test_confusion_stands_in_the_order_of_tasks(tmp_path):
    path = predictions(tmp_path, "one", 4)
    table = read_tsv(path)
    names = {0: "WM faces", 1: "MOTOR lh", 2: "WM places", 3: "MOTOR rh"}
    write_tsv(path, table.assign(label_name=table["label"].map(names)))
    (axes,) = picture("downstream_confusion", [path]).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["WM faces", "WM places", "MOTOR lh", "MOTOR rh"]
    assert len([line for line in axes.lines if isinstance(line, Line2D)]) == 2  # one each way between two tasks


def test_a_carpet_orders_parcels_by_network(tmp_path):
    paths = carpet_inputs(tmp_path, "one")
    names = tmp_path / "atlas.tsv"
    (plain,) = [axes for axes in picture("carpet", paths).axes if "parcels" in axes.get_ylabel()]
    n_parcels = int(plain.get_ylabel().split()[0])
    networks = ["Vis" if number % 2 else "Default" for number in range(n_parcels)]
    index = range(1, n_parcels + 1)
    write_tsv(names, pd.DataFrame({"index": index, "name": [f"p{i}" for i in index], "network": networks}))
    (ordered,) = [axes for axes in picture("carpet", [*paths, names]).axes if "parcels" in axes.get_ylabel()]
    assert ordered.get_ylabel() == f"{n_parcels} parcels"
    assert [label.get_text() for label in ordered.get_yticklabels()] == ["Default", "Vis"]
    drawn: list[np.ndarray] = []
    for axes in (plain, ordered):
        drawn.append(np.ma.filled(np.ma.asarray(axes.images[0].get_array()), np.nan))
    before, after = drawn
    order = [*range(0, n_parcels, 2), *range(1, n_parcels, 2)]
    np.testing.assert_array_equal(after, before[order])


def test_networks_are_read_from_names_of_schaefer(tmp_path):
    path = tmp_path / "atlas.tsv"
    write_tsv(path, pd.DataFrame({"index": [1, 2], "name": ["7Networks_LH_Vis_1", "7Networks_RH_Default_PFC_3"]}))
    assert read_networks(path) == ["Vis", "Default"]
    write_tsv(path, pd.DataFrame({"index": [1], "name": ["left hand"]}))
    assert read_networks(path) == []


def parcel_errors(folder: Path, name: str, n_parcels: int = 3) -> Path:
    """What stage pretrain writes of the error of each parcel."""
    path = folder / name / "parcel_errors.tsv"
    parcels = np.arange(1, n_parcels + 1)
    write_tsv(path, pd.DataFrame({"parcel": parcels, "l1": 0.7 + 0.01 * parcels, "l1_zero": 0.8, "values": 100}))
    return path


def test_maps_show_the_error_of_each_parcel(tmp_path):
    labels = np.zeros((6, 5, 8), np.int16)
    labels[:2, 1:4, 2:6], labels[2:4, 1:4, 2:6], labels[4:, 1:4, 2:6] = 1, 2, 3
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "atlas_dseg.nii.gz")
    paths = [
        parcel_errors(tmp_path, "csm"),
        parcel_errors(tmp_path, "network_bert"),
        tmp_path / "atlas_dseg.nii.gz",
    ]
    table = draw("upstream_errors", paths, tmp_path)
    assert table[["experiment", "parcel"]].to_numpy().tolist()[:4] == [["csm", p] for p in (1, 2, 3)] + [
        ["network_bert", 1]
    ]
    assert table["skill"].iloc[0] == pytest.approx(1 - 0.71 / 0.8)
    figure = picture("upstream_errors", paths)
    first = figure.axes[0].images[0].get_array()
    assert first is not None
    # Rows are from back to front, columns from left to right: a row that crosses the three parcels.
    assert first[2].tolist() == pytest.approx([0.71, 0.71, 0.72, 0.72, 0.73, 0.73])
    assert "L1 on held-out subjects, standard deviations" in words(figure)
    with pytest.raises(InputError, match="2 parcels, the atlas has 3"):
        draw("upstream_errors", [parcel_errors(tmp_path, "csm", 2), paths[-1]], tmp_path)


def test_without_an_atlas_errors_stand_in_their_order(tmp_path):
    assert len(draw("upstream_errors", [parcel_errors(tmp_path, "csm", 5)], tmp_path)) == 5
    empty = tmp_path / "none" / "parcel_errors.tsv"
    write_tsv(empty, pd.DataFrame(columns=["parcel", "l1", "l1_zero", "values"]))
    assert draw("upstream_errors", [empty], tmp_path).empty
    write_tsv(empty, pd.DataFrame({"parcel": [1]}))
    with pytest.raises(InputError, match="not a table of the errors of parcels"):
        draw("upstream_errors", [empty], tmp_path)
