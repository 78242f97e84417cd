"""The whole config of a study, with what one section demands of another."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import (
    Field,
    model_validator,
)

from boldly.config.adaptation import PROBE_BASELINES, AdaptOptions, AdaptSection
from boldly.config.atlases import AtlasOptions
from boldly.config.datasets import SURFACES, DatasetOptions, TaskOptions
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
from boldly.config.sections import ExperimentName, Name, Section
from boldly.config.signals import ParcellateOptions, PreprocessOptions, merged, with_one_high_pass

# Numbers of test units of which an interval is of no use, and how many standard errors a 0.95 interval over them
# reaches to each side: Student's t of 0.975 with one and two degrees of freedom.
FEW_UNITS = {2: 12.7, 3: 4.3}


# Spaces of fMRIPrep that are those of each person, and no template.
NATIVE_SPACES = ("T1w", "T2w", "anat", "bold", "boldref", "func", "individual", "orig", "scanner")


def _role(dataset: Any) -> Any:
    """Return the role of a dataset whose options may not be checked yet."""
    return dataset.get("role") if isinstance(dataset, dict) else getattr(dataset, "role", None)


def _differing(
    made: Mapping[str, Mapping[str, Any]], dataset: str, others: Sequence[str], allowed: Collection[str]
) -> str:
    """Name the fields in which a dataset is like none of others, in one text."""
    fields = (field for field in made[dataset] if all(made[dataset][field] != made[one][field] for one in others))
    return ", ".join(field for field in fields if field not in allowed)


class EvaluateOptions(Section):
    """Scores and their intervals."""

    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the intervals.")
    permutations: int = Field(
        1000, ge=0, description="Random orders of the labels within runs, for p-values against chance; 0: none."
    )
    seed: int = Field(1234, description="Seed of the permutations.")
    allow_pretrained_test_runs: bool = Field(
        False, description="Score also where the upstream model was pretrained on runs whose trials are tested."
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
        {}, description="What upstream experiments train on, by name; `default`: the others."
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
    def _smoothed_once(self) -> Self:
        if wrong := self.aroma_conflicts() + self._surface_conflicts() + self._native_conflicts():
            raise ValueError("; ".join(wrong))
        return self

    def _native_conflicts(self) -> list[str]:
        """Say where images in the space of each person's own brain meet an atlas that is in a template."""
        template = self.atlas.template if self.atlas is not None else None
        if template is None or template in NATIVE_SPACES:
            return []
        return [
            f"datasets.{name}.space: images in {options.space} lie in the space of each person's own brain, the "
            f"atlas is in the template {template}: its parcels would fall anywhere; take the images in that "
            f"template (space: {template}, fMRIPrep --output-spaces {template}), or, with one person, an atlas in "
            f"{options.space} (atlas.space: {options.space})"
            for name, options in self.datasets.items()
            if options.derivatives is not None and options.space in NATIVE_SPACES
        ]

    def _surface_conflicts(self) -> list[str]:
        """Say where images on surfaces (CIFTI) meet an atlas of voxels, or the other way round, or a kernel."""
        wrong = []
        for name, options in self.datasets.items():
            if options.derivatives is None or self.atlas is None:
                continue
            if options.is_cifti and not self.atlas.is_parcellation:
                wrong.append(
                    f"datasets.{name}: its images are on surfaces (space {options.space}), the atlas "
                    f"{self.atlas.path or self.atlas.name} is a volume; give a parcellation of surfaces as "
                    "atlas.path (*.dlabel.nii), or take the images of a volume space"
                )
            elif self.atlas.is_parcellation and not options.is_cifti:
                wrong.append(
                    f"datasets.{name}: the atlas {self.atlas.path} is a parcellation of surfaces, the images are "
                    f"volumes in {options.space}; set space to {SURFACES} (fMRIPrep --cifti-output), or give an "
                    "atlas of voxels"
                )
            elif options.is_cifti and self.parcellate_of(name).smoothing_fwhm_mm is not None:
                wrong.append(
                    f"parcellate.smoothing_fwhm_mm: images on surfaces ({name}) are not smoothed here; set it to "
                    "null, and smooth before where it is needed (wb_command -cifti-smoothing)"
                )
        return wrong

    def aroma_conflicts(self) -> list[str]:
        """Say what does not go together with the images that fMRIPrep smoothed and cleaned with ICA-AROMA."""
        wrong = []
        for name, options in self.datasets.items():
            if options.derivatives is None or not self.preprocess_of(name).takes_aroma_images:
                continue
            if options.layout == "hcp":
                remedy = "drop ica_aroma from preprocess.strategy"
                wrong.append(f"datasets.{name}: layout hcp has no ICA-AROMA images; {remedy}")
            if self.parcellate_of(name).smoothing_fwhm_mm is not None:
                reason = "with preprocess.ica_aroma full the images are smoothed already"
                wrong.append(f"parcellate.smoothing_fwhm_mm: {reason}; set it to null (for {name})")
        return wrong

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

    def warnings(self) -> list[str]:
        """Say what is allowed and probably not meant, in a line for each."""
        lines = []
        for name, options in self.datasets.items():
            split = options.split or self.split.downstream
            few = getattr(split, "test", None) if options.role == "downstream" else None
            if few == 1:
                lines.append(
                    f"datasets.{name}: a single test unit (split.test: 1): nothing tells how much scores vary "
                    "between units; `test: leave_one_out` tests each in turn"
                )
            elif few in FEW_UNITS:
                lines.append(
                    f"datasets.{name}: {few} test units (split.test: {few}): an interval over them reaches "
                    f"{FEW_UNITS[few]} standard errors to each side and says next to nothing; "
                    "`test: leave_one_out` tests each unit in turn"
                )
            if options.role == "upstream" and (same := self._tested_people(name)):
                lines.append(
                    f"datasets.{name}: its people come from the same folder as those of {', '.join(same)}, where "
                    "some are tested: nobody may be pretrained on and tested, so set "
                    "split.upstream.shared_people to exclude (leave them out) or allow (the split records them), "
                    f"or, if they are others, give datasets.{name}.source a name"
                )
            if options.derivatives is None:
                continue
            task = options.task
            if isinstance(task, TaskOptions) and task.delay_s is None and task.window_s is None:
                lines.append(
                    f"datasets.{name}.task: without delay_s frames are taken from the onset on, before the "
                    "response has begun; 4 to 6 s are usual (0: none is meant), or give window_s"
                )
            high_pass_hz = self.parcellate_of(name).high_pass_hz
            if self.preprocess_of(name).takes_cosines and high_pass_hz is not None:
                lines.append(
                    f"datasets.{name}: preprocess brings fMRIPrep's cosines (high_pass or compcor), which are the "
                    f"high-pass filter; parcellate.high_pass_hz {high_pass_hz:g} is left out (set it to null)"
                )
            smoothing_mm = self.parcellate_of(name).smoothing_fwhm_mm
            if "smooth" in options.image_suffix.lower() and smoothing_mm is not None:
                lines.append(
                    f"datasets.{name}: its images are smoothed already ({options.image_suffix}), and "
                    f"parcellate.smoothing_fwhm_mm {smoothing_mm:g} smooths them again (null: none)"
                )
            template = self.atlas.template if self.atlas is not None else None
            if template not in (None, options.space):
                lines.append(
                    f"datasets.{name}: its images are in {options.space}, the atlas is in {template}: brain and "
                    "parcels lie millimetres apart in places; take images and atlas of one template (fMRIPrep "
                    f"--output-spaces {template}; TemplateFlow has many atlases in both)"
                )
        return lines + self._differently_prepared()

    def prepared(self, dataset: str) -> dict[str, Any]:
        """Return how the signals of a dataset are made, by the names of contract fields."""
        options, preprocess = self.datasets[dataset], self.preprocess_of(dataset)
        parcellate = with_one_high_pass(self.parcellate_of(dataset), preprocess)
        fields = ("smoothing_fwhm_mm", "high_pass_hz", "low_pass_hz", "detrend", "standardize", "mask")
        return {
            "space": options.space,
            "confounds": preprocess.regression(),
            "images": options.image_suffix,
            **{name: getattr(parcellate, name) for name in fields},
        }

    def _differently_prepared(self) -> list[str]:
        """Name the datasets that one model meets though they are prepared in different ways."""
        made = {name: self.prepared(name) for name, its in self.datasets.items() if its.derivatives is not None}
        everywhere = [name for name, its in self.datasets.items() if its.role == "upstream"]
        of_upstream = {
            name: sorted(dataset for dataset in options.datasets or everywhere if dataset in made)
            for name, options in self.pretrain.experiments.items()
        }
        found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for name, options in self.pretrain.experiments.items():
            for dataset in of_upstream[name][1:]:
                first = of_upstream[name][:1]
                fields = _differing(made, dataset, first, options.allow_mismatch)
                if fields:
                    found[dataset, ", ".join(first), fields].append(f"pretrain.experiments.{name}")
        for name, adapted in self.adapt.experiments.items():
            upstream = [dataset for one in adapted.upstream for dataset in of_upstream.get(one, [])]
            for dataset in (its for its in made if self.datasets[its].role == "downstream"):
                if upstream and dataset in (adapted.datasets or made):
                    fields = _differing(made, dataset, upstream, adapted.allow_mismatch)
                    if fields:
                        found[dataset, ", ".join(upstream), fields].append(f"adapt.experiments.{name}")
        return [
            f"datasets.{dataset}: prepared in another way than {others} ({fields}), and the same model meets "
            f"both: {experiments[0]}{f' and {len(experiments) - 1} more' if len(experiments) > 1 else ''} will "
            f"stop; prepare them alike, or set allow_mismatch: [{fields}] there"
            for (dataset, others, fields), experiments in found.items()
        ]

    def _tested_people(self, name: str) -> list[str]:
        """Return the downstream datasets of the same people, where nothing says what is to be done about them."""
        options = self.datasets[name]
        split = options.split or self.split.upstream
        if getattr(split, "shared_people", "error") != "error":
            return []
        others = self.datasets.items()
        return [other for other, its in others if its.role == "downstream" and its.people == options.people]

    @model_validator(mode="after")
    def _names_meet(self) -> Self:
        wrong = []
        for name, options in self.adapt.experiments.items():
            for upstream in options.upstream:
                if upstream in self.pretrain.experiments:
                    is_linear = self.pretrain.experiments[upstream].framework == "components"
                    if is_linear and (options.untrained is not None or not options.is_probe):
                        wrong.append(
                            f"adapt.experiments.{name}.{options.kind}: '{upstream}' is linear pretraining, which "
                            "has no weights to train and no random ones; take `pretrained` with method probe"
                        )
                    continue
                if not _is_folder(upstream):
                    wrong.append(
                        f"adapt.experiments.{name}.{options.kind}: no upstream experiment '{upstream}' "
                        f"(there are: {', '.join(self.pretrain.experiments) or 'none'})"
                    )
        wrong += self._wrong_members()
        wrong += self._wrongly_explained()
        wrong += self._unknown_starts()
        if strangers := sorted(set(self.devices) - {"default", *self.pretrain.experiments}):
            wrong.append(f"devices: no upstream experiment {', '.join(strangers)}")
        for section, role in (("pretrain", "upstream"), ("adapt", "downstream")):
            known = {name for name, options in self.datasets.items() if options.role == role}
            for name, experiment in getattr(self, section).experiments.items():
                unknown = set(experiment.datasets or ()) - known
                if unknown:
                    wrong.append(
                        f"{section}.experiments.{name}.datasets: no {role} dataset {', '.join(sorted(unknown))}"
                    )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

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

    def _wrong_members(self) -> list[str]:
        """Say which members of downstream experiments are none that can be combined."""
        experiments = self.adapt.experiments
        downstream = [name for name, dataset in self.datasets.items() if dataset.role == "downstream"]
        wrong = []
        for name, options in experiments.items():
            field = f"adapt.experiments.{name}.members"
            members = options.members or []
            for member in members:
                if member not in experiments:
                    wrong.append(
                        f"{field}: no downstream experiment '{member}' (there are: {', '.join(experiments)})"
                    )
                    continue
                other = experiments[member]
                if not other.is_probe:
                    wrong.append(f"{field}: '{member}' is no probe of one network")
                if other.window_frames != experiments.get(members[0], other).window_frames:
                    wrong.append(f"{field}: '{member}' has other window_frames than the first member")
                if not set(options.datasets or downstream) <= set(other.datasets or downstream):
                    wrong.append(f"{field}: '{member}' is not adapted to all datasets of '{name}'")
        return wrong

    def _wrongly_explained(self) -> list[str]:
        """Say which experiments and datasets cannot be explained."""
        experiments, wrong = self.adapt.experiments, []
        downstream = [name for name, options in self.datasets.items() if options.role == "downstream"]
        if unknown := sorted(set(self.explain.datasets or ()) - set(downstream)):
            wrong.append(f"explain.datasets: no downstream dataset {', '.join(unknown)}")
        datasets = self.explain.datasets or downstream
        for name in self.explain.experiments or ():
            field = f"explain.experiments: '{name}'"
            if name not in experiments:
                there = ", ".join(experiments) or "none"
                wrong.append(f"{field} is no downstream experiment (there are: {there})")
            elif absent := sorted(set(datasets) - set(experiments[name].datasets or downstream)):
                wrong.append(f"{field} is not adapted to {', '.join(absent)}; name explain.datasets")
        return wrong

    def _unknown_starts(self) -> list[str]:
        """Say what is wrong with the weights that upstream experiments start from."""
        experiments = self.pretrain.experiments
        wrong = []
        for name, options in experiments.items():
            seen, start = [name], options.initialise
            while start in experiments and start not in seen:
                seen.append(start)
                start = experiments[start].initialise
            field = f"pretrain.experiments.{name}.initialise"
            if start in seen:
                wrong.append(f"{field}: {' starts from '.join([*seen, start])}")
            elif len(seen) == 1 and start is not None and not _is_folder(start):
                wrong.append(
                    f"{field}: '{start}' is neither an upstream experiment ({', '.join(experiments)}) nor a folder"
                )
        return wrong


def _is_folder(path: str) -> bool:
    """Tell whether a path, with its variables, is a folder; of a variable that is not set `resolve` tells."""
    path = os.path.expandvars(path)
    return "$" in path or Path(path).is_dir()
