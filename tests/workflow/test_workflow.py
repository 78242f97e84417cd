"""The workflow as a user runs it: dry, whole, again, stage by stage, with wrong input."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.workflow import by_hand
from tests.workflow.conftest import CHECKOUT, TINY, Snakemake, command

CONTROLS = {"control_length", "control_position", "control_motion"}


def test_lint_has_no_complaint() -> None:
    done = subprocess.run([command("snakemake"), "--lint"], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "good condition" in done.stdout + done.stderr


def test_every_shipped_config_loads() -> None:
    from boldly.config import load_config

    for path in sorted((CHECKOUT / "config").glob("*.yaml")):
        if "${" in path.read_text():
            continue  # they name variables; test_variables_in_paths and tests/test_config.py read them
        assert load_config(path, CHECKOUT).datasets, path


def test_variables_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    from boldly.config import load_config
    from boldly.records import InputError

    monkeypatch.setenv("HAXBY", "/somewhere")
    config = load_config(CHECKOUT / "config/haxby.yaml", CHECKOUT)
    assert config.datasets["haxby"].derivatives == "/somewhere/derivatives/fmriprep"
    monkeypatch.delenv("HAXBY")
    with pytest.raises(InputError, match="environment variable that is not set"):
        load_config(CHECKOUT / "config/haxby.yaml", CHECKOUT)


@pytest.fixture(scope="module")
def done(study: Path, snakemake: Snakemake) -> Path:
    """Return the working directory after a whole run."""
    run = snakemake(study, "--cores", "2")
    assert run.returncode == 0, run.stderr[-4000:]
    return study


def test_whole_run_writes_scores_and_figures(done: Path) -> None:
    scores = pd.read_csv(done / "results/evaluate/demomdtb_scores.tsv", sep="\t")
    experiments = {"csm", "csm_untrained", "csm_scratch", "mean_mlp", "components_lda"}
    assert experiments <= set(scores["experiment"])
    # Those that the config does not name are not made.
    assert not {"linear", "tangent"} & set(scores["experiment"])
    accuracy = scores.query("metric == 'accuracy'")["value"]
    assert accuracy.between(0, 1).all()
    choices = pd.read_csv(done / "results/evaluate/demomdtb_choices.tsv", sep="\t")
    # One line per fit, "chosen" included, which one pretrained experiment alone does not make.
    assert set(choices["experiment"]) == set(scores.loc[scores["draw"] != "all", "experiment"]) - CONTROLS
    of_decoding = ("downstream_accuracy", "downstream_curves", "downstream_comparisons", "downstream_confusion")
    summary = pd.read_csv(done / "results/explain/demomdtb/csm/summary.tsv", sep="\t")
    assert {"glm_r", "truth_r", "area"} <= set(summary.columns)
    assert len(list((done / "results/explain/demomdtb/csm/images/patterns").glob("*.nii.gz"))) == 10
    for figure in ("upstream_data", "explain_maps", "quality", "upstream_losses", *of_decoding):
        for suffix in (".png", ".pdf", ".tsv"):
            assert (done / f"results/figures/{figure}{suffix}").stat().st_size > 0


def test_stages_by_hand_get_what_the_workflow_passes(
    done: Path, snakemake: Snakemake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done)
    # Behind the splits everything is known: their datasets are indexed.
    dry = snakemake(done, "--cores", "1", "--dry-run", "--printshellcmds", "-R", "split", "figures")
    passed = by_hand.passed(dry.stdout + dry.stderr)
    # A figure for which the config has no data is not repeated either.
    assert ("figures", "results/figures/upstream_scaling.png") not in passed
    assert {stage for stage, _ in passed} >= {"split", "pretrain", "adapt", "evaluate", "figures"}
    experiments: dict[str, list[str | None]] = {
        "pretrain": ["csm", "components"],
        "adapt": ["csm_scratch", "mean_mlp", "both"],
    }
    for stage in ("split", "pretrain", "adapt", "evaluate", "figures"):
        for experiment in experiments.get(stage, [None]):
            made = by_hand.by_hand(TINY, done, stage, experiment=experiment)
            # Figures of the data alone are not drawn again behind the splits.
            assert made.keys() <= passed.keys() or stage == "figures"
            for job in made.keys() & passed.keys():
                assert by_hand.differences(passed[job], made[job]) == [], job


def test_the_last_file_is_the_page_about_the_study(done: Path) -> None:
    page = (done / "results/report.html").read_text()
    assert "<title>boldly: demomdtb</title>" in page
    assert "data:image/png;base64," in page
    assert "simulated" in (done / "results/report_methods.md").read_text()
    assert "@misc{boldly" in (done / "results/report.bib").read_text()


def test_the_picture_of_the_workflow_shows_its_stages(done: Path, snakemake: Snakemake) -> None:
    graph = snakemake(done, "--rulegraph").stdout
    program = [sys.executable, str(CHECKOUT / "docs/rulegraph.py")]
    drawn = subprocess.run(program, input=graph, capture_output=True, text=True, check=True).stdout
    wanted = {line for label in re.findall(r'label="([^"]+)"', drawn) for line in label.split(r"\n")}
    picture = (CHECKOUT / "workflow/rulegraph.svg").read_text()
    assert set(re.findall(r"<text[^>]*>([^<]+)<", picture)) == wanted, "make rulegraph draws it anew"


def test_second_run_has_nothing_to_do(done: Path, snakemake: Snakemake) -> None:
    again = snakemake(done, "--cores", "2", "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.parametrize("new", ["sub-99", "sub-01/ses-99", "sub-01"], ids=["subject", "session", "run"])
def test_who_or_what_comes_is_indexed(done: Path, snakemake: Snakemake, new: str) -> None:
    folder = done / "study/demo01/derivatives/fmriprep" / new / "func"
    newcomer = folder / f"{new.replace('/', '_')}_task-new_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    folder.mkdir(parents=True, exist_ok=True)
    newcomer.touch()
    try:
        dry = snakemake(done, "--cores", "2", "--dry-run", "index")
    finally:
        newcomer.unlink()
        if not list(folder.iterdir()):
            shutil.rmtree(folder.parent)
    plan = dry.stdout + dry.stderr
    assert plan.count("checkpoint index_dataset:") == 1
    assert "results/index/demo01_runs.tsv" in plan


@pytest.mark.parametrize("pattern", ["*-preproc_bold.json", "*_events.tsv"])
def test_a_file_that_changed_is_noticed_also_where_it_got_older(
    done: Path, snakemake: Snakemake, pattern: str
) -> None:
    path = next((done / "study/demomdtb").rglob(pattern))
    before = path.stat()
    os.utime(path, (1e9, 1e9))
    try:
        dry = snakemake(done, "--cores", "2", "--dry-run", "shard")
        plan = dry.stdout + dry.stderr
        assert plan.count("checkpoint index_dataset:") == 1
        # What comes behind a checkpoint is known once it is done: runs and trials are what they were.
        snakemake(done, "--cores", "2", "index")
        dry = snakemake(done, "--cores", "2", "--dry-run", "shard")
        plan = dry.stdout + dry.stderr
        assert "rule prepare_batch:" not in plan
    finally:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        snakemake(done, "--cores", "2", "index")


def test_an_atlas_that_was_replaced_is_noticed_also_where_it_is_older(done: Path, snakemake: Snakemake) -> None:
    atlas = done / "study/atlas/atlas-demo_probseg.nii.gz"
    before = atlas.stat()
    # As `cp -p` and `rsync -a` leave another file.
    os.utime(atlas, (1e9, 1e9))
    try:
        dry = snakemake(done, "--cores", "2", "--dry-run", "index")
        assert (dry.stdout + dry.stderr).count("checkpoint index_dataset:") == 2
        # What index is about to write anew nobody can plan with.
        snakemake(done, "--cores", "2", "index")
        dry = snakemake(done, "--cores", "2", "--dry-run", "shard")
        assert (dry.stdout + dry.stderr).count("rule prepare_batch:") == 2
    finally:
        os.utime(atlas, ns=(before.st_atime_ns, before.st_mtime_ns))
        snakemake(done, "--cores", "2", "index")


def test_a_new_subject_is_prepared_alone_and_moves_no_other(
    study: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    shutil.copytree(study / "study", tmp_path / "study")
    prepared = tmp_path / "study/demo01/derivatives/fmriprep"
    config = tmp_path / "batches.yaml"
    config.write_text(TINY.read_text() + "batches: {subjects: 2}\n")
    newcomer = shutil.move(prepared / "sub-04", tmp_path / "sub-04")
    assert snakemake(tmp_path, "--cores", "2", "shard", config=config).returncode == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data/upstream").glob("*.tar")}
    assert len(before) == 3
    shutil.move(newcomer, prepared / "sub-04")
    run = snakemake(tmp_path, "--cores", "2", "shard", config=config)
    assert run.returncode == 0, run.stderr[-2000:]
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data/upstream").glob("*.tar")}
    assert set(after) - set(before) == {"ds-demo01_sub-04.tar"}
    assert {name: after[name] for name in before} == before
    # Only the batch that it is in was looked at: its name is a matter of its label.
    plan = run.stdout + run.stderr
    assert plan.count("rule prepare_batch:") == 1


def test_a_subject_that_fails_keeps_no_other_from_being_done_and_files_that_are_gone_are_made_again(
    study: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    shutil.copytree(study / "study", tmp_path / "study")
    assert snakemake(tmp_path, "--cores", "2", "index").returncode == 0
    broken = next((tmp_path / "study/demo01").rglob("sub-02*_bold.nii.gz"))
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    target = "results/prepare/demo01/shard_1of1.json"
    run = snakemake(tmp_path, "--cores", "2", target, "--rerun-triggers", "mtime")
    assert run.returncode != 0
    log = (tmp_path / "results/logs/prepare/demo01/shard_1of1.log").read_text()
    assert "1 of 4 subjects failed: 02" in log
    assert broken.name in log
    tars = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data/upstream").glob("*.tar")}
    assert set(tars) == {f"ds-demo01_sub-{subject}.tar" for subject in ("01", "03", "04")}

    broken.write_bytes(content)
    assert snakemake(tmp_path, "--cores", "2", target).returncode == 0
    log = (tmp_path / "results/logs/prepare/demo01/shard_1of1.log").read_text()
    assert log.count("was done before") == 3

    (tmp_path / "results/parcellate/demo01/sub-03_timeseries.safetensors").unlink()
    run = snakemake(tmp_path, "--cores", "2", target)
    assert "1 files are gone or cut" in run.stdout + run.stderr
    log = (tmp_path / "results/logs/prepare/demo01/shard_1of1.log").read_text()
    assert log.count("was done before") == 3
    assert (tmp_path / "results/parcellate/demo01/sub-03_timeseries.safetensors").exists()

    # The name of a stage repeats it, and what comes behind it, for all subjects.
    assert snakemake(tmp_path, "--cores", "2", target, "-R", "shard").returncode == 0
    log = (tmp_path / "results/logs/prepare/demo01/shard_1of1.log").read_text()
    assert "was done before" not in log
    assert "volumes" not in log  # parcellate says how many it reads
    assert "of 2 runs" in (tmp_path / "results/logs/prepare/demo01/sub-02.log").read_text()


def test_changing_adapt_never_reruns_parcellate(done: Path, snakemake: Snakemake, tmp_path: Path) -> None:
    config = tmp_path / "changed.yaml"
    text = TINY.read_text()
    config.write_text(text.replace("penalties: [3, 1]", "penalties: [3, 2]"))
    assert config.read_text() != text
    dry = snakemake(done, "--cores", "2", "--dry-run", config=config)
    plan = dry.stdout + dry.stderr
    assert "rule adapt_probes" in plan
    for rule in ("prepare_batch", "pretrain_experiment"):
        assert f"rule {rule}" not in plan


def test_a_corrected_name_of_a_parcel_repeats_the_tables_with_names_and_prepares_nothing(
    done: Path, snakemake: Snakemake
) -> None:
    table = done / "study/atlas/atlas-demo_probseg.tsv"
    before, text = table.stat(), table.read_text()
    table.write_text(text.replace(text.split()[-1], "corrected"))
    try:
        dry = snakemake(done, "--cores", "2", "--dry-run")
    finally:
        table.write_text(text)
        os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    plan = dry.stdout + dry.stderr
    assert "rule explain_dataset:" in plan
    for rule in ("prepare_batch", "pretrain_experiment", "adapt_probes"):
        assert f"rule {rule}:" not in plan


def test_an_experiment_on_a_share_packs_nothing_again_and_trains_no_other(
    done: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    config = tmp_path / "shares.yaml"
    half = "half: {framework: csm, layers: 1, width: 16, heads: 2, steps: 20, subjects_fraction: 0.5}"
    new = f"  experiments:\n    {half}\n"
    config.write_text(TINY.read_text().replace("  experiments:\n", new, 1))
    dry = snakemake(done, "--cores", "2", "--dry-run", "pretrain", config=config)
    plan = dry.stdout + dry.stderr
    assert "results/corpus/all/linear_0.5.safetensors" in plan
    assert (plan.count("rule pretrain_share:"), plan.count("rule pretrain_experiment:")) == (1, 1)
    assert "rule pretrain_corpus" not in plan
    # What streams reads its shards by itself.
    config.write_text(config.read_text().replace("subjects_fraction: 0.5", "stream_shards: 1"))
    dry = snakemake(done, "--cores", "2", "--dry-run", "pretrain", config=config)
    plan = dry.stdout + dry.stderr
    assert (plan.count("rule pretrain_share:"), plan.count("rule pretrain_experiment:")) == (0, 1)
    assert "results/corpus" not in plan


def test_jobs_ask_for_more_with_more_gpus_and_nodes(done: Path, snakemake: Snakemake) -> None:
    asked = {}
    for name, gpus, nodes in (("cpu", 0, 1), ("one", 1, 1), ("eight", 8, 1), ("nodes", 8, 4)):
        devices = f"devices={{csm: {{gpus: {gpus}, nodes: {nodes}}}}}"
        target = "results/models/upstream/csm/model.safetensors"
        dry = snakemake(done, "--cores", "64", "--dry-run", "-p", "--force", target, "--config", devices)
        plan = dry.stdout[dry.stdout.index("rule pretrain_experiment") :]
        words = dict(re.findall(r"(\w+)=([^,\n]+)", plan[plan.index("resources:") :]))
        asked[name] = {key: int(words[key]) for key in ("nodes", "gpu", "mem_mb")}
        asked[name]["threads"] = int((re.findall(r"threads: (\d+)", plan) or [1])[0])
        assert f"boldly launch --nodes {nodes} --processes {gpus} pretrain --name csm" in plan
        # What only jobs on several nodes need.
        assert (words.get("mpi"), words.get("tasks")) == (("srun", "4") if nodes > 1 else (None, None))
    assert [asked[name]["gpu"] for name in asked] == [0, 1, 8, 32]
    assert [asked[name]["threads"] for name in asked] == [1, 4, 32, 32]
    memory = [asked[name]["mem_mb"] for name in asked]
    # Memory is that of each node.
    assert memory[0] == memory[1] < memory[2] == memory[3]


def test_any_run_has_a_carpet(done: Path, snakemake: Snakemake) -> None:
    key = pd.read_csv(done / "results/index/demo01_runs.tsv", sep="\t")["key"].iloc[0]
    picture = done / f"results/figures/carpet/demo01/{key}.png"
    assert not picture.exists()
    run = snakemake(done, "--cores", "1", str(picture.relative_to(done)))
    assert run.returncode == 0, run.stderr
    assert picture.stat().st_size > 10_000
    assert set(pd.read_csv(picture.with_suffix(".tsv"), sep="\t")["key"]) == {key}


def test_report_is_written(done: Path, snakemake: Snakemake) -> None:
    run = snakemake(done, "--report", str(done / "report.html"))
    assert run.returncode == 0, run.stderr[-2000:]
    assert (done / "report.html").stat().st_size > 100_000


def test_exports_are_written_for_the_layouts_of_the_config(
    done: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    config = tmp_path / "export.yaml"
    config.write_text(f"{TINY.read_text()}export: {{layouts: [lfb, bids]}}\n")
    lists = [f"results/export/demo01_sub-01_{layout}.json" for layout in ("lfb", "bids")]
    run = snakemake(done, "--cores", "2", *lists, config=config)
    assert run.returncode == 0, run.stderr[-2000:]
    assert len(list((done / "data/lfb/upstream").glob("ds-demo01_sub-01_*.tar"))) == 2
    assert len(list((done / "results/export/demo01/sub-01/func").glob("*_atlas-demo_timeseries.tsv"))) == 2


def test_an_atlas_by_name_is_fetched_here_unless_its_files_are_there(
    study: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    config = tmp_path / "named.yaml"
    atlas = f"atlas: {{name: difumo, dimension: 64, cache: {tmp_path}}}"
    config.write_text("\n".join([atlas, *TINY.read_text().splitlines()[2:]]))
    plan = snakemake(study, "--cores", "1", "--dry-run", "atlas", config=config)
    assert "rule fetch_atlas" in plan.stdout + plan.stderr
    for name in ("difumo-64-2mm.nii.gz", "difumo-64-2mm_labels.tsv", "difumo-64-2mm_atlas.json"):
        (tmp_path / name).touch()
    plan = snakemake(study, "--cores", "1", "--dry-run", "atlas", config=config)
    assert "Nothing to be done" in plan.stdout + plan.stderr


def test_stage_by_hand_writes_the_same_bytes(done: Path, tmp_path: Path) -> None:
    shard = sorted((done / "data/upstream").glob("*.tar"))[0]
    subject = shard.stem.split("_sub-")[1]
    output = tmp_path / "again.tar"
    arguments = {
        "--timeseries": f"results/parcellate/demo01/sub-{subject}_timeseries.safetensors",
        "--runs": "results/index/demo01_runs.tsv",
        "--subject": subject,
        "--role": "upstream",
        "--labels": "results/index/demo01_labels.json",
        "--output": str(output),
    }
    flat = [word for pair in arguments.items() for word in pair]
    subprocess.run([command("boldly"), "shard", *flat], cwd=done, check=True)
    assert output.read_bytes() == shard.read_bytes()


def test_defective_run_stops_before_any_long_job(study: Path, snakemake: Snakemake, tmp_path: Path) -> None:
    shutil.copytree(study / "study", tmp_path / "study")
    tables = sorted((tmp_path / "study/demo01").rglob("*_desc-confounds_timeseries.tsv"))
    tables[0].unlink()
    table = pd.read_csv(tables[1], sep="\t").drop(columns="csf")
    table.to_csv(tables[1], sep="\t", index=False, na_rep="n/a")
    run = snakemake(tmp_path, "--cores", "2", "--keep-going")
    assert run.returncode != 0
    log = (tmp_path / "results/logs/index/demo01.log").read_text()
    assert tables[1].name in log
    assert "'csf'" in log
    assert "2 problems" in log
    assert not (tmp_path / "results/index/demo01_runs.tsv").exists()
    assert not list(tmp_path.glob("results/parcellate/demo01/*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("csm, penalties:", "csm, penaltys:"), "unknown key"),
        (("pretrained: csm", "pretrained: cms"), "'cms' is no upstream experiment"),
        (("tasks/mdtb.yaml", "tasks/mtdb.yaml"), "no such file"),
    ],
)
def test_wrong_config_is_named(
    study: Path, snakemake: Snakemake, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text(TINY.read_text().replace(*change))
    run = snakemake(study, "--cores", "1", "--dry-run", config=config)
    assert run.returncode != 0
    assert message in run.stdout + run.stderr
