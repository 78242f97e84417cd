"""Stages by hand: `boldly <stage> --config FILE --set NAME=VALUE`, without Snakemake."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from boldly.cli import main
from boldly.config import AdaptOptions, load_config
from boldly.files import read_json, read_tsv
from boldly.layout import Layout
from boldly.samples.shards import read_shard, write_shard
from boldly.samples.splits import read_split
from boldly.stages import import_weights
from tests.conftest import Study
from tests.models.lfb import reference
from tests.stages.test_import_weights import run_folder
from tests.training import synthetic

CHECKOUT = Path(__file__).parents[2]
SMALL = {"framework": "csm", "layers": 1, "width": 16, "heads": 2, "steps": 2, "batch_size": 4}
SMALL |= {"validation_windows": 4, "window_frames": [6, 12], "keep_untrained": True}

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a config and returns its path; the study is the folder of the test."""
    monkeypatch.chdir(tmp_path)

    def written(**content: object) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return written


@pytest.fixture
def trials(tmp_path: Path) -> str:
    """Return a folder of ready-made shards of a downstream dataset of six people."""
    _, shards = synthetic.downstream_study(tmp_path / "shards")
    return str(shards)


def lines_of(path: Path, start: str) -> list[str]:
    """Return the commands of a document that start with some words, continued lines joined."""
    text = path.read_text().replace("\\\n", " ").replace("#", "")
    return [line.strip() for line in text.splitlines() if line.strip().startswith(start)]


def test_the_published_basic_use_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 23 people, as MDTB; the model is one of the published layout with random weights.
    _, shards = synthetic.downstream_study(tmp_path / "study", n_subjects=23, n_parcels=reference.P)
    mdtb = tmp_path / "mdtb"
    for path in shards.glob("*.tar"):
        renamed = [
            sample.__class__(
                **{**vars(sample), "key": sample.key.replace("ds-task", "ds-mdtb")}
                | {
                    "meta": sample.meta
                    | {"dataset": "mdtb", "run_key": sample.meta["run_key"].replace("task_", "mdtb_", 1)}
                }
            )
            for sample in read_shard(path)
        ]
        write_shard(mdtb / path.name.replace("task", "mdtb"), renamed)
    run_folder(tmp_path / "run", "CSM")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MDTB", str(mdtb))
    import_weights.run(source=Path("run"), output=Path("models/csm"))
    adapt, evaluate = lines_of(CHECKOUT / "config" / "mdtb.yaml", "boldly ")
    assert "--set steps=10000" in adapt
    # The line itself, but for two steps of windows that the small network knows, on shards prepared otherwise.
    waved = "[atlas, atlas_sha256, space, confounds, smoothing_fwhm_mm, high_pass_hz]"
    small = {"steps": 2, "evaluate_every": 2, "batch_size": 8, "window_frames": 20, "allow_mismatch": waved}
    arguments = shlex.split(adapt.replace("config/mdtb.yaml", str(CHECKOUT / "config" / "mdtb.yaml")))[1:]
    for name, value in small.items():
        arguments += ["--set", f"{name}={value}"]
    assert main(arguments) == 0
    folder = tmp_path / "results/models/downstream/mdtb/csm"
    (fit,) = read_json(folder / "adapt.json")["fits"]
    assert [len(fit[part]) for part in ("train", "validation", "test")] == [11, 3, 9]
    assert read_json(folder / "adapt.json")["options"]["learning_rate"] == 1e-4
    assert (folder / fit["folder"] / "model.safetensors").exists()
    again = shlex.split(evaluate.replace("config/mdtb.yaml", str(CHECKOUT / "config" / "mdtb.yaml")))[1:]
    assert main([*again, "--set", "permutations=10"]) == 0
    assert "csm" in set(read_tsv(Path("results/evaluate/mdtb_scores.tsv"))["experiment"])


def test_stages_by_hand_write_what_the_workflow_writes(study: Study, write: Write, tmp_path: Path) -> None:
    downstream = {"role": "downstream", "bids": str(study.bids), "derivatives": str(study.derivatives), "task": {}}
    config = write(
        atlas={"path": str(study.atlas)},
        datasets={"toy": downstream},
        preprocess={"strategy": ["motion"]},
        parcellate={"smoothing_fwhm_mm": None},
        split={"downstream": {"train": [1], "test": 1, "draws": 1}},
    )
    for stage in ("index", "preprocess", "parcellate", "shard", "split"):
        assert main([stage, "--config", config]) == 0, stage
    subjects = sorted(path.name for path in (tmp_path / "data/downstream").glob("*.tar"))
    assert subjects == [f"ds-toy_sub-{subject}.tar" for subject in ("01", "02")]
    assert len(read_split(tmp_path / "results/split/toy.json", "downstream").draws) == 1
    # One subject alone, with another option.
    tar = tmp_path / "data/downstream/ds-toy_sub-02.tar"
    shutil.rmtree(tmp_path / "data")
    assert main(["shard", "--config", config, "--subject", "sub-02", "--set", "dtype=float32"]) == 0
    assert [path.name for path in (tmp_path / "data/downstream").iterdir()] == ["ds-toy_sub-02.tar"]
    assert {sample.bold.dtype.name for sample in read_shard(tar)} == {"float32"}
    assert main(["figures", "--config", config, "--figure", "downstream_trials", "--set", "dpi=60"]) == 0
    assert (tmp_path / "results/figures/downstream_trials.png").exists()


def test_a_stage_says_what_has_to_run_before_it(
    study: Study, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(
        atlas={"path": str(study.atlas)},
        datasets={"toy": {"role": "upstream", "derivatives": str(study.derivatives)}},
    )
    assert main(["parcellate", "--config", config]) == 1
    said = capsys.readouterr().err
    assert "missing; stage index writes it" in said
    assert f"boldly index --config {config} --dataset toy" in said
    # A command that is copied works in the folder of the study.
    folder = tmp_path / "my study"
    assert main(["parcellate", "--config", config, "--directory", str(folder)]) == 1
    said = capsys.readouterr().err
    assert f"boldly index --config {config} --directory '{folder}' --dataset toy" in said
    assert f"snakemake --cores 1 --directory '{folder}' --configfile {config} -- index" in said


def test_an_upstream_training_by_hand_takes_the_options_of_its_experiment(
    write: Write, tmp_path: Path, trials: str
) -> None:
    data = synthetic.upstream_study(tmp_path / "runs", n_subjects=3)
    datasets = {Path(shards).name: {"role": "upstream", "shards": str(shards)} for _, shards in data}
    config = write(datasets=datasets, pretrain={"experiments": {"csm": SMALL}})
    assert main(["pretrain", "--config", config, "--experiment", "csm", "--set", "steps=3"]) == 0
    model = tmp_path / "results/models/upstream/csm"
    assert (model / "model.safetensors").exists()
    assert read_json(model / "manifest.json")["options"]["steps"] == 3
    # A new experiment, described on the command line alone.
    linear = ["--experiment", "few", "--set", "framework=components", "--set", "width=8"]
    assert main(["pretrain", "--config", config, *linear, "--directory", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other/results/models/upstream/few/model.safetensors").exists()


def test_what_the_workflow_does_not_notice_is_said(
    write: Write, tmp_path: Path, trials: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = write(
        datasets={"task": {"role": "downstream", "shards": trials}},
        split={"downstream": {"train": [1], "test": 2, "draws": 1}},
        adapt={"experiments": {"mean": {"baseline": "mean_lda"}}},
    )
    adapt = ["adapt", "--config", config, "--set", "penalties=[1]"]
    calls = {
        ("index", "--config", config): None,
        ("split", "--config", config): None,
        ("split", "--config", config, "--set", "draws=1"): "-R split",
        (*adapt, "--experiment", "mean"): "-R results/models/downstream/task/mean/adapt.json",
        (*adapt, "--experiment", "new", "--set", "baseline=mean_lda"): None,
        (*adapt, "--set", "adapt.experiments.other.baseline=mean_lda", "--experiment", "other"): None,
        (*adapt, "--experiment", "mean", "--output", str(tmp_path / "elsewhere")): None,
    }
    for arguments, said in calls.items():
        caplog.clear()
        assert main(list(arguments)) == 0, arguments
        found = [text for text in caplog.messages if "the workflow will not notice" in text]
        assert len(found) == (said is not None), arguments
        assert said is None or found[0].endswith(f"snakemake ... {said}")
    # What completes the config is no reason to stop behind the job.
    config_path = Path(config)
    incomplete = config_path.read_text().replace("draws: 1", "draws: 0")
    assert "draws: 0" in incomplete
    config_path.write_text(incomplete)
    caplog.clear()
    assert main([*adapt, "--set", "split.downstream.draws=1", "--experiment", "mean"]) == 0
    assert any("-R results/models/downstream/task/mean/adapt.json" in text for text in caplog.messages)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    return capsys.readouterr().err


def test_wrong_names_are_corrected(write: Write, trials: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(
        datasets={"task": {"role": "downstream", "shards": trials}},
        adapt={"experiments": {"mean": {"baseline": "mean_lda"}}},
    )
    adapt = ["adapt", "--config", config]
    said = refused([*adapt, "--experiment", "mean", "--set", "step=3"], capsys)
    assert "unknown key (or is 'steps' meant?)" in said
    assert "--set" in said
    assert "'mean' meant?" in refused([*adapt, "--experiment", "meen"], capsys)
    assert "which experiment?" in refused(adapt, capsys)
    assert "no such dataset" in refused([*adapt, "--experiment", "mean", "--dataset", "tusk"], capsys)
    assert "is not YAML" in refused([*adapt, "--experiment", "mean", "--set", "seeds=[1"], capsys)
    assert "no option and value" in refused([*adapt, "--experiment", "mean", "--set", "seeds"], capsys)
    wrong = [*adapt, "--experiment", "mean", "--set", "split.downstream.drows=1"]
    assert "split.downstream.drows: unknown key (or is 'draws' meant?)" in refused(wrong, capsys)
    said = refused([*adapt, "--experiment", "mean", "--set", "steps=none", "--set", "batch_size=0"], capsys)
    assert "2 problems" in said


def test_values_are_yaml_and_numbers_may_lack_a_point(write: Write, trials: str, tmp_path: Path) -> None:
    config = write(datasets={"task": {"role": "downstream", "shards": trials}})
    settings = ["baseline=mean_logistic", "penalties=[1e1, 1]", "datasets=null"]
    settings += ["split.downstream.train=[2]", "split.downstream.test=1", "split.downstream.draws=2"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert main(["adapt", "--config", config, "--experiment", "mine", *arguments]) == 0
    found = read_json(tmp_path / "results/models/downstream/task/mine/adapt.json")
    assert found["options"]["penalties"] == [10.0, 1.0]
    assert [(fit["n"], fit["draw"]) for fit in found["fits"]] == [(2, 0), (2, 1)]


def test_without_a_config_a_stage_asks_for_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["split", "--dataset", "toy"])
    assert caught.value.code == 2
    assert "missing are --runs, --role, --output" in capsys.readouterr().err


def test_the_help_of_a_stage_describes_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["adapt", "--help"])
    said = capsys.readouterr().out
    assert all(f"\n  {name}: " in said for name in AdaptOptions.model_fields)
    assert "learning_rate: number > 0 (default: 0.0001)" in said
    with pytest.raises(SystemExit):
        main(["preprocess", "--help"])
    assert "\n  exclude.mean_fd_mm: " in capsys.readouterr().out


def test_the_layout_has_a_table_for_each_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    layout = Layout(load_config(CHECKOUT / "config" / "config.yaml", CHECKOUT))
    assert all(layout.figure_tables(figure) for figure in layout.figures())


def test_a_config_is_checked_without_running_anything(
    write: Write, trials: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = {"role": "downstream", "shards": trials, "split": {"test": 1}}
    config = write(
        datasets={"task": dataset},
        adapt={"experiments": {"mean": {"baseline": "mean_lda"}, "linear": {"baseline": "linear"}}},
    )
    assert main(["check", config]) == 0
    said = capsys.readouterr().out
    assert "nothing is wrong with it" in said
    assert "datasets: task (downstream)" in said
    assert "linear (10,000 steps for each fit)" in said
    assert "mean (" not in said  # fitted in closed form
    assert "warning: datasets.task: a single test unit" in said
    assert not (tmp_path / "results").exists()
    assert "'test' meant?" in refused(["check", config, "--set", "datasets.task.split.tset=1"], capsys)
