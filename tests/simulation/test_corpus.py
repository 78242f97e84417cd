"""The corpus of the preprint's size: its numbers and names."""

from __future__ import annotations

from collections import Counter

import pytest

from boldly.simulation import corpus


def runs(datasets: list[corpus.CorpusDataset]) -> list[tuple[str, corpus.CorpusRun]]:
    return [(d.name, run) for d in datasets for subject in d.runs for run in d.runs_of(subject)]


def test_it_has_the_numbers_of_the_preprint() -> None:
    datasets = corpus.plan()
    assert len(datasets) == 34
    assert Counter(d.role for d in datasets) == {"upstream": 32, "downstream": 2}
    assert sum(len(d.runs) for d in datasets) == 1726
    assert len(runs(datasets)) == 11980


def test_no_two_runs_have_the_same_name() -> None:
    found = runs(corpus.plan())
    assert len({(name, corpus.prefix(run)) for name, run in found}) == len(found)


def test_every_kind_of_defect_comes_and_no_subject_is_lost_to_them() -> None:
    found = runs(corpus.plan())
    assert {run.defect for _, run in found} == {
        "",
        "empty image",
        "cut image",
        "dangling image",
        "dangling confounds",
        "other space",
    }
    sound = {(name, run.entities["sub"]) for name, run in found if not run.defect}
    assert len(sound) == 1726


@pytest.mark.parametrize("subjects", [34, 100])
def test_a_smaller_one_has_all_datasets(subjects: int) -> None:
    datasets = corpus.plan(subjects)
    assert sum(len(d.runs) for d in datasets) == subjects
    assert len(datasets) == 34
    assert all(count >= 1 for d in datasets for count in d.runs.values())
