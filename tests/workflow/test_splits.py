"""Datasets in the workflow: same people, families, experiments of one dataset, events beside the trials."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from boldly.samples.splits import read_split
from tests.training import synthetic
from tests.workflow.conftest import Snakemake, command


def write_config(folder: Path, **upstream: Any) -> Path:
    """Write the config of a resting-state and a task dataset of the same people, who are three families."""
    config = {
        "atlas": {"path": "none.nii.gz"},
        "datasets": {
            "one": {"role": "upstream", "shards": "one", "source": "us"},
            "task": {"role": "downstream", "shards": "task", "source": "us", "participants": "people.tsv"},
        },
        "index": {"minimum_volumes": 2},
        "split": {"upstream": upstream, "downstream": {"train": [1], "test": 3, "group": "family"}},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_people_of_one_source_and_families(snakemake: Snakemake, tmp_path: Path) -> None:
    synthetic.upstream_study(tmp_path)
    synthetic.downstream_study(tmp_path)
    rows = "".join(f"sub-{number:02d}\t{number // 2}\n" for number in range(6))
    (tmp_path / "people.tsv").write_text(f"participant_id\tfamily\n{rows}")
    run = snakemake(tmp_path, "--cores", "1", "split", config=write_config(tmp_path))
    assert run.returncode != 0
    task = read_split(tmp_path / "results/split/task.json", "downstream")
    tested = set(task.draws[0].test)
    # Three people are asked for, families have two.
    assert len(tested) == 4
    assert task.groups == {f"{number:02d}": str(number // 2) for number in range(6)}
    log = (tmp_path / "results/logs/split/one.log").read_text()
    assert (
        f"test people of task, which has the same source: {', '.join(f'sub-{s}' for s in sorted(tested))}" in log
    )
    run = snakemake(tmp_path, "--cores", "1", "split", config=write_config(tmp_path, shared_people="exclude"))
    assert run.returncode == 0, run.stderr[-2000:]
    one = read_split(tmp_path / "results/split/one.json", "upstream")
    assert {*one.train, *one.validation} == {f"{number:02d}" for number in range(6)} - tested
    (tmp_path / "people.tsv").write_text("participant_id\tfamily\n" + rows.replace("\t0", "\t2"))
    again = snakemake(tmp_path, "--cores", "1", "--dry-run", "split", config=tmp_path / "config.yaml")
    # A changed table of participants is an input like any other, also where an older one took its place.
    assert "results/split/task.json" in again.stdout + again.stderr
    os.utime(tmp_path / "people.tsv", (1e9, 1e9))
    again = snakemake(tmp_path, "--cores", "1", "--dry-run", "split", config=tmp_path / "config.yaml")
    assert "results/split/task.json" in again.stdout + again.stderr


def test_upstream_datasets_of_one_folder_hold_the_same_people_out(snakemake: Snakemake, tmp_path: Path) -> None:
    synthetic.upstream_study(tmp_path)
    for shard in (tmp_path / "two").iterdir():
        shard.rename(tmp_path / "one" / shard.name)
    datasets = {name: {"role": "upstream", "shards": "one"} for name in ("one", "two")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"datasets": datasets, "index": {"minimum_volumes": 2}}))
    run = snakemake(tmp_path, "--cores", "1", "split", config=path)
    assert run.returncode == 0, run.stderr[-2000:]
    one, two = (read_split(tmp_path / f"results/split/{name}.json", "upstream") for name in datasets)
    assert one.source == two.source == "folder of one"
    assert (one.train, one.validation) == (two.train, two.validation)


def test_experiments_of_one_dataset_ask_for_nothing_of_another(snakemake: Snakemake, tmp_path: Path) -> None:
    synthetic.downstream_study(tmp_path)
    config = {
        "datasets": {name: {"role": "downstream", "shards": name} for name in ("task", "other")},
        "adapt": {
            "baselines": [],
            "experiments": {"a": {"baseline": "mean_logistic", "datasets": ["task"]}},
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = snakemake(tmp_path, "--cores", "1", "--dry-run", config=path)
    assert done.returncode == 0, done.stderr[-2000:]
    plan = done.stdout + done.stderr
    assert "results/evaluate/task_scores.tsv" in plan
    assert "results/models/downstream/task/a/adapt.json" in plan
    assert "results/explain/task/a/summary.tsv" in plan
    # Its trials are shown, and nothing else is made of it.
    assert "results/index/other_trials.tsv" in plan
    for folder in ("evaluate", "explain", "models/downstream", "split"):
        assert f"results/{folder}/other" not in plan


def test_a_pretraining_depends_on_weights_and_settings_from_elsewhere(
    snakemake: Snakemake, tmp_path: Path
) -> None:
    synthetic.upstream_study(tmp_path)
    # Of an experiment that the config no longer has.
    folder = "results/models/upstream/old"
    files = [f"{folder}/model.safetensors", f"{folder}/config.json", "zero.json"]
    (tmp_path / folder).mkdir(parents=True)
    for name in files:
        (tmp_path / name).touch()
    experiment = {"framework": "csm", "initialise": folder, "deepspeed": "zero.json"}
    config = {
        "datasets": {"one": {"role": "upstream", "shards": "one"}},
        "pretrain": {"experiments": {"a": experiment}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = snakemake(tmp_path, "--cores", "1", "--dry-run", "pretrain", config=path)
    assert done.returncode == 0, done.stderr[-2000:]
    jobs = re.findall(r"rule pretrain_experiment:\n +input: (.*)", done.stdout + done.stderr)
    assert [job for job in jobs if set(files) <= set(job.split(", "))]


def test_weights_from_elsewhere_are_noticed_also_where_they_got_older(
    snakemake: Snakemake, tmp_path: Path
) -> None:
    synthetic.upstream_study(tmp_path)
    weights = tmp_path / "old/model.safetensors"
    weights.parent.mkdir()
    weights.write_text("first")
    (tmp_path / "old/config.json").write_text("{}")
    config = {
        "datasets": {"one": {"role": "upstream", "shards": "one"}},
        "index": {"minimum_volumes": 2},
        "pretrain": {"experiments": {"a": {"framework": "csm", "initialise": "old"}, "b": {"framework": "csm"}}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    search = f"{pretending(tmp_path / 'bin')}:{Path(command('boldly')).parent}:{os.environ['PATH']}"
    done = snakemake(tmp_path, "--cores", "1", "pretrain", config=path, PATH=search)
    assert done.returncode == 0, done.stderr[-2000:]
    plan = snakemake(tmp_path, "--cores", "1", "--dry-run", "pretrain", config=path)
    assert "Nothing to be done" in plan.stdout + plan.stderr
    weights.write_text("other")
    os.utime(weights, (1e9, 1e9))
    plan = snakemake(tmp_path, "--cores", "1", "--dry-run", "pretrain", config=path)
    assert re.findall(r"wildcards: experiment=(\w+)", plan.stdout + plan.stderr) == ["a"]


def pretending(folder: Path) -> Path:
    """Return a folder with a command boldly that packs and trains nothing, and writes empty files instead."""
    program = folder / "boldly"
    folder.mkdir()
    program.write_text(
        f"""#!/bin/sh
for output; do :; done
case "$1" in
corpus) cd "$output" && touch frames.npy samples.json linear_1.0.safetensors;;
launch) cd "$output" && touch model.safetensors config.json contract.json parcel_errors.tsv &&
    touch train_history.csv eval_history.csv;;
*) exec {command("boldly")} "$@";;
esac
"""
    )
    program.chmod(0o755)
    return folder


def test_explanations_are_made_from_all_events(snakemake: Snakemake, tmp_path: Path) -> None:
    """Shards hold trials alone, and the general linear model has every other event as well."""
    (tmp_path / "atlas.nii.gz").touch()
    (tmp_path / "study" / "sub-01").mkdir(parents=True)
    dataset = {"role": "downstream", "derivatives": "study", "bids": "study", "task": {"delay_s": 5}}
    config: dict[str, Any] = {
        "atlas": {"path": "atlas.nii.gz"},
        "datasets": {"task": dataset},
        "adapt": {"baselines": [], "experiments": {"a": {"baseline": "mean_logistic"}}},
    }
    path = tmp_path / "config.yaml"
    for glm in (True, False):
        path.write_text(yaml.safe_dump({**config, "explain": {"glm": glm}}))
        done = snakemake(tmp_path, "--cores", "1", "--dry-run", "explain", config=path)
        assert done.returncode == 0, done.stderr[-2000:]
        (job,) = re.findall(r"rule explain_dataset:\n +input: (.*)", done.stdout + done.stderr)
        assert ("results/index/task_trials.tsv" in job) == glm
