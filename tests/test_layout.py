"""Who needs whom in a study: experiments that are adapted to some datasets alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boldly.config import Config, parse
from boldly.layout import Layout

ONE: dict[str, Any] = {"baseline": "mean_logistic", "datasets": ["one"]}
TWO: dict[str, Any] = {"baseline": "components", "datasets": ["two"]}
OF_SCORES = (
    "downstream_accuracy",
    "downstream_curves",
    "downstream_comparisons",
    "downstream_confusion",
    "downstream_reliability",
    "downstream_embedding",
    "downstream_replication",
)


def layout(experiments: dict[str, Any], explain: dict[str, Any] | None = None) -> Layout:
    """Return the layout of two downstream datasets without baselines of their own."""
    datasets = {name: {"role": "downstream", "shards": name} for name in ("one", "two")}
    adapt = {"baselines": [], "experiments": experiments}
    return Layout(parse(Config, {"datasets": datasets, "adapt": adapt, "explain": explain or {}}, "test"))


def test_datasets_without_a_decoder_are_neither_scored_nor_explained() -> None:
    found = layout({"a": ONE})
    assert found.scored == ["one"]
    assert (found.explained, found.explanations) == (["a"], ["results/explain/one/a"])
    tables = [table for figure in OF_SCORES for table in found.figure_tables(figure)]
    assert tables
    assert not [table for table in tables if "two" in table]
    # Its trials are there to be seen.
    assert found.figure_tables("downstream_trials")[1] == "results/index/two_trials.tsv"
    assert {"downstream_accuracy", "explain_maps"} <= set(found.figures())


def test_upstream_datasets_of_the_same_people_have_a_source() -> None:
    datasets: dict[str, Any] = {
        name: {"role": "upstream", "shards": folder}
        for name, folder in (("rest", "a"), ("faces", "a"), ("alone", "b"), ("named", "c"), ("too", "d"))
    }
    for name in ("named", "too"):
        datasets[name]["source"] = "us"
    datasets["task"] = {"role": "downstream", "shards": "b"}
    found = Layout(parse(Config, {"datasets": datasets}, "test"))
    assert {name: found.source_of_several(name) for name in datasets} == {
        # No path: the splits are the same wherever the study lies.
        "rest": "folder of faces", "faces": "folder of faces",
        "alone": None, "named": "us", "too": "us", "task": None,
    }  # fmt: skip


def test_weights_from_elsewhere_are_input_of_a_pretraining(tmp_path: Path) -> None:
    experiments = {
        "a": {"framework": "csm"},
        "b": {"framework": "csm", "initialise": "a"},
        "c": {"framework": "csm", "initialise": str(tmp_path)},
    }
    datasets = {"rest": {"role": "upstream", "shards": "rest"}}
    found = Layout(parse(Config, {"datasets": datasets, "pretrain": {"experiments": experiments}}, "test"))
    assert found.initial_files("a") == []
    assert found.initial_files("b") == ["results/models/upstream/a/model.safetensors"]
    # What is not there is said by pretrain, with the way out.
    assert found.initial_files("c") == []
    (tmp_path / "config.json").touch()
    (tmp_path / "pytorch_model.bin").touch()
    assert found.initial_files("c") == [f"{tmp_path}/pytorch_model.bin", f"{tmp_path}/config.json"]
    (tmp_path / "model.safetensors").touch()
    assert found.initial_files("c") == [f"{tmp_path}/model.safetensors", f"{tmp_path}/config.json"]


def test_without_any_decoder_no_score_is_drawn() -> None:
    found = layout({})
    assert (found.scored, found.explained, found.explanations) == ([], [], [])
    assert not set(OF_SCORES) & set(found.figures())


@pytest.mark.parametrize(
    ("experiments", "explain", "expected"),
    [
        # What is adapted to all datasets is explained rather than what stands first.
        ({"a": ONE, "b": {"baseline": "linear"}}, {}, ["results/explain/one/b", "results/explain/two/b"]),
        ({"a": ONE, "b": TWO}, {}, ["results/explain/one/a"]),
        ({"a": ONE, "b": TWO}, {"datasets": ["two"]}, ["results/explain/two/b"]),
        ({"a": ONE}, {"datasets": ["two"]}, []),
        ({"a": ONE}, {"experiments": []}, []),
        ({"a": ONE, "b": TWO}, {"experiments": ["b"], "datasets": ["two"]}, ["results/explain/two/b"]),
    ],
)
def test_decoders_are_explained_on_the_datasets_that_they_are_adapted_to(
    experiments: dict[str, Any], explain: dict[str, Any], expected: list[str]
) -> None:
    assert layout(experiments, explain).explanations == expected
