"""Which runs a model was pretrained on, and that trials of these runs are refused as test trials."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldly.bids import runs_name
from boldly.config import PretrainOptions
from boldly.files import read_json, write_json
from boldly.records import InputError
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.sample import run_fingerprint
from boldly.samples.seen import Seen, check_unseen, read_seen
from boldly.samples.shards import read_fingerprints, read_shard, write_shard
from boldly.stages import corpus as corpus_tool
from boldly.stages import pretrain
from tests.training import synthetic
from tests.web import serving

Data = list[tuple[Path, Path | str]]


def options(**changes: Any) -> PretrainOptions:
    values: dict[str, Any] = {
        "framework": "csm",
        "layers": 1,
        "width": 16,
        "heads": 2,
        "steps": 1,
        "batch_size": 4,
    }
    values |= {"validation_windows": 4, "window_frames": (6, 12), "track": [], "keep_untrained": True}
    return PretrainOptions.model_validate(values | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    found = synthetic.upstream_study(tmp_path_factory.mktemp("upstream"), n_subjects=4)
    for split, folder in found:
        (folder / runs_name(split.stem)).write_text("stands for the run table\n")
    return found


@pytest.fixture(scope="module")
def model(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pretrain.run(name="toy", options=options(), data=data, output=folder)
    return folder


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    """Return the folder of trials of other runs."""
    return synthetic.downstream_study(tmp_path)[1]


def corpus(folder: Path, subjects: list[str]) -> Corpus:
    return load_corpus([folder / f"ds-task_sub-{subject}.tar" for subject in subjects])


def pretend(trials: Path, subject: str, run: str, shard: Path | str) -> str:
    """Give the trials of a run the scaling of the run in an upstream shard: the same run by another name."""
    (upstream,) = read_shard(shard)
    path = trials / f"ds-task_sub-{subject}.tar"
    key = f"ds-task_sub-{subject}_task-t_run-{run}"
    samples = [
        dataclasses.replace(sample, mean=upstream.mean, std=upstream.std)
        if sample.meta["run_key"] == key
        else sample
        for sample in read_shard(path)
    ]
    write_shard(path, samples)
    return key


def test_trials_of_one_run_share_its_fingerprint(trials: Path) -> None:
    found = corpus(trials, ["04", "05"])
    by_run = dict(zip(found.runs, found.fingerprints, strict=True))
    # Two people with two runs each.
    assert len(set(by_run.values())) == len(by_run) == 4
    assert None not in by_run.values()
    assert [by_run[run] for run in found.runs] == list(found.fingerprints)
    assert found.select([3, 0]).fingerprints == (found.fingerprints[3], found.fingerprints[0])
    assert read_fingerprints(trials / "ds-task_sub-04.tar") == list(corpus(trials, ["04"]).fingerprints)


def test_runs_without_known_scaling_have_no_fingerprint(trials: Path) -> None:
    sample = next(read_shard(trials / "ds-task_sub-04.tar"))
    parcels = len(sample.mean)
    unknown = dataclasses.replace(sample, mean=np.zeros(parcels, np.float32), std=np.ones(parcels, np.float32))
    assert run_fingerprint(unknown) is None
    # Scaling by 1 alone is known.
    assert run_fingerprint(dataclasses.replace(unknown, mean=sample.mean)) is not None


def test_the_manifest_says_who_trained_and_validated(model: Path, data: Data) -> None:
    manifest = read_json(model / "manifest.json")
    everyone = ["00", "01", "02", "03"]
    assert manifest["people"] == {"one": everyone, "two": everyone}
    shards = [path for _, folder in data for path in Path(folder).glob("*.tar")]
    expected = {run_fingerprint(sample) for path in shards for sample in read_shard(path)}
    assert set(manifest["fingerprints"]) == expected
    assert len(manifest["fingerprints"]) == 8
    assert manifest["without_fingerprints"] == []


@pytest.mark.parametrize("packed", [False, True])
def test_who_validates_in_a_dataset_of_the_source_does_not_train(data: Data, tmp_path: Path, packed: bool) -> None:
    apart: Data = []
    for (path, folder), held in zip(data, ("03", "00"), strict=True):
        train = [subject for subject in ("00", "01", "02", "03") if subject != held]
        parts = {"train": train, "validation": [held], "source": "us"}
        write_json(tmp_path / path.name, read_json(path) | parts)
        apart.append((tmp_path / path.name, folder))
    if packed:
        corpus_tool.run(data=apart, output=tmp_path / "corpus")
    pretrain.run(
        name="toy",
        options=options(),
        data=apart,
        output=tmp_path / "model",
        corpus=tmp_path / "corpus" if packed else None,
    )
    # In one 00 would train, who validates in two, and in two 03, who validates in one.
    people = read_json(tmp_path / "model" / "manifest.json")["people"]
    assert people == {"one": ["01", "02", "03"], "two": ["00", "01", "02"]}


def test_a_share_of_the_people_is_a_share_of_the_record(data: Data, tmp_path: Path) -> None:
    pretrain.run(name="toy", options=options(subjects_fraction=0.4, datasets=["one"]), data=data, output=tmp_path)
    seen = read_seen(tmp_path)
    assert seen is not None
    # One of three people trains, one validates.
    assert len(seen.people["one"]) == len(seen.fingerprints) == 2
    assert "two" not in seen.people


def test_people_of_the_first_training_count_in_the_next(data: Data, model: Path, tmp_path: Path) -> None:
    chosen = options(datasets=["one"], subjects_fraction=0.4, initialise="toy")
    pretrain.run(name="next", options=chosen, data=data, output=tmp_path, initial=model)
    assert read_seen(tmp_path) == read_seen(model)


def test_other_runs_may_be_tested(model: Path, trials: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert check_unseen(model, corpus(trials, ["04", "05"]), allow=False) == ()
    assert caplog.text == ""


def test_runs_that_were_pretrained_on_are_refused_by_whatever_name(model: Path, trials: Path, data: Data) -> None:
    trained = pretend(trials, "04", "2", f"{data[1][1]}/ds-two_sub-01.tar")
    validated = pretend(trials, "05", "1", f"{data[0][1]}/ds-one_sub-03.tar")
    with pytest.raises(InputError) as caught:
        check_unseen(model, corpus(trials, ["03", "04", "05"]), allow=False)
    problems = caught.value.problems
    assert [problem.entity for problem in problems] == ["ds-task_sub-04", "ds-task_sub-05"]
    assert [problem.message.rpartition(": ")[2] for problem in problems] == [trained, validated]
    assert all("evaluate.allow_pretrained_test_runs" in problem.remedy for problem in problems)
    # Those who are not tested do not matter.
    assert check_unseen(model, corpus(trials, ["03"]), allow=False) == ()


def test_the_option_turns_the_error_into_a_warning(
    model: Path, trials: Path, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    key = pretend(trials, "04", "2", f"{data[1][1]}/ds-two_sub-01.tar")
    assert check_unseen(model, corpus(trials, ["04"]), allow=True) == (key,)
    assert key in caplog.text


def test_what_cannot_be_known_is_a_warning(
    model: Path, trials: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tested = corpus(trials, ["04"])
    with caplog.at_level(logging.WARNING):
        assert check_unseen(tmp_path, tested, allow=False) == ()
        assert "no manifest.json says what it was pretrained on" in caplog.text
        caplog.clear()
        check_unseen(model, dataclasses.replace(tested, fingerprints=()), allow=False)
        assert "test runs have no fingerprints" in caplog.text
        caplog.clear()
        check_unseen(
            model, dataclasses.replace(tested, datasets=("one",) * 12, subjects=("03",) * 12), allow=False
        )
        assert "are they the same people? ds-one_sub-03" in caplog.text


def test_a_damaged_manifest_is_an_input_error(trials: Path, tmp_path: Path) -> None:
    for text in ("{", json.dumps({"fingerprints": ["a"], "people": [], "without_fingerprints": []})):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(InputError, match="not a manifest of a pretraining"):
            check_unseen(tmp_path, corpus(trials, ["04"]), allow=False)


def test_a_manifest_that_says_nothing_of_runs_counts_as_none(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"experiment": "old"})
    assert read_seen(tmp_path) is None


@pytest.fixture
def streamed() -> PretrainOptions:
    return options(stream_shards=2, stream_steps=1, steps=2)


def test_shards_that_are_streamed_from_a_folder_are_known(
    data: Data, model: Path, tmp_path: Path, streamed: PretrainOptions
) -> None:
    pretrain.run(name="toy", options=streamed, data=data, output=tmp_path)
    assert read_seen(tmp_path) == read_seen(model)


def test_of_shards_at_an_address_the_people_are_known(
    data: Data, trials: Path, tmp_path: Path, streamed: PretrainOptions, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(Path(data[0][1]).parent) as server:
        source: Data = [(split, f"{server.url}/{Path(folder).name}") for split, folder in data]
        pretrain.run(name="toy", options=streamed, data=source, output=tmp_path / "out")
    everyone = frozenset(["00", "01", "02", "03"])
    assert read_seen(tmp_path / "out") == Seen(
        {"one": everyone, "two": everyone}, frozenset(), frozenset(["one", "two"])
    )
    check_unseen(tmp_path / "out", corpus(trials, ["04"]), allow=False)
    assert "runs of one, two that it was pretrained on have no fingerprints" in caplog.text
