"""Config, run tables and target lists: the only Python of the workflow."""

import functools
import hashlib
import json
import re
from pathlib import Path

from snakemake.exceptions import IncompleteCheckpointException, WorkflowError
from snakemake.logging import logger

# Modules, not names: a Snakefile shares its namespace with Snakemake itself (which has a `parse` of its own).
from boldly import batches, bids, fingerprints, hcp, layout, provenance, records
from boldly import config as settings
from boldly.samples.shards import subject_shards

CHECKOUT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]

try:
    CONFIG_FILES = ", ".join(map(str, workflow.configfiles)) or "config"
    CONFIG = settings.resolve(settings.parse(settings.Config, config, CONFIG_FILES), CHECKOUT, CONFIG_FILES)
except records.InputError as error:
    raise WorkflowError("\n".join(f"- {problem}" for problem in error.problems)) from None

# The report's captions print the config: experiments that are added by themselves, a preset with what it stands for.
for section in ("pretrain", "adapt"):
    config[section] = getattr(CONFIG, section).model_dump(mode="json")
if preset := config.get("preprocess", {}).get("preset"):
    config["preprocess"] = {**CONFIG.preprocess.model_dump(mode="json"), "preset": preset}
for name in config.get("datasets") or {}:
    own = {"preprocess": None, "parcellate": None, **CONFIG.own_options().get(name, {})}
    config["datasets"][name] = {**config["datasets"][name], **own}

REVISIONS = settings.REVISIONS
DECODE_REVISIONS = settings.DECODE_REVISIONS
# Where all files lie, as for `boldly <stage> --config`.
LAYOUT = layout.Layout(CONFIG)
PREPARED, UPSTREAM, DOWNSTREAM = LAYOUT.prepared, LAYOUT.upstream, LAYOUT.downstream
PRETRAIN = CONFIG.pretrain.experiments
# As a pattern: models that stand beside them, of experiments that the config no longer has, are not made by a rule.
UPSTREAM_EXPERIMENTS = "|".join(map(re.escape, PRETRAIN)) or "(?!)"
ADAPT = CONFIG.adapt.experiments
# Fitted in seconds each, to all downstream datasets.
PROBES = LAYOUT.probes
# As a pattern for file names; that of an empty list matches nothing.
OTHER_EXPERIMENTS = "|".join(re.escape(name) for name in ADAPT if name not in PROBES) or "(?!)"
SHORTEST_WINDOW = LAYOUT.shortest_window
EXPLAINED = LAYOUT.explained
FETCHED = [name for name, options in CONFIG.datasets.items() if options.fetch]
# Packed runs that upstream experiments share, and the datasets that they are of.
CORPORA = LAYOUT.corpora


if workflow.is_main_process:
    for warning in settings.advise(CONFIG):
        logger.warning(f"boldly: {warning}")
    if lost := batches.forget_lost({name: CONFIG.datasets[name].role for name in LAYOUT.prepared}):
        logger.warning(f"boldly: {len(lost)} files are gone or cut and are made again, for example {lost[0]}")


wildcard_constraints:
    corpus="|".join(map(re.escape, CORPORA)),
    dataset="|".join(CONFIG.datasets) or "(?!)",
    subject="[A-Za-z0-9]+",
    stage="|".join(batches.STAGES),
    batch="[0-9]+of[0-9]+",
    experiment="[A-Za-z0-9][A-Za-z0-9_.-]*",
    cohort="|".join(CONFIG.decode) or "(?!)",


def options(stage):
    """A section of the config as JSON, for the command line; null for a section that is not needed."""
    section = getattr(CONFIG, stage)
    return section.model_dump_json() if section else "null"


def dataset_section(stage):
    """Params function: a section of the config as JSON, with what a dataset has of its own."""
    return lambda wildcards: getattr(CONFIG, f"{stage}_of")(wildcards.dataset).model_dump_json()


def if_present(path):
    """A file as input if it is there; if not, boldly says so, with the way out."""
    return [path] if Path(path).exists() else []


def atlas_files():
    """A fetched atlas with its table and record, or the image of one's own; none where all shards are ready-made."""
    if CONFIG.atlas is None:
        return []
    return CONFIG.atlas.fetched or if_present(CONFIG.atlas.path)


def index_atlas(wildcards):
    """The atlas that the images of a dataset are compared with; none for ready-made shards."""
    return atlas_files() if wildcards.dataset in PREPARED else []


def fetched(wildcards):
    """What stands for the files of a dataset that is fetched: only with these it is known what index reads."""
    return checkpoints.fetch_dataset.get(**wildcards).output if wildcards.dataset in FETCHED else []


def fetch_options(wildcards):
    """What is fetched of a dataset, as JSON, and where it comes from."""
    used = {
        "role",
        "derivatives",
        "layout",
        "bids",
        "space",
        "image_suffix",
        "fmriprep",
        "subjects",
        "tasks",
        "fetch",
    }
    options = CONFIG.datasets[wildcards.dataset]
    return options.model_dump_json(include=used | {"task"} if options.role == "downstream" else used)


def dataset_options(wildcards):
    return LAYOUT.dataset_options(wildcards.dataset)


def dataset_files(wildcards):
    """Fingerprint of all files that index reads, so that it looks again where one of them comes, goes or changes."""
    return fingerprints.of_dataset(wildcards.dataset, CONFIG.datasets[wildcards.dataset])


def shard_t_r(wildcards):
    """The repetition time that trials are placed at: as an argument, none for that of each run."""
    return [] if CONFIG.shard.t_r_s is None else ["--t-r-s", str(CONFIG.shard.t_r_s)]


def dataset_role(wildcards):
    return CONFIG.datasets[wildcards.dataset].role


def trial_options(wildcards):
    """How events become trials: as arguments, none for upstream datasets."""
    task = LAYOUT.task_options(wildcards.dataset)
    return ["--task", task] if task else []


def revision(stage, files=(), small=()):
    """The revision of a stage; with the state of files of the user's own that a job reads, where it reads any.

    Snakemake itself notices a newer file, not one that was replaced by an older one. Of small ones the content counts.
    """
    states = [fingerprints.of_files(files)] if files else []
    states += [provenance.file_sha256(path) for path in small]
    return [REVISIONS[stage], *states] if states else REVISIONS[stage]


def own_atlas():
    """The image of an atlas that the config gives by its path; fetched ones are known by their checksums."""
    return [] if CONFIG.atlas is None or CONFIG.atlas.fetched else if_present(CONFIG.atlas.path)


def index_revision(wildcards):
    own = own_atlas() if wildcards.dataset in PREPARED else []
    return revision("index", own)


def split_revision(wildcards):
    return revision("split", small=split_participants(wildcards))


def pretrain_revision(wildcards):
    """The revision, with the state of weights from elsewhere, and of settings of DeepSpeed."""
    start = PRETRAIN[wildcards.experiment].initialise
    weights = [] if start in PRETRAIN else initial_model(wildcards)
    return revision("pretrain", weights, deepspeed_settings(wildcards))


def adapt_revision(experiments):
    """The revision, with the state of the networks from elsewhere that experiments start from."""
    models = [model for experiment in experiments for model in upstream_models(experiment)]
    folders = dict.fromkeys(folder for name, _, folder in models if name not in PRETRAIN)
    return revision("adapt", [path for folder in folders for path in model_files(folder)])


def split_arguments(wildcards):
    """Options of the split by their role, shards that were made, the table of participants, splits of the same people."""
    arguments = [f"--{dataset_role(wildcards)}", LAYOUT.split_options(wildcards.dataset).model_dump_json()]
    if wildcards.dataset in PREPARED:
        # Of ready-made ones index has read what they hold.
        arguments += ["--shards", LAYOUT.shard_folder(wildcards.dataset)]
    table = LAYOUT.participants(wildcards.dataset)
    if table is not None:
        arguments += ["--participants", table]
    if source := LAYOUT.source_of_several(wildcards.dataset):
        arguments += ["--source", source]
    splits = splits_of_same_people(wildcards)
    return arguments + (["--same-source", *splits] if splits else [])


def split_participants(wildcards):
    table = LAYOUT.participants(wildcards.dataset)
    return [] if table is None else if_present(table)


def splits_of_same_people(wildcards):
    return LAYOUT.splits_of_same_people(wildcards.dataset)


def growing(amount, measured=None):
    """Resource function: memory (MB) or minutes, doubled, tripled ... for a job that is tried again.

    Memory is more from the start where jobs of a stage took more in this folder (results/usage).
    """
    return lambda wildcards, attempt: attempt * max(amount, _measured_memory(measured))


@functools.cache
def _measured_memory(stage):
    """MB: half as much again as the largest job of a stage took; 0 where none was measured."""
    return int(1.5 * max(batches.memory_of_jobs(stage), default=0)) if stage else 0


def tables(dataset):
    """What index says of the subjects of a dataset, once it is indexed."""
    found = checkpoints.index_dataset.get(dataset=dataset).output
    return batches.read_tables(found.runs, found.trials)


def subjects(dataset):
    """Usable runs of each subject, once the dataset is indexed."""
    return tables(dataset).runs


@functools.lru_cache(maxsize=None)
def _count_batches(dataset, n_subjects, n_runs):
    return batches.count(dataset, n_subjects, n_runs, CONFIG.batches)


def batch_count(dataset):
    """How many jobs prepare the subjects of a dataset: decided once for a run of Snakemake."""
    runs = subjects(dataset)
    return _count_batches(dataset, len(runs), sum(map(len, runs.values())))


@functools.cache
def _forget_forced():
    """Take -R with the name of a stage for all jobs of prepare that do this stage."""
    if not workflow.is_main_process:
        return
    for stage in set(workflow.dag_settings.forcerun) & set(batches.STAGES):
        if workflow.dryrun:
            logger.warning(f"boldly: without --dry-run, {stage} is repeated for all subjects")
            continue
        for dataset in PREPARED:
            batches.forget_stage(dataset, stage)


def batch_files(dataset, stage="shard"):
    """The files that stand for all subjects of a dataset; none for ready-made shards."""
    if dataset not in PREPARED:
        return []
    _forget_forced()
    names = batches.names(subjects(dataset), batch_count(dataset))
    return expand(layout.BATCH, dataset=dataset, stage=stage, batch=names)


def prepared_up_to(stage, dataset):
    """Input function: a dataset of which a stage is done."""
    return lambda wildcards: batch_files(dataset, stage)


def dataset_batches(wildcards):
    return batch_files(wildcards.dataset)


def subject_batch(subject_in):
    """Input function: the file that stands for a subject, whom a function finds in the wildcards."""

    def files(wildcards):
        batch = batches.of_subject(subject_in(wildcards), batch_count(wildcards.dataset))
        return layout.BATCH.format(dataset=wildcards.dataset, stage="shard", batch=batch)

    return files


def batch_inputs(wildcards):
    """Params function: checksums of all that the subjects of a batch are made from, the user's own atlas included.

    Snakemake itself notices a newer file, not one that was replaced by an older one. A fetched atlas is compared with
    its record.
    """
    return [batches.of_batch(tables(wildcards.dataset), wildcards.batch), fingerprints.of_files(own_atlas())]


def batch_minutes(wildcards, attempt):
    """Three times what its runs should take, and half an hour."""
    runs = subjects(wildcards.dataset)
    n_runs = sum(len(runs[subject]) for subject in batches.members(wildcards.batch, runs))
    return attempt * (30 + int(3 * n_runs * _seconds_per_run() / 60))


@functools.cache
def _seconds_per_run():
    return batches.seconds_per_run()


def prepare_options(wildcards):
    """Params function: what the three stages are told of a dataset, as JSON."""
    dataset = wildcards.dataset
    return settings.PrepareOptions(
        preprocess=CONFIG.preprocess_of(dataset),
        parcellate=CONFIG.parcellate_of(dataset),
        shard=CONFIG.shard,
        atlas=CONFIG.atlas,
        task=CONFIG.datasets[dataset].task,
        window_frames=SHORTEST_WINDOW,
        on_error=CONFIG.index.on_error,
    ).model_dump_json()


def shards(dataset):
    """What stands for the shards of a dataset: its batches, or ready-made tars; nothing for a web address."""
    if CONFIG.datasets[dataset].is_remote:
        return []
    if dataset in PREPARED:
        return batch_files(dataset)
    folder = LAYOUT.shard_folder(dataset)
    return [str(path) for subject in subjects(dataset) for path in subject_shards(folder, dataset, subject)]


def shard_bytes(dataset):
    """How large the shards of a dataset are, as far as they are there."""
    folder = LAYOUT.shard_folder(dataset)
    if CONFIG.datasets[dataset].is_remote or not Path(folder).is_dir():
        return 0
    return sum(path.stat().st_size for path in Path(folder).glob(f"ds-{dataset}_sub-*.tar"))


def dataset_labels(wildcards):
    """The labels themselves: their file is new whenever the dataset is indexed, its content seldom."""
    return Path(checkpoints.index_dataset.get(dataset=wildcards.dataset).output.labels).read_text()


def dataset_shards(wildcards):
    return shards(wildcards.dataset)


def dataset_shard_folder(wildcards):
    return LAYOUT.shard_folder(wildcards.dataset)


@functools.cache
def _warn_without_devices():
    if workflow.is_main_process and workflow.non_local_exec and not CONFIG.devices:
        logger.warning(
            "boldly: no devices, so trainings ask for no GPU; --config on the command line replaces the config of a "
            "profile, with its devices and batches"
        )


def devices(wildcards):
    """What an upstream experiment trains on."""
    _warn_without_devices()
    found = CONFIG.devices_of(wildcards.experiment)
    if PRETRAIN[wildcards.experiment].framework == "components":
        # There is nothing to train, but many sites refuse a job without a GPU in the partition of trainings.
        return settings.DeviceOptions(gpus=min(1, found.gpus))
    return found


def on_nodes(value):
    """Resource function: a value that only trainings on several nodes have, given their devices."""
    return lambda wildcards: value(devices(wildcards)) if devices(wildcards).nodes > 1 else None


def training_extra(wildcards):
    """What else Slurm is asked for: a job that may be queued again and goes on in the same log; tasks and GPUs of nodes."""
    found = devices(wildcards)
    of_nodes = f" --ntasks-per-node=1 --gpus-per-node={found.gpus}" if found.nodes > 1 else ""
    return f"--requeue --open-mode=append{of_nodes}"


def training_cpus(wildcards):
    """CPUs of each node: a few for each process, to cut windows and to start kernels."""
    return max(1, 4 * devices(wildcards).gpus)


def training_memory(wildcards, input, attempt):
    """MB of each node: the packed runs once for all processes, or shards that each reads, and a share for each."""
    processes = max(1, devices(wildcards).gpus)
    datasets = LAYOUT.pretrain_datasets(wildcards.experiment)
    megabytes = sum(map(shard_bytes, datasets)) / 1e6
    packed, loose = (megabytes, 0) if LAYOUT.shares_shards(PRETRAIN[wildcards.experiment]) else (0, megabytes)
    return attempt * int(4000 + 4000 * processes + packed + 2 * processes * loose)


def corpus_threads(wildcards):
    """Threads that read shards: one for each hundred subjects; one as long as these are not known, as in a dry run."""
    try:
        return min(8, 1 + sum(len(subjects(dataset)) for dataset in CORPORA[wildcards.corpus]) // 100)
    except IncompleteCheckpointException:
        # Snakemake waits for a checkpoint where input needs it, and stumbles where threads do.
        return 1


def corpus_memory(wildcards, attempt):
    """MB: all runs are packed through memory, and statistics of all pairs of parcels are kept."""
    return attempt * int(4000 + 2 * sum(map(shard_bytes, CORPORA[wildcards.corpus])) / 1e6)


def pretrain_splits(wildcards):
    return expand(layout.SPLIT, dataset=LAYOUT.pretrain_datasets(wildcards.experiment))


def pretrain_corpus(wildcards):
    """The packed runs of an experiment, and the linear fits to its share of the subjects; none if it streams."""
    return LAYOUT.corpus_files(wildcards.experiment)


def pretrain_shards(wildcards):
    """Shards that an experiment reads by itself; none if they are packed."""
    if LAYOUT.shares_shards(PRETRAIN[wildcards.experiment]):
        return []
    return [shard for dataset in LAYOUT.pretrain_datasets(wildcards.experiment) for shard in shards(dataset)]


def data_arguments(datasets):
    """Split and shard folder of each dataset."""
    return [argument for pair in LAYOUT.data(datasets) for argument in ("--data", *pair)]


def pretrain_data(wildcards):
    return data_arguments(LAYOUT.pretrain_datasets(wildcards.experiment))


def corpus_data(wildcards):
    return data_arguments(CORPORA[wildcards.corpus])


def corpus_splits(wildcards):
    return expand(layout.SPLIT, dataset=CORPORA[wildcards.corpus])


def corpus_shards(wildcards):
    return [shard for dataset in CORPORA[wildcards.corpus] for shard in shards(dataset)]


def corpus_argument(wildcards):
    return [
        argument for path in pretrain_corpus(wildcards)[:1] for argument in ("--corpus", str(Path(path).parent))
    ]


def experiment_options(stage):
    """Params function: the options of one experiment as JSON."""
    return lambda wildcards: getattr(CONFIG, stage).experiments[wildcards.experiment].model_dump_json()


def initial_model(wildcards):
    """Weights that an upstream experiment starts from; none for most."""
    return LAYOUT.initial_files(wildcards.experiment)


def deepspeed_settings(wildcards):
    """The settings of DeepSpeed of an upstream experiment; none for most. If they are missing, boldly says so."""
    path = PRETRAIN[wildcards.experiment].deepspeed
    return if_present(path) if path else []


def initial_argument(wildcards):
    name = PRETRAIN[wildcards.experiment].initialise
    return [] if name is None else ["--initial", LAYOUT.model_folder(name)]


def upstream_models(experiment):
    """Name, seed and folder of the upstream models that a downstream experiment starts from; none for most baselines."""
    return LAYOUT.upstream_models(ADAPT[experiment])


def files_of_models(experiments):
    folders = dict.fromkeys(folder for experiment in experiments for *_, folder in upstream_models(experiment))
    return [path for folder in folders for path in model_files(folder)]


def model_files(folder):
    return [f"{folder}/{name}" for name in ("model.safetensors", "config.json")]


def upstream_files(wildcards):
    return files_of_models([wildcards.experiment])


def upstream_arguments(wildcards):
    return [argument for model in upstream_models(wildcards.experiment) for argument in ("--model", *model)]


def probe_files(wildcards):
    return files_of_models(PROBES)


def probe_experiments(wildcards):
    """Options and upstream models of all probes as JSON."""
    return LAYOUT.probe_experiments()


def member_manifests(wildcards):
    """Manifests of the experiments that an ensemble is made of; none for other experiments."""
    folders = LAYOUT.members(wildcards.dataset, ADAPT[wildcards.experiment])
    return [f"{folder}/{layout.ADAPTED}" for folder in folders]


def member_arguments(wildcards):
    folders = LAYOUT.members(wildcards.dataset, ADAPT[wildcards.experiment])
    return ["--members", *folders] if folders else []


def adapted(dataset):
    """Manifests of all downstream experiments of a dataset."""
    return [f"{folder}/{layout.ADAPTED}" for folder in LAYOUT.decoders(dataset)]


def dataset_models(wildcards):
    return adapted(wildcards.dataset)


def dataset_model_folders(wildcards):
    return LAYOUT.decoders(wildcards.dataset)


def dataset_ceilings(wildcards):
    ceilings = CONFIG.datasets[wildcards.dataset].ceilings
    return [ceilings] if ceilings else []


def ceilings_argument(wildcards):
    ceilings = CONFIG.datasets[wildcards.dataset].ceilings
    return ["--ceilings", ceilings] if ceilings else []


def quality_of(datasets):
    """What stands for the quality tables of all subjects: of their motion and of their signals."""
    return [path for dataset in datasets for path in batch_files(dataset)]


def quality_folders(datasets):
    return LAYOUT.quality_folders(datasets)


def quality_tables(wildcards):
    return quality_of(PREPARED)


def upstream_quality_tables(wildcards):
    return quality_of(UPSTREAM)


def subject_of(wildcards):
    """The subject that a run key names."""
    return bids.entities(wildcards.key)["sub"]


def export_files(wildcards):
    """The lists of exported files of all subjects, for the layouts that the config names."""
    kinds = [(kind, dataset) for kind in CONFIG.export.layouts for dataset in PREPARED]
    for kind, dataset in kinds:
        _withdraw_exports(kind, dataset)
    return [
        layout.EXPORTED.format(dataset=dataset, subject=subject, kind=kind)
        for kind, dataset in kinds
        for subject in subjects(dataset)
    ]


def _withdraw_exports(kind, dataset):
    """Remove what was exported of people whom index has left out since: no job is theirs any more."""
    there = subjects(dataset)
    if not workflow.is_main_process or workflow.dryrun:
        return
    if gone := batches.withdraw_exports(dataset, kind, there):
        logger.warning(f"boldly: {dataset}: {', '.join(gone)} left out, and no longer exported ({kind})")


def explained():
    """The tables of all experiments that are explained."""
    return [f"{folder}/{table}.tsv" for folder in LAYOUT.explanations for table in layout.EXPLANATION_TABLES]


def explained_folders_to_write():
    """Images, pictures and pages of all experiments, as patterns of the dataset."""
    pattern = f"{layout.EXPLANATION}/{{kind}}"
    return expand(pattern, allow_missing=True, experiment=EXPLAINED, kind=layout.EXPLANATION_FOLDERS)


def explained_folders(wildcards):
    return LAYOUT.explained_models(wildcards.dataset)


def explained_models(wildcards):
    return [f"{folder}/{layout.ADAPTED}" for folder in explained_folders(wildcards)]


def explain_atlas(wildcards):
    """The atlas of a dataset that is made from images, with the names of its parcels, which tables repeat."""
    return [*atlas_files(), *LAYOUT.atlas_names()] if wildcards.dataset in PREPARED else []


def dataset_truth(wildcards):
    truth = CONFIG.datasets[wildcards.dataset].truth
    return [truth] if truth else []


def explain_trials(wildcards):
    """The table of events that the general linear model is made from, those that are no trials included."""
    is_compared = wildcards.dataset in PREPARED and CONFIG.explain.glm
    return [layout.TRIALS.format(dataset=wildcards.dataset)] if is_compared else []


def explain_events(wildcards):
    """Params function: checksum of this table, which is new whenever the dataset is indexed, its content seldom."""
    return [provenance.file_sha256(path) for path in explain_trials(wildcards) if Path(path).exists()]


def explain_arguments(wildcards):
    """What maps are drawn on and compared with, as arguments; time series and trials are those of the shards."""
    dataset, truth = wildcards.dataset, dataset_truth(wildcards)
    arguments = ["--truth", *truth] if truth else []
    if dataset not in PREPARED:
        return arguments
    arguments += ["--atlas", options("atlas")]
    if trials := explain_trials(wildcards):
        series = str(Path(layout.TIMESERIES.format(dataset=dataset, subject="")).parent)
        arguments += ["--trials", *trials, "--series", series]
    return arguments


def figure_files():
    """The figures that the config has data for, each with its PDF and its table: one that is gone is made again."""
    pictures = map(Path, expand(layout.FIGURE, figure=LAYOUT.figures()))
    return [str(path.with_suffix(suffix)) for path in pictures for suffix in (".png", ".pdf", ".tsv")]


def report_tables():
    """What the report says beside its figures, for the parts that the config has."""
    tables = expand(layout.RUNS, dataset=CONFIG.datasets)
    tables += expand(layout.SCORES, dataset=LAYOUT.scored) + expand(layout.COMPARISONS, dataset=LAYOUT.scored)
    pictures = [f"{folder}/{kind}" for folder in LAYOUT.explanations for kind in ("pictures", "views")]
    return tables + explained() + pictures


def decoder_config(wildcards):
    """What a decoder is; it holds the checksums of all that it consists of."""
    return f"{CONFIG.decode[wildcards.cohort].model}/config.json"


def decode_options(wildcards):
    return CONFIG.decode[wildcards.cohort].model_dump_json(exclude_unset=True)


def decode_files(wildcards):
    """Fingerprint of a person's files, so that they are decoded again where one of them comes, goes or changes.

    With that of the decoder, which may be replaced by an older one.
    """
    options = CONFIG.decode[wildcards.cohort]
    space = options.space or json.loads(Path(options.model, "contract.json").read_text())["space"]
    files = fingerprints.of_subject(
        wildcards.subject,
        derivatives=options.derivatives,
        fmriprep=options.fmriprep,
        raw=options.events,
        space=space,
        layout=decode_layout(wildcards),
    )
    return [files, provenance.file_sha256(decoder_config(wildcards))]


def decode_layout(wildcards):
    """How the derivatives of a cohort are laid out: as those of the decoder's training, if nothing else is said."""
    about = Path(decoder_config(wildcards))
    # Without a decoder Snakemake says that its config.json is missing.
    known = json.loads(about.read_text())["layout"] if about.exists() else "fmriprep"
    return CONFIG.decode[wildcards.cohort].layout or known


def decode_parts(wildcards):
    """Marks of the people of a cohort who are decoded."""
    options = CONFIG.decode[wildcards.cohort]
    is_hcp = decode_layout(wildcards) == "hcp"
    folders = (hcp if is_hcp else bids).subject_folders(Path(options.derivatives))
    people = options.participants or [folder.name for folder in folders]
    labels = [hcp.subject_label(name) if is_hcp else name.removeprefix("sub-") for name in people]
    return [f"results/decode/parts/{wildcards.cohort}/sub-{label}.done" for label in labels]
