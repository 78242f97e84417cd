from __future__ import annotations

import copy
import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from boldly import records
from boldly.config import Config, DownstreamSplitOptions, parse, resolve
from boldly.files import read_json, read_tsv, write_json, write_tsv
from boldly.records import Choice, InputError, read_scores, read_trials, write_choices, write_trials
from boldly.scope import EVERYTHING, Scope
from boldly.stages import report
from boldly.stages.report import figures, gather, references
from boldly.stages.report.methods import _split
from boldly.stages.report.tables import Column, table
from tests.stages import finished

CHECKOUT = Path(__file__).parents[2]


def config() -> Config:
    return resolve(parse(Config, finished.CONFIG, "test"), CHECKOUT)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    finished.write(tmp_path)
    return Path("results")


def page_of(results: Path, with_config: bool = True) -> str:
    report.run(results=results, output=Path("report.html"), config=config() if with_config else None)
    return Path("report.html").read_text()


def test_the_page_says_what_the_tables_say(results: Path) -> None:
    page = page_of(results)
    for part in (
        "0.700 [0.650, 0.750]",  # the pretrained decoder at the largest n
        "+0.100 [+0.020, +0.180]",  # and what it is better than the baseline by
        "&lt; 0.001",  # corrected p
        "8 volumes, fewer than 10",  # a run that index excluded
        "mean FD 0.9 mm is over 0.5 mm",  # and one that preprocess did
        "dropped: matches &#39;cue&#39;",  # an event that is no trial
        "task: control_motion (n = 1, 3) is flagged: above chance.",
        "git commit",
    ):
        assert part in page, part
    assert "0.123" not in page  # the score of a single fit


def test_the_result_in_short_says_what_validation_chose(results: Path) -> None:
    path = results / "evaluate/task_scores.tsv"
    rows = read_scores(path)
    pretrained = rows[rows["kind"] == "pretrained"]
    n = int(pretrained["n"].max())
    # A single pretrained decoder is not the best of several.
    assert "somewhat optimistic" not in page_of(results)
    names = sorted(set(pretrained["experiment"]))
    chosen = pretrained[pretrained["experiment"] == names[0]].assign(experiment="chosen")
    write_tsv(path, pd.concat([rows, chosen]))
    records = [
        Choice("task", "chosen", "pretrained", n, str(draw), "1", f"{name}: all layers", 0.5, 0.8, 0.7)
        for draw, name in enumerate(["both", "both", names[0]])
    ]
    write_choices(results / "evaluate/task_choices.tsv", records)
    baseline = rows.loc[(rows["kind"] == "baseline") & (rows["metric"] == "accuracy")]
    best = baseline.loc[baseline["n"] == n].sort_values("value")["experiment"].iloc[-1]
    content = copy.deepcopy(finished.CONFIG)
    content["adapt"]["experiments"]["both"] = {"members": [names[0], best]}
    report.run(
        results=results, output=Path("report.html"), config=resolve(parse(Config, content, "test"), CHECKOUT)
    )
    page = Path("report.html").read_text()
    assert f"the one with the lowest validation loss: both in 2 of 3 fits, {names[0]} in 1 of 3 fits." in page
    assert "The best baseline is one of the members that both combines." in page


def test_runs_that_move_much_and_are_used_are_a_warning(results: Path) -> None:
    assert "from volume to volume on average" not in page_of(results)
    path = results / "preprocess/task/sub-01_qc.tsv"
    write_tsv(path, read_tsv(path).assign(mean_fd_mm=0.9))
    line = "task: 1 of 1 run moves more than 0.55 mm from volume to volume on average, and is used"
    assert line in page_of(results)
    # One that is excluded for it needs no warning.
    write_tsv(path, read_tsv(path).assign(status="excluded", reason="mean FD 0.9 mm is over 0.5 mm"))
    assert "from volume to volume on average" not in page_of(results)


def test_trials_that_are_cut_are_a_warning(results: Path) -> None:
    assert "that are looked at" not in page_of(results)
    path = results / "models/downstream/task/csm/adapt.json"
    content = read_json(path)
    content["options"]["window_frames"] = 50
    write_json(path, {**content, "cut_trials": {"cut": 1200, "trials": 4000, "longest_frames": 83}})
    line = (
        "csm (task): 1,200 of 4,000 trials are longer than the first 50 frames that are looked at (window_frames)"
    )
    assert line in page_of(results)


def test_the_result_in_short_is_told_to_the_terminal(results: Path) -> None:
    (line,) = report.run(results=results, output=Path("report.html"), config=config())
    assert line.startswith(
        "task, accuracy at n = 3: pretrained: csm 0.700 [0.650, 0.750], best baseline: mean_logistic "
    )
    assert line.endswith(f", chance {0.5:.3f}")


def test_events_that_were_merged_are_one_trial(results: Path) -> None:
    path = results / "index/task_trials.tsv"
    events = read_trials(path)
    long = next(event for event in events if event.label == "house")
    # Four rows make one long trial, as merge_blocks has it; another state has two of one row each.
    rows = [replace(long, onset=long.onset + 10 * number, stop=30, n_frames=20) for number in range(4)]
    write_trials(path, [*(event for event in events if event is not long), *rows])
    counted = gather.trials(gather.read_trial_tables(results))
    titles = [column.title for column in counted.columns]
    found = {row[titles.index("State")].text: dict(zip(titles, row, strict=True)) for row in counted.rows}
    for name, n_trials, length_s in (("face", "2", "10.0"), ("house", "1", "40.0")):
        assert found[name]["Trials"].text == found[name]["Most per person"].text == n_trials
        assert found[name]["Median length (s)"].text == length_s


def test_people_with_a_tar_for_each_run_count_once(results: Path) -> None:
    # As ready-made shards of the published system have it.
    names = [f"ds-rest_sub-{subject}_task-a_run-{run}.tar" for subject in ("01", "02") for run in (1, 2, 3)]
    manifest = read_json(results / "models/upstream/csm/manifest.json")
    shards = {"training": dict.fromkeys(names, ""), "validation": {"ds-rest_sub-03.tar": "", "b.tar": ""}}
    found = gather.training(results, {"csm": {**manifest, **shards}})
    titles = [column.title for column in found.columns]
    (row,) = found.rows
    told = {title: cell.text for title, cell in zip(titles, row, strict=True)}
    assert (told["Training people"], told["Held-out people"]) == ("2", "2")


def test_the_page_needs_nothing_beside_it(results: Path) -> None:
    page = page_of(results)
    sources = re.findall(r"<(?:script|img|link|iframe|source|object|embed)\b[^>]*?(?:src|href)=\"([^\"]*)", page)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "@import" not in page
    assert "url(" not in page


def test_captions_are_those_of_the_workflow_with_the_parameters(results: Path) -> None:
    page = page_of(results)
    assert "mean framewise displacement 0.5 mm" in page
    assert "95 % intervals over test units" in page


def test_a_finished_folder_needs_no_config_once_it_is_recorded(results: Path) -> None:
    with_config = page_of(results)
    (Path("data/task") / "dataset_description.json").unlink()
    later = page_of(results, with_config=False)
    date = r"on \d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.sub(date, "", later) == re.sub(date, "", with_config)


def write_job(results: Path, name: str) -> None:
    """Write what Snakemake measured of a job of a minute."""
    measured = pd.DataFrame({"s": [60.0], "h:m:s": ["0:01:00"], "max_rss": [1024.0]})
    write_tsv(results / "usage" / f"{name}.tsv", measured)


def leave_behind(results: Path) -> None:
    """Write what earlier configs left: a dataset, a pretraining, a decoder, and a person of another dataset."""
    runs = records.read_runs(results / "index/task_runs.tsv")
    records.write_runs(results / "index/gone_runs.tsv", [replace(run, dataset="gone") for run in runs])
    write_trials(results / "index/gone_trials.tsv", read_trials(results / "index/task_trials.tsv"))
    write_json(results / "split/gone.json", {**read_json(results / "split/task.json"), "dataset": "gone"})
    scores = records.read_scores(results / "evaluate/task_scores.tsv")
    write_tsv(results / "evaluate/gone_scores.tsv", scores.assign(dataset="gone"))
    comparisons = records.read_comparisons(results / "evaluate/task_comparisons.tsv")
    write_tsv(results / "evaluate/gone_comparisons.tsv", comparisons.assign(dataset="gone"))
    dropped = scores["experiment"] == "csm"
    best = scores[dropped].assign(experiment="dropped_decoder", value=0.95)
    write_tsv(results / "evaluate/task_scores.tsv", pd.concat([scores, best]))
    others = comparisons.assign(baseline="dropped_decoder")
    write_tsv(results / "evaluate/task_comparisons.tsv", pd.concat([comparisons, others]))
    manifest = read_json(results / "models/upstream/csm/manifest.json")
    for name, n_parcels in (("csm", 64), ("a_dropped_pretraining", 999)):
        folder = results / "models/upstream" / name
        environment = manifest["environment"] if name == "csm" else {"boldly": "0.0.1", "git_commit": "fedcba"}
        write_json(folder / "manifest.json", {**manifest, "environment": environment})
        write_json(folder / "contract.json", {"n_parcels": n_parcels})
    model = {"experiment": "dropped_decoder", "dataset": "task", "options": {"allow_mismatch": ["space"]}}
    write_json(results / "models/downstream/task/dropped_decoder/adapt.json", model)
    rows = read_tsv(results / "preprocess/task/sub-01_qc.tsv")
    left = rows.assign(key="ds-task_sub-09_task-a", mean_fd_mm=0.444)
    write_tsv(results / "preprocess/task/sub-09_qc.tsv", left)
    Image.new("RGB", (1440, 400), "white").save(results / "figures/upstream_warm_start.png")
    for job in ("pretrain/a_dropped_pretraining", "adapt/task_dropped_decoder", "adapt/gone_probes", "index/gone"):
        write_job(results, job)
    for place in ("gone/csm", "task/dropped_decoder"):
        folder = results / "explain" / place
        (folder / "pictures").mkdir(parents=True)
        Image.new("RGB", (100, 100), "white").save(folder / "pictures/maps.png")
        (folder / "views").mkdir()
        (folder / "views/face.html").write_text(f"<title>{place}</title><script>1</script>")


def test_the_page_shows_nothing_that_the_config_no_longer_has(results: Path) -> None:
    date = r"on \d{4}-\d\d-\d\d \d\d:\d\d"
    write_json(results / "models/upstream/csm/contract.json", {"n_parcels": 64})
    before, methods = page_of(results), Path("report_methods.md").read_text()
    leave_behind(results)
    after = page_of(results)
    for name in ("gone", "dropped_", "0.950", "0.444", "0.0.1", "warm_start"):
        assert name not in after, name
    assert re.sub(date, "", after) == re.sub(date, "", before)
    assert Path("report_methods.md").read_text() == methods
    assert "64 " in methods


def test_time_and_memory_are_those_of_the_config(results: Path) -> None:
    wanted = ("index/rest", "pretrain/csm", "adapt/task_probes", "evaluate/task", "figures/quality", "corpus/all")
    dropped = ("index/gone", "pretrain/old", "adapt/task_old", "adapt/gone_probes", "prepare/gone_shard_1of1")
    for name in (*wanted, *dropped):
        write_job(results, name)
    for scope, count in ((Scope(config().model_dump(mode="json")), len(wanted)), (EVERYTHING, 11)):
        shown = gather.usage(results, scope)
        assert sum(int(row[1].text) for row in shown.rows) == count, scope


def test_without_a_config_all_that_the_folder_holds_is_shown(results: Path) -> None:
    leave_behind(results)
    page = page_of(results, with_config=False)
    for name in ("gone", "dropped_decoder", "a_dropped_pretraining", "0.950", "warm start"):
        assert name in page, name
    # Of a person who is in no run table nothing is used, whatever the config.
    assert "0.444" not in page


def test_without_a_config_the_page_says_how_to_name_it(results: Path) -> None:
    page = page_of(results, with_config=False)
    assert "boldly report results --config" in page
    assert "0.700 [0.650, 0.750]" in page
    assert not Path("report.bib").exists()


def test_methods_cite_data_atlas_and_software(results: Path) -> None:
    page_of(results)
    text, bibliography = Path("report_methods.md").read_text(), Path("report.bib").read_text()
    cited = set(re.findall(r"@([\w.-]+)", text))
    assert {"data-task", "difumo", "fmriprep", "compcor", "boldly", "snakemake"} <= cited
    assert cited == set(re.findall(r"^@\w+\{([^,]+),", bibliography, re.MULTILINE))
    assert "doi = {10.18112/openneuro.ds000105.v3.0.0}" in bibliography
    assert "fMRIPrep 23.2.1" in text
    # Nothing is claimed of data that do not say what made them.
    assert "task had been preprocessed with fMRIPrep" in text
    assert "Runs with a mean framewise displacement [@power2012] over 0.5 mm" in text
    assert bibliography.count("{") == bibliography.count("}")


def methods_of(results: Path, **sections: Any) -> str:
    study = resolve(parse(Config, {**finished.CONFIG, **sections}, "test"), CHECKOUT)
    report.run(results=results, output=Path("report.html"), config=study)
    return Path("report_methods.md").read_text()


def test_methods_say_what_a_trial_was_and_how_decoders_were_trained(results: Path) -> None:
    said = methods_of(results)
    assert (
        "In task, a trial was an event and held the frames from 5 s after its onset to 5 s after its end." in said
    )
    assert "Trained by gradient steps were csm scratch (10,000 steps of 64 trials, learning rate 0.0001)." in said
    assert "marked as not yet in a steady state were left out" in said
    assert "1,000 random orders of the labels" in said


def test_methods_and_page_say_how_each_dataset_was_prepared(results: Path) -> None:
    datasets = copy.deepcopy(finished.CONFIG["datasets"])
    study = {"strategy": ["motion", "wm_csf", "global_signal"], "motion": "full"}
    datasets["task"] |= {"preprocess": {"strategy": ["motion"]}, "parcellate": {"smoothing_fwhm_mm": None}}
    said = methods_of(results, datasets=datasets, preprocess=study)
    task = said.split("Each run of task was ")[1].split(".\n")[0]
    full = "six motion parameters, their temporal derivatives, and the squares of both"
    assert f"cleaned by regression on {full} [@friston1996], and z-scored" in task
    assert "white matter" not in task
    assert "Signals of task were read from the same parcels, without smoothing" in said
    rest = said.split("Each run of rest was ")[1].split("Signals of task")[0]
    assert "white matter" in rest
    page = Path("report.html").read_text()
    assert "task: Regressors: motion; motion full." in page
    # The config as a user could have written it means the same.
    found = re.search(r"<pre[^>]*>(atlas:.*?)</pre>", page, re.DOTALL)
    assert found is not None
    shown = yaml.safe_load(html.unescape(found[1]))
    again = resolve(parse(Config, shown, "test"), CHECKOUT)
    assert again.preprocess_of("task") == resolve(
        parse(Config, {**finished.CONFIG, "datasets": datasets, "preprocess": study}, "test"), CHECKOUT
    ).preprocess_of("task")


def test_cosines_that_come_with_compcor_are_the_only_high_pass_filter_that_is_told(results: Path) -> None:
    said = methods_of(results, preprocess={"strategy": ["motion", "compcor"]}, parcellate={"high_pass_hz": 0.008})
    assert "fMRIPrep's cosines, a high-pass filter" in said
    page = html.unescape(Path("report.html").read_text())
    assert "with CompCor, fMRIPrep’s cosines (high_pass)" in page.replace("'", "’")
    for text in (said, page):
        assert "high-pass filtered at" not in text
    said = methods_of(results, preprocess={"strategy": ["motion"]}, parcellate={"high_pass_hz": 0.008})
    assert "cosines" not in said
    for text in (said, Path("report.html").read_text()):
        assert "high-pass filtered at 0.008 Hz" in text


def test_methods_of_one_preparation_name_no_dataset(results: Path) -> None:
    datasets = copy.deepcopy(finished.CONFIG["datasets"])
    for options in datasets.values():
        options["preprocess"] = {"strategy": ["motion"]}
    said = methods_of(results, datasets=datasets)
    assert "cleaned by regression on six motion parameters" in said
    assert "CompCor" not in said


def test_methods_claim_nothing_that_was_not_done(results: Path) -> None:
    raw = {"detrend": False, "high_pass_hz": None, "standardize": "none"}
    said = methods_of(
        results,
        preprocess={"strategy": []},
        parcellate=raw,
        evaluate={"permutations": 0},
        pretrain={"experiments": {"pca": {"framework": "components", "width": 64}}},
        adapt={"baselines": ["mean_logistic"], "experiments": {}},
    )
    assert "Each run was" not in said
    assert "random orders" not in said
    assert "Networks were pretrained" not in said
    assert "Linear pretraining took 64 principal components of the same runs." in said


def test_names_from_the_data_stay_text(results: Path) -> None:
    path = results / "index/task_trials.tsv"
    path.write_text(path.read_text().replace("house", "<script>alert(1)</script>"))
    assert "<script>alert" not in page_of(results)


def test_too_many_pictures_become_smaller_and_then_fewer(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.effect_noise((2400, 800), 80).save(results / "figures/carpet.png")  # noise cannot be compressed
    monkeypatch.setattr(figures, "_PICTURE_BYTES", 300_000)
    found = {one.name: one for one in figures.pictures(results / "figures", report.CAPTIONS, None)}
    assert not found["carpet"].source
    assert found["quality"].source
    monkeypatch.setattr(figures, "_PICTURE_BYTES", 1_200_000)
    found = {one.name: one for one in figures.pictures(results / "figures", report.CAPTIONS, None)}
    assert 1000 <= found["carpet"].width < 2400


def test_views_that_fetch_something_are_left_out(results: Path) -> None:
    folder = results / "explain/task"
    folder.mkdir(parents=True)
    (folder / "face.html").write_text("<title>face</title><script>1 < 2</script>")
    (folder / "remote.html").write_text('<script src="https://example.org/a.js"></script>')
    page = page_of(results)
    assert page.count("<iframe") == 1
    assert "&lt;script&gt;1 &lt; 2" in page


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no index/"):
        report.run(results=tmp_path, output=tmp_path / "report.html")


def test_the_config_survives_its_record(results: Path) -> None:
    page_of(results)
    assert parse(Config, read_json(results / "study.json")["config"], "study.json") == config()


def test_numbers_never_look_like_zero_unless_they_are() -> None:
    column = Column("p", "p", 3)
    cells = [
        row[0].text for row in table("", [{"p": value} for value in (0.0, 1e-9, 0.0126, 1234.5)], [column]).rows
    ]
    assert cells == ["0.000", "< 0.001", "0.013", "1,234.500"]


def test_columns_without_values_are_left_out() -> None:
    columns = [Column("a", "A"), Column("b", "B", 1)]
    assert [column.title for column in table("", [{"a": "x", "b": float("nan")}], columns).columns] == ["A"]


def test_dataset_descriptions_become_references() -> None:
    said = {
        "Name": "A & B",
        "Authors": ["Doe, J."],
        "ReferencesAndLinks": ["https://example.org/x"],
        "License": "CC0",
    }
    entry = references.of_dataset("ab", said)
    assert entry is not None
    assert r"title = {{A \& B}}" in entry.bibtex()
    assert entry.link == "https://example.org/x"
    assert references.of_dataset("ab", {}) is None


def test_the_methods_say_how_a_split_without_sizes_was_made() -> None:
    split = {"downstream": DownstreamSplitOptions().model_dump()}
    config = {"datasets": {"x": {"split": None}}, "split": split}
    sentence = _split("x", config, {"people": 8, "runs": 16})
    assert "the labels of 1, 3, 6, and 7 people (for each person a random draw of each number)" in sentence
    assert "tested on each person in turn" in sentence
    one = {"train": [1], "validation": 1, "test": 1}
    split = {"downstream": DownstreamSplitOptions.model_validate(one).model_dump()}
    sentence = _split("x", {**config, "split": split}, {"people": 3, "runs": 3})
    assert "the labels of 1 person (5 random draws of each number) and tested on 1 other person." in sentence
    assert "The labels of 1 more person served" in sentence


def test_the_methods_tell_the_split_that_was_made(results: Path) -> None:
    # Of 12 people one has no trial, and of 3 relatives of the tested one nobody takes part.
    people = [f"{number:02d}" for number in range(11)]
    draws = [
        {"n": size, "draw": number, "train": people[:size], "validation": [], "test": [people[-1 - number]]}
        for size in (1, 7)
        for number in range(2)
    ]
    made = {"dataset": "task", "role": "downstream", "by": "subject", "draws": draws}
    write_json(results / "split/task.json", made)
    said = methods_of(results, split={})
    assert "the labels of 1 and 7 people (for each person a random draw of each number)" in said
    assert "tested on each person in turn" in said
    fixed = [{**draw, "test": people[7:]} for draw in draws[:3]]
    write_json(results / "split/task.json", {**made, "draws": fixed})
    said = methods_of(results, split={"downstream": {"train": [1, 7], "test": 3, "draws": 2}})
    assert "the labels of 1 and 7 people (at most 2 random draws of each number)" in said
    # Groups are tested as a whole.
    assert "tested on 4 other people" in said


def test_captions_and_methods_know_the_split_of_each_dataset(results: Path) -> None:
    datasets = copy.deepcopy(finished.CONFIG["datasets"])
    datasets["task"]["split"] = {"test": "leave_one_out", "train": [1]}
    datasets["rest"]["split"] = {"validation_fraction": 0.2}
    assert "20 % of the people of each dataset, at least one, were held out" in methods_of(
        results, datasets=datasets
    )
    page = Path("report.html").read_text()
    assert "a draw of each number for each that is tested" in page
    assert "5 draws of each number" not in page
    assert "of rest 20 %" in page


def test_captions_name_what_differs_between_datasets_and_experiments(results: Path) -> None:
    datasets = copy.deepcopy(finished.CONFIG["datasets"])
    datasets["task"]["preprocess"] = {"exclude": {"mean_fd_mm": 0.3}}
    grid = {"options": {"framework": "csm", "heads": 2}, "vary": {"width": [16, 32], "steps": [50, 100]}}
    pretrain = {**finished.CONFIG["pretrain"], "grids": {"sizes": grid}}
    Image.new("RGB", (1440, 400), "white").save(results / "figures/upstream_sizes.png")
    methods_of(results, datasets=datasets, pretrain=pretrain)
    page = html.unescape(Path("report.html").read_text())
    assert "Thresholds: mean framewise displacement 0.5 mm" in page
    assert "Of task: mean framewise displacement 0.3 mm" in page
    assert "Of rest:" not in page
    assert "sizes: csm, 50 or 100 steps of 64 windows" in page


def test_components_are_those_of_training_trials_where_nothing_is_pretrained() -> None:
    names = ["components_lda", "covariance_lda", "tangent", "components"]
    content = {**finished.CONFIG, "adapt": {"baselines": names, "experiments": {}}}
    of_training = "principal components of the training trials"
    for pretrain, expected in (({}, len(names)), (finished.CONFIG["pretrain"], 0)):
        study = resolve(parse(Config, {**content, "pretrain": pretrain}, "test"), CHECKOUT)
        said = figures.from_template(report.CAPTIONS / "workflow.rst", study.model_dump(mode="json"))
        assert str(said).count(of_training) == expected
        assert str(said).count("principal components of the upstream runs") == len(names) - expected


def test_controls_are_told_as_far_as_there_are_any() -> None:
    def told(**adapt: Any) -> str:
        content = {**finished.CONFIG, "adapt": {"experiments": {"csm": {"pretrained": "csm"}}, **adapt}}
        study = resolve(parse(Config, content, "test"), CHECKOUT).model_dump(mode="json")
        return str(figures.from_template(report.CAPTIONS / "workflow.rst", study))

    assert "as a probe (untrained), and the same network trained on the labelled trials alone" in told()
    assert "Controls of pretrained networks: the same network with random" in told(controls=["untrained"])
    assert "from scratch" not in told(controls=["untrained"])
    assert "Controls of pretrained networks" not in told(controls=[])


def test_ready_made_shards_are_not_said_to_be_cleaned() -> None:
    ready = {"datasets": {"a": {"role": "upstream", "shards": "data/a"}}}
    content = parse(Config, ready, "test").model_dump(mode="json")
    said = figures.from_template(report.CAPTIONS / "workflow.rst", content)
    assert "ready-made shards" in said
    assert "Nuisance regression" not in said


def test_a_split_that_is_left_to_boldly_is_told(results: Path) -> None:
    left = {**finished.CONFIG, "split": {}}
    study = resolve(parse(Config, left, "test"), CHECKOUT)
    report.run(results=results, output=Path("report.html"), config=study)
    assert "1, 3, 6, 11 (as far as there are) training subjects" in Path("report.html").read_text()
