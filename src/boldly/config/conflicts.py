"""What sections of a config demand of each other, and where they do not meet: one text for each conflict."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from boldly.config.datasets import SURFACES
from boldly.config.sections import similar

if TYPE_CHECKING:
    from boldly.config.study import Config

# Spaces of fMRIPrep that are those of each person, and no template.
NATIVE_SPACES = ("T1w", "T2w", "anat", "bold", "boldref", "func", "individual", "orig", "scanner")


def image_conflicts(config: Config) -> list[str]:
    """Say where images, atlas and filters of datasets do not go together."""
    return [*aroma_conflicts(config), *_surface_conflicts(config), *_native_conflicts(config)]


def aroma_conflicts(config: Config) -> list[str]:
    """Say what does not go together with the images that fMRIPrep smoothed and cleaned with ICA-AROMA."""
    wrong = []
    for name, options in config.datasets.items():
        if options.derivatives is None or not config.preprocess_of(name).takes_aroma_images:
            continue
        if options.layout == "hcp":
            remedy = "drop ica_aroma from preprocess.strategy"
            wrong.append(f"datasets.{name}: layout hcp has no ICA-AROMA images; {remedy}")
        if config.parcellate_of(name).smoothing_fwhm_mm is not None:
            reason = "with preprocess.ica_aroma full the images are smoothed already"
            wrong.append(f"parcellate.smoothing_fwhm_mm: {reason}; set it to null (for {name})")
    return wrong


def _surface_conflicts(config: Config) -> list[str]:
    """Say where images on surfaces (CIFTI) meet an atlas of voxels, or the other way round, or a kernel."""
    wrong = []
    for name, options in config.datasets.items():
        if options.derivatives is None or config.atlas is None:
            continue
        if options.is_cifti and not config.atlas.is_parcellation:
            wrong.append(
                f"datasets.{name}: its images are on surfaces (space {options.space}), the atlas "
                f"{config.atlas.path or config.atlas.name} is a volume; give a parcellation of surfaces as "
                "atlas.path (*.dlabel.nii), or take the images of a volume space"
            )
        elif config.atlas.is_parcellation and not options.is_cifti:
            wrong.append(
                f"datasets.{name}: the atlas {config.atlas.path} is a parcellation of surfaces, the images are "
                f"volumes in {options.space}; set space to {SURFACES} (fMRIPrep --cifti-output), or give an "
                "atlas of voxels"
            )
        elif options.is_cifti and config.parcellate_of(name).smoothing_fwhm_mm is not None:
            wrong.append(
                f"parcellate.smoothing_fwhm_mm: images on surfaces ({name}) are not smoothed here; set it to "
                "null, and smooth before where it is needed (wb_command -cifti-smoothing)"
            )
    return wrong


def _native_conflicts(config: Config) -> list[str]:
    """Say where images in the space of each person's own brain meet an atlas that is in a template."""
    template = config.atlas.template if config.atlas is not None else None
    if template is None or template in NATIVE_SPACES:
        return []
    return [
        f"datasets.{name}.space: images in {options.space} lie in the space of each person's own brain, the "
        f"atlas is in the template {template}: its parcels would fall anywhere; take the images in that "
        f"template (space: {template}, fMRIPrep --output-spaces {template}), or, with one person, an atlas in "
        f"{options.space} (atlas.space: {options.space})"
        for name, options in config.datasets.items()
        if options.derivatives is not None and options.space in NATIVE_SPACES
    ]


def name_conflicts(config: Config) -> list[str]:
    """Say which experiments, members, datasets and devices are named by one section and unknown to another."""
    return [
        *_unknown_models(config),
        *_wrong_members(config),
        *_reserved_names(config),
        *_wrongly_explained(config),
        *_unknown_starts(config),
        *_unknown_devices(config),
        *_unknown_datasets(config),
    ]


def _unknown_models(config: Config) -> list[str]:
    """Say which upstream models downstream experiments name that do not exist, or have no weights to train."""
    upstream, wrong = config.pretrain.experiments, []
    unknown = set()
    for name, options in config.adapt.experiments.items():
        field = f"adapt.experiments.{name}.{options.kind}"
        for model in options.upstream:
            # Said once, of the experiment that the user wrote: those that are added to it name the same one.
            if model not in upstream and model not in unknown and not _is_folder(model):
                unknown.add(model)
                wrong.append(f"{field}: {_no_model(model, upstream)}")
            is_linear = model in upstream and upstream[model].framework == "components"
            if is_linear and (options.untrained is not None or not options.is_probe):
                wrong.append(
                    f"{field}: '{model}' is linear pretraining, which "
                    "has no weights to train and no random ones; take `pretrained` with method probe"
                )
    return wrong


def _wrong_members(config: Config) -> list[str]:
    """Say which members of downstream experiments are none that can be combined."""
    experiments = config.adapt.experiments
    downstream = [name for name, dataset in config.datasets.items() if dataset.role == "downstream"]
    wrong = []
    for name, options in experiments.items():
        field = f"adapt.experiments.{name}.members"
        members = options.members or []
        for member in members:
            if member not in experiments:
                wrong.append(f"{field}: no downstream experiment '{member}' (there are: {', '.join(experiments)})")
                continue
            other = experiments[member]
            if not other.is_probe:
                wrong.append(f"{field}: '{member}' is no probe of one network")
            if other.window_frames != experiments.get(members[0], other).window_frames:
                wrong.append(f"{field}: '{member}' has other window_frames than the first member")
            if not set(options.datasets or downstream) <= set(other.datasets or downstream):
                wrong.append(f"{field}: '{member}' is not adapted to all datasets of '{name}'")
    return wrong


def _reserved_names(config: Config) -> list[str]:
    """Say which downstream experiments have names that tables of scores give to what is no decoder."""
    return [
        f"adapt.experiments.{name}: scores of chance, controls and ceilings have names like this; give it another"
        for name in config.adapt.experiments
        if name == "chance" or name.startswith(("chance_", "control_", "ceiling_"))
    ]


def _wrongly_explained(config: Config) -> list[str]:
    """Say which experiments and datasets cannot be explained."""
    experiments, wrong = config.adapt.experiments, []
    downstream = [name for name, options in config.datasets.items() if options.role == "downstream"]
    if unknown := sorted(set(config.explain.datasets or ()) - set(downstream)):
        wrong.append(f"explain.datasets: no downstream dataset {', '.join(unknown)}")
    datasets = config.explain.datasets or downstream
    for name in config.explain.experiments or ():
        field = f"explain.experiments: '{name}'"
        if name not in experiments:
            there = ", ".join(experiments) or "none"
            wrong.append(f"{field} is no downstream experiment (there are: {there})")
        elif absent := sorted(set(datasets) - set(experiments[name].datasets or downstream)):
            wrong.append(f"{field} is not adapted to {', '.join(absent)}; name explain.datasets")
    return wrong


def _unknown_starts(config: Config) -> list[str]:
    """Say what is wrong with the weights that upstream experiments start from."""
    experiments = config.pretrain.experiments
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
            wrong.append(f"{field}: {_no_model(start, experiments)}")
    return wrong


def _unknown_devices(config: Config) -> list[str]:
    strangers = sorted(set(config.devices) - {"default", *config.pretrain.experiments})
    return [f"devices: no upstream experiment {', '.join(strangers)}"] if strangers else []


def _unknown_datasets(config: Config) -> list[str]:
    """Say which datasets experiments name that are none, or have another role."""
    wrong = []
    for section, role in (("pretrain", "upstream"), ("adapt", "downstream")):
        known = {name for name, options in config.datasets.items() if options.role == role}
        for name, experiment in getattr(config, section).experiments.items():
            unknown = set(experiment.datasets or ()) - known
            if unknown:
                field = f"{section}.experiments.{name}.datasets"
                wrong.append(f"{field}: no {role} dataset {', '.join(sorted(unknown))}")
    return wrong


def _no_model(name: str, experiments: Collection[str]) -> str:
    """Say that a name is neither an upstream experiment nor the folder of a model."""
    path = os.path.expandvars(name)
    folder = f"no folder '{path}'" if "/" in path else f"'{name}' is no upstream experiment and no folder"
    near = similar(name, list(experiments), cutoff=0.6)
    meant = f"; is '{near}' meant?" if near else ""
    return f"{folder} (upstream experiments: {', '.join(experiments) or 'none'}{meant})"


def _is_folder(path: str) -> bool:
    """Tell whether a path, with its variables, is a folder; of a variable that is not set `resolve` tells."""
    path = os.path.expandvars(path)
    return "$" in path or Path(path).is_dir()
