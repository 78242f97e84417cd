"""Tool inspect: what a shard, a time series file, a model folder or a table holds, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from boldly.records import InputError, Problem
from boldly.samples.shards import Sample, read_shard
from boldly.samples.timeseries import read_timeseries
from boldly.stages.inspect.models import describe_contract, describe_folder, is_model
from boldly.stages.inspect.tables import describe_table
from boldly.stages.inspect.text import KINDS, Rows, block, each_once, seconds, size, span
from boldly.words import counted, in_bytes

# So many files of one kind in a folder are described one by one.
_FEW_FILES = 3


def run(paths: list[Path], *, every: bool = False) -> str:
    """Describe files and model folders: as `describe` does, where nothing is wrong.

    Parameters
    ----------
    paths : list of Path
        See `describe`.
    every : bool, default=False
        See `describe`.

    Raises
    ------
    InputError
        With everything that cannot be described.
    """
    text, problems = describe(paths, every=every)
    if problems:
        raise InputError(problems)
    return text


def describe(paths: list[Path], *, every: bool = False) -> tuple[str, list[Problem]]:
    """Describe files and model folders.

    Parameters
    ----------
    paths : list of Path
        Shards, time series files, folders of models, decoders or downstream experiments, tables of runs, scores,
        comparisons or choices.
    every : bool, default=False
        Describe each of many shards or time series; else those of a folder are summarised where they are more than
        three.

    Returns
    -------
    text : str
        One block of aligned lines for each, in the order given.
    problems : list of Problem
        Of everything that is none of these, is not there, or is damaged: it does not hide what is sound.
    """
    blocks: list[str] = []
    problems: list[Problem] = []
    for group in _groups(paths, every):
        try:
            if len(group) == 1:
                blocks.append(block(str(group[0]), _describe(group[0])))
            else:
                blocks.append(block(f"{group[0].parent}: {len(group)} files, {group[0].name} ...", _many(group)))
        except InputError as error:
            problems += error.problems
    return "\n\n".join(blocks), problems


def _groups(paths: list[Path], every: bool) -> list[list[Path]]:
    """Return the files that are described together: the shards, or the time series, of a folder."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for number, path in enumerate(paths):
        together = path.suffix in (".tar", ".safetensors") and path.is_file() and not every
        together = together and not is_model(path.parent)
        groups.setdefault((path.parent, path.suffix if together else str(number)), []).append(path)
    return [
        part
        for group in groups.values()
        for part in ([group] if len(group) > _FEW_FILES else [[path] for path in group])
    ]


def _many(paths: list[Path]) -> Rows:
    """Describe files of one kind together: their number, what differs between them, and what they share.

    Rows of the same text in all files stand once; of others what they have in common, or all that there is.
    """
    described: list[dict[str, str]] = []
    problems: list[Problem] = []
    for path in tqdm(paths, desc="read", unit="file", disable=None, leave=False):
        try:
            described.append(_described_values(path))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    rows: Rows = [
        ("files", f"{len(paths)}, {in_bytes(sum(path.stat().st_size for path in paths))} in all, checked")
    ]
    names = list(dict.fromkeys(name for rows_of in described for name in rows_of))
    for name in names:
        texts = [rows_of[name] for rows_of in described if name in rows_of]
        different = list(dict.fromkeys(texts))
        if name in ("shard", "time series"):
            rows.append((name, f"{_first_number(texts)} each"))
        elif len(different) == 1 and name not in ("dataset", "frames"):
            rows.append((name, different[0]))
        elif name == "frames":
            rows.append((name, f"{sum(map(_last_number, texts)):,} in all, {_spans(texts)} in a file"))
        elif name == "dataset":
            parts = [part for text in different for part in text.split(", ")]
            people = {text for text in different if ", sub-" in text}
            names_of = [part for part in parts if not part.startswith("sub-")]
            rows.append((name, f"{each_once(names_of)}; {counted(len(people), 'subject')}"))
        elif name not in ("first key", "runs"):
            shared = [part for part in different[0].split(", ") if all(part in text for text in different)]
            parts = list(dict.fromkeys(part for text in different for part in text.split(", ")))
            rows.append((name, each_once(shared or parts)))
    return rows


def _described_values(path: Path) -> dict[str, str]:
    """Return the rows of a file by name; a name that has several is that of the first."""
    rows: dict[str, str] = {}
    for name, text in _describe(path):
        rows.setdefault(name, text)
    return rows


def _first_number(texts: list[str]) -> str:
    """Return what the texts say first, as '1 to 3 runs'."""
    words = [text.split(" ")[1].rstrip(",").rstrip("s") for text in texts]
    counts = [int(text.split(" ")[0].replace(",", "")) for text in texts if text[0].isdigit()]
    return f"{span(counts)} {words[0]}s"


def _last_number(text: str) -> int:
    return int(text.split(" each, ")[1].split(" ")[0].replace(",", "")) if " each, " in text else 0


def _spans(texts: list[str]) -> str:
    return span([_last_number(text) for text in texts])


def _describe(path: Path) -> Rows:
    if not path.exists():
        raise InputError(Problem(str(path), "", "no such file or folder", "correct the path"))
    if path.is_dir():
        return describe_folder(path)
    if path.suffix == ".tar":
        return _shard(path)
    if path.suffix == ".safetensors":
        # Weights have the suffix of time series; they are described together with their config.
        return describe_folder(path.parent) if is_model(path.parent) else _timeseries(path)
    if path.suffix == ".tsv":
        return describe_table(path)
    raise InputError(Problem(str(path), "", "nothing that can be described", f"give {KINDS}"))


def _shard(path: Path) -> Rows:
    samples = list(read_shard(path))
    if not samples:
        return [("shard", f"no samples, {size(path)}")]
    first = samples[0]
    runs = sorted({str(sample.meta["run_key"]) for sample in samples})
    frames = [len(sample.bold) for sample in samples]
    labels = Counter(str(sample.meta["label_name"]) for sample in samples if "label" in sample.meta)
    kind = "trials" if labels else "runs"
    rows = [
        ("shard", f"{len(samples)} {kind} of {counted(len(runs), 'run')}, {size(path)}, checked"),
        ("dataset", each_once(f"{s.meta['dataset']}, sub-{s.meta['subject']}" for s in samples)),
        ("first key", first.key),
        ("frames", f"{span(frames)} each, {sum(frames):,} in all"),
        ("t_r", seconds(sample.meta["t_r"] for sample in samples)),
        ("signals", f"{first.bold.shape[1]:,} parcels, {first.bold.dtype}, {_range(samples)}"),
        ("marked", _marked([sample.meta for sample in samples])),
    ]
    if labels:
        rows.append(("states", each_once(f"{name} ({count})" for name, count in sorted(labels.items()))))
    return rows + describe_contract(first.contract)


def _timeseries(path: Path) -> Rows:
    series, contract = read_timeseries(path)
    if not series:
        return [("time series", f"no runs, {size(path)}"), *describe_contract(contract)]
    frames = [len(item.data) for item in series]
    rows = [
        ("time series", f"{counted(len(series), 'run')}, {size(path)}"),
        ("runs", each_once(item.key for item in series)),
        ("frames", f"{span(frames)} each, {sum(frames):,} in all"),
        ("t_r", seconds(item.meta["t_r"] for item in series if "t_r" in item.meta)),
        ("signals", f"{series[0].data.shape[1]:,} parcels, {series[0].data.dtype}"),
        ("coverage", f"{min(float(item.coverage.min()) for item in series):.2f} in the worst parcel"),
        ("marked", _marked([item.meta for item in series])),
    ]
    return rows + describe_contract(contract)


def _marked(metas: Sequence[dict[str, Any]]) -> str:
    """Name the parcels that are marked in some sample; by their number from 0 where shards have no names."""
    names: dict[int, str] = {}
    for meta in metas:
        numbers = meta.get("marked", [])
        names |= dict(zip(numbers, meta.get("marked_names") or map(str, numbers), strict=True))
    numbers = sorted(names)
    if not numbers:
        return "no parcel"
    return f"{counted(len(numbers), 'parcel')} in some sample: {each_once(names[number] for number in numbers)}"


def _range(samples: Sequence[Sample]) -> str:
    smallest = min(float(sample.bold.min()) for sample in samples)
    largest = max(float(sample.bold.max()) for sample in samples)
    return f"from {smallest:.2f} to {largest:.2f}"
