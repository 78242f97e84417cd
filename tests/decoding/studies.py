"""Studies that are small, and whose results lie where the workflow puts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from boldly import layout
from boldly.config import (
    AdaptOptions,
    Config,
    EvaluateOptions,
    IndexOptions,
    ParcellateOptions,
    PreprocessOptions,
    TaskOptions,
    load_config,
)
from boldly.files import write_json
from boldly.records import Event, Run, read_runs, write_runs, write_trials
from boldly.samples.corpus import load_corpus
from boldly.samples.shards import subject_shards
from boldly.stages import adapt, evaluate, index, parcellate, preprocess, shard
from tests.conftest import Study
from tests.training import synthetic

# One decoder of each kind.
KINDS: dict[str, dict[str, Any]] = {
    "probe": {"pretrained": "csm"},
    "tuned": {"pretrained": "csm", "method": "finetune"},
    "network": {"pretrained": "csm", "method": "network"},
    "linear": {"baseline": "linear"},
    "mean_lda": {"baseline": "mean_lda"},
    "components": {"baseline": "components"},
    "both": {"members": ["probe", "components"]},
}
_SHARED = {"window_frames": 20, "steps": 6, "batch_size": 8, "learning_rate": 1e-2, "evaluate_every": 3}


def shard_study(root: Path) -> Path:
    """Adapt and evaluate one decoder of each kind on ready-made shards; return the folder of the study."""
    split, shards = synthetic.downstream_study(root / "data", sizes=(1, 2))
    csm, components = synthetic.pretrained_models(root / "models", [("csm", 1), ("components", 1)])
    models = root / layout.DOWNSTREAM_MODELS.format(dataset="task")
    experiments = []
    for name, options in KINDS.items():
        chosen = AdaptOptions.model_validate({**_SHARED, **options, "seeds": [1]})
        upstream: tuple[adapt.UpstreamModel, ...] = ()
        if "csm" in options.values():
            upstream = (adapt.UpstreamModel("csm", 1, csm),)
        elif options.get("baseline") == "components":
            upstream = (adapt.UpstreamModel("components", 1, components),)
        members = tuple(models / member for member in options.get("members", []))
        experiments.append(adapt.Adaptation(name, chosen, models / name, upstream, members))
    for experiment in experiments:
        adapt.run_several([experiment], "task", split, shards)
    _evaluate(root, "task", split, shards, [models / name for name in KINDS])
    paths = sorted(shards.glob("*.tar"))
    corpus = load_corpus(paths)
    runs = [_run(key, subject) for key, subject in dict(zip(corpus.runs, corpus.subjects, strict=True)).items()]
    write_runs(root / layout.RUNS.format(dataset="task"), runs)
    events = [
        Event(run, subject, name, name, 0.0, 2.0 * length, number, 0, int(length), int(length), 2.0)
        for number, (run, subject, name, length) in enumerate(
            zip(
                corpus.runs,
                corpus.subjects,
                [corpus.label_names[label] for label in corpus.labels],
                corpus.lengths,
                strict=True,
            )
        )
    ]
    write_trials(root / layout.TRIALS.format(dataset="task"), events)
    config = {"datasets": {"task": {"role": "downstream", "shards": str(shards)}}}
    _write_config(root, config)
    return root


def _run(key: str, subject: str) -> Run:
    empty: dict[str, Any] = dict.fromkeys(
        ("session", "acquisition", "direction", "run", "bold", "mask", "confounds", "events"), ""
    )
    return Run(dataset="task", subject=subject, task="t", space="toy", key=key, t_r=2.0, n_volumes=80, **empty)


def _evaluate(root: Path, dataset: str, split: Path, shards: Path, models: list[Path]) -> None:
    patterns = {
        "scores": layout.SCORES,
        "comparisons": layout.COMPARISONS,
        "choices": layout.CHOICES,
        "predictions": layout.PREDICTIONS,
    }
    evaluate.run(
        dataset=dataset,
        split=split,
        shards=shards,
        models=models,
        ceilings=None,
        options=EvaluateOptions(permutations=20),
        **{name: root / pattern.format(dataset=dataset) for name, pattern in patterns.items()},
    )


def _write_config(root: Path, content: dict[str, Any]) -> None:
    path = root / "config" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def image_study(root: Path, study: Study, **sections: Any) -> Config:
    """Prepare images, adapt a baseline on all people but the last, and evaluate it on that one."""
    content = {
        "atlas": {"path": str(study.atlas)},
        "datasets": {
            "blocks": {
                "role": "downstream",
                "bids": str(study.bids),
                "derivatives": str(study.derivatives),
                "task": {"delay_s": 2.0},
            }
        },
        "parcellate": {"smoothing_fwhm_mm": None},
        "shard": {"dtype": "float16"},
        **sections,
    }
    _write_config(root, content)
    config = load_config(root / "config" / "config.yaml", root)
    _prepare(root, config)
    subjects = sorted({run.subject for run in read_runs(_path(root, layout.RUNS))})
    split = _path(root, layout.SPLIT)
    draw = {"n": len(subjects) - 1, "draw": 0, "train": subjects[:-1], "validation": [], "test": subjects[-1:]}
    write_json(split, {"dataset": "blocks", "role": "downstream", "by": "subject", "seed": 1, "draws": [draw]})
    shards, model = (
        root / "data" / "downstream",
        root / layout.DOWNSTREAM_MODEL.format(dataset="blocks", experiment="mean_lda"),
    )
    options = AdaptOptions(baseline="mean_lda")
    adapt.run(
        name="mean_lda", options=options, dataset="blocks", split=split, shards=shards, models=[], output=model
    )
    _evaluate(root, "blocks", split, shards, [model])
    return config


def _path(root: Path, pattern: str, subject: str = "") -> Path:
    return root / pattern.format(dataset="blocks", subject=subject)


def _prepare(root: Path, config: Config) -> None:
    dataset = config.datasets["blocks"]
    assert isinstance(dataset.task, TaskOptions)
    assert config.atlas is not None
    runs, labels, trials = (_path(root, pattern) for pattern in (layout.RUNS, layout.LABELS, layout.TRIALS))
    index.run(
        dataset="blocks",
        dataset_options=dataset,
        options=IndexOptions(),
        preprocess=config.preprocess,
        window_frames=2,
        atlas=config.atlas,
        runs=runs,
        labels=labels,
        trials=trials,
        t_r_s=config.shard.t_r_s,
    )
    preprocessing: PreprocessOptions = config.preprocess_of("blocks")
    parcellating: ParcellateOptions = config.parcellate_of("blocks")
    for subject in sorted({run.subject for run in read_runs(runs)}):
        nuisance, qc, series, quality = (
            _path(root, pattern, subject)
            for pattern in (layout.NUISANCE, layout.QC, layout.TIMESERIES, layout.QUALITY)
        )
        preprocess.run(runs=runs, subject=subject, options=preprocessing, nuisance=nuisance, qc=qc)
        parcellate.run(
            runs=runs,
            subject=subject,
            nuisance=nuisance,
            qc=qc,
            atlas=config.atlas,
            options=parcellating,
            preprocess=preprocessing,
            cache=root / "cache",
            output=series,
            quality=quality,
        )
        shard.run(
            timeseries=series,
            runs=runs,
            subject=subject,
            role="downstream",
            task=dataset.task,
            labels=labels,
            trials=trials,
            nuisance=nuisance,
            options=config.shard,
            window_frames=2,
            output=subject_shards(root / "data" / "downstream", "blocks", subject)[0],
        )
