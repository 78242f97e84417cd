"""Stage adapt: probes of frozen networks, of components, and of the signals."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from boldly.cli import main
from boldly.config import PROBE_BASELINES, AdaptOptions, Baseline, PretrainOptions
from boldly.decoders.apply import predict_fits
from boldly.decoders.probe import ARRAYS, CONFIG, Probe
from boldly.decoders.selection import LEFT_OUT
from boldly.files import read_json, write_json
from boldly.models.build import CONTRACT, load_config, load_contract
from boldly.records import InputError
from boldly.samples.corpus import load_corpus
from boldly.samples.shards import read_shard, write_shard
from boldly.stages import adapt, pretrain
from boldly.stages.adapt import probes
from tests.training import synthetic

Study = tuple[Path, Path]
Models = dict[str, adapt.UpstreamModel]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return synthetic.downstream_study(tmp_path_factory.mktemp("downstream"), sizes=(1, 3))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    experiments = [("csm", 1234), ("csm", 7), ("network_bert", 1234), ("components", 1234)]
    folders = synthetic.pretrained_models(tmp_path_factory.mktemp("model"), experiments)
    return {
        folder.name: adapt.UpstreamModel(framework, seed, folder)
        for (framework, seed), folder in zip(experiments, folders, strict=True)
    }


def run(study: Study, output: Path, *models: adapt.UpstreamModel, **options: Any) -> list[dict[str, Any]]:
    """Adapt and return what the manifest says of the fits."""
    split, shards = study
    chosen = AdaptOptions.model_validate({"window_frames": 20, **options})
    adapt.run(
        name="toy", options=chosen, dataset="task", split=split, shards=shards, models=list(models), output=output
    )
    fits: list[dict[str, Any]] = read_json(output / adapt.MANIFEST)["fits"]
    return fits


def encoders(output: Path, fit: dict[str, Any]) -> list[str]:
    return [member.encoder for member in Probe.load(output / fit["folder"]).members]


def accuracy(study: Study, output: Path, fits: list[dict[str, Any]], n: int) -> float:
    """Return the accuracy on the test subject of the fits with n labelled units."""
    corpus = load_corpus([study[1] / "ds-task_sub-05.tar"])
    own = [fit["folder"] for fit in fits if fit["n"] == n]
    return float(np.mean([p.argmax(axis=1) == corpus.labels for _, p in predict_fits(output, own, corpus)]))


def test_a_frozen_network_decodes(study: Study, models: Models, tmp_path: Path) -> None:
    fits = run(study, tmp_path, models["csm-1234"], pretrained="csm")
    assert [(fit["n"], fit["draw"], fit["seed"]) for fit in fits] == [(n, d, 1234) for n in (2, 4) for d in (0, 1)]
    manifest = read_json(tmp_path / adapt.MANIFEST)
    assert (manifest["kind"], manifest["start"]) == ("pretrained", "csm")
    assert [model["seed"] for model in manifest["models"]] == [1234]
    folder = tmp_path / fits[0]["folder"]
    assert load_contract(folder) == synthetic.contract(16)
    assert {path.name for path in folder.iterdir()} == {ARRAYS, CONFIG, CONTRACT, LEFT_OUT, "fit.json"}
    assert 0 <= fits[0]["validation_accuracy"] <= 1
    assert fits[0]["validation_loss"] > 0
    assert "csm_seed-1234: " in fits[0]["choice"]
    # Four states that differ in their mean pattern; chance is 0.25.
    assert accuracy(study, tmp_path, fits, 4) > 0.5


@pytest.fixture(scope="module")
def adapted(study: Study, models: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Experiments that can be members of an ensemble; the first has two seeds."""
    folder = tmp_path_factory.mktemp("adapted")
    run(study, folder / "csm", models["csm-1234"], models["csm-7"], pretrained="csm")
    run(study, folder / "network_bert", models["network_bert-1234"], pretrained="network_bert")
    run(study, folder / "connectivity", baseline="connectivity")
    return {path.name: path for path in folder.iterdir()}


def ensemble(study: Study, output: Path, *members: Path, **options: Any) -> list[dict[str, Any]]:
    """Combine experiments and return what the manifest says of the fits."""
    names = [path.name for path in members]
    chosen = AdaptOptions.model_validate({"members": names, **options})
    split, shards = study
    adapt.run(
        name="all",
        options=chosen,
        dataset="task",
        split=split,
        shards=shards,
        models=[],
        output=output,
        members=members,
    )
    fits: list[dict[str, Any]] = read_json(output / adapt.MANIFEST)["fits"]
    return fits


def test_several_experiments_are_one_decoder(study: Study, adapted: dict[str, Path], tmp_path: Path) -> None:
    fits = ensemble(study, tmp_path, *adapted.values(), combine="mean")
    # What was not repeated serves all seeds.
    assert [fit["seed"] for fit in fits] == [1234] * 4 + [7] * 4
    manifest = read_json(tmp_path / adapt.MANIFEST)
    assert (manifest["kind"], set(manifest["start"].split("+"))) == ("pretrained", set(adapted))
    corpus = load_corpus([study[1] / "ds-task_sub-05.tar"])
    together = dict(predict_fits(tmp_path, [fit["folder"] for fit in fits], corpus))
    alone = {
        name: dict(predict_fits(path, [fit["folder"] for fit in read_json(path / adapt.MANIFEST)["fits"]], corpus))
        for name, path in adapted.items()
    }
    for name, probabilities in together.items():
        first = name.replace("seed-7", "seed-1234")
        said = [found.get(name, found[first]) for found in alone.values()]
        np.testing.assert_allclose(probabilities, np.mean(said, axis=0), atol=1e-6)


def test_no_combination_of_fits_counts_twice(
    study: Study, models: Models, adapted: dict[str, Path], tmp_path: Path
) -> None:
    # Seeds 7 of csm and 1234 of connectivity: with either, the same two fits would be combined.
    run(study, tmp_path / "csm", models["csm-7"], pretrained="csm")
    fits = ensemble(study, tmp_path / "all", tmp_path / "csm", adapted["connectivity"])
    assert [fit["seed"] for fit in fits] == [7] * 4


def test_a_model_with_other_sizes_or_components_and_the_same_weights_is_read_again(
    study: Study, models: Models, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models["csm-1234"].folder, folder)
    upstream = dataclasses.replace(models["csm-1234"], folder=folder)
    (first, *_) = run(study, tmp_path / "out", upstream, pretrained="csm")
    before = (tmp_path / "out" / first["folder"] / ARRAYS).read_bytes()
    content = read_json(folder / "config.json")
    # As after an import with another number of heads.
    write_json(folder / "config.json", {**content, "heads": 1 if content["heads"] > 1 else 2})
    run(study, tmp_path / "out", upstream, pretrained="csm")
    assert (tmp_path / "out" / first["folder"] / ARRAYS).read_bytes() != before


def test_members_weigh_by_what_they_say_of_trials_left_out(
    study: Study, adapted: dict[str, Path], tmp_path: Path
) -> None:
    both = [adapted["csm"], adapted["network_bert"]]
    fits = ensemble(study, tmp_path / "weighted", *both)
    best = ensemble(study, tmp_path / "best", *both, combine="best")
    own = [
        {(f["n"], f["draw"], f["seed"]): f["validation_loss"] for f in read_json(path / adapt.MANIFEST)["fits"]}
        for path in both
    ]
    for fit, chosen in zip(fits, best, strict=True):
        draw = fit["n"], fit["draw"]
        losses = [own[0][*draw, fit["seed"]], own[1][*draw, 1234]]
        names = [f"csm_seed-{fit['seed']}", "network_bert_seed-1234"]
        assert chosen["validation_loss"] == pytest.approx(min(losses))
        assert encoders(tmp_path / "best", chosen) == [names[int(np.argmin(losses))]]
        # A mixture with the best weights is not worse than one that leaves a member out.
        assert fit["validation_loss"] <= min(losses) + 0.05
        assert encoders(tmp_path / "weighted", fit) == names


def test_baselines_without_a_network_can_be_one_decoder(study: Study, tmp_path: Path) -> None:
    # All look at the signals, some at components that are fitted to the training trials.
    names = ("mean_logistic", "components_lda", "connectivity")
    for name in names:
        run(study, tmp_path / name, baseline=name)
    fits = ensemble(study, tmp_path / "all", *(tmp_path / name for name in names))
    # Nothing of it is pretrained, nor does it pass for that.
    assert read_json(tmp_path / "all" / adapt.MANIFEST)["kind"] == "baseline"
    last = fits[-1]
    probe = Probe.load(tmp_path / "all" / last["folder"])
    assert sum(member.weight for member in probe.members) == pytest.approx(1)
    alone = [read_json(tmp_path / name / adapt.MANIFEST)["fits"][-1]["validation_loss"] for name in names]
    # Connectivity says nothing here, and has a small weight.
    assert last["validation_loss"] < np.mean(alone) / 2
    # Four states.
    assert accuracy(study, tmp_path / "all", fits, last["n"]) > 0.5


def test_members_of_other_draws_or_without_a_manifest_are_refused(
    study: Study, adapted: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(adapted["csm"], other)
    manifest = read_json(other / adapt.MANIFEST)
    manifest["fits"][0]["train"] = ["05"]
    write_json(other / adapt.MANIFEST, manifest)
    with pytest.raises(InputError, match="other: was adapted to other draws"):
        ensemble(study, tmp_path / "out", other, adapted["network_bert"])
    (other / adapt.MANIFEST).write_text("{}")
    with pytest.raises(InputError, match="not a manifest of adapted models"):
        ensemble(study, tmp_path / "out", other, adapted["network_bert"])


def test_members_that_would_be_other_decoders_together_are_refused(
    study: Study, adapted: dict[str, Path], tmp_path: Path
) -> None:
    # The workflow says so before anything is trained; here the members are named by hand.
    run(study, tmp_path / "short", baseline="mean_lda", window_frames=5)
    with pytest.raises(InputError, match="cuts trials behind 5 frames, the first member behind 20"):
        ensemble(study, tmp_path / "out", adapted["connectivity"], tmp_path / "short")
    tuned = tmp_path / "tuned"
    shutil.copytree(adapted["connectivity"], tuned)
    (tuned / read_json(tuned / adapt.MANIFEST)["fits"][0]["folder"] / "model.safetensors").touch()
    with pytest.raises(InputError, match="is a probe and a network that was trained from there on"):
        ensemble(study, tmp_path / "out", adapted["network_bert"], tuned)
    other = tmp_path / "other"
    shutil.copytree(adapted["connectivity"], other)
    path = other / read_json(other / adapt.MANIFEST)["fits"][0]["folder"] / "decoder.json"
    content = read_json(path)
    write_json(path, {**content, "labels": content["labels"][::-1]})
    with pytest.raises(InputError, match=r"its states are .*, those of the trials"):
        ensemble(study, tmp_path / "out", adapted["network_bert"], other)


def test_members_whose_encoders_have_one_name_and_other_weights_are_refused(
    study: Study, models: Models, adapted: dict[str, Path], tmp_path: Path
) -> None:
    seven = adapt.UpstreamModel("csm", 1234, models["csm-7"].folder)
    run(study, tmp_path / "other", seven, pretrained="csm")
    with pytest.raises(InputError, match=r"an encoder csm_seed-1234 with another model\.safetensors"):
        ensemble(study, tmp_path / "out", adapted["csm"], tmp_path / "other")


def test_several_experiments_in_one_process_are_those_of_one_each(
    study: Study, models: Models, adapted: dict[str, Path], tmp_path: Path
) -> None:
    split, shards = study
    experiments = {
        "network_bert": {
            "options": {"pretrained": "network_bert", "window_frames": 20},
            "models": [["network_bert", "1234", str(models["network_bert-1234"].folder)]],
        },
        "connectivity": {"options": {"baseline": "connectivity", "window_frames": 20}, "models": []},
    }
    given = ["--dataset", "task", "--split", str(split), "--shards", str(shards), "--output", str(tmp_path)]
    assert main(["adapt", *given, "--experiments", json.dumps(experiments)]) == 0
    for name in experiments:
        alone = read_json(adapted[name] / adapt.MANIFEST)["fits"]
        for fit, expected in zip(read_json(tmp_path / name / adapt.MANIFEST)["fits"], alone, strict=True):
            assert (fit["choice"], fit["validation_loss"]) == (expected["choice"], expected["validation_loss"])


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {}}', '{"a": {"options": {}, "models": [["csm", 1]]}}'])
def test_experiments_that_are_none_are_refused(
    text: str, study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split, shards = study
    given = ["--dataset", "task", "--split", str(split), "--shards", str(shards), "--output", str(tmp_path / "x")]
    assert main(["adapt", *given, "--experiments", text]) == 1
    assert "no experiments" in capsys.readouterr().err


def test_all_models_that_do_not_fit_are_named_before_anything_is_trained(
    study: Study, models: Models, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(models["csm-1234"].folder, wrong)
    other = dataclasses.replace(synthetic.contract(16), smoothing_fwhm_mm=3.0)
    (wrong / CONTRACT).write_text(other.to_json())
    options = AdaptOptions(pretrained="csm", window_frames=20)
    model = adapt.UpstreamModel("csm", 1234, wrong)
    good = adapt.Adaptation("good", AdaptOptions(baseline="mean_lda"), tmp_path / "good")
    bad = [adapt.Adaptation(name, options, tmp_path / name, (model,)) for name in ("one", "two")]
    with pytest.raises(InputError) as caught:
        adapt.run_several([good, *bad], "task", *study)
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "good").exists()


def test_encoders_take_no_room_of_their_own(study: Study, models: Models, tmp_path: Path) -> None:
    run(study, tmp_path, models["csm-1234"], pretrained="csm")
    folder = tmp_path / "encoders" / "csm_seed-1234"
    names = {"config.json", "contract.json", "model.safetensors", "basis.safetensors", "manifest.json"}
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        assert os.path.samefile(folder / name, models["csm-1234"].folder / name)


def test_encoders_are_copied_where_there_are_no_links(
    study: Study, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("another device")

    monkeypatch.setattr(os, "link", refuse)
    run(study, tmp_path, models["csm-1234"], pretrained="csm")
    for path in (tmp_path / "encoders" / "csm_seed-1234").iterdir():
        assert path.read_bytes() == (models["csm-1234"].folder / path.name).read_bytes()
        assert not path.samefile(models["csm-1234"].folder / path.name)


def test_a_later_pretraining_leaves_the_kept_encoder_as_it_was(
    study: Study, models: Models, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in models["csm-1234"].folder.glob("*.*"):
        (model / path.name).write_bytes(path.read_bytes())
    run(study, tmp_path / "out", adapt.UpstreamModel("csm", 1234, model), pretrained="csm")
    before = (model / "model.safetensors").read_bytes()
    other = synthetic.upstream_study(tmp_path / "data", n_subjects=2)
    values = {"framework": "csm", "layers": 1, "width": 16, "heads": 2, "steps": 1, "batch_size": 4, "seed": 3}
    values |= {"validation_windows": 8, "window_frames": (6, 12), "keep_untrained": True}
    pretrain.run(name="csm", options=PretrainOptions.model_validate(values), data=other, output=model)
    assert (model / "model.safetensors").read_bytes() != before
    assert (tmp_path / "out/encoders/csm_seed-1234/model.safetensors").read_bytes() == before


def test_untrained_networks_differ_by_seed_and_not_by_weights_upstream(
    study: Study, models: Models, tmp_path: Path
) -> None:
    fits = run(study, tmp_path / "one", models["csm-1234"], untrained="csm", seeds=[1, 2])
    assert [fit["seed"] for fit in fits] == [1] * 4 + [2] * 4
    assert encoders(tmp_path / "one", fits[4]) == ["csm_untrained_seed-2"]
    weights = [tmp_path / f"one/encoders/csm_untrained_seed-{seed}/model.safetensors" for seed in (1, 2)]
    assert weights[0].read_bytes() != weights[1].read_bytes()
    run(study, tmp_path / "two", models["csm-7"], untrained="csm", seeds=[1])
    again = tmp_path / "two/encoders/csm_untrained_seed-1/model.safetensors"
    assert again.read_bytes() == weights[0].read_bytes()
    upstream = load_config(models["csm-1234"].folder)
    assert load_config(tmp_path / "one/encoders/csm_untrained_seed-1") == upstream
    assert accuracy(study, tmp_path / "one", fits, 4) > 0.4


def test_a_network_from_a_folder_is_left_untrained_too(study: Study, models: Models, tmp_path: Path) -> None:
    folder = models["csm-1234"].folder
    before = sorted(folder.parent.iterdir())
    run(study, tmp_path, adapt.UpstreamModel(str(folder), 5, folder), untrained=str(folder))
    assert [path.name for path in (tmp_path / "encoders").iterdir()] == ["csm-1234_untrained_seed-1234"]
    assert sorted(folder.parent.iterdir()) == before


@pytest.mark.parametrize("baseline", get_args(Baseline))
def test_baselines_learn_what_is_easy(study: Study, models: Models, tmp_path: Path, baseline: Baseline) -> None:
    options: dict[str, Any] = {"steps": 2, "batch_size": 8, "evaluate_every": 2, "seeds": [1, 2]}
    preset = PROBE_BASELINES.get(baseline)
    needed = [models["components-1234"]] if preset is not None and preset.encoder == "components" else []
    fits = run(study, tmp_path, *needed, baseline=baseline, **options)
    manifest = read_json(tmp_path / adapt.MANIFEST)
    assert (manifest["kind"], manifest["start"]) == ("baseline", baseline)
    if preset is None:
        # Gradient steps: each seed is another training.
        assert [fit["seed"] for fit in fits] == [1] * 4 + [2] * 4
        return
    # Nothing is drawn: one seed says all.
    assert {fit["seed"] for fit in fits} == {1}
    expected = "components_seed-1234" if needed else "signal"
    assert encoders(tmp_path, fits[0]) == [expected]
    assert Probe.load(tmp_path / fits[0]["folder"]).members[0].basis is None
    # Mean patterns tell the states apart; what varies with what does not.
    if "slices" in preset.read_outs[0] or preset.read_outs == ["mean"]:
        assert accuracy(study, tmp_path, fits, 4) > 0.5


def test_without_upstream_runs_components_are_those_of_the_training_trials(study: Study, tmp_path: Path) -> None:
    fits = run(study, tmp_path, baseline="components_logistic")
    bases = [Probe.load(tmp_path / fit["folder"]).members[0].basis for fit in fits]
    assert all(basis is not None and basis.components.shape == (1, 16, 16) for basis in bases)
    assert not np.allclose(bases[0].mean, bases[1].mean)  # type: ignore[union-attr]
    assert accuracy(study, tmp_path, fits, 4) > 0.5


def edited_split(study: Study, path: Path, draws: list[dict[str, Any]], **changes: Any) -> Study:
    content = read_json(study[0])
    write_json(path, {**content, **changes, "draws": draws})
    return path, study[1]


def test_choices_are_made_inside_the_training_units_where_none_validates(
    study: Study, models: Models, tmp_path: Path
) -> None:
    draw = {"n": 3, "draw": 0, "train": ["00", "01", "02"], "validation": [], "test": ["05"]}
    changed = edited_split(study, tmp_path / "split.json", [draw])
    (fit,) = run(changed, tmp_path / "out", models["csm-1234"], pretrained="csm")
    assert 0.25 < fit["validation_accuracy"] <= 1
    # The same units, one of them to choose with: fitted to all three in the end, choices may differ.
    draw = {**draw, "train": ["00", "01"], "validation": ["02"]}
    changed = edited_split(study, tmp_path / "split.json", [draw])
    (other,) = run(changed, tmp_path / "other", models["csm-1234"], pretrained="csm")
    assert other["validation_loss"] != fit["validation_loss"]


def with_trials(study: Study, folder: Path, subject: str, labels: list[int]) -> Study:
    """Return a copy of a study, in which a subject has the first trials of these states alone."""
    split, shards = study
    shutil.copytree(shards, folder / "shards")
    path = folder / "shards" / f"ds-task_sub-{subject}.tar"
    samples = list(read_shard(path))
    chosen = {next(one.key for one in samples if one.meta["label"] == label) for label in labels}
    write_shard(path, [one for one in samples if one.key in chosen])
    return split, folder / "shards"


@pytest.mark.parametrize("options", [{"baseline": "components"}, {"baseline": "linear", "steps": 2}])
def test_draws_without_a_trial_to_train_on_are_all_named(
    study: Study, tmp_path: Path, options: dict[str, Any]
) -> None:
    changed = with_trials(study, tmp_path, "00", [])
    draws = [
        {"n": 1, "draw": number, "train": [unit], "validation": [], "test": ["02"]}
        for number, unit in enumerate(["00", "01"])
    ]
    draws += [{"n": 2, "draw": 0, "train": ["00", "01"], "validation": [], "test": ["02"]}]
    draws += [{"n": 2, "draw": 1, "train": ["00"], "validation": ["01"], "test": ["02"]}]
    edited = edited_split(changed, tmp_path / "split.json", draws)
    with pytest.raises(InputError) as found:
        run(edited, tmp_path / "out", **options)
    assert [problem.entity for problem in found.value.problems] == ["n 1, draw 0", "n 2, draw 1"]
    assert {problem.message for problem in found.value.problems} == {"no trial to train on is left of subject 00"}
    assert not (tmp_path / "out").exists()
    # Others of a draw, and those who validate, may lack theirs.
    draws = [draws[2], {"n": 2, "draw": 1, "train": ["01"], "validation": ["00"], "test": ["02"]}]
    assert len(run(edited_split(changed, tmp_path / "split.json", draws), tmp_path / "out", **options)) == 2


def test_trials_that_are_cut_are_counted_and_named(study: Study, tmp_path: Path, caplog) -> None:
    """A third of a long block could stay unseen without a word."""
    split, shards = study
    wanted = [
        adapt.Adaptation(name, AdaptOptions(baseline="mean_logistic", window_frames=frames), tmp_path / name)
        for name, frames in (("whole", 50), ("cut", 8), ("cut_too", 8))
    ]
    adapt.run_several(wanted, "task", split, shards)
    told = [record.getMessage() for record in caplog.records if "longer than" in record.getMessage()]
    cut = {name: read_json(tmp_path / name / "adapt.json")["cut_trials"] for name in ("whole", "cut")}
    longest = cut["cut"]["longest_frames"]
    assert 8 < longest <= 50
    assert cut["whole"] == {**cut["cut"], "cut": 0}
    assert 0 < cut["cut"]["cut"] <= cut["cut"]["trials"]
    (line,) = told
    assert line.startswith(
        f"task: {cut['cut']['cut']} of {cut['cut']['trials']} trials are longer than the 8 frames"
    )
    assert f"(cut, cut_too); the longest has {longest}: raise window_frames" in line


@pytest.mark.parametrize("labels", [[2], [1, 3]])
@pytest.mark.parametrize("method", ["probe", "finetune", "network"])
def test_units_with_trials_of_few_states_train(
    study: Study, models: Models, tmp_path: Path, method: str, labels: list[int]
) -> None:
    changed = with_trials(study, tmp_path, "00", labels)
    draws = [{"n": 1, "draw": 0, "train": ["00"], "validation": [], "test": ["02"]}]
    draws += [{"n": 2, "draw": 0, "train": ["00"], "validation": ["01"], "test": ["02"]}]
    edited = edited_split(changed, tmp_path / "split.json", draws)
    options = {} if method == "probe" else {"steps": 2, "batch_size": 4, "evaluate_every": 1}
    fits = run(edited, tmp_path / "out", models["csm-1234"], pretrained="csm", method=method, **options)
    assert [fit["n"] for fit in fits] == [1, 2]


def test_a_split_by_run_divides_the_runs_of_a_subject(study: Study, models: Models, tmp_path: Path) -> None:
    key = "ds-task_sub-00_task-t_run-{}".format
    draw = {"n": 1, "draw": 0, "train": [key(1)], "validation": [], "test": [key(2)]}
    changed = edited_split(study, tmp_path / "split.json", [draw], by="run")
    (fit,) = run(changed, tmp_path / "out", models["csm-1234"], pretrained="csm")
    # Six trials of four states, two of which have one trial only: nothing can be left out.
    assert "validation_loss" not in fit
    assert Probe.load(tmp_path / "out" / fit["folder"]).members[0].chosen["penalty"] == 3


def contents(output: Path) -> dict[str, bytes]:
    """Return the bytes of all fitted probes."""
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for name in (ARRAYS, CONFIG)
        for path in output.glob(f"n-*/{name}")
    }


def test_a_rerun_gives_the_same_bytes(study: Study, models: Models, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(study, tmp_path / name, models["csm-1234"], pretrained="csm")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(contents(tmp_path / "one")) == 8


@pytest.mark.parametrize(
    "options",
    [{"pretrained": "csm"}, {"untrained": "csm"}, {"baseline": "connectivity"}, {"baseline": "components"}],
    ids=lambda options: "-".join(options.values()),
)
def test_nothing_about_test_units_changes_a_byte_of_a_probe(
    study: Study, models: Models, tmp_path: Path, options: dict[str, str]
) -> None:
    """Not even those that another draw trains on, and that are therefore read."""
    draws = [
        {"n": 2, "draw": 0, "train": ["00", "01"], "validation": [], "test": ["02"]},
        {"n": 2, "draw": 1, "train": ["01", "02"], "validation": [], "test": ["00"]},
    ]
    changed = edited_split(study, tmp_path / "split.json", draws)
    given = [] if "baseline" in options else [models["csm-1234"]]
    run(changed, tmp_path / "before", *given, **options)
    rng = np.random.default_rng(0)
    for shard in study[1].glob("*.tar"):
        samples = list(read_shard(shard))
        if "sub-02" in shard.name:
            samples = [
                dataclasses.replace(
                    sample,
                    bold=(3 * rng.standard_normal(sample.bold.shape) + 1).astype(np.float16),
                    meta={
                        **sample.meta,
                        "label": (sample.meta["label"] + 1) % 4,
                        "label_name": f"state{(sample.meta['label'] + 1) % 4}",
                    },
                )
                for sample in samples
            ]
        write_shard(tmp_path / "shards" / shard.name, samples)
    run((changed[0], tmp_path / "shards"), tmp_path / "after", *given, **options)
    before, after = contents(tmp_path / "before"), contents(tmp_path / "after")
    for name in (ARRAYS, CONFIG):
        tested, trained = (f"n-2_draw-{draw}_seed-1234/{name}" for draw in (0, 1))
        assert before[tested] == after[tested]
        assert before[trained] != after[trained]


def test_an_interrupted_job_goes_on_with_the_missing_fits(
    study: Study, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [models["csm-1234"], models["csm-7"]]
    run(study, tmp_path / "whole", *given, pretrained="csm")
    real, calls = probes.fit_member, []

    def limited(*args: Any) -> Any:
        calls.append(args[0])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(probes, "fit_member", limited)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "killed", *given, pretrained="csm")
    assert not (tmp_path / "killed" / adapt.MANIFEST).exists()
    fits = run(study, tmp_path / "killed", *given, pretrained="csm")
    assert len(calls) == 4 + 5  # three of eight were done
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    calls.clear()
    # Nothing is left to fit, and yet the encoders are there that the decoders need.
    run(study, tmp_path / "killed", *given, pretrained="csm")
    assert calls == []
    assert accuracy(study, tmp_path / "killed", fits, 4) > 0.4


def test_fits_of_another_config_or_model_are_not_reused(study: Study, models: Models, tmp_path: Path) -> None:
    run(study, tmp_path, models["csm-1234"], pretrained="csm")
    first = contents(tmp_path)
    run(study, tmp_path, models["csm-1234"], pretrained="csm", read_outs=["mean"])
    second = contents(tmp_path)
    run(study, tmp_path, dataclasses.replace(models["csm-7"], seed=1234), pretrained="csm", read_outs=["mean"])
    third = contents(tmp_path)
    assert first.keys() == second.keys() == third.keys()
    assert all(first[name] != second[name] for name in first)
    assert all(second[name] != third[name] for name in first if name.endswith(ARRAYS))


def test_a_network_of_another_contract_is_refused_unless_it_may_differ(
    study: Study, models: Models, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in models["csm-1234"].folder.glob("*.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    other = dataclasses.replace(synthetic.contract(16), smoothing_fwhm_mm=3.0)
    (folder / CONTRACT).write_text(other.to_json())
    model = adapt.UpstreamModel("csm", 1234, folder)
    with pytest.raises(InputError, match=r"smoothing_fwhm_mm: 3\.0 != None"):
        run(study, tmp_path / "out", model, pretrained="csm")
    assert not (tmp_path / "out").exists()
    fits = run(study, tmp_path / "out", model, pretrained="csm", allow_mismatch=["smoothing_fwhm_mm"])
    # A decoder states what its own trials are.
    assert load_contract(tmp_path / "out" / fits[0]["folder"]) == synthetic.contract(16)


@pytest.mark.parametrize("classifier", ["logistic", "lda", "ridge", "mlp"])
def test_each_kind_of_classifier_decodes(study: Study, models: Models, tmp_path: Path, classifier: str) -> None:
    options = {"classifiers": [classifier], "read_outs": ["mean", "slices"], "layers": ["first", "last"]}
    fits = run(study, tmp_path, models["csm-1234"], pretrained="csm", penalties=[0.1, 1.0], **options)
    assert accuracy(study, tmp_path, fits, 4) > 0.5
    assert all(classifier in fit["choice"] for fit in fits)
