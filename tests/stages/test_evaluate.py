from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from boldly.bids import sample_key, shard_name
from boldly.config import EvaluateOptions
from boldly.files import read_tsv, write_json, write_tsv
from boldly.provenance import Contract
from boldly.records import InputError, read_scores
from boldly.samples.corpus import Corpus
from boldly.samples.shards import Sample, write_shard
from boldly.stages import evaluate

LABELS = ["faces", "house", "rest"]
SUBJECTS = ["01", "02", "03", "04", "05", "06"]
CONTRACT = Contract("toy", "0" * 64, 4, "toy", {}, None, None, None, True, "zscore")
OPTIONS = EvaluateOptions(resamples=300)
Draws = list[dict[str, Any]]


def write_study(folder: Path, n_runs: int = 2, n_trials: int = 9, subjects: list[str] = SUBJECTS) -> Path:
    """Write shards with trials of equally frequent labels, and return their folder."""
    for subject in subjects:
        samples = []
        for run in range(n_runs):
            key = f"ds-toy_sub-{subject}_task-t_run-{run + 1}"
            for number in range(n_trials):
                label = number % len(LABELS)
                meta = {"dataset": "toy", "subject": subject, "run_key": key, "entities": {}, "t_r": 2.0}
                meta |= {"n_volumes": 3, "marked": [], "number": number, "onset": 0.0, "duration": 6.0}
                meta |= {"label": label, "label_name": LABELS[label], "labels": LABELS}
                bold, flat = np.zeros((3, 4), np.float32), np.zeros(4, np.float32)
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
    fits = [
        {"folder": f"n-{d['n']}_draw-{d['draw']}_seed-{s}", "n": d["n"], "draw": d["draw"], "seed": s}
        for d in draws
        for s in seeds
    ]
    options = {"pretrained": None, "scratch": None, "baseline": None, kind: start}
    content = {"experiment": folder.name, "dataset": "toy", "kind": kind, "fits": fits, "options": options}
    write_json(folder / "adapt.json", content)
    return folder


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], list[tuple[str, tuple[str, ...]]]]:
    """Replace prediction by decoders of known accuracy; returns the list of (fit, keys) that were asked for."""

    def install(accuracies: dict[str, float]) -> list[tuple[str, tuple[str, ...]]]:
        asked: list[tuple[str, tuple[str, ...]]] = []

        def predict(folder: Path, corpus: Corpus) -> np.ndarray:
            asked.append((f"{folder.parent.name}/{folder.name}", corpus.keys))
            rng = np.random.default_rng(len(asked))
            right = rng.random(len(corpus)) < accuracies[folder.parent.name]
            named = np.where(right, corpus.labels, (corpus.labels + 1) % len(LABELS))
            return 0.1 + 0.7 * np.eye(len(LABELS))[named]

        module = types.ModuleType("boldly.training.decoding")
        module.predict = predict  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "boldly.training.decoding", module)
        return asked

    return install


def run(folder: Path, split: Path, models: list[Path], ceilings: Path | None = None) -> Any:
    evaluate.run(
        dataset="toy",
        split=split,
        shards=folder / "shards",
        models=models,
        ceilings=ceilings,
        options=OPTIONS,
        scores=folder / "scores.tsv",
        predictions=folder / "predictions.tsv",
    )
    return read_scores(folder / "scores.tsv")


def summary(scores: Any, experiment: str, metric: str = "accuracy") -> Any:
    rows = scores[(scores["experiment"] == experiment) & (scores["metric"] == metric)]
    return rows[(rows[["draw", "seed", "subject"]] == "all").all(axis=1)].set_index("n")


def test_each_fit_passes_once_over_the_test_trials(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    models = [write_model(tmp_path / "csm", "pretrained", "up", draws, seeds=(1, 2))]
    asked = decoders({"csm": 0.8})
    run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    assert len(asked) == len({fit for fit, _ in asked}) == 8  # 2 sizes, 2 draws, 2 seeds
    for _, keys in asked:
        assert len(keys) == len(set(keys)) == 3 * 2 * 9  # all trials of the three test subjects, once
        assert {key.split("_")[1] for key in keys} == {"sub-04", "sub-05", "sub-06"}
    predictions = read_tsv(tmp_path / "predictions.tsv", ("draw", "seed", "subject"))
    assert list(predictions.columns) == [
        *("experiment", "n", "draw", "seed", "key", "run", "subject", "label", "label_name", "predicted"),
        "probability",
    ]
    assert len(predictions) == 8 * 54
    assert (predictions["probability"] == 0.8).all()


def test_scores_can_be_recomputed_from_the_predictions(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    decoders({"csm": 0.7})
    model = write_model(tmp_path / "csm", "pretrained", "up", draws, seeds=(1, 2))
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), [model])
    predictions: Any = read_tsv(tmp_path / "predictions.tsv", ("draw", "seed", "subject"))
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
    assert ((scores["ci_low"] <= scores["value"]) & (scores["value"] <= scores["ci_high"])).all()
    assert set(scores["metric"]) == {"accuracy", "balanced_accuracy", "macro_f1"}


def test_chance_is_a_row(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    decoders({"csm": 0.7})
    split = write_split(tmp_path / "split.json", draws)
    scores = run(tmp_path, split, [write_model(tmp_path / "csm", "pretrained", "up", draws)])
    assert summary(scores, "chance").loc[0, "value"] == pytest.approx(1 / 3)
    assert summary(scores, "chance").loc[0, "kind"] == "chance"


def test_differing_test_sets_are_pooled(tmp_path, decoders):
    write_study(tmp_path / "shards", n_runs=6, subjects=["01"])
    draws = leave_one_run_out(6)
    asked = decoders({"mlp": 0.6})
    split = write_split(tmp_path / "split.json", draws, by="run")
    scores = run(tmp_path, split, [write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws)])
    assert [len(keys) for _, keys in asked] == [9] * 6  # each run's own trials only
    predictions = read_tsv(tmp_path / "predictions.tsv")
    row = summary(scores, "mlp").loc[5]
    assert row["n_trials"] == 54
    assert row["value"] == pytest.approx((predictions["label"] == predictions["predicted"]).mean())
    assert summary(scores, "chance").loc[0, "n_trials"] == 54
    # A mean over draws of macro-F1 of 9 trials each would be another number.
    per_draw = scores[(scores["draw"] != "all") & (scores["metric"] == "macro_f1")]["value"].mean()
    assert summary(scores, "mlp", "macro_f1").loc[5, "value"] != pytest.approx(per_draw, abs=1e-6)


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


def test_differences_to_scratch_and_to_the_best_baseline(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    models = [
        write_model(tmp_path / "csm", "pretrained", "up", draws),
        write_model(tmp_path / "untrained", "scratch", "up", draws),  # the partner by its network, not by its name
        write_model(tmp_path / "other", "scratch", "elsewhere", draws),
        write_model(tmp_path / "linear", "baseline", "linear", draws),
        write_model(tmp_path / "mlp", "baseline", "mean_mlp", draws),
    ]
    decoders({"csm": 0.9, "untrained": 0.2, "other": 0.6, "linear": 0.4, "mlp": 0.7})
    scores = run(tmp_path, write_split(tmp_path / "split.json", draws), models)
    differences = scores[scores["metric"].str.startswith("accuracy_minus_")]
    csm = differences[(differences["experiment"] == "csm") & (differences["n"] == 2)].set_index("metric")
    assert list(csm.index) == ["accuracy_minus_untrained", "accuracy_minus_mlp"]
    expected = summary(scores, "csm").loc[2, "value"] - summary(scores, "untrained").loc[2, "value"]
    assert csm.loc["accuracy_minus_untrained", "value"] == pytest.approx(expected)
    assert csm.loc["accuracy_minus_untrained", "ci_low"] > 0
    assert set(differences[differences["experiment"] == "other"]["metric"]) == {"accuracy_minus_mlp"}
    assert not set(differences["experiment"]) & {"linear", "mlp"}


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
        assert not caplog.records
        run(tmp_path, split, models, write_ceilings(tmp_path / "c.tsv", accuracy=0.95, mean_signal=0.4))
    # A network may beat what the mean signal allows, a decoder that sees nothing else may not.
    assert {record.getMessage().split()[0] for record in caplog.records} == {"mlp"}
    assert summary(scores, "ceiling_any").loc[0, ["value", "kind"]].tolist() == [0.95, "ceiling"]
    assert summary(scores, "ceiling_mean_signal").loc[0, "n_trials"] == 10_000


def test_the_same_input_gives_the_same_bytes(tmp_path, decoders):
    write_study(tmp_path / "shards")
    draws = by_subject()
    split = write_split(tmp_path / "split.json", draws)
    model = write_model(tmp_path / "csm", "pretrained", "up", draws)
    contents = []
    for _ in range(2):
        decoders({"csm": 0.7})
        run(tmp_path, split, [model])
        contents.append((tmp_path / "scores.tsv").read_bytes())
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


def test_probabilities_of_another_shape_are_refused(tmp_path, monkeypatch):
    write_study(tmp_path / "shards")
    draws = by_subject()
    module = types.ModuleType("boldly.training.decoding")
    module.predict = lambda folder, corpus: np.zeros((len(corpus), 2))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "boldly.training.decoding", module)
    model = write_model(tmp_path / "csm", "pretrained", "up", draws)
    with pytest.raises(InputError, match=r"expected \(54, 3\)"):
        run(tmp_path, write_split(tmp_path / "split.json", draws), [model])
