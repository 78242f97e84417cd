"""What a model was pretrained on: the record in its manifest.json, and the check that no test run is among it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boldly.files import is_url, read_json
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.samples.shards import read_fingerprints

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Seen:
    """People and runs that trained a model or chose its weights, or those of the model that it started from.

    Attributes
    ----------
    people : mapping of str to set of str
        Subjects by dataset.
    fingerprints : set of str
        Of all runs that have one (`boldly.samples.sample.run_fingerprint`).
    unknown : set of str
        Datasets of runs without fingerprints: streamed from a web address, or stored without their scaling.
    """

    people: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fingerprints: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()

    def __or__(self, other: Seen) -> Seen:
        return Seen(
            {name: self.people.get(name, frozenset()) | other.people.get(name, frozenset())
             for name in {*self.people, *other.people}},
            self.fingerprints | other.fingerprints,
            self.unknown | other.unknown,
        )  # fmt: skip

    def to_manifest(self) -> dict[str, Any]:
        """Return the fields of manifest.json."""
        return {
            "people": {name: sorted(self.people[name]) for name in sorted(self.people)},
            "fingerprints": sorted(self.fingerprints),
            "without_fingerprints": sorted(self.unknown),
        }


def seen_in(
    dataset: str,
    subjects: Iterable[str],
    paths: Iterable[Path | str],
    fingerprints: Callable[[Path | str], list[str | None]] = read_fingerprints,
) -> Seen:
    """Return what is seen in the shards of some subjects of a dataset; those at a web address are not read.

    Parameters
    ----------
    dataset : str
        Its name.
    subjects : iterable of str
        Labels.
    paths : iterable of Path or str
        Their shards.
    fingerprints : callable, optional
        What tells the fingerprint of the run of each sample of a shard; default: the shard is read.

    Raises
    ------
    InputError
        For damaged shards.
    """
    found = [None if is_url(path) else fingerprints(path) for path in paths]
    told = {fingerprint for shard in found for fingerprint in (shard or [])}
    is_unknown = None in found or None in told
    known = frozenset(fingerprint for fingerprint in told if fingerprint is not None)
    return Seen({dataset: frozenset(subjects)}, known, frozenset([dataset] if is_unknown else []))


def read_seen(folder: Path | str) -> Seen | None:
    """Return what the manifest in a model folder says was seen; None where no manifest says anything.

    Raises
    ------
    InputError
        For a damaged manifest.
    """
    path = Path(folder) / MANIFEST
    try:
        content = read_json(path)
        if "fingerprints" not in content:
            return None
        return Seen(
            {str(name): frozenset(people) for name, people in content["people"].items()},
            frozenset(content["fingerprints"]),
            frozenset(content["without_fingerprints"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"not a manifest of a pretraining: {type(error).__name__} {error}"
        raise InputError(Problem(str(path), "", message, "rerun pretrain for this experiment")) from None


def check_unseen(model_folder: Path, corpus: Corpus, allow: bool) -> tuple[str, ...]:
    """Refuse trials of runs that a model was pretrained on, whatever the runs are called there.

    Two runs count as the same if their scaling removed the same means and standard deviations, bit for bit: the
    same image, prepared in the same way. The same image prepared in another way is not noticed.

    Parameters
    ----------
    model_folder : Path
        Folder of the upstream model, with the manifest.json that pretrain wrote.
    corpus : Corpus
        The test trials alone.
    allow : bool
        Option `evaluate.allow_pretrained_test_runs`: warn instead.

    Returns
    -------
    tuple of str
        Keys of the runs that were seen, sorted.

    Raises
    ------
    InputError
        With a problem for each person, which names the runs.

    Notes
    -----
    What cannot be checked is a warning: a model without a manifest, runs without fingerprints on either side, and
    people of the same label in a pretraining dataset of the same name.
    """
    seen = read_seen(model_folder)
    if seen is None:
        logger.warning(
            "%s: no %s says what it was pretrained on: test runs may be among it", model_folder, MANIFEST
        )
        return ()
    fingerprints = corpus.fingerprints or (None,) * len(corpus)
    owners = {
        run: (dataset, subject)
        for run, dataset, subject, fingerprint in zip(
            corpus.runs, corpus.datasets, corpus.subjects, fingerprints, strict=True
        )
        if fingerprint in seen.fingerprints
    }
    problems = []
    for dataset, subject in sorted(set(owners.values())):
        runs = sorted(run for run, owner in owners.items() if owner == (dataset, subject))
        message = (
            f"the trials of {len(runs)} runs are tested, which the model was pretrained on: {', '.join(runs)}"
        )
        remedy = (
            "leave these people out of the pretraining (split.upstream.shared_people, datasets.<name>.source), "
            "test others, or accept it by name (evaluate.allow_pretrained_test_runs)"
        )
        problems.append(Problem(str(model_folder), f"ds-{dataset}_sub-{subject}", message, remedy))
    if problems and not allow:
        raise InputError(problems)
    for problem in problems:
        logger.warning("%s: %s: %s", problem.where, problem.entity, problem.message)
    _warn(model_folder, seen, corpus, set(owners.values()), None in fingerprints)
    return tuple(sorted(owners))


def _warn(model_folder: Path, seen: Seen, corpus: Corpus, found: set[tuple[str, str]], some_without: bool) -> None:
    """Say what the fingerprints cannot tell."""
    namesakes = {
        (dataset, subject)
        for dataset, subject in zip(corpus.datasets, corpus.subjects, strict=True)
        if subject in seen.people.get(dataset, ())
    } - found
    if namesakes:
        names = ", ".join(f"ds-{dataset}_sub-{subject}" for dataset, subject in sorted(namesakes))
        message = "%s: it was pretrained on a dataset of this name with these labels; are they the same people? %s"
        logger.warning(message, model_folder, names)
    if seen.unknown or some_without:
        what = [f"runs of {', '.join(sorted(seen.unknown))} that it was pretrained on"] if seen.unknown else []
        what += ["test runs"] if some_without else []
        message = "%s: %s have no fingerprints: whether one is the other is not known"
        logger.warning(message, model_folder, " and ".join(what))
