"""The whole config of a study, with what one section demands of another."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from boldly.config import conflicts
from boldly.config.adaptation import PROBE_BASELINES, AdaptOptions, AdaptSection
from boldly.config.atlases import AtlasOptions
from boldly.config.datasets import DatasetOptions
from boldly.config.decoding import DecodeOptions
from boldly.config.explanation import ExplainOptions
from boldly.config.preparation import (
    BatchOptions,
    ExportOptions,
    IndexOptions,
    ShardOptions,
    SplitOptions,
)
from boldly.config.pretraining import COMPONENTS, PretrainSection, repeat_name
from boldly.config.sections import ExperimentName, Name, Section, Seed
from boldly.config.signals import ParcellateOptions, PreprocessOptions, merged, with_one_high_pass


def _role(dataset: Any) -> Any:
    """Return the role of a dataset whose options may not be checked yet."""
    return dataset.get("role") if isinstance(dataset, dict) else getattr(dataset, "role", None)


class EvaluateOptions(Section):
    """Scores and their intervals."""

    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the intervals.")
    permutations: int = Field(
        1000, ge=0, description="Random orders of the labels within runs, for p-values against chance; 0: none."
    )
    seed: Seed = Field(1234, description="Seed of the permutations.")
    allow_pretrained_test_runs: bool = Field(
        False,
        description="Score also decoders whose network was pretrained on runs of which trials are tested; their "
        "scores are flagged.",
    )


class DeviceOptions(Section):
    """What an upstream experiment trains on: a process for each GPU, or a single one."""

    gpus: int = Field(0, ge=0, description="GPUs of each node; 0: one process on the CPU.")
    nodes: int = Field(1, ge=1, description="Nodes of one Slurm job.")

    @model_validator(mode="after")
    def _nodes_have_gpus(self) -> Self:
        if self.nodes > 1 and not self.gpus:
            raise ValueError(f"nodes {self.nodes} without GPUs: give gpus, those of each node")
        return self


class FiguresOptions(Section):
    """Pictures."""

    dpi: int = Field(200, ge=50, description="Resolution of the PNG files.")
    published: bool = Field(
        False,
        description="Mark in upstream_losses what Thomas et al. (2022) reached on their data, with which other "
        "data cannot be compared.",
    )


class Config(Section):
    """The whole config."""

    atlas: AtlasOptions | None = Field(
        None, description="Parcels; not needed where all datasets are ready-made shards."
    )
    datasets: dict[Name, DatasetOptions] = Field(
        {}, description="Datasets by name; not needed where people are decoded alone (`decode`)."
    )
    index: IndexOptions = Field(IndexOptions(), description="Stage index.")
    preprocess: PreprocessOptions = Field(PreprocessOptions(), description="Stage preprocess.")
    parcellate: ParcellateOptions = Field(ParcellateOptions(), description="Stage parcellate.")
    shard: ShardOptions = Field(ShardOptions(), description="Stage shard.")
    export: ExportOptions = Field(ExportOptions(), description="Tool export.")
    split: SplitOptions = Field(SplitOptions(), description="Stage split.")
    pretrain: PretrainSection = Field(PretrainSection(), description="Stage pretrain.")
    adapt: AdaptSection = Field(AdaptSection(), description="Stage adapt.")
    evaluate: EvaluateOptions = Field(EvaluateOptions(), description="Stage evaluate.")
    explain: ExplainOptions = Field(ExplainOptions(), description="Stage explain.")
    figures: FiguresOptions = Field(FiguresOptions(), description="Stage figures.")
    decode: dict[Name, DecodeOptions] = Field(
        {}, description="People to whom finished decoders are applied, by name (`snakemake decode`)."
    )
    batches: BatchOptions = Field(BatchOptions(), description="Jobs that prepare subjects.")
    devices: dict[ExperimentName, DeviceOptions] = Field(
        {},
        description="What upstream experiments train on, by name, and their repetitions with them; `default`: the "
        "others.",
    )

    @model_validator(mode="before")
    @classmethod
    def _decode_labels(cls, content: Any) -> Any:
        """Give labelled trials for which no experiment is named the baselines that are fitted in seconds.

        Those by gradient steps take a minute for each fit. An empty list (``adapt: {baselines: []}``) means none.
        """
        if not isinstance(content, dict) or not isinstance(content.get("datasets"), dict):
            return content
        given = content.get("adapt", {})
        if not isinstance(given, dict) or given.get("experiments") or "baselines" in given:
            return content
        if any(_role(options) == "downstream" for options in content["datasets"].values()):
            return {**content, "adapt": {**given, "baselines": list(PROBE_BASELINES)}}
        return content

    @model_validator(mode="after")
    def _is_for_something(self) -> Self:
        if not self.datasets and not self.decode:
            raise ValueError("datasets: none; give at least one, or people to decode (decode)")
        return self

    @model_validator(mode="after")
    def _atlas_for_images(self) -> Self:
        images = [name for name, options in self.datasets.items() if options.derivatives is not None]
        if images and self.atlas is None:
            raise ValueError(
                f"atlas: missing, and the signals of {', '.join(images)} are still to be read from images; give "
                "`atlas: {path: ...}` or `atlas: {name: ...}`"
            )
        return self

    @model_validator(mode="after")
    def _pretrained_on_something(self) -> Self:
        if self.pretrain.experiments and not any(its.role == "upstream" for its in self.datasets.values()):
            names = ", ".join(name for name in self.pretrain.experiments if name != COMPONENTS) or COMPONENTS
            raise ValueError(
                f"pretrain.experiments: {names}: there is no upstream dataset to pretrain on; give one "
                "(`datasets.<name>.role: upstream`), or drop section pretrain and what starts from it in adapt"
            )
        return self

    @model_validator(mode="after")
    def _images_fit(self) -> Self:
        if wrong := conflicts.image_conflicts(self):
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _names_meet(self) -> Self:
        if wrong := conflicts.name_conflicts(self):
            raise ValueError("; ".join(wrong))
        return self

    def preprocess_of(self, dataset: str) -> PreprocessOptions:
        """Return the options of preprocess for a dataset: those of the study, with its own.

        The regression of the study is for images that nothing was removed from: denoised ones have only their own.
        """
        options, study = self.datasets[dataset], self.preprocess
        if options.is_denoised:
            study = study.model_copy(update={"strategy": [], "columns": []})
        return merged(study, options.preprocess)

    def parcellate_of(self, dataset: str) -> ParcellateOptions:
        """Return the options of parcellate for a dataset: those of the study, with its own."""
        return merged(self.parcellate, self.datasets[dataset].parcellate)

    def prepared(self, dataset: str) -> dict[str, Any]:
        """Return how the signals of a dataset are made, by the names of contract fields."""
        preprocess = self.preprocess_of(dataset)
        parcellate = with_one_high_pass(self.parcellate_of(dataset), preprocess)
        fields = ("smoothing_fwhm_mm", "high_pass_hz", "low_pass_hz", "detrend", "standardize", "mask")
        # Signals of surfaces know no brain mask.
        on_surfaces = {"mask": False} if self.atlas is not None and self.atlas.is_parcellation else {}
        return {
            "space": self.datasets[dataset].space,
            "confounds": preprocess.regression(),
            "images": self.datasets[dataset].image_suffix,
            "t_r_s": self.shard.t_r_s,
            **{name: getattr(parcellate, name) for name in fields},
            **on_surfaces,
        }

    def own_options(self) -> dict[str, dict[str, Any]]:
        """Return for each dataset that is prepared in another way than the study says what then holds, in full.

        Returns
        -------
        dict of str to dict
            By dataset, JSON of the sections preprocess and parcellate, as far as they are not those of the study.
        """
        found: dict[str, dict[str, Any]] = {}
        for name, options in self.datasets.items():
            if options.derivatives is None:
                continue
            own = {"preprocess": self.preprocess_of(name), "parcellate": self.parcellate_of(name)}
            differing = {
                section: its.model_dump(mode="json")
                for section, its in own.items()
                if its.model_dump() != getattr(self, section).model_dump()
            }
            if differing:
                found[name] = differing
        return found

    def devices_of(self, experiment: str) -> DeviceOptions:
        """Return what an upstream experiment trains on; a repetition trains on what its experiment trains on."""
        repeated = (
            name
            for name, options in self.pretrain.experiments.items()
            if experiment in {repeat_name(name, seed) for seed in options.repeats}
        )
        found = (self.devices[name] for name in (experiment, *repeated, "default") if name in self.devices)
        return next(found, DeviceOptions())

    def upstream_models(self, options: AdaptOptions) -> list[tuple[str, int, str]]:
        """Return the upstream models of a downstream experiment.

        Returns
        -------
        list of (str, int, str)
            Name in `AdaptOptions.upstream` (or that of the components that baselines look at), seed, and the
            experiment that was trained with it; another folder is its own experiment, of the first of the seeds.
        """
        names = options.upstream
        if options.baseline is not None:
            preset = PROBE_BASELINES.get(options.baseline)
            needed = (
                preset is not None and preset.encoder == "components" and COMPONENTS in self.pretrain.experiments
            )
            names = [COMPONENTS] if needed else []
        models = []
        for name in names:
            experiment = self.pretrain.experiments.get(name)
            if experiment is None:
                models.append((name, options.seeds[0], name))
                continue
            models.append((name, experiment.seed, name))
            if options.pretrained is not None:
                models += [(name, seed, repeat_name(name, seed)) for seed in experiment.repeats]
        return models
