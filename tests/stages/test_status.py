"""What `boldly status` says of a results folder."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from boldly.cli import main
from boldly.files import atomic_path
from boldly.records import InputError
from boldly.stages import status

SNAKEMAKE_LOG = """Provided cores: 2
Job stats:
job                 count
----------------  -------
index_dataset           2
adapt_experiment        5
figure_quality          1
all                     1
total                   9

Finished jobid: 2 (Rule: index_dataset)
1 of 9 steps (11%) done
Finished jobid: 3 (Rule: index_dataset)
2 of 9 steps (22%) done
Finished jobid: 4 (Rule: adapt_experiment)
3 of 9 steps (33%) done
"""


def write(path: Path, text: str, time: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time, time))


def job(folder: Path, name: str, log: str, seconds: float | None = None, later: float = 1.0) -> None:
    """Write the log of a job at time 1000, and its seconds `later`."""
    write(folder / "results/logs" / f"{name}.log", log, 1000)
    if seconds is not None:
        usage = f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t10\n"
        write(folder / "results/usage" / f"{name}.tsv", usage, 1000 + later)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a study that runs: one decoder is trained, one failed, one is being trained."""
    job(tmp_path, "index/one", "12:00 index: 3 runs", 4.0)
    job(tmp_path, "index/two", "12:00 index: 3 runs", 6.0)
    job(tmp_path, "adapt/toy_mean", "12:01 fit 1/1", 60.0)
    job(
        tmp_path,
        "adapt/toy_csm",
        "12:02 adapt\nboldly: 1 problem with the input\n- csm: no model\n    way out: train",
    )
    job(tmp_path, "adapt/toy_bert", "12:03 fit 1/9\n  10%\r  20%")
    write(tmp_path / ".snakemake/log/2026-11-25T120000.000000.snakemake.log", SNAKEMAKE_LOG, 1000)
    write(tmp_path / ".snakemake/locks/0.input.lock", "", 1000)
    return tmp_path


def states(study: Path, *, is_running: bool) -> dict[str, str]:
    return {job.name: job.state for job in status.jobs(study / "results", is_running=is_running)}


def test_jobs_are_done_running_or_failed(study: Path) -> None:
    assert states(study, is_running=True) == {
        "one": "done",
        "two": "done",
        "toy_bert": "running",
        "toy_csm": "failed",
        "toy_mean": "done",
    }
    # Nothing runs: a job that did not end has failed.
    assert states(study, is_running=False)["toy_bert"] == "failed"


def test_a_job_that_is_repeated_is_not_done_yet(study: Path) -> None:
    write(study / "results/logs/adapt/toy_mean.log", "12:10 again", 2000)
    assert states(study, is_running=True)["toy_mean"] == "running"


def test_the_time_left_goes_by_the_jobs_that_are_done(study: Path) -> None:
    last = status.last_run(study / ".snakemake")
    assert last is not None
    assert (last.is_running, last.done, last.total, last.cores) == (True, 3, 9, 2)
    found = status.jobs(study / "results", is_running=True)
    # Four more decoders of 60 s on two cores; of a figure nobody knows.
    assert status.seconds_left(last, found) == (120.0, 1)


def test_the_summary_names_what_failed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(study)]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert ["index", "2", "0", "0", "10", "s"] in rows
    assert ["adapt", "1", "1", "1", "60", "s"] in rows
    assert "running: adapt toy_bert: 20%" in said
    assert "failed: adapt toy_csm" in said
    assert "  - csm: no model" in said
    assert "3 of 9 jobs done; at least 2 min left" in said
    assert "and 1 job of stages of which none is done yet" in said


def test_no_time_is_told_while_most_of_the_work_is_unknown(study: Path) -> None:
    found = status.jobs(study / "results", is_running=True)
    last = status.last_run(study / ".snakemake")
    assert last is not None
    early = dataclasses.replace(last, waiting={"adapt": 1, "figures": 59})
    assert "left" not in status._progress(early, found)
    assert "59 jobs of stages of which none is done yet" in status._progress(early, found)
    late = dataclasses.replace(last, waiting={"adapt": 4})
    assert "about 2 min left" in status._progress(late, found)


def test_a_job_that_was_stopped_is_not_explained_by_ordinary_lines(study: Path) -> None:
    log = study / "results/logs/adapt/toy_csm.log"
    log.write_text("12:00:00 boldly: looks\n12:00:01 boldly: reads\n")
    assert "its log says no reason" in status._message(log)[0]
    log.write_text("Traceback (most recent call last):\nValueError: no\n")
    assert "no reason" not in status._message(log)[0]


def test_a_workflow_that_has_ended_has_no_time_left(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / ".snakemake/locks/0.input.lock").unlink()
    # A dry run later tells nothing.
    write(study / ".snakemake/log/2026-11-25T130000.000000.snakemake.log", "Nothing to be done", 2000)
    assert main(["status", str(study / "results")]) == 0
    said = capsys.readouterr().out
    assert "started 2026-11-25 12:00: 3 of 9 jobs done; it is not running now" in said


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "results" / "some.txt") as temporary:
        temporary.write_text("")
    with pytest.raises(InputError, match="no logs of the workflow"):
        status.run(tmp_path)


def test_jobs_of_experiments_that_were_dropped_are_left_out(study: Path) -> None:
    assert states(study, is_running=False)["toy_csm"] == "failed"
    config = {
        "datasets": {"one": {}, "toy": {}},
        "pretrain": {"experiments": {}},
        "adapt": {"experiments": {"mean": {}, "bert": {"datasets": ["toy"]}}},
        "decode": {},
    }
    record = study / "results/study.json"
    write(record, json.dumps({"config": config}), 2000)
    assert states(study, is_running=False) == {"one": "done", "toy_bert": "failed", "toy_mean": "done"}
    # It failed after the report was written: the config may have it again.
    os.utime(record, (500, 500))
    assert states(study, is_running=False)["toy_csm"] == "failed"


def test_the_report_is_a_job_too(study: Path) -> None:
    write(study / "results/logs/report.log", "boldly: 1 problem with the input", 1000)
    assert states(study, is_running=True)["report"] == "failed"
    write(study / "results/usage/report/report.tsv", "s\th:m:s\n2.0\t0:00:02\n", 1001)
    assert states(study, is_running=True)["report"] == "done"


def test_datasets_that_are_fetched_are_no_atlases() -> None:
    rules = ("fetch_dataset", "fetch_atlas", "figure_quality", "pretrain_share", "report")
    assert [status._stage(rule) for rule in rules] == ["fetch", "atlas", "figures", "corpus", "report"]


def test_a_training_that_was_started_again_in_the_same_log_is_running(study: Path) -> None:
    log = study / "results/logs/pretrain/csm.log"
    failed = (
        "12:00:00 boldly.stages.pretrain: csm\nboldly: 1 problem with the input\n- csm: diverged\n    way out: x\n"
    )
    write(log, failed, 1000)
    assert states(study, is_running=True)["csm"] == "failed"
    write(log, f"{failed}12:10:00 boldly.training.loop: csm: goes on from step 5\n", 1000)
    assert states(study, is_running=True)["csm"] == "running"
    assert states(study, is_running=False)["csm"] == "failed"
