"""A small study of lagged network dynamics, as shards and splits: what training code is tested on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boldly.bids import shard_name
from boldly.config import PretrainOptions
from boldly.files import write_json
from boldly.provenance import Contract
from boldly.samples.corpus import Corpus
from boldly.samples.shards import Sample, write_shard
from boldly.stages import pretrain

N_NETWORKS = 6
CONTRACT = Contract("toy", "0" * 64, 16, "toy", {"strategy": []}, None, None, None, True, "zscore")


def contract(n_parcels: int) -> Contract:
    return dataclasses.replace(CONTRACT, n_parcels=n_parcels)


def signal(rng: np.random.Generator, n_frames: int, t_r: float, n_parcels: int) -> np.ndarray:
    """Two oscillations that reach the networks with lags, in noise; z-scored, shape (T, P)."""
    model = np.random.default_rng(99)
    lags = model.uniform(0, 6, (2, N_NETWORKS))
    mixing = np.eye(N_NETWORKS)[np.arange(n_parcels) % N_NETWORKS] + 0.1 * model.standard_normal(
        (n_parcels, N_NETWORKS)
    )
    time = np.arange(n_frames)[:, None] * t_r
    networks = np.zeros((n_frames, N_NETWORKS))
    for mode, frequency in enumerate((0.03, 0.055)):
        phase = rng.uniform(0, 2 * np.pi)
        drift = np.cumsum(rng.standard_normal((n_frames, 1)) * 0.1 * np.sqrt(t_r), axis=0)
        networks += np.sin(2 * np.pi * frequency * (time - lags[mode]) + phase + drift)
    data = networks @ mixing.T + 0.7 * rng.standard_normal((n_frames, n_parcels))
    return (data - data.mean(axis=0)) / data.std(axis=0)


def sample(key: str, data: np.ndarray, meta: dict) -> Sample:
    n_parcels = data.shape[1]
    # Every run has its own scaling, which tells it from the others.
    rng = np.random.default_rng(list(meta["run_key"].encode()))
    mean, std = rng.normal([[1000], [2]], 0.3, (2, n_parcels)).astype(np.float32)
    return Sample(key, data.astype(np.float16), mean, std, meta, contract(n_parcels))


def corpus(
    lengths: list[int],
    *,
    t_r: list[float] | float = 2.0,
    datasets: list[str] | None = None,
    n_parcels: int = 16,
    labels: list[int] | None = None,
    n_labels: int = 0,
    seed: int = 0,
) -> Corpus:
    """A corpus in memory, one sample per length."""
    rng = np.random.default_rng(seed)
    n = len(lengths)
    t_rs = np.full(n, t_r) if isinstance(t_r, float) else np.array(t_r)
    datasets = datasets or ["toy"] * n
    keys = tuple(f"ds-{d}_sub-{i:02d}_task-rest" for i, d in enumerate(datasets))
    return Corpus(
        frames=np.concatenate(
            [signal(rng, T, step, n_parcels) for T, step in zip(lengths, t_rs, strict=True)]
        ).astype(np.float16),
        starts=np.cumsum(lengths) - lengths,
        lengths=np.array(lengths, np.int64),
        t_r=t_rs,
        marked=np.zeros((n, n_parcels), bool),
        labels=np.array(labels if labels is not None else [-1] * n, np.int64),
        label_names=tuple(f"state{i}" for i in range(n_labels)),
        keys=keys,
        datasets=tuple(datasets),
        subjects=tuple(f"{i:02d}" for i in range(n)),
        runs=keys,
        contract=contract(n_parcels),
    )


def upstream_study(folder: Path, *, n_subjects: int = 6, n_frames: int = 80, n_parcels: int = 16) -> list:
    """Write two datasets with different repetition times; return (split, shards) of each."""
    data = []
    for number, (dataset, t_r) in enumerate((("one", 2.0), ("two", 0.8))):
        rng = np.random.default_rng([7, number])
        subjects = [f"{i:02d}" for i in range(n_subjects)]
        for subject in subjects:
            key = f"ds-{dataset}_sub-{subject}_task-rest"
            meta = {"dataset": dataset, "subject": subject, "run_key": key, "t_r": t_r, "entities": {}}
            meta |= {"marked": []}
            series = signal(rng, n_frames, t_r, n_parcels)
            meta["n_volumes"] = n_frames
            write_shard(folder / dataset / shard_name(dataset, subject), [sample(key, series, meta)])
        split = folder / f"{dataset}.json"
        parts = {"train": subjects[:-1], "validation": subjects[-1:]}
        write_json(split, {"dataset": dataset, "role": "upstream", "by": "subject", "seed": 1, **parts})
        data.append((split, folder / dataset))
    return data


def downstream_study(
    folder: Path, *, n_subjects: int = 6, n_parcels: int = 16, sizes: tuple[int, ...] = (1,), draws: int = 2
) -> tuple[Path, Path]:
    """Write a dataset with four states of 8 to 12 frames; return its split and shards.

    As many units train as `sizes` says, and one more validates, so n is one more.
    """
    rng = np.random.default_rng(11)
    patterns = np.random.default_rng(98).standard_normal((4, n_parcels))
    subjects = [f"{i:02d}" for i in range(n_subjects)]
    names = [f"state{i}" for i in range(4)]
    for subject in subjects:
        samples = []
        for number in range(12):
            label, n_frames = number % 4, 8 + number % 5
            series = signal(rng, n_frames, 2.0, n_parcels) + 0.5 * patterns[label]
            run_key = f"ds-task_sub-{subject}_task-t_run-{1 + number // 6}"
            meta = {"dataset": "task", "subject": subject, "run_key": run_key, "t_r": 2.0, "entities": {}}
            meta |= {"marked": [], "n_volumes": n_frames, "number": number, "label": label, "labels": names}
            meta |= {"label_name": names[label], "onset": 0.0, "duration": 2.0 * n_frames}
            samples.append(sample(f"{run_key}_sample_{number:03d}", series, meta))
        write_shard(folder / "task" / shard_name("task", subject), samples)
    parts = [
        {"n": n + 1, "draw": d, "train": subjects[d : d + n], "validation": subjects[-2:-1], "test": subjects[-1:]}
        for n in sizes
        for d in range(draws)
    ]
    split = folder / "task.json"
    write_json(split, {"dataset": "task", "role": "downstream", "by": "subject", "seed": 1, "draws": parts})
    return split, folder / "task"


def pretrained_models(folder: Path, experiments: Sequence[tuple[str, int]]) -> list[Path]:
    """Pretrain small networks of these frameworks and seeds for two steps; return their folders."""
    data = upstream_study(folder / "data", n_subjects=3)
    values = {"layers": 1, "width": 16, "heads": 2, "steps": 2, "batch_size": 4, "validation_windows": 8}
    folders = []
    for framework, seed in experiments:
        own = {"framework": framework, "seed": seed, "window_frames": (6, 12), "keep_untrained": True}
        output = folder / f"{framework}-{seed}"
        pretrain.run(
            name=output.name, options=PretrainOptions.model_validate({**values, **own}), data=data, output=output
        )
        folders.append(output)
    return folders
