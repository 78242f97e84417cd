"""The fault matrix: ``python -m tests.faults.matrix`` gives the stages every fault and writes docs/faults.md."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from boldly.files import atomic_path, read_tsv
from boldly.records import InputError, Problem
from tests.faults import chain
from tests.faults.chain import Chain
from tests.faults.kinds import FAULTS, Fault

DOCUMENT = Path("docs/faults.md")
KEY = "ds-x_sub-01_task-blocks_run-1"
_OUTCOMES = {"error": "stops", "reason": "excludes the run", "warning": "goes on, in the log"}
_HEAD = """\
# What boldly says to bad input

Written by `make faults` from the tests in `tests/faults`: each row is a fault that was put into the input of a
stage, and what the stage said. A stage that stops leaves nothing half-written; after repair it writes the same
bytes as a clean run. The same holds for a full disk and for a job that is killed in the middle of a write.
`index` finds most faults before any long job starts, all of them at once; with `index.on_error: exclude` it
excludes defective runs instead of stopping, as `preprocess` and `parcellate` do; `exclude_runs` of a dataset
leaves out single runs, with a reason of your own.

| fault | met by | what happens | what it says | way out |
|---|---|---|---|---|
"""


def meet(fault: Fault) -> Problem:
    """Put a fault into the current directory, run the stage that meets it, and return what boldly says."""
    fault.change()
    with _warnings() as log:
        try:
            Chain(fault.options).stage(fault.stage)
            problems = _reasons() + [Problem("", "", line, "") for line in log]
        except InputError as error:
            problems = error.problems if fault.outcome == "error" else []
    fitting = [
        problem
        for problem in problems
        if fault.says in problem.message and (fault.where is None or problem.where == str(fault.where))
    ]
    assert fitting, f"{fault.kind}: no '{fault.says}' about {fault.where} in {problems}"
    return fitting[0]


def _reasons() -> list[Problem]:
    """Return why the first run is excluded, from the tables that say so."""
    tables = [path for path in (chain.RUNS, chain.QC) if path.is_file()]
    return [
        Problem(str(path), KEY, str(row["reason"]), "")
        for path in tables
        for row in read_tsv(path).to_dict("records")
        if row["key"] == KEY and row["status"] == "excluded"
    ]


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the warnings that stages log."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("boldly")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def row(fault: Fault, said: Problem) -> str:
    """Return the line of the matrix."""
    message = said.message.removeprefix(f"{KEY}: ")
    name = Path(said.where).name
    # All files of the run begin alike.
    where = f" (`{'*_' + name.rsplit('_', 1)[1] if name.startswith('sub-01_task') else name}`)" if name else ""
    cells = [
        fault.kind,
        f"`{fault.stage}`",
        _OUTCOMES[fault.outcome],
        _short(message) + where,
        _short(said.remedy),
    ]
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |\n"


def _short(text: str, longest: int = 200) -> str:
    return text if len(text) <= longest else f"{text[:longest].rsplit(' ', 1)[0]} ..."


def main() -> int:
    """Write the document of the checkout in the current folder."""
    checkout = Path.cwd()
    rows = []
    with TemporaryDirectory() as folder:
        clean, work = Path(folder, "clean"), Path(folder, "work")
        clean.mkdir()
        os.chdir(clean)
        chain.offer()
        chain.write_clean()
        for fault in FAULTS:
            shutil.copytree(clean, work)
            os.chdir(work)
            chain.offer()
            chain.forget(fault.stage)
            rows.append(row(fault, meet(fault)))
            os.chdir(checkout)
            shutil.rmtree(work)
    with atomic_path(checkout / DOCUMENT) as temporary:
        temporary.write_text(_HEAD + "".join(rows), encoding="utf-8")
    print(f"{DOCUMENT}: {len(rows)} kinds of faults")
    return 0


if __name__ == "__main__":
    sys.exit(main())
