from __future__ import annotations

import dataclasses
import functools
import logging
import re
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from boldly.bids import sample_key, shard_name
from boldly.config import EvaluateOptions
from boldly.files import read_json, read_tsv, write_json, write_tsv
from boldly.metrics import METRICS
from boldly.provenance import Contract
from boldly.records import Choice, Comparison, InputError, read_choices, read_comparisons, read_scores
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import Sample, write_shard
from boldly.stages import evaluate

LABELS = ["faces", "house", "rest"]
SUBJECTS = ["01", "02", "03", "04", "05", "06"]
CONTRACT = Contract("toy", "0" * 64, 4, "toy", {}, None, None, None, True, "zscore")
OPTIONS = EvaluateOptions(permutations=99)
Draws = list[dict[str, Any]]


def write_study(
    folder: Path,
    n_runs: int = 2,
    n_trials: int = 9,
    subjects: list[str] = SUBJECTS,
    labels: Callable[[int], int] = lambda number: number % len(LABELS),
    extra: Callable[[int, int], dict[str, Any]] = lambda number, label: {},
    scale: Callable[[int], float] = lambda run: 0.0,
) -> Path:
    """Write shards, and return their folder; labels (by number of the trial) are equally frequent by default.

    `scale` is what scaling removed from each run: runs of another scale have another fingerprint.
    """
    for subject in subjects:
        samples = []
        for run in range(n_runs):
            key = f"ds-toy_sub-{subject}_task-t_run-{run + 1}"
            for number in range(n_trials):
                label = labels(number)
                meta: dict[str, Any] = {
                    "dataset": "toy",
                    "subject": subject,
                    "run_key": key,
                    "entities": {},
                    "t_r": 2.0,
                }
                meta |= {"n_volumes": 3, "marked": [], "number": number, "onset": 0.0, "duration": 6.0}
                meta |= {"label": label, "label_name": LABELS[label], "labels": LABELS}
                meta |= extra(number, label)
                bold, flat = np.zeros((meta["n_volumes"], 4), np.float32), np.full(4, scale(run), np.float32)
                samples.append(Sample(sample_key(key, number), bold, flat, flat, meta, CONTRACT))
        write_shard(folder / shard_name("toy", subject), samples)
    return folder


def by_subject(sizes: tuple[int, ...] = (1, 2), n_draws: int = 2) -> Draws:
    return [
        {"n": n, "draw": d, "train": SUBJECTS[d : d + n], "validation": [], "test": SUBJECTS[3:]}
        for n in sizes
        for d in range(n_draws)
    ]


def leave_one_run_out(n_runs: int) -> Draws:
    keys = [f"ds-toy_sub-01_task-t_run-{run + 1}" for run in range(n_runs)]
    return [
        {"n": n_runs - 1, "draw": d, "train": [k for k in keys if k != key], "validation": [], "test": [key]}
        for d, key in enumerate(keys)
    ]


def write_split(path: Path, draws: Draws, by: str = "subject") -> Path:
    write_json(path, {"dataset": "toy", "role": "downstream", "by": by, "seed": 1, "draws": draws})
    return path


def write_model(folder: Path, kind: str, start: str, draws: Draws, seeds: tuple[int, ...] = (1,)) -> Path:
    fits = [{"folder": f"n-{d['n']}_draw-{d['draw']}_seed-{s}", **d, "seed": s} for d in draws for s in seeds]
    options = {"pretrained": None, "scratch": None, "untrained": None, "baseline": None, kind: start}
    content = {"experiment": folder.name, "dataset": "toy", "kind": kind, "fits": fits, "options": options}
    content["start"] = start
    write_json(folder / "adapt.json", content)
    return folder


Decide = Callable[[str, str, Corpus], np.ndarray]


def install_decoders(monkeypatch: pytest.MonkeyPatch, decide: Decide) -> list[str]:
    """Replace prediction by a function of experiment, fit and trials; return the list of fits that were asked."""
    asked: list[str] = []

    def predict_fits(folder: Path, fits: list[str], corpus: Corpus) -> Iterator[tuple[str, np.ndarray]]:
        for fit in reversed(fits):  # in any order
            asked.append(f"{folder.name}/{fit}")
            yield fit, decide(folder.name, fit, corpus).astype(np.float32)

    module = types.ModuleType("boldly.decoders.apply")
    module.predict_fits = predict_fits  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "boldly.decoders.apply", module)
    return asked


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], list[str]]:
    """Replace prediction by decoders of known accuracy; returns the list of fits that were asked for."""

    def install(accuracies: dict[str, float]) -> list[str]:
        def decide(experiment: str, fit: str, corpus: Corpus) -> np.ndarray:
            rng = np.random.default_rng(list(f"{experiment}/{fit}".encode()))
            right = rng.random(len(corpus)) < accuracies[experiment]
            named = np.where(right, corpus.labels, (corpus.labels + 1) % len(LABELS))
            return 0.1 + 0.7 * np.eye(len(LABELS))[named]

        return install_decoders(monkeypatch, decide)

    return install


def run(
    folder: Path, split: Path, models: list[Path], ceilings: Path | None = None, options: EvaluateOptions = OPTIONS
) -> Any:
    evaluate.run(
        dataset="toy",
        split=split,
        shards=folder / "shards",
        models=models,
        ceilings=ceilings,
        options=options,
        scores=folder / "scores.tsv",
        comparisons=folder / "comparisons.tsv",
        choices=folder / "choices.tsv",
        predictions=folder / "predictions.tsv.gz",
    )
    return read_scores(folder / "scores.tsv")


def read_predictions(folder: Path) -> Any:
    return read_tsv(folder / "predictions.tsv.gz", ("draw", "seed", "subject"))


def summary(scores: Any, experiment: str, metric: str = "accuracy") -> Any:
    rows = scores[(scores["experiment"] == experiment) & (scores["metric"] == metric)]
    return rows[(rows[["draw", "seed", "subject"]] == "all").all(axis=1)].set_index("n")


def test_each_fit_passes_once_over_the_test_trials(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    models = [write_model(tmp_path / "csm", "pretrained", "up", draws, seeds=(1, 2))]
    asked = decoders({"csm": 0.8})
    run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    assert len(asked) == len(set(asked)) == 8  # 2 sizes, 2 draws, 2 seeds
    predictions = read_predictions(tmp_path)
    assert list(predictions.columns) == [
        *("experiment", "n", "draw", "seed", "key", "run", "subject", "label", "label_name", "predicted"),
        *("p_faces", "p_house", "p_rest"),
    ]
    assert len(predictions) == 8 * 54
    for _, fit in predictions.groupby(["n", "draw", "seed"]):
        assert fit["key"].nunique() == len(fit) == 3 * 2 * 9  # all trials of the three test subjects, once
        assert set(fit["subject"]) == {"04", "05", "06"}
    probabilities = predictions[["p_faces", "p_house", "p_rest"]].to_numpy()
    np.testing.assert_array_equal(probabilities.argmax(axis=1), predictions["predicted"])
    np.testing.assert_allclose(np.sort(probabilities, axis=1), [[0.1, 0.1, 0.8]] * len(predictions), atol=1e-6)


def test_probabilities_are_written_to_six_digits(tmp_path, monkeypatch):
    write_study(tmp_path / "shards")
    draws = by_subject((1,), 1)
    rng = np.random.default_rng(0)
    given: list[np.ndarray] = []

    def decide(experiment: str, fit: str, corpus: Corpus) -> np.ndarray:
        # Certain ones as well: 1 and 0, and numbers that round to them.
        given.append(rng.dirichlet([0.01] * 3, len(corpus)).astype(np.float32))
        return given[-1]

    install_decoders(monkeypatch, decide)
    split = write_split(tmp_path / "split.json", draws)
    scores = run(tmp_path, split, [write_model(tmp_path / "csm", "pretrained", "up", draws)])
    predictions = read_predictions(tmp_path)
    written = predictions[["p_faces", "p_house", "p_rest"]].to_numpy()
    np.testing.assert_allclose(written, given[0], atol=5.1e-7)
    assert {0.0, 1.0} <= set(written.ravel())
    of_truth = written[np.arange(len(written)), predictions["label"]]
    # Below 1e-6 the table cannot tell, and the score does not try.
    expected = -np.log(of_truth.clip(1e-6)).mean()
    assert summary(scores, "csm", "log_loss").loc[1, "value"] == pytest.approx(expected, rel=0.01)
    assert summary(scores, "csm", "log_loss").loc[1, "ci_high"] > 1


def test_scores_can_be_recomputed_from_the_predictions(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    decoders({"csm": 0.7})
    model = write_model(tmp_path / "csm", "pretrained", "up", draws, seeds=(1, 2))
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), [model])
    predictions = read_predictions(tmp_path)
    hit = (predictions["label"] == predictions["predicted"]).groupby(
        [predictions[c] for c in ("n", "draw", "seed")]
    )
    assert summary(scores, "csm").loc[2, "value"] == pytest.approx(hit.mean()[2].mean())
    fits = scores[(scores["draw"] != "all") & (scores["metric"] == "accuracy")]
    assert fits.set_index(["n", "draw", "seed"])["value"].to_dict() == pytest.approx(hit.mean().to_dict())
    people = scores[(scores["subject"] != "all") & (scores["metric"] == "accuracy") & (scores["n"] == 1)]
    one = predictions[(predictions["n"] == 1) & (predictions["subject"] == "05")]
    assert list(people["subject"]) == ["04", "05", "06"]
    assert people.set_index("subject").loc["05", "value"] == pytest.approx(
        (one["label"] == one["predicted"]).mean()
    )
    known = scores.dropna(subset=["ci_low"])
    assert ((known["ci_low"] <= known["value"]) & (known["value"] <= known["ci_high"])).all()
    assert known["ci_low"].min() >= 0
    assert known.loc[known["metric"] != "log_loss", "ci_high"].max() <= 1
    assert set(scores["metric"]) == {*METRICS, "recall", "permutation_p"}
    recalls = scores[(scores["metric"] == "recall") & (scores["n"] == 2)].set_index("label")
    assert list(recalls.index) == LABELS
    houses = predictions[(predictions["n"] == 2) & (predictions["label_name"] == "house")]
    hit = (houses["label"] == houses["predicted"]).mean()
    assert recalls.loc["house", ["value", "n_trials"]].tolist() == pytest.approx([hit, 18])
    assert set(scores.loc[scores["metric"] != "recall", "label"]) == {"all"}
    assert set(scores.loc[scores["experiment"] == "csm", "start"]) == {"up"}


def test_chance_is_guessing_and_naming_the_most_frequent_training_state(tmp_path, decoders):
    # States of the training subjects: 0 0 1 2 0 0 1 2 0; of the test subjects: 0 1 2 in turn.
    write_study(tmp_path / "shards", subjects=SUBJECTS[3:])
    write_study(tmp_path / "shards", subjects=SUBJECTS[:3], labels=lambda number: max(number % 4 - 1, 0))
    draws = by_subject()
    decoders({"csm": 0.7})
    split = write_split(tmp_path / "split.json", draws)
    scores = run(tmp_path, split, [write_model(tmp_path / "csm", "pretrained", "up", draws)])
    guessing = scores[scores["experiment"] == "chance_uniform"].set_index("metric")["value"]
    assert guessing.to_dict() == pytest.approx(
        {"accuracy": 1 / 3, "balanced_accuracy": 1 / 3, "log_loss": np.log(3)}
    )
    majority = summary(scores, "chance_majority").loc[0]
    assert majority["value"] == pytest.approx(1 / 3)
    assert majority["kind"] == "chance"
    # What is most frequent where it is tested may not be known: here 2 is, and 0 is named.
    write_study(tmp_path / "shards", subjects=SUBJECTS[3:], labels=lambda number: 2 if number else 0)
    scores = run(tmp_path, split, [tmp_path / "csm"])
    assert summary(scores, "chance_majority").loc[0, "value"] == pytest.approx(1 / 9)


def test_without_training_shards_chance_names_the_most_frequent_test_state(tmp_path, decoders, caplog):
    write_study(tmp_path / "shards", subjects=SUBJECTS[3:], labels=lambda number: 2 if number else 0)
    draws = by_subject()
    decoders({"csm": 0.7})
    split = write_split(tmp_path / "split.json", draws)
    with caplog.at_level(logging.WARNING):
        scores = run(tmp_path, split, [write_model(tmp_path / "csm", "pretrained", "up", draws)])
    assert summary(scores, "chance_majority").loc[0, "value"] == pytest.approx(8 / 9)
    assert "control" not in set(scores["kind"])
    assert "no trial of training subject 01" in caplog.text
    # Scrubbing may have taken all that a training subject had: its shard is there, and empty.
    write_shard(tmp_path / "shards" / shard_name("toy", "01"), [])
    write_study(tmp_path / "shards", subjects=SUBJECTS[1:3], labels=lambda number: 1)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        scores = run(tmp_path, split, [tmp_path / "csm"])
    assert caplog.text.count("no trial of training subject") == 1


def test_differing_test_sets_are_pooled(tmp_path, decoders):
    write_study(tmp_path / "shards", n_runs=6, subjects=["01"])
    draws = leave_one_run_out(6)
    asked = decoders({"mlp": 0.6})
    split = write_split(tmp_path / "split.json", draws, by="run")
    scores = run(tmp_path, split, [write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws)])
    assert len(asked) == 6
    predictions = read_predictions(tmp_path)
    assert (predictions.groupby("draw")["run"].nunique() == 1).all()  # each run's own trials only
    assert predictions["run"].nunique() == 6
    row = summary(scores, "mlp").loc[5]
    assert row["n_trials"] == 54
    assert row["value"] == pytest.approx((predictions["label"] == predictions["predicted"]).mean())
    assert summary(scores, "chance_majority").loc[0, "n_trials"] == 54
    # A mean over draws of macro-F1 of 9 trials each would be another number.
    per_draw = scores[(scores["draw"] != "all") & (scores["metric"] == "macro_f1")]["value"].mean()
    assert summary(scores, "mlp", "macro_f1").loc[5, "value"] != pytest.approx(per_draw, abs=1e-6)


def test_runs_left_out_in_turn_have_seeds(tmp_path, decoders):
    write_study(tmp_path / "shards", n_runs=6, subjects=["01"])
    draws = leave_one_run_out(6)
    decoders({"csm": 0.9, "mlp": 0.5})
    models = [
        write_model(tmp_path / "csm", "pretrained", "up", draws, seeds=(1, 2, 3)),
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws, by="run"), models)
    predictions = read_predictions(tmp_path)
    of_csm = predictions[predictions["experiment"] == "csm"]
    row = summary(scores, "csm").loc[5]
    assert row["value"] == pytest.approx((of_csm["label"] == of_csm["predicted"]).mean())
    assert row["n_trials"] == 54
    assert 0 < row["ci_high"] - row["ci_low"] < 0.5
    difference = comparisons_of(tmp_path, "csm", 5).loc["mlp"]
    # Draws and units are one here: six runs, and all draws pooled.
    assert difference[["n_units", "n_draws", "n_seeds"]].tolist() == [6, 1, 3]
    assert difference["p"] < 0.05


def test_training_runs_of_a_test_subject_are_not_predicted(tmp_path, monkeypatch):
    write_study(tmp_path / "shards", n_runs=4, subjects=["01", "02"])
    keys = [f"ds-toy_sub-{subject}_task-t_run-{run}" for subject in ("01", "02") for run in range(1, 5)]
    test = [key for key in keys if key.endswith("4")]
    draws = [{"n": 1, "draw": d, "train": [key], "validation": [], "test": test} for d, key in enumerate(keys[:2])]
    seen: list[Corpus] = []

    def decide(experiment: str, fit: str, corpus: Corpus) -> np.ndarray:
        seen.append(corpus)
        return np.eye(3)[corpus.labels]

    install_decoders(monkeypatch, decide)
    split = write_split(tmp_path / "split.json", draws, by="run")
    scores = run(tmp_path, split, [write_model(tmp_path / "csm", "pretrained", "up", draws)])
    assert {run_key for corpus in seen for run_key in corpus.runs} == set(test)
    assert summary(scores, "csm").loc[1, "n_trials"] == 18
    assert summary(scores, "chance_majority").loc[0, "n_trials"] == 18


def test_a_single_test_unit_never_looks_certain(tmp_path, decoders):
    write_study(tmp_path / "shards", n_runs=1)
    draws = by_subject()
    for draw in draws:
        draw["test"] = ["06"]
    decoders({"csm": 1.0})
    split = write_split(tmp_path / "split.json", draws)
    scores = run(tmp_path, split, [write_model(tmp_path / "csm", "pretrained", "up", draws)])
    row = summary(scores, "csm").loc[1]
    assert row["value"] == 1
    assert row["ci_low"] == pytest.approx(9 / (9 + 1.96**2), abs=1e-3)  # Wilson for 9 of 9


def comparisons_of(folder: Path, experiment: str, n: int) -> Any:
    table = read_comparisons(folder / "comparisons.tsv")
    return table[(table["experiment"] == experiment) & (table["n"] == n)].set_index("baseline")


def test_networks_are_compared_with_all_baselines_and_with_themselves_untrained(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = [draw for draw in by_subject(n_draws=3) if len(draw["train"]) == 1 or draw["draw"] < 2]
    draws.append({"n": 2, "draw": 2, "train": ["01", "03"], "validation": [], "test": SUBJECTS[3:]})
    seeds = (1, 2)
    models = [
        write_model(tmp_path / "csm", "pretrained", "up", draws, seeds),
        write_model(tmp_path / "anew", "scratch", "up", draws, seeds),  # the partner by its network, not its name
        write_model(tmp_path / "random", "untrained", "up", draws, seeds),
        write_model(tmp_path / "other", "scratch", "elsewhere", draws, seeds),
        write_model(tmp_path / "linear", "baseline", "linear", draws),  # one seed: that of all of the other's
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    decoders({"csm": 0.9, "anew": 0.2, "random": 0.3, "other": 0.6, "linear": 0.4, "mlp": 0.7})
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    assert not scores["metric"].str.contains("minus").any()
    table = read_comparisons(tmp_path / "comparisons.tsv")
    assert list(table.columns) == [field.name for field in dataclasses.fields(Comparison)]
    pairs = table[table["n"] == 2].groupby("experiment")["baseline"].apply(set).to_dict()
    both = {"linear", "mlp"}
    assert pairs == {"csm": {"anew", "random"} | both, "anew": both, "random": both, "other": both}
    for other in ("anew", "linear", "mlp"):
        row = comparisons_of(tmp_path, "csm", 2).loc[other]
        expected = summary(scores, "csm").loc[2, "value"] - summary(scores, other).loc[2, "value"]
        assert row["difference"] == pytest.approx(expected)
        assert row["ci_low"] < expected < row["ci_high"]
        assert row[["n_units", "n_draws", "n_seeds"]].tolist() == [3, 3, 2]
    one = comparisons_of(tmp_path, "csm", 2).loc["anew"]
    assert one["ci_low"] > 0
    assert one["p"] < 0.05
    assert one["other_kind"] == "scratch"
    assert (table["p_holm"] >= table["p"]).all()
    smallest = table[table["n"] == 2].sort_values("p").iloc[0]
    assert smallest["p_holm"] == pytest.approx(
        10 * smallest["p"]
    )  # 4 networks x 2 baselines, and 2 without training


def test_one_network_without_pretraining_counts_once_in_the_family_of_comparisons(tmp_path, monkeypatch):
    """Two frameworks may have one network; pretrained, they differ."""
    write_study(tmp_path / "shards")
    draws = by_subject((1,), 2)

    def decide(experiment: str, fit: str, corpus: Corpus) -> np.ndarray:
        share = {"one": 0.9, "two": 0.8, "linear": 0.5}.get(experiment, 0.3)
        rng = np.random.default_rng([int(100 * share), *fit.encode()])
        right = rng.random(len(corpus)) < share
        return np.eye(3)[np.where(right, corpus.labels, (corpus.labels + 1) % 3)]

    install_decoders(monkeypatch, decide)
    models = [write_model(tmp_path / name, "pretrained", name, draws) for name in ("one", "two")]
    models += [write_model(tmp_path / f"{name}_new", "untrained", name, draws) for name in ("one", "two")]
    models.append(write_model(tmp_path / "linear", "baseline", "linear", draws))
    run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    table = read_comparisons(tmp_path / "comparisons.tsv")
    pairs = table.groupby("experiment")["baseline"].apply(set).to_dict()
    # Each pretrained network keeps its own partner.
    assert pairs == {"one": {"one_new", "linear"}, "two": {"two_new", "linear"}, "one_new": {"linear"}}
    smallest = table.sort_values("p").iloc[0]
    assert smallest["p_holm"] == pytest.approx(min(1, 5 * smallest["p"]))


def test_an_ensemble_of_baselines_is_compared_with_the_others_and_is_no_pretrained_decoder(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject((1,), 2)
    models = [
        write_model(tmp_path / "together", "baseline", "linear+mlp", draws),
        write_model(tmp_path / "linear", "baseline", "linear", draws),
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    decoders({"together": 0.9, "linear": 0.4, "mlp": 0.7})
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    table = read_comparisons(tmp_path / "comparisons.tsv")
    assert list(zip(table["experiment"], table["baseline"], strict=True)) == [
        ("together", "linear"),
        ("together", "mlp"),
    ]
    assert "pretrained" not in set(scores["kind"])


def test_a_difference_is_paired(tmp_path, monkeypatch):
    # Two decoders that are right in the same trials but for one of nine in each run: their difference is sure,
    # although subjects differ much.
    write_study(tmp_path / "shards", n_runs=4)
    draws = by_subject((1,), 2)
    share = {"04": 0.3, "05": 0.6, "06": 0.9}

    def decide(experiment: str, fit: str, corpus: Corpus) -> np.ndarray:
        rng = np.random.default_rng(list(fit.encode()))
        right = rng.random(len(corpus)) < [share[subject] for subject in corpus.subjects]
        if experiment == "csm":
            right |= np.arange(len(corpus)) % 9 == 0
        return np.eye(3)[np.where(right, corpus.labels, (corpus.labels + 1) % 3)]

    install_decoders(monkeypatch, decide)
    models = [
        write_model(tmp_path / "csm", "pretrained", "up", draws),
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    width = summary(scores, "csm").loc[1, "ci_high"] - summary(scores, "csm").loc[1, "ci_low"]
    row = comparisons_of(tmp_path, "csm", 1).loc["mlp"]
    assert row["ci_high"] - row["ci_low"] < width / 2


def test_the_same_difference_in_all_units_is_no_certainty(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject((1,))
    models = [
        write_model(tmp_path / "csm", "pretrained", "up", draws),
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    decoders({"csm": 1.0, "mlp": 0.0})
    run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    row = comparisons_of(tmp_path, "csm", 1).loc["mlp"]
    assert row["difference"] == 1
    assert row["ci_low"] < 0.95
    assert row["p"] == 0.25  # sign test of three test subjects: 2 x 0.5^3


def write_ceilings(path: Path, accuracy: float, mean_signal: float, dataset: str = "toy") -> Path:
    rows = [("any", accuracy), ("mean_signal", mean_signal)]
    table = pd.DataFrame(rows, columns=["decoder", "accuracy"])
    bounds = {"ci_low": table["accuracy"] - 0.01, "ci_high": table["accuracy"] + 0.01}
    write_tsv(path, table.assign(dataset=dataset, n_labels=3, chance=1 / 3, n_trials=10_000, **bounds))
    return path


def test_ceilings_become_rows_and_a_decoder_above_them_is_named(tmp_path, decoders, caplog):
    write_study(tmp_path / "shards")
    draws = by_subject()
    models = [
        write_model(tmp_path / "csm", "pretrained", "up", draws),
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    decoders({"csm": 0.75, "mlp": 0.72})
    split = write_split(tmp_path / "split.json", draws)
    with caplog.at_level(logging.WARNING):
        scores = run(tmp_path, split, models, write_ceilings(tmp_path / "c.tsv", accuracy=0.95, mean_signal=0.9))
        assert not [record for record in caplog.records if "beats" in record.message]
        caplog.clear()
        flagged = run(tmp_path, split, models, write_ceilings(tmp_path / "c.tsv", accuracy=0.95, mean_signal=0.4))
    # A network may beat what the mean signal allows, a decoder that sees nothing else may not.
    beats = [record.getMessage() for record in caplog.records if "beats" in record.getMessage()]
    assert {text.split()[0] for text in beats} == {"mlp"}
    assert set(summary(flagged, "mlp")["flag"]) == {"above ceiling_mean_signal"}
    assert summary(scores, "ceiling_any").loc[0, ["value", "kind"]].tolist() == [0.95, "ceiling"]
    assert summary(scores, "ceiling_mean_signal").loc[0, "n_trials"] == 10_000


@pytest.mark.parametrize("start", ["mean_logistic", "mean_lda"])
def test_all_baselines_on_the_mean_signal_have_its_ceiling(tmp_path, decoders, start):
    write_study(tmp_path / "shards")
    draws = by_subject()
    decoders({"own": 0.75})
    split, model = (
        write_split(tmp_path / "split.json", draws),
        write_model(tmp_path / "own", "baseline", start, draws),
    )
    flagged = run(tmp_path, split, [model], write_ceilings(tmp_path / "c.tsv", accuracy=0.95, mean_signal=0.4))
    assert set(summary(flagged, "own")["flag"]) == {"above ceiling_mean_signal"}


def write_encoder(model: Path, name: str, fingerprints: list[str] | None) -> None:
    """Put the manifest of an upstream model into the folder of an experiment; None: a model that has none."""
    folder = model / "encoders" / name
    folder.mkdir(parents=True)
    if fingerprints is not None:
        content = {"people": {"rest": ["91"]}, "fingerprints": fingerprints, "without_fingerprints": []}
        write_json(folder / "manifest.json", content)


def fingerprints_of(shards: Path, subject: str) -> list[str]:
    """Return the fingerprints of the runs of a subject, in their order."""
    found = load_corpus([shards / shard_name("toy", subject)])
    return [str(fingerprint) for fingerprint in dict.fromkeys(found.fingerprints)]


def _scale(subject: str, run: int) -> float:
    return 10 * int(subject) + run


@pytest.fixture
def tested(tmp_path: Path) -> Path:
    """Write a study in which runs differ, and return the folder of its shards."""
    for subject in SUBJECTS:
        write_study(tmp_path / "shards", subjects=[subject], scale=functools.partial(_scale, subject))
    return tmp_path / "shards"


@pytest.mark.parametrize("kind", ["pretrained", "baseline"])
def test_a_model_that_was_pretrained_on_tested_runs_is_refused(tmp_path, tested, decoders, kind):
    draws = by_subject()
    one = write_model(tmp_path / "one", kind, "components", draws)
    other = write_model(tmp_path / "other", "pretrained", "csm", draws)
    again = write_model(tmp_path / "again", "pretrained", "csm", draws)
    write_encoder(one, "components_seed-1", fingerprints_of(tested, "04"))
    for model in (other, again):  # the same model: its problem is said once
        write_encoder(model, "csm_seed-1", fingerprints_of(tested, "05")[:1])
    asked = decoders({"one": 0.5, "other": 0.5, "again": 0.5})
    with pytest.raises(InputError, match="allow_pretrained_test_runs") as caught:
        run(tmp_path, write_split(tmp_path / "split.json", draws), [one, other, again])
    assert [problem.entity for problem in caught.value.problems] == ["ds-toy_sub-04", "ds-toy_sub-05"]
    assert "ds-toy_sub-04_task-t_run-1, ds-toy_sub-04_task-t_run-2" in caught.value.problems[0].message
    assert asked == []  # said before any decoder is asked
    assert not (tmp_path / "scores.tsv").exists()


def test_training_runs_may_have_been_pretrained_on(tmp_path, tested, decoders):
    draws = by_subject()
    model = write_model(tmp_path / "csm", "pretrained", "csm", draws)
    write_encoder(model, "csm_seed-1", fingerprints_of(tested, "01"))
    decoders({"csm": 0.8})
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), [model])
    assert set(scores["flag"]) <= {"", "above chance"}


def test_tested_runs_that_were_pretrained_on_are_flagged_where_they_are_allowed(
    tmp_path, tested, decoders, caplog
):
    draws = by_subject()
    models = [write_model(tmp_path / name, "pretrained", name, draws) for name in ("csm", "clean")]
    models.append(write_model(tmp_path / "csm_untrained", "untrained", "csm", draws))
    for seed, subject in enumerate(("04", "05")):
        write_encoder(models[0], f"csm_seed-{seed}", fingerprints_of(tested, subject)[:1])
    write_encoder(models[1], "clean_seed-1", [])
    # Random weights know nothing, whatever lies in the folder.
    write_encoder(models[2], "csm_untrained_seed-1", fingerprints_of(tested, "04"))
    set_validation(models[0], loss=lambda fit: 0.1)
    set_validation(models[1], loss=lambda fit: 0.1 + (fit["n"] == 2) - 0.01 * fit["draw"])
    decoders({"csm": 0.8, "clean": 0.8, "csm_untrained": 0.8})
    options = EvaluateOptions(permutations=9, allow_pretrained_test_runs=True)
    with caplog.at_level(logging.WARNING):
        scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models, options=options)
    assert set(summary(scores, "csm")["flag"]) == {"pretrained on 2 test runs"}
    # One of its fits is one of csm.
    assert set(summary(scores, "chosen")["flag"]) == {"pretrained on 2 test runs"}
    assert set(summary(scores, "clean")["flag"]) == set(summary(scores, "csm_untrained")["flag"]) == {""}
    assert caplog.text.count("the trials of 1 runs are tested, which the model was pretrained on") == 2


def test_a_pretrained_model_without_a_manifest_is_warned_of(tmp_path, tested, decoders, caplog):
    draws = by_subject()
    model = write_model(tmp_path / "csm", "pretrained", "csm", draws)
    write_encoder(model, "csm_seed-1", None)
    decoders({"csm": 0.8})
    with caplog.at_level(logging.WARNING):
        run(tmp_path, write_split(tmp_path / "split.json", draws), [model])
    assert "no manifest.json says what it was pretrained on" in caplog.text


def set_validation(model: Path, **values: Callable[[dict[str, Any]], Any]) -> Path:
    """Add to each fit in a manifest what validation said, as functions of the fit."""
    manifest = read_json(model / "adapt.json")
    for fit in manifest["fits"]:
        fit |= {name if name == "choice" else f"validation_{name}": value(fit) for name, value in values.items()}
    write_json(model / "adapt.json", manifest)
    return model


def test_what_was_chosen_for_each_fit_stands_in_a_table(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    models = [
        write_model(tmp_path / "csm", "pretrained", "csm", draws, seeds=(1, 2)),
        write_model(tmp_path / "linear", "baseline", "linear", draws),
    ]
    set_validation(models[0], loss=lambda fit: 0.5, accuracy=lambda fit: 0.75, choice=lambda fit: "slices, 3")
    decoders({"csm": 0.7, "linear": 0.4})
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    table = read_choices(tmp_path / "choices.tsv")
    assert list(table.columns) == [field.name for field in dataclasses.fields(Choice)]
    assert table.groupby("experiment", sort=False).size().to_dict() == {"csm": 8, "linear": 4}
    assert "chosen" not in set(scores["experiment"])  # one experiment is no choice
    of_csm = table[table["experiment"] == "csm"]
    assert set(of_csm["choice"]) == {"slices, 3"}
    assert (of_csm["validation_loss"] == 0.5).all()
    assert (of_csm["validation_accuracy"] == 0.75).all()
    fits = scores[(scores["draw"] != "all") & (scores["metric"] == "accuracy") & (scores["experiment"] == "csm")]
    key = ["n", "draw", "seed"]
    assert of_csm.set_index(key)["test_accuracy"].to_dict() == pytest.approx(
        fits.set_index(key)["value"].to_dict()
    )
    assert table.loc[table["experiment"] == "linear", "validation_loss"].isna().all()


def test_of_a_training_by_steps_the_step_is_the_choice(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject((1,), 1)
    model = write_model(tmp_path / "csm", "pretrained", "csm", draws)
    manifest = read_json(model / "adapt.json")
    manifest["fits"][0]["step"] = 80
    write_json(model / "adapt.json", manifest)
    decoders({"csm": 0.7})
    run(tmp_path, write_split(tmp_path / "split.json", draws), [model])
    assert read_choices(tmp_path / "choices.tsv")["choice"].tolist() == ["step 80"]


def test_the_pretrained_experiment_with_the_best_validation_is_scored_as_chosen(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    models = [
        write_model(tmp_path / "csm", "pretrained", "csm", draws, seeds=(1, 2)),
        write_model(tmp_path / "bert", "pretrained", "bert", draws, seeds=(2, 3)),
        write_model(tmp_path / "unknown", "pretrained", "other", draws),  # no validation loss: takes no part
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    # bert validates best with n = 1, draw 1, and is the worse one in the test: nothing of the test counts.
    set_validation(models[0], loss=lambda fit: 0.5, choice=lambda fit: "slices")
    set_validation(models[1], loss=lambda fit: 0.4 if (fit["n"], fit["draw"]) == (1, 1) else 0.6)
    set_validation(models[3], loss=lambda fit: 0.1)
    decoders({"csm": 0.9, "bert": 0.4, "unknown": 0.5, "mlp": 0.5})
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    assert set(scores.loc[scores["experiment"] == "chosen", "kind"]) == {"pretrained"}
    assert set(scores.loc[scores["experiment"] == "chosen", "start"]) == {"csm+bert"}
    table = read_choices(tmp_path / "choices.tsv")
    chosen = table[table["experiment"] == "chosen"]
    # Seed 2 is the one that both have.
    assert chosen[["n", "draw", "seed", "choice"]].to_numpy().tolist() == [
        [1, "0", "2", "csm: slices"],
        [1, "1", "2", "bert"],
        [2, "0", "2", "csm: slices"],
        [2, "1", "2", "csm: slices"],
    ]
    predictions = read_predictions(tmp_path).set_index(["experiment", "n", "draw", "seed"])
    for n, draw, name in ((1, "0", "csm"), (1, "1", "bert")):
        own = predictions.loc[("chosen", n, draw, "2"), "p_faces"].to_numpy()
        np.testing.assert_array_equal(own, predictions.loc[(name, n, draw, "2"), "p_faces"].to_numpy())
    assert {"mlp"} == set(comparisons_of(tmp_path, "chosen", 2).index)


def test_chosen_is_left_to_those_who_name_an_experiment_so(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    models = [write_model(tmp_path / name, "pretrained", name, draws) for name in ("chosen", "csm", "bert")]
    for model in models:
        set_validation(model, loss=lambda fit: 0.5)
    decoders({"csm": 0.9, "bert": 0.4, "chosen": 0.2})
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    assert set(scores.loc[scores["experiment"] == "chosen", "start"]) == {"chosen"}


def test_chosen_needs_two_validation_losses_at_the_same_n(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    models = [write_model(tmp_path / name, "pretrained", name, draws) for name in ("csm", "bert")]
    set_validation(models[0], loss=lambda fit: 0.5)
    manifest = read_json(models[1] / "adapt.json")
    for fit in manifest["fits"]:  # with one unit there was nothing to leave out
        fit |= {"validation_loss": 0.4} if fit["n"] == 2 else {}
    write_json(models[1] / "adapt.json", manifest)
    decoders({"csm": 0.9, "bert": 0.4})
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    assert list(summary(scores, "chosen").index) == [2]
    # bert is taken in all fits; chosen is a choice of both all the same, and not compared as bert is.
    assert set(scores.loc[scores["experiment"] == "chosen", "start"]) == {"csm+bert"}


def test_the_same_input_gives_the_same_bytes(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    split = write_split(tmp_path / "split.json", draws)
    model = write_model(tmp_path / "csm", "pretrained", "up", draws)
    contents = []
    for _ in range(2):
        decoders({"csm": 0.7})
        run(tmp_path, split, [model])
        names = ("scores.tsv", "comparisons.tsv", "choices.tsv", "predictions.tsv.gz")
        contents.append([(tmp_path / name).read_bytes() for name in names])
        time.sleep(1.1)  # a time of writing in the file would be another
    assert contents[0] == contents[1]


def test_missing_fits_of_all_models_are_reported_at_once(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    models = [write_model(tmp_path / "csm", "pretrained", "up", draws[:-1]), tmp_path / "nothing"]
    decoders({})
    with pytest.raises(InputError) as caught:
        run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    assert [Path(problem.where).parent.name for problem in caught.value.problems] == ["csm", "nothing"]
    assert not (tmp_path / "scores.tsv").exists()


def test_a_missing_shard_of_a_test_subject_is_named(tmp_path, decoders):
    write_study(tmp_path / "shards", subjects=SUBJECTS[:-1])
    draws = by_subject()
    decoders({"csm": 0.5})
    with pytest.raises(InputError, match="sub-06"):
        run(
            tmp_path,
            write_split(tmp_path / "split.json", draws),
            [write_model(tmp_path / "csm", "pretrained", "up", draws)],
        )


def test_a_subject_in_train_and_test_is_refused(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    draws[0]["test"] = ["01", "04"]
    decoders({"csm": 0.5})
    with pytest.raises(InputError, match="sub-01"):
        run(
            tmp_path,
            write_split(tmp_path / "split.json", draws),
            [write_model(tmp_path / "csm", "pretrained", "up", draws)],
        )


@pytest.mark.parametrize(
    ("content", "word"), [({"dataset": ["other"]}, "other"), ({"accuracy": None}, "accuracy")]
)
def test_unsuitable_ceilings_are_refused(tmp_path, decoders, content, word):
    write_study(tmp_path / "shards")
    draws = by_subject()
    ceilings = write_ceilings(tmp_path / "c.tsv", 0.9, 0.8, dataset=content.get("dataset", ["toy"])[0])
    if "accuracy" in content:
        write_tsv(ceilings, read_tsv(ceilings).drop(columns="accuracy"))
    decoders({"csm": 0.5})
    model = write_model(tmp_path / "csm", "pretrained", "up", draws)
    with pytest.raises(InputError, match=word):
        run(tmp_path, write_split(tmp_path / "split.json", draws), [model], ceilings)


@pytest.mark.parametrize("wrong", [np.zeros((54, 2)), np.full((54, 3), np.nan), np.full((54, 3), 0.5)])
def test_what_is_no_probability_is_refused(tmp_path, monkeypatch, wrong):
    write_study(tmp_path / "shards")
    draws = by_subject()
    install_decoders(monkeypatch, lambda experiment, fit, corpus: wrong)
    model = write_model(tmp_path / "csm", "pretrained", "up", draws)
    with pytest.raises(InputError, match=r"expected \(54, 3\)"):
        run(tmp_path, write_split(tmp_path / "split.json", draws), [model])


def test_decoders_that_were_adapted_on_another_split_are_refused(tmp_path, decoders):
    # The decoder knows subject 04 by heart. On the new split 04 is tested: an accuracy of 1 that means nothing.
    write_study(tmp_path / "shards")
    old = [{"n": 2, "draw": 0, "train": ["04"], "validation": ["02"], "test": ["05", "06"]}]
    new = [{"n": 2, "draw": 0, "train": ["05"], "validation": ["02"], "test": ["04", "06"]}]
    decoders({"csm": 1.0})
    model = write_model(tmp_path / "csm", "pretrained", "up", old)
    with pytest.raises(InputError, match=r"another split: .* for train 04; .* has 05") as caught:
        run(tmp_path, write_split(tmp_path / "split.json", new), [model])
    assert "rerun adapt" in str(caught.value)
    assert not (tmp_path / "scores.tsv").exists()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_manifest_that_does_not_say_its_units_is_refused(tmp_path, decoders, part):
    write_study(tmp_path / "shards")
    draws = by_subject()
    model = write_model(tmp_path / "csm", "pretrained", "up", draws)
    manifest = read_json(model / "adapt.json")
    del manifest["fits"][1][part]
    write_json(model / "adapt.json", manifest)
    decoders({"csm": 0.5})
    with pytest.raises(InputError, match=f"which units .* {part}.*\n.*\n.*rerun adapt"):
        run(tmp_path, write_split(tmp_path / "split.json", draws), [model])


@pytest.mark.parametrize(
    ("change", "words"),
    [({"dataset": "other"}, "dataset other"), ({"kind": "magic", "options": {"magic": "x"}}, "kind 'magic'")],
)
def test_a_manifest_of_something_else_is_refused(tmp_path, decoders, change, words):
    write_study(tmp_path / "shards")
    draws = by_subject()
    model = write_model(tmp_path / "csm", "pretrained", "up", draws)
    write_json(model / "adapt.json", read_json(model / "adapt.json") | change)
    decoders({"csm": 0.5})
    with pytest.raises(InputError, match=words):
        run(tmp_path, write_split(tmp_path / "split.json", draws), [model])


def test_a_killed_job_goes_on(tmp_path, decoders, monkeypatch):
    write_study(tmp_path / "shards")
    draws = by_subject()
    split = write_split(tmp_path / "split.json", draws)
    models = [
        write_model(tmp_path / "csm", "pretrained", "up", draws),
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    decoders({"csm": 0.7})  # stops at mlp, of which nothing is known
    with pytest.raises(KeyError):
        run(tmp_path, split, models)
    asked = decoders({"csm": 0.7, "mlp": 0.5})
    run(tmp_path, split, models)
    assert {fit.split("/")[0] for fit in asked} == {"mlp"}
    assert not (tmp_path / "toy_parts").exists()
    resumed = [(tmp_path / name).read_bytes() for name in ("scores.tsv", "predictions.tsv.gz")]
    asked = decoders({"csm": 0.7, "mlp": 0.5})
    run(tmp_path, split, models)
    assert len(asked) == 8
    assert [(tmp_path / name).read_bytes() for name in ("scores.tsv", "predictions.tsv.gz")] == resumed


@pytest.mark.parametrize("changed", ["manifest", "shards"])
def test_kept_predictions_of_other_inputs_do_not_count(tmp_path, decoders, changed):
    write_study(tmp_path / "shards")
    draws = by_subject()
    split = write_split(tmp_path / "split.json", draws)
    models = [
        write_model(tmp_path / "csm", "pretrained", "up", draws),
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    decoders({"csm": 0.7})
    with pytest.raises(KeyError):
        run(tmp_path, split, models)
    if changed == "manifest":
        write_json(models[0] / "adapt.json", read_json(models[0] / "adapt.json") | {"adapted": "again"})
    else:
        write_study(tmp_path / "shards", labels=lambda number: (number + 1) % 3)
    asked = decoders({"csm": 0.7, "mlp": 0.5})
    run(tmp_path, split, models)
    assert {fit.split("/")[0] for fit in asked} == {"csm", "mlp"}


def test_a_state_that_is_told_by_its_length_is_flagged(tmp_path, decoders, caplog):
    def traces(number: int, label: int) -> dict[str, Any]:
        # Length tells the state, position tells nothing, motion is known of some trials only.
        return {
            "n_volumes": 3 + 2 * label,
            "position": ((number * 7) % 9) / 9,
            "mean_fd_mm": [None, 0.1][number % 2],
        }

    write_study(tmp_path / "shards", n_runs=4, extra=traces)
    draws = by_subject()
    decoders({"csm": 0.8})
    split = write_split(tmp_path / "split.json", draws)
    with caplog.at_level(logging.WARNING):
        scores = run(tmp_path, split, [write_model(tmp_path / "csm", "pretrained", "up", draws)])
    controls = scores[scores["kind"] == "control"]
    assert set(controls["experiment"]) == {"control_length", "control_position"}
    length = summary(scores, "control_length")
    assert list(length.index) == [1, 2]
    assert (length["value"] == 1).all()
    assert set(length["flag"]) == {"above chance; near csm"}
    assert "control_length n=1: accuracy 1.000" in caplog.text
    assert re.search(r"seeing n_volumes alone: above chance \(0\.\d+\) and near csm \([01]\.\d+\)", caplog.text)
    assert not set(read_predictions(tmp_path)["experiment"]) & set(controls["experiment"])


def test_controls_see_their_own_draw_only(tmp_path, decoders):
    # Leave one subject out: the length of a state is another in each subject, so it helps within, never across.
    def extra(place: int) -> Callable[[int, int], dict[str, Any]]:
        return lambda number, label: {"n_volumes": 3 + (label + place) % 3, "position": 0.5}

    for place, subject in enumerate(SUBJECTS):
        write_study(tmp_path / "shards", subjects=[subject], extra=extra(place))
    draws = [
        {"n": 5, "draw": d, "train": [s for s in SUBJECTS if s != left], "validation": [], "test": [left]}
        for d, left in enumerate(SUBJECTS)
    ]
    decoders({"csm": 0.9})
    split = write_split(tmp_path / "split.json", draws)
    scores = run(tmp_path, split, [write_model(tmp_path / "csm", "pretrained", "up", draws)])
    assert summary(scores, "control_length").loc[5, "value"] < 0.4
    assert set(summary(scores, "control_length")["flag"]) == {""}


def test_the_permutation_test_tells_signal_from_none(tmp_path, decoders):
    write_study(tmp_path / "shards", n_runs=3)
    draws = by_subject()
    models = [
        write_model(tmp_path / "csm", "pretrained", "up", draws),
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    decoders({"csm": 0.7, "mlp": 0.33})
    split = write_split(tmp_path / "split.json", draws)
    scores = run(tmp_path, split, models)
    assert summary(scores, "csm", "permutation_p").loc[1, "value"] == 0.01  # 1 of 1 + 99
    assert summary(scores, "mlp", "permutation_p").loc[1, "value"] > 0.01
    scores = run(tmp_path, split, models, options=EvaluateOptions(permutations=0))
    assert "permutation_p" not in set(scores["metric"])


def test_intervals_of_a_study_without_signal_hold_chance(tmp_path, monkeypatch):
    # Labels at random, and 25 quick classifiers (nearest class mean of the training trials) of random signals, in
    # which subjects differ.
    labels = np.random.default_rng(0).integers(len(LABELS), size=1000).tolist()
    shards = write_study(tmp_path / "shards", n_runs=3, n_trials=12, labels=lambda number: labels.pop())
    pairs = [["01", "02"], ["01", "03"], ["02", "03"]]
    draws = [
        {"n": 2, "draw": d, "train": train, "validation": [], "test": SUBJECTS[3:]}
        for d, train in enumerate(pairs)
    ]

    def signals(experiment: str, corpus: Corpus) -> np.ndarray:
        def random(text: str) -> np.ndarray:
            return np.random.default_rng(list(f"{experiment}{text}".encode())).normal(size=5)

        names = zip(corpus.keys, corpus.subjects, strict=True)
        return np.stack([random(key) + random(subject) for key, subject in names])

    def decide(experiment: str, fit: str, corpus: Corpus) -> np.ndarray:
        train = load_corpus(shards / shard_name("toy", subject) for subject in pairs[int(fit[9])])
        means = [signals(experiment, train)[train.labels == label].mean(axis=0) for label in range(3)]
        distances = ((signals(experiment, corpus)[:, None] - np.stack(means)) ** 2).sum(axis=2)
        return np.exp(-distances) / np.exp(-distances).sum(axis=1, keepdims=True)

    install_decoders(monkeypatch, decide)
    models = [write_model(tmp_path / f"m{i}", "baseline", "mean_mlp", draws) for i in range(25)]
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    rows = scores[(scores["kind"] == "baseline") & (scores["metric"] == "accuracy")]
    rows = rows[(rows[["draw", "seed", "subject"]] == "all").all(axis=1)]
    held = (rows["ci_low"] <= 1 / 3) & (rows["ci_high"] >= 1 / 3)
    assert held.sum() >= 21  # of 25: fewer have a probability of 0.007 at a coverage of 0.95
    p_values = scores[(scores["kind"] == "baseline") & (scores["metric"] == "permutation_p")]["value"]
    assert (p_values <= 0.05).sum() <= 4
