import time

import pytest

from boldly.records import InputError
from boldly.training.trackers import open_trackers


def record(words, folder, steps=(1, 2)):
    trackers = open_trackers(words, folder, "toy", {"width": 16, "framework": "csm"})
    for tracker in trackers:
        for step in steps:
            tracker.add_scalar("train/loss", 1.0 / step, step)
        tracker.close()


def test_tensorboard_writes_into_the_folder(tmp_path):
    record(["tensorboard"], tmp_path)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_mlflow_goes_on_with_the_same_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record(["mlflow"], tmp_path)
    record(["mlflow"], tmp_path, steps=(3,))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("boldly").experiment_id])
    assert len(runs) == 1
    assert runs[0].data.params == {"width": "16", "framework": "csm"}
    history = client.get_metric_history(runs[0].info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_weights_and_biases_works_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    record(["wandb"], tmp_path)
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
    (records,) = runs[0].glob("*.wandb")
    # A process of its own writes them, and a busy machine makes it late.
    deadline = time.monotonic() + 60
    while b"train/loss" not in records.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert b"train/loss" in records.read_bytes()


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="wandb is not installed") as error:
        open_trackers(["tensorboard", "wandb", "mlflow"], tmp_path, "toy", {})
    assert len(error.value.problems) == 2
