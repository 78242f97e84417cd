"""Tool inspect: what files hold, in lines that fit a screen."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from boldly.cli import main
from boldly.records import (
    Choice,
    Comparison,
    InputError,
    Run,
    Score,
    write_choices,
    write_comparisons,
    write_runs,
    write_scores,
)
from boldly.samples.lfb_shards import write_lfb_shards
from boldly.samples.shards import write_shard
from boldly.samples.timeseries import write_timeseries
from boldly.stages import inspect
from tests.samples.examples import LABELS, contract, run_sample, run_series, trial_sample


def lines(path: Path) -> dict[str, str]:
    """Return the second column of a description by the first; continued lines are joined."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.run([path]).splitlines()[1:]:
        name = line[:16].strip() or name
        found[name] = f"{found.get(name, '')} {line[16:].strip()}".strip()
    return found


def test_a_shard_of_trials(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_shard(path, [trial_sample(number=n, label=n % 3, marked=[4]) for n in range(4)])
    found = lines(path)
    assert found["shard"].startswith("4 trials of 1 run, ")
    assert found["dataset"] == "toy, sub-01"
    assert found["states"] == "faces (2), house (1), rest (1)"
    assert found["frames"] == "5 each, 20 in all"
    assert found["t_r"] == "2 s"
    assert found["marked"] == "1 parcel in some sample: 4"
    named = [trial_sample(number=n, marked=[4 - n], marked_names=[f"slab-{5 - n}"]) for n in range(2)]
    write_shard(path, named)
    assert lines(path)["marked"] == "2 parcels in some sample: slab-4, slab-5"
    assert found["atlas"].startswith("slabs, 6 parcels, checksum abababababab")
    assert found["contract"].startswith(contract().sha256[:12])


def test_a_shard_of_runs_and_one_without_samples(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [run_sample(run=1), run_sample(run=2, n_volumes=30)])
    assert lines(tmp_path / "a.tar")["frames"] == "12 to 30 each, 42 in all"
    write_shard(tmp_path / "b.tar", [])
    assert lines(tmp_path / "b.tar")["shard"].startswith("no samples")


def test_a_shard_of_lfb(tmp_path: Path) -> None:
    (path,) = write_lfb_shards(tmp_path, [trial_sample()])
    assert "checksum unknown" in lines(path)["atlas"]
    assert "learning-from-brains" in lines(path)["contract"]


def test_a_time_series_file(tmp_path: Path) -> None:
    path = tmp_path / "sub-01_timeseries.safetensors"
    series = [run_series("ds-toy_sub-01_task-a", 40), run_series("ds-toy_sub-01_task-b", 30)]
    write_timeseries(path, series, contract(low_pass_hz=0.1))
    found = lines(path)
    assert found["time series"].startswith("2 runs")
    assert found["runs"] == "ds-toy_sub-01_task-a, ds-toy_sub-01_task-b"
    assert found["coverage"] == "1.00 in the worst parcel"
    assert "low-pass 0.1 Hz" in inspect.run([path])
    write_timeseries(path, [], contract())
    assert lines(path)["time series"].startswith("no runs")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model folder, written without torch."""
    folder = tmp_path / "csm"
    folder.mkdir()
    config: dict[str, Any] = {"framework": "csm", "n_parcels": 6, "width": 8, "layers": 2, "labels": LABELS}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "contract.json").write_text(contract().to_json())
    weights = {"embedder.weight": np.zeros((8, 6), np.float32), "head.bias": np.zeros(3, np.float32)}
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_model_folder(model: Path) -> None:
    found = lines(model)
    assert found["model"] == "decoder of 3 states, framework csm"
    assert found["parameters"].startswith("51 in 2 tensors")
    assert found["parts"] == "embedder 48, head 3"
    assert found["states"] == "faces, house, rest"
    assert "width 8" in found["sizes"]
    assert found["space"] == "MNI152NLin2009cAsym"
    # Its weights describe the same model.
    assert inspect.run([model / "model.safetensors"]).splitlines()[1:] == inspect.run([model]).splitlines()[1:]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Return the folder of a downstream experiment with one fit, a probe."""
    folder = tmp_path / "mean_lda"
    fit = folder / "n-1_draw-0_seed-1234"
    fit.mkdir(parents=True)
    member = {"encoder": "signal", "read_outs": ["mean"], "layers": [0], "weight": 1.0, "chosen": {"penalty": 3.0}}
    (fit / "decoder.json").write_text(json.dumps({"labels": ["a", "b"], "longest": 50, "members": [member]}))
    save_file({"0.weight.0": np.zeros((6, 2))}, fit / "decoder.safetensors")
    (fit / "contract.json").write_text(json.dumps(dataclasses.asdict(contract())))
    fits = [{"folder": fit.name, "n": 1, "choice": "signal: mean, lda"}]
    content = {"experiment": "mean_lda", "dataset": "mine", "kind": "baseline", "start": "mean_lda", "fits": fits}
    (folder / "adapt.json").write_text(json.dumps(content))
    return folder


def test_a_downstream_experiment_and_its_fits(experiment: Path) -> None:
    found = lines(experiment)
    assert found["experiment"] == "mean_lda on mine"
    assert found["fits"] == "1, each a folder; with 1 labelled units"
    assert found["chosen"] == "1 x signal: mean, lda"
    assert found["model"] == "decoder of 2 states, a probe"
    fit = experiment / "n-1_draw-0_seed-1234"
    assert lines(fit)["reads"] == "mean of signal, penalty 3.0"
    assert lines(fit)["atlas"].startswith("slabs, 6 parcels")
    assert lines(fit / "decoder.safetensors") == lines(fit)


def test_a_packaged_decoder(experiment: Path) -> None:
    folder = experiment.parent / "my-decoder"
    (experiment / "n-1_draw-0_seed-1234").rename(folder)
    (folder / "decoder.json").unlink()
    training = {"experiment": "mean_lda", "kind": "baseline", "start": "mean_lda", "dataset": "mine", "n": 11}
    about = {"name": "mine-mean_lda", "kind": "probe", "labels": ["a", "b"], "training": {**training, "by": "run"}}
    (folder / "config.json").write_text(json.dumps({**about, "files": {"contract.json": "ab"}}))
    found = lines(folder)
    assert found["decoder"] == "mine-mean_lda, of 2 states, probe"
    assert found["trained on"] == "mine, 11 labelled runs"
    assert found["states"] == "a, b"
    (folder / "config.json").write_text(json.dumps({**about, "files": {"fit/decoder.json": "ab"}}))
    with pytest.raises(InputError, match="1 file of the decoder missing: fit"):
        inspect.run([folder])


def test_one_bad_argument_does_not_hide_the_good_ones(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), str(model / "nothing.tar")]) == 1
    said = capsys.readouterr()
    assert "framework csm" in said.out
    assert "nothing.tar" in said.err


@pytest.mark.parametrize("name", ["config.json", "contract.json", "model.safetensors"])
def test_an_incomplete_model_folder_is_an_error_that_names_the_file(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        inspect.run([model])


def test_a_run_table(tmp_path: Path) -> None:
    text: dict[str, Any] = dict.fromkeys(("session", "acquisition", "direction", "mask", "confounds"), "")
    one = Run(
        dataset="toy", subject="01", task="a", run="1", space="T1w", key="ds-toy_sub-01_task-a_run-1",
        bold="a.nii.gz", events="e.tsv", t_r=2.0, n_volumes=40, **text,
    )  # fmt: skip
    two = dataclasses.replace(one, key="ds-toy_sub-01_task-a_run-2", run="2", n_volumes=60, events="")
    out = dataclasses.replace(
        two, key="ds-toy_sub-02_task-a_run-1", subject="02", status="excluded", reason="short"
    )
    write_runs(tmp_path / "runs.tsv", [one, two, out])
    found = lines(tmp_path / "runs.tsv")
    assert found["run table"] == "3 runs of 2 subjects"
    assert found["status"] == "excluded 1, ok 2"
    assert found["volumes"] == "40 to 60 each"
    assert found["events"] == "for 1 of 2 usable runs"
    assert found["reason"] == "1 x short"


def test_a_scores_table(tmp_path: Path) -> None:
    score = Score(
        dataset="toy", experiment="csm", n=3, draw="all", seed="all", subject="all", metric="accuracy",
        value=0.75, ci_low=0.7, ci_high=0.8, n_trials=100,
    )  # fmt: skip
    nan = float("nan")
    scores = [
        score,
        dataclasses.replace(score, experiment="chance", value=0.125, ci_low=nan, ci_high=nan),
        dataclasses.replace(score, draw="0", value=0.1),
        dataclasses.replace(score, metric="macro_f1"),
    ]
    write_scores(tmp_path / "scores.tsv", scores)
    found = lines(tmp_path / "scores.tsv")
    assert found["scores table"] == "4 scores"
    assert found["metrics"] == "accuracy, macro_f1"
    assert found["accuracy"] == "n   3  csm     0.750  [0.700; 0.800] n   3  chance  0.125"


def test_many_shards_of_a_folder_are_summarised(tmp_path: Path) -> None:
    paths = []
    for number in range(1, 6):
        paths.append(tmp_path / f"ds-toy_sub-0{number}.tar")
        write_shard(paths[-1], [run_sample(f"0{number}", run=run, n_volumes=10 * number) for run in (1, 2)])
    said = inspect.run(paths)
    # Two runs of 10 frames are the fewest, of 50 the most: 2 x (10 + 20 + 30 + 40 + 50) in all.
    assert "300 in all, 20 to 100 in a file" in said
    assert "toy; 5 subjects" in said
    assert "2 runs each" in said
    assert "6 parcels, float16" in said
    assert said.count("contract") == 1
    assert inspect.run(paths, every=True).count("contract") == 5
    # Some files can still be read one by one.
    assert inspect.run(paths[:3]).count("contract") == 3


def test_a_damaged_shard_among_many_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"ds-toy_sub-0{number}.tar" for number in range(1, 6)]
    for path in paths:
        write_shard(path, [run_sample()])
    paths[3].write_bytes(paths[3].read_bytes()[:700])
    with pytest.raises(InputError, match=r"sub-04\.tar"):
        inspect.run(paths)


def test_a_flagged_score_is_said(tmp_path: Path) -> None:
    score = Score(
        dataset="toy", experiment="control_length", n=3, draw="all", seed="all", subject="all", metric="accuracy",
        value=0.75, ci_low=0.7, ci_high=0.8, n_trials=100, kind="control", flag="near csm",
    )  # fmt: skip
    write_scores(tmp_path / "scores.tsv", [score, dataclasses.replace(score, experiment="csm", flag="")])
    assert lines(tmp_path / "scores.tsv")["flagged"] == "n   3  control_length: near csm"


def test_a_table_of_comparisons(tmp_path: Path) -> None:
    row = Comparison(
        dataset="toy", n=3, experiment="csm", kind="pretrained", baseline="mlp", other_kind="baseline",
        difference=0.1, ci_low=0.05, ci_high=0.15, p=0.004, p_holm=0.012, n_units=9, n_draws=5, n_seeds=1,
    )  # fmt: skip
    nan = float("nan")
    unsure = dataclasses.replace(row, n=11, baseline="linear", ci_low=nan, ci_high=nan, p=nan, p_holm=nan)
    write_comparisons(tmp_path / "comparisons.tsv", [row, unsure])
    found = lines(tmp_path / "comparisons.tsv")
    assert found["comparisons"] == "2 paired differences"
    assert found["difference"] == (
        "n   3  csm - mlp     +0.100  [+0.050; +0.150]  p 0.004 (corrected 0.012) n  11  csm - linear  +0.100"
    )


def test_a_table_of_choices(tmp_path: Path) -> None:
    row = Choice(
        dataset="toy", experiment="csm", kind="pretrained", n=3, draw="0", seed="1", choice="slices, logistic 3",
        validation_loss=0.5, validation_accuracy=0.8, test_accuracy=0.7,
    )  # fmt: skip
    nan = float("nan")
    rows = [
        row,
        dataclasses.replace(row, draw="1", validation_loss=0.7),
        dataclasses.replace(row, draw="2", validation_loss=0.6, choice="tangent, logistic 3"),
        dataclasses.replace(row, experiment="linear", choice="", validation_loss=nan, validation_accuracy=nan),
    ]
    write_choices(tmp_path / "choices.tsv", rows)
    found = lines(tmp_path / "choices.tsv")
    assert found["choices"] == "of 4 fits"
    assert found["fits"] == (
        "n   3  csm     loss 0.600  validation 0.800  test 0.700"
        " 2 x slices, logistic 3 1 x tangent, logistic 3 n   3  linear  test 0.700"
    )


def test_lines_stay_short_and_the_columns_are_aligned(tmp_path: Path) -> None:
    names = [f"a state with a long name {number}" for number in range(20)]
    samples = [
        dataclasses.replace(s, meta={**s.meta, "label": n, "label_name": names[n], "labels": names})
        for n, s in enumerate(trial_sample(number=n) for n in range(20))
    ]
    write_shard(tmp_path / "a.tar", samples)
    body = inspect.run([tmp_path / "a.tar"]).splitlines()[1:]
    assert all(len(line) <= 105 for line in body)
    assert all(line[15] == " " and line[16] != " " for line in body)
    assert "and 8 more" in body[[line[2:8] for line in body].index("contra") - 1]


def test_several_files_are_described_in_their_order(tmp_path: Path, model: Path) -> None:
    write_shard(tmp_path / "a.tar", [run_sample()])
    blocks = inspect.run([model, tmp_path / "a.tar"]).split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [str(model), str(tmp_path / "a.tar")]


def test_everything_that_cannot_be_described_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.tsv").write_text("x\ty\n1\t2\n")
    (tmp_path / "c.tsv").write_text("")
    (tmp_path / "d.tar").write_text("")
    paths = [tmp_path / name for name in ("a.txt", "b.tsv", "c.tsv", "d.tar", "absent.tar")]
    with pytest.raises(InputError) as caught:
        inspect.run(paths)
    assert [problem.where for problem in caught.value.problems] == [str(path) for path in paths]


def test_a_model_of_data_that_differ_tells_all_they_have(tmp_path: Path) -> None:
    one, two = contract(), contract(confounds={"strategy": []}, smoothing_fwhm_mm=None)
    write_timeseries(tmp_path / "x.safetensors", [run_series("ds-toy_sub-01_task-a")], one.with_another(two))
    assert "varies      confounds: motion; or none" in inspect.run([tmp_path / "x.safetensors"])
    assert lines(tmp_path / "x.safetensors")["varies"].endswith("smoothing_fwhm_mm: 3.0; or None")
