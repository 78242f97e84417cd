"""The configs of the preprint: planned over a tree of headers, whole and from published shards and weights."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from boldly.config import load_config
from boldly.files import write_json, write_tsv
from boldly.layout import Layout
from boldly.simulation.corpus import CorpusDataset
from boldly.simulation.tree import Tree
from boldly.stages import simulate
from tests.hcp_tree import write_tree
from tests.workflow.conftest import CHECKOUT, Snakemake

OF_THE_PREPRINT = {
    *(
        "upstream_frameworks",
        "upstream_data",
        "upstream_sizes",
        "upstream_losses",
        "downstream_accuracy",
    ),  # 1 to 5
    *(
        "upstream_largest",
        "upstream_errors",
        "upstream_warm_start",
        "downstream_training",
        "downstream_replication",
    ),  # S1 to S7
}
BEYOND = {"upstream_skill", "upstream_scaling", "downstream_reliability", "downstream_embedding"}
# Sizes of four frameworks, shares of people, four final networks, three warm starts, and principal components.
TRAININGS = 4 * 9 + 5 + 4 + 3 + 1


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for the data, with what the configs name by variables."""
    for model in ("gpt2", "bert-base-uncased"):
        write_json(tmp_path / "models" / model / "config.json", {"model_type": model})
    for model in ("autoencoding", "csm", "sequence_bert", "network_bert"):
        write_json(tmp_path / "weights" / model / "config.json", {"framework": model})
        (tmp_path / "weights" / model / "model.safetensors").touch()  # a plan reads no weights
    variables = {"PREPRINT": "data", "LANGUAGE_MODELS": "models", "WEIGHTS": "weights", "SHARDS": "shards"}
    for name, folder in variables.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path


def dataset(name: str, role: str = "upstream") -> CorpusDataset:
    # Of number 0 all images are in fMRIPrep's usual space, and none is defective.
    return CorpusDataset(name, role, 0, {f"{k:03d}": 2 for k in (1, 2, 3)}, 1.0)  # type: ignore[arg-type]


def tree(folder: Path) -> Path:
    """Write 34 upstream datasets, MDTB and HCP, three people each: names, headers and tables, no data."""
    simulate._write_atlas(folder)
    writer = Tree(folder)
    for number in range(1, 35):
        writer.write_dataset(dataset(f"upstream{number:02d}"))
    writer.write_dataset(dataset("mdtb", "downstream"))
    for events in folder.glob("mdtb/sub-*/**/*_events.tsv"):
        onsets = [float(40 * place) for place in range(3)]
        content = pd.DataFrame({"onset": onsets, "duration": 30.0, "taskName": ["rest", "stroop", "nBack"]})
        events.unlink()  # a hard link to that of all runs
        write_tsv(events, content)
    write_tree(folder / "HCP", subjects=("100307", "100408", "101107"), tasks=("MOTOR", "WM"))
    return folder / "atlas/atlas-demo_probseg.nii.gz"


def counts(planned: str) -> dict[str, int]:
    """Return the jobs of each rule that a dry run names."""
    _, _, stats = planned.partition("Job stats:")
    return {rule: int(n) for rule, n in re.findall(r"^(\w+)\s+(\d+)\s*$", stats.split("\n\n")[0], flags=re.M)}


def test_the_preprint_has_all_its_figures(places: Path) -> None:
    layout = Layout(load_config(CHECKOUT / "config/preprint.yaml", CHECKOUT))
    assert set(layout.figures()) >= OF_THE_PREPRINT | BEYOND
    assert len(layout.upstream) == 34
    splits = {name: layout.config.datasets[name].split for name in layout.downstream}
    assert {name: split.train for name, split in splits.items() if split} == {  # type: ignore[union-attr]
        "hcp": [1, 3, 6, 12, 24, 48],
        "mdtb": [1, 3, 6, 11],
    }
    # Fig. 5 has these rows.
    assert {"linear", "autoencoding", "csm", "sequence_bert", "network_bert"} <= set(
        layout.config.adapt.experiments
    )


def test_the_small_one_has_the_figures_of_the_whole() -> None:
    small = Layout(load_config(CHECKOUT / "config/preprint-small.yaml", CHECKOUT))
    assert OF_THE_PREPRINT | BEYOND | {"quality", "excluded", "carpet"} <= set(small.figures())


def test_figures_are_drawn_from_the_experiments_that_they_are_about() -> None:
    small = Layout(load_config(CHECKOUT / "config/preprint-small.yaml", CHECKOUT))
    pictured = small.pictured_experiments()
    assert set(pictured["upstream_losses"]) == {"autoencoding", "csm", "sequence_bert", "network_bert"}
    assert len(pictured["upstream_sizes"]) == 4 * 4
    assert pictured["upstream_warm_start"] == ["sequence_bert_warm", "sequence_bert"]
    assert all(name.startswith("people_csm") for name in pictured["upstream_scaling"])
    demo = Layout(load_config(CHECKOUT / "config/config.yaml", CHECKOUT))
    assert not {"upstream_sizes", "upstream_scaling", "upstream_warm_start"} & set(demo.figures())
    assert "downstream_replication" in demo.figures()  # its networks are pretrained with three seeds


def test_without_networks_no_comparison_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAXBY", "/somewhere")
    haxby = Layout(load_config(CHECKOUT / "config/haxby.yaml", CHECKOUT))
    assert "downstream_comparisons" not in haxby.figures()
    assert "downstream_accuracy" in haxby.figures()


@pytest.mark.slow  # 36 jobs of stage index
def test_the_preprint_is_planned_whole(places: Path, snakemake: Snakemake) -> None:
    atlas = tree(places / "data")
    text = (CHECKOUT / "config/preprint.yaml").read_text()
    config = places / "preprint.yaml"
    # Three people each: how many train and test has no part in the plan.
    text, n_splits = re.subn(r"(?m)^( +split: )\{.*\}$", r"\1{train: [1], validation: 1, test: 1}", text)
    assert n_splits == 2
    config.write_text(text.replace("{name: difumo, dimension: 1024}", f"{{path: {atlas}}}"))
    indexed = snakemake(places, "--cores", "2", "index", config=config)
    assert indexed.returncode == 0, indexed.stderr[-4000:]
    planned = snakemake(places, "--cores", "2", "--dry-run", "figures", config=config)
    jobs = counts(planned.stdout + planned.stderr)
    assert jobs["pretrain_experiment"] == TRAININGS
    assert jobs["prepare_batch"] >= 36  # one at least for each dataset
    assert {f"figure_{name}" for name in OF_THE_PREPRINT | BEYOND if name != "downstream_accuracy"} <= set(jobs)


@pytest.mark.slow
def test_from_published_shards_and_weights_only_adaptation_is_planned(places: Path, snakemake: Snakemake) -> None:
    for name in ("hcp", "mdtb"):
        (places / f"shards/ds-{name}").mkdir(parents=True)
    config = CHECKOUT / "config/preprint-released.yaml"
    planned = snakemake(places, "--cores", "2", "--dry-run", "figures", config=config)
    assert planned.returncode == 0, planned.stderr[-4000:]
    jobs = counts(planned.stdout + planned.stderr)
    assert {"adapt_experiment", "evaluate_dataset", "figure_downstream_training"} <= set(jobs)
    assert not any(rule.startswith(("preprocess", "parcellate", "pretrain", "shard")) for rule in jobs)
