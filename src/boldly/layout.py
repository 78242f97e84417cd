"""Where the files of a study lie, and what each stage is given: one place for the workflow and the command line.

The paths are patterns with the wildcards of the workflow, relative to the folder of the study.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from boldly import bids
from boldly.config import (
    COMPONENTS,
    AdaptOptions,
    AtlasOptions,
    Config,
    DownstreamSplitOptions,
    PretrainOptions,
    UpstreamSplitOptions,
    repeat_name,
)

FETCHED = "results/fetch/{dataset}.json"
RUNS = "results/index/{dataset}_runs.tsv"
LABELS = "results/index/{dataset}_labels.json"
TRIALS = "results/index/{dataset}_trials.tsv"
NUISANCE = "results/preprocess/{dataset}/sub-{subject}_nuisance.tsv"
QC = "results/preprocess/{dataset}/sub-{subject}_qc.tsv"
TIMESERIES = "results/parcellate/{dataset}/sub-{subject}_timeseries.safetensors"
QUALITY = "results/parcellate/{dataset}/sub-{subject}_quality.tsv"
PROJECTIONS = "results/parcellate/cache"
SHARDS = "data/{role}"
SHARD = SHARDS + "/ds-{dataset}_sub-{subject}.tar"
PREPARED = "results/prepare/{dataset}"
BATCH = PREPARED + "/{stage}_{batch}.json"
STAMP = PREPARED + "/sub-{subject}.json"
PREPARE_LOG = "results/logs/prepare/{dataset}/sub-{subject}.log"
SHARD_PROBLEMS = "results/shard/{dataset}/sub-{subject}_problems.tsv"
EXPORTED = "results/export/{dataset}_sub-{subject}_{kind}.json"
SPLIT = "results/split/{dataset}.json"
CORPUS = "results/corpus/{corpus}"
UPSTREAM_MODEL = "results/models/upstream/{experiment}"
DOWNSTREAM_MODELS = "results/models/downstream/{dataset}"
DOWNSTREAM_MODEL = DOWNSTREAM_MODELS + "/{experiment}"
SCORES = "results/evaluate/{dataset}_scores.tsv"
COMPARISONS = "results/evaluate/{dataset}_comparisons.tsv"
CHOICES = "results/evaluate/{dataset}_choices.tsv"
PREDICTIONS = "results/evaluate/{dataset}_predictions.tsv.gz"
EXPLANATION = "results/explain/{dataset}/{experiment}"
EXPLANATION_TABLE = EXPLANATION + "/{table}.tsv"
FIGURE = "results/figures/{figure}.png"
CARPET = "results/figures/carpet/{dataset}/{key}.png"
REPORT = "results/report.html"
# What jobs took: Snakemake's measurements, below the name of a stage.
USAGE = "results/usage"
# In the folder of results: the config of the last report.
STUDY = "study.json"

# Files in the folder of a model or of packed runs.
WEIGHTS = "model.safetensors"
MODEL_CONFIG = "config.json"
PARCEL_ERRORS = "parcel_errors.tsv"
ADAPTED = "adapt.json"
FRAMES = "frames.npy"
SAMPLES = "samples.json"

# A file name has its limits; the names of many datasets do not fit.
_LONGEST_NAME = 100
EXPLANATION_TABLES = ("maps", "curves", "summary")
EXPLANATION_FOLDERS = ("images", "pictures", "views")
# Which table of stage explain each of its figures is drawn from.
_EXPLAINED_TABLES = {"explain_maps": "maps", "explain_curves": "curves", "explain_agreement": "summary"}
_QUALITY_FOLDERS = tuple(str(Path(pattern).parent) for pattern in (QC, QUALITY))


class Layout:
    """What a config says about files: names of datasets and experiments, folders, and who needs whom.

    Parameters
    ----------
    config : Config
        Of the study, resolved.

    Attributes
    ----------
    prepared : list of str
        Datasets whose shards are made from images; the others are ready-made shards.
    upstream, downstream : list of str
        Datasets by role.
    probes : list of str
        Downstream experiments that are fitted in seconds each, to all downstream datasets.
    scored : list of str
        Downstream datasets that any experiment is adapted to.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        datasets = config.datasets
        self.prepared = [name for name, dataset in datasets.items() if dataset.derivatives]
        self.upstream = [name for name, dataset in datasets.items() if dataset.role == "upstream"]
        self.downstream = [name for name, dataset in datasets.items() if dataset.role == "downstream"]
        self.probes = [
            name
            for name, options in config.adapt.experiments.items()
            if options.is_probe and options.datasets is None
        ]
        self.scored = [name for name in self.downstream if self.decoders(name)]

    @property
    def shortest_window(self) -> int:
        """Shortest window of any upstream experiment, frames: runs with fewer are of no use."""
        experiments = self.config.pretrain.experiments.values()
        return min((options.window_frames[0] for options in experiments), default=2)

    def dataset_options(self, dataset: str) -> str:
        """Return what index is told of a dataset, as JSON."""
        unused = {"fetch", "participants", "source", "split", "ceilings", "truth", "preprocess", "parcellate"}
        options = self.config.datasets[dataset].model_dump(mode="json", exclude=unused)
        split = self.split_options(dataset)
        if isinstance(split, DownstreamSplitOptions):
            # Sizes that its people do not allow are said by index, not when all of them have been prepared.
            sizes = {"by", "train", "validation", "test"}
            options["split"] = split.model_dump(mode="json", include=sizes, exclude_defaults=True)
        return json.dumps(options)

    def task_options(self, dataset: str) -> str | None:
        """Return how events of a dataset become trials, as JSON; None for upstream datasets."""
        task = self.config.datasets[dataset].task
        return None if task is None or isinstance(task, str) else task.model_dump_json()

    def shard_folder(self, dataset: str) -> str:
        """Return the folder (or address) of the shards of a dataset: made by rules, or ready-made."""
        options = self.config.datasets[dataset]
        return options.shards or SHARDS.format(role=options.role)

    def shard(self, dataset: str, subject: str) -> str:
        """Return the tar that is made for a subject."""
        return f"{self.shard_folder(dataset)}/{bids.shard_name(dataset, subject)}"

    def split_options(self, dataset: str) -> UpstreamSplitOptions | DownstreamSplitOptions:
        """Return the options of the split: those of the dataset, or of all datasets of its role."""
        options = self.config.datasets[dataset]
        return options.split or getattr(self.config.split, options.role)

    def participants(self, dataset: str) -> str | None:
        """Return the table of people that the split of a dataset needs; None for most."""
        options, table = self.split_options(dataset), self.config.datasets[dataset].participants_table
        return table if options.group or options.stratify else None

    def splits_of_same_people(self, dataset: str) -> list[str]:
        """Return, for an upstream dataset, the splits of the downstream datasets of the same source."""
        if dataset not in self.upstream:
            return []
        source = self.config.datasets[dataset].people
        same = [name for name in self.downstream if self.config.datasets[name].people == source]
        return [SPLIT.format(dataset=name) for name in same]

    def source_of_several(self, dataset: str) -> str | None:
        """Return the name of the source of an upstream dataset's people if other upstream datasets have it too.

        Where the config gives none, it is named by the first of the datasets: a path would change with the place
        of the study, and the splits with it.
        """
        if dataset not in self.upstream:
            return None
        datasets = self.config.datasets
        same = sorted(name for name in self.upstream if datasets[name].people == datasets[dataset].people)
        if len(same) == 1:
            return None
        given = (datasets[name].source for name in same)
        return next((source for source in given if source), f"folder of {same[0]}")

    def pretrain_datasets(self, experiment: str) -> list[str]:
        """Return the datasets that an upstream experiment is trained on."""
        return list(self.config.pretrain.experiments[experiment].datasets or self.upstream)

    def shares_shards(self, options: PretrainOptions) -> bool:
        """Tell whether all shards of an upstream experiment are files, read once for all experiments.

        Not if they are streamed, nor if contracts may differ: other experiments would not be told of that.
        """
        datasets = options.datasets or self.upstream
        is_remote = any(self.config.datasets[name].is_remote for name in datasets)
        return options.stream_shards is None and not options.allow_mismatch and not is_remote

    def corpus_name(self, datasets: Iterable[str]) -> str:
        """Return the name of the folder in results/corpus of the packed runs of some datasets."""
        wanted = set(datasets)
        if wanted == set(self.upstream):
            return "all"
        names = "+".join(sorted(wanted))
        return f"only_{names if len(names) < _LONGEST_NAME else hashlib.sha256(names.encode()).hexdigest()[:16]}"

    @functools.cached_property
    def corpora(self) -> dict[str, list[str]]:
        """Packed runs that upstream experiments share, by name, and the datasets that they are of."""
        return {
            self.corpus_name(options.datasets or self.upstream): sorted(set(options.datasets or self.upstream))
            for options in self.config.pretrain.experiments.values()
            if self.shares_shards(options)
        }

    def corpus_files(self, experiment: str) -> list[str]:
        """Return the packed runs of an upstream experiment, and the linear fits to its share of the subjects.

        The first one is that of the frames. Empty for an experiment that reads its shards by itself.
        """
        options = self.config.pretrain.experiments[experiment]
        if not self.shares_shards(options):
            return []
        folder = CORPUS.format(corpus=self.corpus_name(options.datasets or self.upstream))
        linear = f"linear_{options.subjects_fraction}.safetensors"
        return [f"{folder}/{name}" for name in (FRAMES, SAMPLES, linear)]

    def data(self, datasets: Iterable[str]) -> list[tuple[str, str]]:
        """Return split and shard folder of each dataset."""
        return [(SPLIT.format(dataset=dataset), self.shard_folder(dataset)) for dataset in datasets]

    def model_folder(self, name: str) -> str:
        """Return the folder of an upstream experiment; any other name is a folder already."""
        is_experiment = name in self.config.pretrain.experiments
        return UPSTREAM_MODEL.format(experiment=name) if is_experiment else name

    def initial_files(self, experiment: str) -> list[str]:
        """Return the files of the model that an upstream experiment starts from; none for most.

        Those of a model from elsewhere as far as they are there (a language model may have its weights by another
        name): pretrain says what is missing.
        """
        name = self.config.pretrain.experiments[experiment].initialise
        if name is None:
            return []
        folder = Path(self.model_folder(name))
        if name in self.config.pretrain.experiments:
            return [str(folder / WEIGHTS)]
        weights = [folder / file for file in (WEIGHTS, "pytorch_model.bin") if (folder / file).exists()]
        return [str(path) for path in (*weights[:1], folder / MODEL_CONFIG) if path.exists()]

    def upstream_models(self, options: AdaptOptions) -> list[tuple[str, str, str]]:
        """Return name, seed and folder of the upstream models that a downstream experiment starts from."""
        models = self.config.upstream_models(options)
        return [(name, str(seed), self.model_folder(upstream)) for name, seed, upstream in models]

    def members(self, dataset: str, options: AdaptOptions) -> list[str]:
        """Return the folders of the experiments that an ensemble is made of; none for other experiments."""
        names = options.members or []
        return [DOWNSTREAM_MODEL.format(dataset=dataset, experiment=name) for name in names]

    def decoders(self, dataset: str) -> list[str]:
        """Return the folders of all downstream experiments of a dataset."""
        return [
            DOWNSTREAM_MODEL.format(dataset=dataset, experiment=name)
            for name, options in self.config.adapt.experiments.items()
            if _is_adapted(options, dataset)
        ]

    @functools.cached_property
    def explained(self) -> list[str]:
        """Downstream experiments that are explained: those of the config, else one that is likely to be asked for.

        That is the first with a pretrained network, else the first probe, else the first of all, of those that are
        adapted to all datasets; where there is none, the first that is adapted to any.
        """
        if self.config.explain.experiments is not None:
            return list(self.config.explain.experiments)
        datasets = self._datasets_to_explain
        experiments = {
            name: options
            for name, options in self.config.adapt.experiments.items()
            if any(_is_adapted(options, dataset) for dataset in datasets)
        }
        whole = {name: one for name, one in experiments.items() if all(_is_adapted(one, d) for d in datasets)}
        for wanted in ("pretrained", "baseline"):
            for name, options in whole.items():
                if getattr(options, wanted) is not None and options.is_probe:
                    return [name]
        return list(whole or experiments)[:1]

    @property
    def explained_datasets(self) -> list[str]:
        """Downstream datasets to which all experiments that are explained are adapted."""
        options = [self.config.adapt.experiments[name] for name in self.explained]
        datasets = self._datasets_to_explain if options else []
        return [dataset for dataset in datasets if all(_is_adapted(one, dataset) for one in options)]

    @property
    def _datasets_to_explain(self) -> list[str]:
        return list(self.config.explain.datasets or self.downstream)

    def explained_models(self, dataset: str) -> list[str]:
        """Return the folders of the experiments of a dataset that are explained."""
        return [DOWNSTREAM_MODEL.format(dataset=dataset, experiment=name) for name in self.explained]

    @property
    def explanations(self) -> list[str]:
        """Folders of all explanations."""
        return [
            EXPLANATION.format(dataset=dataset, experiment=name)
            for dataset in self.explained_datasets
            for name in self.explained
        ]

    def probe_experiments(self) -> str:
        """Return options and upstream models of all probes, as JSON for `boldly adapt --experiments`."""
        described = {
            name: {
                "options": options.model_dump(mode="json", exclude_defaults=True),
                "models": self.upstream_models(options),
            }
            for name, options in self.config.adapt.experiments.items()
            if name in self.probes
        }
        return json.dumps(described)

    def quality_folders(self, datasets: Iterable[str]) -> list[str]:
        """Return the folders of the quality tables of datasets; ready-made shards have none."""
        names = [dataset for dataset in datasets if dataset in self.prepared]
        return [folder.format(dataset=name) for folder in _QUALITY_FOLDERS for name in names]

    def atlas_image(self) -> list[str]:
        """Return the image of the atlas, if it is known."""
        atlas = self.config.atlas
        if atlas is None:
            return []
        return [atlas.fetched[0] if atlas.path is None else atlas.path]

    def atlas_names(self) -> list[str]:
        """Return the table of the parcels' names, if there is one."""
        table = None if self.config.atlas is None else names_table(self.config.atlas)
        return [] if table is None else [str(table)]

    def networks_table(self) -> list[str]:
        """Return the same for the figure of a run, which parts parcels by network; it reads tables with tabs."""
        return [path for path in self.atlas_names() if path.endswith(".tsv")]

    def dataset_of(self, key: str) -> str:
        """Return the dataset that a run key names."""
        return bids.entities(key)["ds"]

    def figures(self) -> list[str]:
        """Return the names of the figures that the config has data for, in the order in which they are read."""
        return [figure for figure, data in self._figure_data().items() if data]

    def figures_without_data(self) -> list[str]:
        """Return the names of the other figures: a picture of one was drawn with an earlier config."""
        return [figure for figure, data in self._figure_data().items() if not data]

    def _figure_data(self) -> dict[str, object]:
        """Return what of the config each figure is drawn from; empty where there is nothing."""
        options = self.config.adapt.experiments.values()
        several_seeds = [one for one in options if len({*one.seeds, *self._upstream_seeds(one)}) > 1]
        return {
            "upstream_data": self.upstream,
            **dict.fromkeys(("quality", "excluded", "carpet"), self.prepared),
            **self.pictured_experiments(),
            "downstream_trials": self.downstream,
            **dict.fromkeys(("downstream_accuracy", "downstream_curves"), self.scored),
            # Without a network there is nothing to compare.
            "downstream_comparisons": self.scored and [one for one in options if one.kind == "pretrained"],
            **dict.fromkeys(
                ("downstream_confusion", "downstream_reliability", "downstream_embedding"), self.scored
            ),
            "downstream_training": self.figure_tables("downstream_training"),
            "downstream_replication": self.scored and several_seeds,
            **dict.fromkeys(_EXPLAINED_TABLES, self.explanations),
        }

    def pictured_experiments(self) -> dict[str, list[str]]:
        """Return, for each figure of upstream experiments, those that it shows; an empty list: it is not drawn."""
        experiments = self.config.pretrain.experiments
        trained = {name: one for name, one in experiments.items() if one.framework != COMPONENTS}
        grids = {
            name: frozenset(grid.vary)
            for key, grid in self.config.pretrain.grids.items()
            for name in grid.experiments(key)
        }
        sized = [name for name in trained if grids.get(name, frozenset()) & {"layers", "width"}]
        scaled = [name for name in trained if "subjects_fraction" in grids.get(name, ())]
        warm = [name for name, one in trained.items() if one.initialise is not None]
        cold = [
            name
            for name, one in trained.items()
            for other in map(trained.__getitem__, warm)
            if one.initialise is None and _shape(one) == _shape(other)
        ]
        single = [name for name in trained if name not in grids and name not in warm] or list(trained)
        repeats = {repeat_name(name, seed) for name, one in trained.items() for seed in one.repeats}
        return {
            "upstream_frameworks": [name for name in single if name not in repeats],
            "upstream_sizes": sized,
            "upstream_losses": single,
            "upstream_skill": [name for name in single if trained[name].framework != "network_bert"],
            "upstream_errors": [name for name in single if name not in repeats],
            "upstream_scaling": scaled,
            "upstream_largest": sized,
            "upstream_warm_start": list(dict.fromkeys([*warm, *cold])) if warm else [],
        }

    def _upstream_seeds(self, options: AdaptOptions) -> list[int]:
        return (
            [seed for _, seed, _ in self.config.upstream_models(options)] if options.kind == "pretrained" else []
        )

    def figure_tables(self, figure: str) -> list[str]:
        """Return the tables that a figure is drawn from, and the folders of quality tables."""
        pictured = self.pictured_experiments()
        if figure in pictured:
            folders = [UPSTREAM_MODEL.format(experiment=name) for name in pictured[figure]]
            if figure == "upstream_frameworks":
                return [f"{folder}/{MODEL_CONFIG}" for folder in folders]
            if figure == "upstream_errors":
                return [f"{folder}/{PARCEL_ERRORS}" for folder in folders] + self.atlas_image()
            tables = [f"{folder}/{kind}_history.csv" for folder in folders for kind in ("train", "eval")]
            if figure == "upstream_skill":
                return [RUNS.format(dataset=name) for name in self.upstream] + tables
            return tables
        if figure in _EXPLAINED_TABLES:
            return [f"{folder}/{_EXPLAINED_TABLES[figure]}.tsv" for folder in self.explanations]
        if figure == "downstream_training":
            return [
                f"{DOWNSTREAM_MODEL.format(dataset=dataset, experiment=name)}/{ADAPTED}"
                for dataset in self.downstream
                for name, one in self.config.adapt.experiments.items()
                if not one.is_probe and one.members is None and one.kind in ("pretrained", "baseline")
                if _is_adapted(one, dataset)
            ]
        datasets, patterns = {
            "upstream_data": (self.upstream, [RUNS]),
            "downstream_trials": (self.downstream, [TRIALS]),
            "downstream_accuracy": (self.scored, [SCORES, COMPARISONS]),
            "downstream_curves": (self.scored, [SCORES, COMPARISONS]),
            "downstream_comparisons": (self.scored, [COMPARISONS]),
            **dict.fromkeys(
                ("downstream_confusion", "downstream_reliability", "downstream_embedding"),
                (self.scored, [PREDICTIONS]),
            ),
            "downstream_replication": (self.scored, [SCORES]),
        }.get(figure, (self.prepared, [RUNS]))
        tables = [pattern.format(dataset=name) for pattern in patterns for name in datasets]
        tables += self.quality_folders(datasets) if patterns == [RUNS] else []
        return tables + (self.networks_table() if figure == "carpet" else [])


def _is_adapted(options: AdaptOptions, dataset: str) -> bool:
    """Tell whether an experiment is adapted to a downstream dataset."""
    return options.datasets is None or dataset in options.datasets


def _shape(options: PretrainOptions) -> tuple[str, int, int]:
    """Return what networks have in common whose trainings can be compared."""
    return options.framework, options.layers, options.width


def names_table(options: AtlasOptions) -> Path | None:
    """Return the table of names of an atlas: the one given, else the one found beside its image."""
    return Path(options.labels) if options.labels is not None else _table_of(options)


def _table_of(options: AtlasOptions) -> Path | None:
    """Find the table of names of an atlas: the one with the image's name, else one that applies to it.

    As BIDS has it, that is a table in the same folder with the image's suffix and no entity that the image lacks
    (``tpl-X_atlas-Y_dseg.tsv`` for ``tpl-X_res-02_atlas-Y_dseg.nii.gz``); of several the one with most entities.
    """
    if options.fetched:
        return Path(options.fetched[1])
    image = Path(options.image)
    stem = bids.sidecar(image).stem
    own = [image.with_name(f"{stem}{ending}") for ending in (".tsv", ".csv")]
    of_image = bids.entities(stem).items()
    others = [
        path
        for ending in (".tsv", ".csv")
        for path in sorted(image.parent.glob(f"*_{stem.rpartition('_')[2]}{ending}"))
        if bids.entities(path.name) and bids.entities(path.name).items() <= of_image
    ]
    others.sort(key=lambda path: -len(bids.entities(path.name)))
    return next((path for path in (*own, *others) if path.is_file()), None)
