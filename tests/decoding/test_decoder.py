"""Packaging decoders of all kinds, and what they say of arrays."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from boldly import Decoder, layout, sharing
from boldly.config import TaskOptions
from boldly.decoding import package
from boldly.decoding.folder import CARD, CONFIG
from boldly.files import read_tsv
from boldly.records import InputError, read_trials, write_trials
from boldly.samples.corpus import load_corpus
from boldly.samples.seen import read_seen
from tests.decoding import studies
from tests.hub import running_hub

# The table of predictions has six digits.
HALF_A_DIGIT = 0.51e-6


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return studies.shard_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def decoder(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    output = tmp_path_factory.mktemp("decoder") / "mine"
    package.run(source=study / "results", output=output)
    return Decoder.from_pretrained(output)


def trials_of(study: Path, subject: str) -> tuple[list[np.ndarray], list[str]]:
    """Return the trials of a person as arrays, and their keys."""
    corpus = load_corpus(sorted((study / "data" / "task").glob(f"*sub-{subject}.tar")))
    return [corpus.signals(number) for number in range(len(corpus))], list(corpus.keys)


@pytest.mark.parametrize("name", studies.KINDS)
def test_a_packaged_decoder_says_what_it_said_in_the_evaluation(study: Path, tmp_path: Path, name: str) -> None:
    experiment = study / layout.DOWNSTREAM_MODEL.format(dataset="task", experiment=name)
    fit = sorted(path for path in experiment.iterdir() if path.name.startswith("n-3"))[0]
    package.run(source=fit, output=tmp_path / "decoder")
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "decoder", moved)
    decoder = Decoder.from_pretrained(moved)

    trials, keys = trials_of(study, "05")
    found = decoder.predict_proba(trials)

    table = read_tsv(study / layout.PREDICTIONS.format(dataset="task"), ("subject", "key"))
    training = decoder.about.training
    rows = table[(table["experiment"] == name) & (table["n"] == 3) & (table["draw"] == training.draw)]
    rows = rows.set_index("key").loc[keys]
    expected = rows[[f"p_{label}" for label in decoder.classes_]].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=HALF_A_DIGIT)
    assert (decoder.predict(trials) == decoder.classes_[rows["predicted"]]).all()


def test_a_saved_and_loaded_decoder_says_exactly_the_same(decoder: Decoder, study: Path, tmp_path: Path) -> None:
    decoder.save_pretrained(tmp_path / "copy")
    trials, _ = trials_of(study, "05")
    np.testing.assert_array_equal(
        Decoder.from_pretrained(tmp_path / "copy").predict_proba(trials), decoder.predict_proba(trials)
    )


def test_the_decoder_is_chosen_by_validation_and_says_so(study: Path, decoder: Decoder) -> None:
    training = decoder.about.training
    assert training.n == 3, "the largest number of units"
    fits = {}
    for name in studies.KINDS:
        manifest = json.loads(
            (study / layout.DOWNSTREAM_MODEL.format(dataset="task", experiment=name) / "adapt.json").read_text()
        )
        losses = [fit.get("validation_loss", np.nan) for fit in manifest["fits"] if fit["n"] == 3]
        fits[name] = np.mean(losses)
    assert training.experiment == min((name for name in fits if not np.isnan(fits[name])), key=fits.__getitem__)
    assert "lowest mean validation loss" in training.picked
    assert "test scores were not looked at" in training.picked


def test_a_decoder_holds_only_the_encoders_that_it_reads_from(study: Path, tmp_path: Path) -> None:
    folder = study / layout.DOWNSTREAM_MODEL.format(dataset="task", experiment="mean_lda")
    package.run(source=folder, output=tmp_path / "lda")
    assert not (tmp_path / "lda" / "encoders").exists()
    names = {path.suffix for path in (tmp_path / "lda").rglob("*") if path.is_file()}
    assert names <= {".json", ".md", ".safetensors", ".tsv"}, "nothing is pickled"


@pytest.mark.parametrize("name", [name for name, options in studies.KINDS.items() if "pretrained" in options])
def test_a_decoder_knows_the_runs_of_its_pretraining(study: Path, tmp_path: Path, name: str) -> None:
    folder = study / layout.DOWNSTREAM_MODEL.format(dataset="task", experiment=name)
    package.run(source=folder, output=tmp_path / "decoder")
    pretraining = read_seen(study / "models" / "csm-1")
    assert pretraining is not None
    assert pretraining.fingerprints
    seen = Decoder.from_pretrained(tmp_path / "decoder").seen
    assert seen >= pretraining.fingerprints
    assert len(seen) > len(pretraining.fingerprints), "the labelled runs are known too"


def test_a_window_is_as_long_as_the_median_trial_whatever_rows_it_was_merged_from(
    study: Path, tmp_path: Path
) -> None:
    root = tmp_path / "study"
    shutil.copytree(study, root)
    path = root / layout.TRIALS.format(dataset="task")
    events = read_trials(path)
    lengths = sorted(event.n_frames * event.t_r for event in events)
    longest = [event for event in events if event.n_frames * event.t_r == lengths[-1]]
    assert len(longest) < len(events) / 2
    write_trials(path, [*events, *(5 * longest)])
    source = root / layout.DOWNSTREAM_MODEL.format(dataset="task", experiment="mean_lda")
    about = package.run(source=source, output=tmp_path / "decoder")
    assert about.window_s == lengths[len(lengths) // 2] < lengths[-1]


def test_the_card_says_what_a_reader_of_a_hub_looks_for(decoder: Decoder) -> None:
    card = (decoder.folder / CARD).read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "boldly"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert {metric["type"] for metric in metrics} == {"accuracy", "balanced_accuracy"}
    for word in ("## Use", "## Input", "## Training", "## Scores", "## Shortcuts", "## Limits", "## Licence"):
        assert word in card
    assert f"**{decoder.about.training.experiment}**" in card
    assert f"_space-{decoder.contract.space}_desc-preproc_bold.nii.gz" in card
    for baseline in ("chance_uniform", "mean_lda", "linear"):
        assert re.search(rf"\| {baseline} \|", card) or decoder.about.training.experiment == baseline


def test_the_front_matter_is_one_that_the_hub_reads(decoder: Decoder) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(decoder.folder / CARD).data
    assert data.library_name == "boldly"
    assert {result.metric_type for result in data.eval_results} == {"accuracy", "balanced_accuracy"}


def test_trials_of_a_three_dimensional_array_are_those_of_a_list(decoder: Decoder) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 10, 16))
    assert decoder.predict_proba(X).shape == (3, 4)
    np.testing.assert_allclose(decoder.predict_proba(X).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(decoder.predict(X), decoder.predict(list(X)))


def test_a_run_as_an_array_gives_a_table_of_sliding_windows(decoder: Decoder) -> None:
    run = np.random.default_rng(0).normal(size=(60, 16))
    table = decoder.decode(run, window_s=20.0, step_s=10.0)
    # 60 frames of 2 s: windows of 10 frames, one each 5 frames.
    assert list(table["onset"]) == [10.0 * number for number in range(11)]
    assert set(table["duration"]) == {20.0}
    columns = [f"p_{name}" for name in decoder.classes_]
    assert list(table.columns) == ["onset", "duration", "state", "probability", *columns]
    np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-5)
    # The third window is the trial of these frames.
    np.testing.assert_allclose(table[columns].to_numpy()[2], decoder.predict_proba([run[10:20]])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("X", "words", "options"),
    [
        (np.zeros((2, 10, 7)), "the decoder takes (frames, 16)", {}),
        (1000 + np.ones((1, 10, 16)), "they are not z-scores", {}),
        (np.ones((1, 10, 16)), "0.72 s, the decoder was trained at 2", {"t_r": 0.72}),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_a_way_out(
    decoder: Decoder, X: np.ndarray, words: str, options: dict[str, float]
) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        decoder.predict(X, **options)


def test_arrays_of_few_parcels_are_refused_as_images_are(decoder: Decoder) -> None:
    X = np.random.default_rng(0).normal(size=(2, 10, 16))
    X[1, :, :4] = np.nan  # 12 of 16 parcels are 75 %, the decoder wants 80 %
    with pytest.raises(InputError, match=r"array 1: 75% of 16 parcels have a signal, the decoder wants 80%"):
        decoder.predict(X)
    own = Decoder.from_pretrained(decoder.folder, allow_mismatch=["coverage"])
    assert len(own.predict(X)) == 2


def with_task(decoder: Decoder, **options: Any) -> Decoder:
    about = decoder.about.model_copy(update={"task": TaskOptions(delay_s=0, **options)})
    return Decoder(decoder.folder, about, decoder.contract)


def test_trials_shorter_than_those_of_the_training_are_refused(decoder: Decoder) -> None:
    X = np.random.default_rng(0).normal(size=(10, 16))
    own = with_task(decoder, minimum_frames=4)
    with pytest.raises(InputError, match="array 1: 3 frames, the decoder takes trials of at least 4"):
        own.predict([X, X[:3]])
    with pytest.raises(InputError, match="array 0: 3 frames, the decoder takes trials of at least 4"):
        own.decode(X[:3])


def test_a_decoder_of_averaged_trials_averages_arrays_too(decoder: Decoder) -> None:
    own = with_task(decoder, average=True)
    X = np.random.default_rng(0).normal(size=(2, 10, 16))
    expected = decoder.predict_proba(X.mean(axis=1, keepdims=True))
    np.testing.assert_array_equal(own.predict_proba(X), expected)
    windows = own.decode(np.concatenate(list(X)), window_s=20.0, step_s=20.0)
    np.testing.assert_allclose(windows["probability"], expected.max(axis=1), atol=1e-7)


def test_tables_and_tensors_are_taken_for_arrays(decoder: Decoder) -> None:
    run = np.random.default_rng(0).normal(size=(60, 16))
    expected = decoder.predict_proba(run)
    np.testing.assert_array_equal(decoder.predict_proba(pd.DataFrame(run)), expected)
    np.testing.assert_array_equal(decoder.predict_proba(torch.from_numpy(run)), expected)


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        ({"window_s": -5.0}, "window_s is -5 s"),
        ({"step_s": 0.0}, "step_s is 0 s"),
        ({"step_s": 100.0}, "step_s 100 is longer than a window of 20 s: frames are skipped"),
    ],
)
def test_windows_that_are_none_or_skip_frames_are_refused(
    decoder: Decoder, windows: dict[str, Any], words: str
) -> None:
    run = np.random.default_rng(0).normal(size=(60, 16))
    with pytest.raises(InputError, match=re.escape(words)):
        decoder.decode(run, **{"window_s": 20.0, **windows})


def test_states_that_are_not_those_of_the_weights_are_refused(decoder: Decoder) -> None:
    about = decoder.about.model_copy(update={"labels": decoder.about.labels[::-1]})
    other = Decoder(decoder.folder, about, decoder.contract)
    with pytest.raises(InputError, match=r"its states are state3, .*, those of its classifier state0"):
        other.predict(np.random.default_rng(0).normal(size=(1, 10, 16)))


def test_what_is_refused_can_be_allowed_by_name(decoder: Decoder) -> None:
    own = Decoder.from_pretrained(decoder.folder, allow_mismatch=["t_r", "standardize"])
    assert len(own.predict(1000 + np.ones((1, 10, 16)), t_r=0.72)) == 1


def test_a_damaged_decoder_is_refused_by_name(decoder: Decoder, tmp_path: Path) -> None:
    shutil.copytree(decoder.folder, tmp_path / "copy")
    weights = next((tmp_path / "copy" / "fit").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (tmp_path / "copy" / "scores.tsv").unlink()
    with pytest.raises(InputError) as error:
        Decoder.from_pretrained(tmp_path / "copy")
    assert {Path(problem.where).name for problem in error.value.problems} == {weights.name, "scores.tsv"}


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("{}")
    with pytest.raises(InputError, match="not the folder of a decoder"):
        Decoder.from_pretrained(tmp_path)


def test_importing_the_package_alone_loads_nothing() -> None:
    program = "import sys, boldly; print([m for m in ('numpy', 'torch', 'pandas', 'nibabel') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_decoder_goes_to_a_hub_and_comes_back(
    study: Path, decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        commit = sharing.push(decoder.folder, "lab/toy-decoder")
        fetched = Decoder.from_pretrained("lab/toy-decoder", revision=commit)
    trials, _ = trials_of(study, "05")
    np.testing.assert_array_equal(fetched.predict_proba(trials), decoder.predict_proba(trials))
    # The card is the decoder's own.
    assert (fetched.folder / "README.md").read_text() == (decoder.folder / "README.md").read_text()
