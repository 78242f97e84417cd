"""The config: every wrong key and value is reported at once, and shipped files load."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from boldly.config import (
    PROBE_BASELINES,
    REVISIONS,
    STAGES,
    AdaptOptions,
    AdaptSection,
    AtlasOptions,
    Baseline,
    Config,
    DatasetOptions,
    DeviceOptions,
    DownstreamSplitOptions,
    EvaluateOptions,
    ExplainOptions,
    ParcellateOptions,
    PreprocessOptions,
    PretrainOptions,
    RestOptions,
    ShardOptions,
    SplitOptions,
    TaskOptions,
    UpstreamSplitOptions,
    advise,
    apply_preset,
    load_config,
    parse,
    resolve,
    with_one_high_pass,
)
from boldly.records import InputError

CHECKOUT = Path(__file__).resolve().parents[1]
SMALLEST: dict[str, Any] = {
    "atlas": {"path": "atlas_dseg.nii.gz"},
    "datasets": {"rest": {"role": "upstream", "derivatives": "rest"}},
}
TASK = {"role": "downstream", "derivatives": "a", "bids": "b", "task": {}}


def problems(content: Any) -> dict[str, str]:
    """Return the message for each field that is wrong."""
    with pytest.raises(InputError) as caught:
        parse(Config, content, "my.yaml")
    assert all(problem.where == "my.yaml" and problem.remedy for problem in caught.value.problems)
    return {problem.entity: problem.message for problem in caught.value.problems}


def test_the_smallest_config_has_a_default_for_all_the_rest() -> None:
    config = parse(Config, SMALLEST, "my.yaml")
    assert config.shard.dtype == "float16"
    assert config.split.downstream.draws == 5
    assert config.datasets["rest"].space == "MNI152NLin2009cAsym"


def test_all_that_is_wrong_is_reported_at_once() -> None:
    found = problems(
        {
            "atlas": {"path": "a.nii", "pth": "b"},
            "datasets": {"my-data": {"role": "upstream", "derivatives": "a"}},
            "shard": {"dtype": "int8"},
            "parcelate": {},
        }
    )
    assert found["atlas.pth"] == "unknown key (or is 'path' meant?)"
    assert found["parcelate"] == "unknown key (or is 'parcellate' meant?)"
    assert "float16" in found["shard.dtype"]
    # Names of datasets are parts of file names, where - and _ have a meaning.
    assert any(field.startswith("datasets.my-data") for field in found)


def test_a_config_without_datasets_is_refused() -> None:
    assert problems({})["config"].startswith("datasets: none; give at least one")
    cohort = {"model": "decoder", "derivatives": "fmriprep"}
    assert not parse(Config, {"decode": {"clinic": cohort}}, "my.yaml").datasets


def test_labelled_trials_are_decoded_by_baselines_unless_the_config_says_otherwise() -> None:
    datasets = {"mine": {"role": "downstream", "shards": "a"}}
    forms: list[dict[str, Any]] = [{}, {"adapt": {}}, {"adapt": {"shared": {"steps": 5}}}]
    for adapt in forms:
        added = parse(Config, {"datasets": datasets, **adapt}, "my.yaml").adapt
        assert list(added.experiments) == list(PROBE_BASELINES)
    assert added.experiments["mean_lda"].steps == 5
    none = parse(Config, {"datasets": datasets, "adapt": {"baselines": []}}, "my.yaml")
    assert none.adapt.experiments == {}
    again = parse(Config, none.model_dump(mode="json"), "my.yaml")
    assert again.adapt == none.adapt


def test_pretraining_needs_an_upstream_dataset() -> None:
    datasets = {"mine": {"role": "downstream", "shards": "a"}}
    content = {"datasets": datasets, "pretrain": {"experiments": {"csm": {"framework": "csm"}}}}
    assert "csm: there is no upstream dataset" in problems(content)["config"]


def test_images_of_single_brains_do_not_meet_an_atlas_of_a_template() -> None:
    def content(**atlas: Any) -> dict[str, Any]:
        return {"atlas": atlas, "datasets": {"mine": {**TASK, "space": "T1w"}}}

    assert "datasets.mine.space: images in T1w" in problems(content(name="difumo"))["config"]
    assert "MNIColin27" in problems(content(path="a.nii.gz", space="MNIColin27"))["config"]
    for atlas in ({"path": "a.nii.gz"}, {"path": "a.nii.gz", "space": "T1w"}):
        assert parse(Config, content(**atlas), "my.yaml").datasets["mine"].space == "T1w"


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        ({"datasets": {"haxby_mine": TASK}}, "datasets.haxby_mine", "letters and digits only"),
        ({"adapt": {"baselines": ["mean_LDA"]}}, "adapt.baselines.0", "'mean_LDA' is none of .*'mean_lda' meant"),
        ({"adapt": {"baseline": ["mean_lda"]}}, "adapt.baseline", "'baselines' meant"),
        ({"parcellate": {"smooth": 4}}, "parcellate.smooth", "'smoothing_fwhm_mm' meant"),
        ({"split": {"downstream": {"tset": 4}}}, "split.downstream.tset", "'test' meant"),
        ({"datasets": {"rest": {**TASK, "derivates": "b"}}}, "datasets.rest.derivates", "'derivatives' meant"),
    ],
)
def test_a_mistake_is_named_once_with_what_is_probably_meant(
    content: dict[str, Any], field: str, message: str
) -> None:
    found = problems({**SMALLEST, **content})
    assert list(found) == [field]
    assert re.search(message, found[field])


def test_an_atlas_is_asked_for_where_signals_are_read_from_images() -> None:
    images = {"role": "upstream", "derivatives": "rest"}
    ready = {"role": "upstream", "shards": "shards"}
    assert parse(Config, {"datasets": {"ready": ready}}, "my.yaml").atlas is None
    assert resolve(parse(Config, {"datasets": {"ready": ready}}, "my.yaml"), CHECKOUT).atlas is None
    message = problems({"datasets": {"ready": ready, "rest": images, "more": images}})["config"]
    assert message.startswith("atlas: missing, and the signals of rest, more are still to be read")
    assert "path" in message
    assert problems({**SMALLEST, "datasets": {}})["config"].startswith("datasets: none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"role": "upstream"}, "either derivatives or shards"),
        ({"role": "upstream", "derivatives": "a", "shards": "b"}, "either derivatives or shards"),
        ({"role": "downstream", "derivatives": "a"}, "bids"),
        ({"role": "downstream", "derivatives": "a", "bids": "b"}, "task"),
        ({"role": "both", "derivatives": "a"}, "upstream"),
        ({"role": "downstream", "derivatives": "a", "layout": "hcp"}, "task"),
        ({"role": "upstream", "derivatives": "a", "layout": "hcp", "resolution": "2"}, "of one resolution"),
        ({"role": "upstream", "derivatives": "a", "fmriprep": "b"}, "with image_suffix"),
        (
            {"role": "upstream", "derivatives": "a", "task": {"drop": ["(cue"]}},
            "'\\(cue' is not a regular expression",
        ),
        (
            {"role": "upstream", "derivatives": "a", "task": {"rest": {"length_s": [50, 10]}}},
            "shortest <= longest",
        ),
    ],
)
def test_a_dataset_must_be_complete(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DatasetOptions.model_validate(options)


def test_ready_made_shards_need_no_events() -> None:
    assert DatasetOptions(role="downstream", shards="folder").task is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"framework": "csm", "width": 100, "heads": 12}, "not a multiple"),
        ({"framework": "csm", "window_frames": [1, 50]}, "shortest"),
        ({"framework": "csm", "window_frames": [50, 10]}, "shortest"),
        ({"framework": "gpt"}, "sequence_bert"),
        ({"framework": "csm", "horizons": [2]}, "horizons_s instead, in seconds"),
        ({"framework": "csm", "horizons_s": [0]}, "greater than 0"),
        ({"framework": "csm", "learning_rate": 0}, "greater than 0"),
        ({"framework": "csm", "beta2": 1.0}, "less than 1"),
        ({}, "framework"),
    ],
)
def test_upstream_experiments_must_make_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PretrainOptions.model_validate(options)


def test_the_autoencoder_has_no_heads() -> None:
    assert PretrainOptions(framework="autoencoding", width=100, heads=12).width == 100


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pretrained": "csm", "scratch": "csm"},
        {"scratch": "a", "baseline": "linear"},
        {"members": ["a", "b"], "untrained": "a"},
    ],
)
def test_a_downstream_experiment_starts_in_one_way(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one of pretrained, untrained, scratch, baseline, members"):
        AdaptOptions.model_validate(options)


def test_beta2_is_not_beta1() -> None:
    options = PretrainOptions(framework="csm")
    assert (options.beta1, options.beta2) == (0.9, 0.999)


def test_names_of_experiments_and_datasets_must_meet() -> None:
    content = {
        **SMALLEST,
        "pretrain": {"experiments": {"csm": {"framework": "csm", "datasets": ["other"]}}},
        "adapt": {"experiments": {"a": {"scratch": "cms"}, "b": {"baseline": "linear", "datasets": ["rest"]}}},
    }
    (message,) = problems(content).values()
    assert "adapt.experiments.a.scratch: 'cms' is no upstream experiment and no folder" in message
    assert "(upstream experiments: csm, components; is 'csm' meant?)" in message
    assert message.count("'cms'") == 1  # not again for what is added to each pretrained experiment
    assert "pretrain.experiments.csm.datasets: no upstream dataset other" in message
    # "rest" is there, but has no labels to decode.
    assert "adapt.experiments.b.datasets: no downstream dataset rest" in message


def test_a_grid_becomes_an_experiment_for_each_combination() -> None:
    grid = {"options": {"framework": "csm", "heads": 2}, "vary": {"layers": [2, 4], "width": [16, 32]}}
    content = {
        **SMALLEST,
        "pretrain": {"experiments": {"csm": {"framework": "csm"}}, "grids": {"size": grid}},
        "adapt": {"experiments": {"big": {"pretrained": "size_layers-4_width-32"}}},
    }
    config = parse(Config, content, "my.yaml")
    sizes = {name: (options.layers, options.width) for name, options in config.pretrain.experiments.items()}
    assert sizes == {
        "csm": (4, 768),
        "components": (4, 64),
        "size_layers-2_width-16": (2, 16),
        "size_layers-2_width-32": (2, 32),
        "size_layers-4_width-16": (4, 16),
        "size_layers-4_width-32": (4, 32),
    }
    assert parse(Config, config.model_dump_json(), "again") == config


def test_a_wrong_option_of_a_grid_is_reported_where_it_is() -> None:
    grid = {"options": {"framework": "csm"}, "vary": {"layer": [2]}}
    found = problems({**SMALLEST, "pretrain": {"grids": {"size": grid}}})
    assert found == {"pretrain.experiments.size_layer-2.layer": "unknown key (or is 'layers' meant?)"}


def test_experiments_may_start_from_each_other_but_not_in_circles() -> None:
    def start(**names: str) -> dict[str, Any]:
        experiments = {name: {"framework": "csm", "initialise": other} for name, other in names.items()}
        return {**SMALLEST, "pretrain": {"experiments": {"first": {"framework": "csm"}, **experiments}}}

    assert parse(Config, start(second="first", third="second"), "my.yaml")
    assert "a starts from b starts from a" in str(problems(start(a="b", b="a")))
    assert "'absent' is no upstream experiment and no folder (upstream experiments: first, a, components)" in str(
        problems(start(a="absent"))
    )


def test_a_pretrained_model_may_be_a_folder(tmp_path: Path) -> None:
    content = {**SMALLEST, "adapt": {"experiments": {"a": {"pretrained": str(tmp_path)}}}}
    config = parse(Config, content, "my.yaml")
    assert config.adapt.experiments["a"].pretrained == str(tmp_path)
    # Its controls, networks of the same sizes, need the folder as well.
    assert config.adapt.experiments["a_untrained"].untrained == str(tmp_path)
    assert config.adapt.experiments["a_scratch"].scratch == str(tmp_path)
    content["adapt"] = {"experiments": {"a": {"pretrained": str(tmp_path / "absent")}}}
    assert problems(content)


def adapt_section(**content: Any) -> AdaptSection:
    return parse(AdaptSection, content, "my.yaml")


def test_baselines_and_controls_come_with_a_pretrained_experiment() -> None:
    section = adapt_section(experiments={"net": {"pretrained": "csm", "freeze": ["embedder"], "width": 9}})
    names = ["net", "net_untrained", "net_scratch"]
    assert set(section.experiments) == {*get_args(Baseline), *names}
    assert [section.experiments[name].kind for name in names] == ["pretrained", "untrained", "scratch"]
    assert [section.experiments[name].upstream for name in names] == [["csm"]] * 3
    # What is for the pretrained one alone does not go over: what is frozen at random cannot be mended.
    assert [section.experiments[name].freeze for name in names] == [["embedder"], [], []]
    assert [section.experiments[name].width for name in names] == [9, 9, 9]
    assert all(section.experiments[name].baseline == name for name in get_args(Baseline))


def test_only_networks_of_one_upstream_experiment_have_controls() -> None:
    section = adapt_section(
        experiments={
            "both": {"members": ["raw", "linear_pretraining"]},
            "raw": {"scratch": "csm"},
            # Linear pretraining has no random weights.
            "linear_pretraining": {"pretrained": "components"},
        },
        baselines=[],
    )
    assert set(section.experiments) == {"both", "raw", "linear_pretraining"}


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        ({"all": {"members": ["net", "absent"]}}, "no downstream experiment 'absent'"),
        ({"all": {"members": ["net", "net"]}}, "an experiment stands twice"),
        ({"all": {"members": ["net", "raw"]}, "raw": {"scratch": "csm"}}, "'raw' is no probe of one network"),
        ({"all": {"members": ["net", "more"]}, "more": {"members": ["net", "mean_lda"]}}, "'more' is no probe"),
        (
            {"all": {"members": ["net", "long"]}, "long": {"pretrained": "csm", "window_frames": 99}},
            "window_frames",
        ),
        (
            {"all": {"members": ["net", "one"]}, "one": {"pretrained": "csm", "datasets": ["task"]}},
            "'one' is not adapted to all datasets of 'all'",
        ),
    ],
)
def test_members_that_cannot_be_combined_are_named(experiments: dict[str, Any], message: str) -> None:
    content = {
        "atlas": {"path": "a.nii.gz"},
        "datasets": {
            "rest": {"role": "upstream", "shards": "a"},
            "task": {"role": "downstream", "shards": "b"},
            "task2": {"role": "downstream", "shards": "c"},
        },
        "pretrain": {"experiments": {"csm": {"framework": "csm"}}},
        "adapt": {"experiments": {"net": {"pretrained": "csm"}, **experiments}},
    }
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(content)


@pytest.mark.parametrize("name", ["chance", "chance_uniform", "control_length", "ceiling_any"])
def test_decoders_have_no_names_of_what_is_none(name: str) -> None:
    # The accuracies of a control would be compared in the place of those of a decoder of its name.
    content = {
        "atlas": {"path": "a.nii.gz"},
        "datasets": {"task": {"role": "downstream", "shards": "b"}},
        "adapt": {"experiments": {name: {"baseline": "mean_lda"}}},
    }
    with pytest.raises(ValidationError, match=f"{name}: scores of chance, controls and ceilings"):
        Config.model_validate(content)


def test_the_length_of_a_pretraining_can_be_chosen_by_what_it_is_for() -> None:
    """The example of docs/decoders.md."""
    page = Path(__file__).resolve().parents[1] / "docs" / "decoders.md"
    example = page.read_text().split("## Choosing upstream weights")[1].split("```yaml\n")[1].split("```")[0]
    config = parse(Config, {**SMALLEST, **yaml.safe_load(example)}, "docs/decoders.md")
    best = config.adapt.experiments["best"]
    assert (best.members, best.combine) == (["short", "middle", "long"], "best")
    steps = [
        config.pretrain.experiments[config.adapt.experiments[name].upstream[0]].steps
        for name in best.members or ()
    ]
    assert steps == [10_000, 30_000, 100_000]


def test_experiments_of_the_config_win_over_those_that_are_added() -> None:
    experiments = {
        "net": {"pretrained": "csm"},
        "net_scratch": {"baseline": "tangent"},
        "linear": {"scratch": "x"},
    }
    section = adapt_section(experiments=experiments, baselines=["linear", "mean_lda"], controls=["scratch"])
    assert set(section.experiments) == {"net", "net_scratch", "linear", "mean_lda"}
    assert section.experiments["net_scratch"].kind == "baseline"
    assert section.experiments["linear"].kind == "scratch"


def test_shared_options_hold_where_an_experiment_does_not_say() -> None:
    section = adapt_section(
        experiments={"net": {"pretrained": "csm", "steps": 7}, "plain": AdaptOptions(baseline="linear", steps=8)},
        baselines=["mean_mlp"],
        shared={"steps": 5, "batch_size": 3},
    )
    steps = {name: options.steps for name, options in section.experiments.items()}
    assert steps == {"mean_mlp": 5, "net": 7, "net_untrained": 7, "net_scratch": 7, "plain": 8}
    assert {options.batch_size for options in section.experiments.values()} == {3}


@pytest.mark.parametrize("content", [{}, {"baselines": ["linear"]}, {"experiments": {"a": {"scratch": "csm"}}}])
def test_an_adapt_section_means_the_same_when_read_again(content: dict[str, Any]) -> None:
    section = adapt_section(**content)
    assert adapt_section(**section.model_dump()) == section


def test_nothing_is_added_where_nothing_is_adapted() -> None:
    assert adapt_section().experiments == {}
    assert set(adapt_section(baselines=["tangent"]).experiments) == {"tangent"}


@pytest.mark.parametrize("option", ["baselines", "controls", "shared"])
@pytest.mark.parametrize("value", [None, 3, "linear", [["linear"]], [None]])
def test_wrong_options_of_the_adapt_section_are_named(option: str, value: Any) -> None:
    content = {"experiments": {"net": {"pretrained": "csm"}}, option: value}
    with pytest.raises(InputError) as caught:
        parse(AdaptSection, content, "my.yaml")
    assert {problem.entity.split(".")[0] for problem in caught.value.problems} == {option}


def test_components_are_pretrained_beside_networks() -> None:
    experiments = parse(Config, {**SMALLEST, "pretrain": {"experiments": {"csm": {"framework": "csm"}}}}, "x")
    assert experiments.pretrain.experiments["components"].framework == "components"
    own = {
        "csm": {"framework": "csm"},
        "components": {"framework": "components", "width": 9, "datasets": ["rest"]},
    }
    section = parse(Config, {**SMALLEST, "pretrain": {"experiments": own}}, "x").pretrain
    assert (section.experiments["components"].width, section.experiments["components"].datasets) == (9, ["rest"])
    assert parse(Config, SMALLEST, "x").pretrain.experiments == {}


def test_linear_pretraining_is_neither_trained_nor_left_untrained() -> None:
    for start in ({"scratch": "pca"}, {"untrained": "pca"}, {"pretrained": "pca", "method": "network"}):
        content = {
            **SMALLEST,
            "pretrain": {"experiments": {"pca": {"framework": "components"}}},
            "adapt": {"experiments": {"a": start}, "controls": []},
        }
        (message,) = problems(content).values()
        assert "'pca' is linear pretraining" in message
    content["adapt"]["experiments"]["a"] = {"pretrained": "pca"}
    assert parse(Config, content, "x")


def test_repeats_become_experiments_with_other_seeds() -> None:
    options = {"framework": "csm", "repeats": [1, 2], "width": 24, "steps": 9}
    content = {
        **SMALLEST,
        "pretrain": {
            "experiments": {"csm": options, "csm_seed-2": {"framework": "csm", "seed": 77}},
            "grids": {"grid": {"options": {**options, "repeats": [5]}, "vary": {"layers": [2, 3]}}},
        },
    }
    section = parse(Config, content, "x").pretrain
    found = {name: (one.seed, one.repeats, one.steps) for name, one in section.experiments.items()}
    assert found["csm"] == (1234, [1, 2], 9)
    assert found["csm_seed-1"] == (1, [], 9)
    # What the config says itself stands.
    assert found["csm_seed-2"][0] == 77
    assert {"grid_layers-2_seed-5", "grid_layers-3_seed-5"} <= set(found)
    assert section.experiments["grid_layers-3_seed-5"].layers == 3
    assert parse(type(section), section.model_dump_json(), "again") == section


@pytest.mark.parametrize("repeats", [[1234], [1, 1]])
def test_seeds_of_repeats_differ(repeats: list[int]) -> None:
    with pytest.raises(ValidationError, match="must differ"):
        PretrainOptions(framework="csm", repeats=repeats)


def test_repeats_train_on_the_devices_of_their_experiment() -> None:
    large = {"framework": "csm", "repeats": [2, 3]}
    content = {
        **SMALLEST,
        "pretrain": {
            "experiments": {"large": large, "other": {"framework": "csm"}},
            "grids": {"g": {"options": {"framework": "csm", "repeats": [5]}, "vary": {"layers": [2]}}},
        },
        "devices": {
            "large": {"gpus": 8, "nodes": 4},
            "large_seed-3": {"gpus": 2},
            "g_layers-2": {"gpus": 4},
            "default": {"gpus": 1},
        },
    }
    config = parse(Config, content, "x")
    gpus = {name: config.devices_of(name).gpus for name in config.pretrain.experiments}
    assert gpus == {
        "large": 8, "large_seed-2": 8, "large_seed-3": 2, "other": 1,
        "g_layers-2": 4, "g_layers-2_seed-5": 4, "components": 1,
    }  # fmt: skip
    assert config.devices_of("large_seed-2").nodes == 4
    assert parse(Config, {**content, "devices": {}}, "x").devices_of("large") == DeviceOptions()


@pytest.mark.parametrize(
    ("model", "content"),
    [
        (PretrainOptions, {"framework": "csm", "seed": -1}),
        (PretrainOptions, {"framework": "csm", "repeats": [-1]}),
        (AdaptOptions, {"baseline": "linear", "seeds": [-1]}),
        (SplitOptions, {"seed": -1}),
        (ExplainOptions, {"seed": -1}),
        (EvaluateOptions, {"seed": -1}),
        (RestOptions, {"seed": -1}),
    ],
)
def test_seeds_are_not_negative(model: Any, content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        model.model_validate(content)


def test_upstream_models_of_downstream_experiments(tmp_path: Path) -> None:
    content = {
        **SMALLEST,
        "pretrain": {
            "experiments": {
                "csm": {"framework": "csm", "repeats": [1, 2]},
                "bert": {"framework": "sequence_bert", "seed": 5},
            }
        },
        "adapt": {
            "experiments": {
                "one": {"pretrained": "csm", "seeds": [8, 9]},
                "folder": {"pretrained": str(tmp_path), "seeds": [8, 9]},
                "all": {"members": ["one", "folder"]},
            }
        },
    }
    config = parse(Config, content, "x")

    def models(name: str) -> list[tuple[str, int, str]]:
        return config.upstream_models(config.adapt.experiments[name])

    csm = [("csm", 1234, "csm"), ("csm", 1, "csm_seed-1"), ("csm", 2, "csm_seed-2")]
    assert models("one") == csm
    assert models("folder") == [(str(tmp_path), 8, str(tmp_path))]
    # Members bring theirs.
    assert models("all") == []
    # Networks without pretraining differ by the seeds of their own experiment.
    assert models("one_scratch") == models("one_untrained") == csm[:1]
    for name, preset in PROBE_BASELINES.items():
        needed = [("components", 1234, "components")] if preset.encoder == "components" else []
        assert models(name) == needed
    assert models("linear") == models("mean_mlp") == []
    without = parse(Config, {**SMALLEST, "adapt": {"experiments": {"a": {"baseline": "components"}}}}, "x")
    assert without.upstream_models(without.adapt.experiments["a"]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": ["a"]}, "at least 2 items"),
        ({"members": ["a", "b"], "pretrained": "c"}, "exactly one of"),
        ({"pretrained": "a", "read_outs": ["mean+median"]}, "no read-out median .there are: mean, slices"),
        ({"pretrained": "a", "read_outs": ["attentive"]}, "attentive pooling: method network with freeze"),
        ({"pretrained": "a", "read_outs": []}, "at least 1 item"),
        ({"pretrained": "a", "penalties": [0]}, "greater than 0"),
        ({"pretrained": "a", "classifiers": ["svm"]}, "logistic"),
        ({"pretrained": "a", "seeds": [1, 2, 1]}, "seeds .1, 2, 1.: a seed stands there twice"),
        ({"pretrained": "a", "variant": "lfb"}, "variant is for the linear baseline"),
    ],
)
def test_probes_must_make_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AdaptOptions.model_validate(options)


def test_what_is_a_probe() -> None:
    probes = ({"pretrained": "a"}, {"untrained": "a"}, {"baseline": "tangent"})
    trained = ({"pretrained": "a", "method": "network"}, {"scratch": "a"}, {"baseline": "linear"})
    assert all(AdaptOptions.model_validate(options).is_probe for options in probes)
    assert not any(AdaptOptions.model_validate(options).is_probe for options in trained)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({**TASK, "task": {"dealy_s": 3}}, "datasets.a.task.dealy_s: unknown key (or is 'delay_s' meant?)"),
        ({**TASK, "task": {"delay_s": "late"}}, "datasets.a.task.delay_s: Input should be a valid number"),
        ({**TASK, "task": 3}, "datasets.a.task: Input should be a valid string"),
    ],
)
def test_a_mistake_in_the_task_is_named_where_it_is(dataset: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(Config, {**SMALLEST, "datasets": {"a": dataset}}, "mine.yaml")
    text = str(caught.value)
    assert expected in text
    assert "file: mine.yaml" in text
    assert "function-after" not in text


def test_values_do_not_change_after_reading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ShardOptions().dtype = "float32"  # type: ignore[misc]


def test_a_section_goes_through_the_command_line_and_back() -> None:
    config = parse(Config, {**SMALLEST, "datasets": {"a": TASK}}, "my.yaml")
    for name in Config.model_fields.keys() - {"datasets", "devices", "decode"}:
        section = getattr(config, name)
        assert parse(type(section), section.model_dump_json(), "--options") == section
    dataset = config.datasets["a"]
    assert parse(DatasetOptions, dataset.model_dump_json(), "--options") == dataset


def test_text_that_is_no_json_is_an_input_error() -> None:
    with pytest.raises(InputError, match="not JSON") as caught:
        parse(ShardOptions, "{dtype: float16", "--options")
    assert caught.value.problems[0].where == "--options"


def write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_dataset_may_name_a_task_file(tmp_path: Path) -> None:
    task = write(tmp_path / "task.yaml", {"column": "state", "delay_s": 3.0})
    content = {**SMALLEST, "datasets": {"a": {**TASK, "task": str(task)}}}
    config = load_config(write(tmp_path / "config.yaml", content), CHECKOUT)
    assert config.datasets["a"].task == TaskOptions(column="state", delay_s=3.0)


def test_task_files_that_come_along_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {**SMALLEST, "datasets": {"a": {**TASK, "task": "config/tasks/mdtb.yaml"}}}
    task = load_config(write(tmp_path / "config.yaml", content), CHECKOUT).datasets["a"].task
    assert isinstance(task, TaskOptions)
    assert task.column == "taskName"


def test_a_wrong_task_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    content = {**SMALLEST, "datasets": {"a": {**TASK, "task": str(task)}}}
    config = write(tmp_path / "config.yaml", content)
    for text, message in (
        (None, "no such file"),
        ("a: [", "not YAML"),
        ("state_column: x", "state_column: unknown key"),
    ):
        if text is not None:
            task.write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            load_config(config, CHECKOUT)
        assert caught.value.problems[0].where == str(task)


PRESETS = sorted((CHECKOUT / "config" / "confounds").glob("*.yaml"))


def preprocess_of(tmp_path: Path, preprocess: dict[str, Any], **sections: Any) -> PreprocessOptions:
    content = {**SMALLEST, "preprocess": preprocess, **sections}
    return load_config(write(tmp_path / "config.yaml", content), CHECKOUT).preprocess


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_means_the_same_as_its_options_written_out(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written_out = preprocess_of(tmp_path, yaml.safe_load(path.read_text(encoding="utf-8")))
    named = preprocess_of(tmp_path, {"preset": path.stem})
    assert named.model_dump_json() == written_out.model_dump_json()
    assert named.regression() == written_out.regression()
    # What is resolved once stays as it is.
    assert apply_preset(named, CHECKOUT) is named


def test_the_preset_of_the_reference_is_the_default(tmp_path: Path) -> None:
    assert preprocess_of(tmp_path, {"preset": "lfb"}) == PreprocessOptions()


def test_options_beside_a_preset_count_more_even_where_they_are_the_defaults(tmp_path: Path) -> None:
    own = write(tmp_path / "mine.yaml", {"motion": "full", "fd_threshold_mm": 0.5, "exclude": {"mean_fd_mm": 0.4}})
    beside = {"motion": "basic", "fd_threshold_mm": None, "exclude": {"maximum_fd_mm": 5}}
    found = preprocess_of(tmp_path, {"preset": str(own), **beside})
    assert (found.motion, found.fd_threshold_mm) == ("basic", None)
    assert (found.exclude.mean_fd_mm, found.exclude.maximum_fd_mm) == (0.4, 5)
    assert preprocess_of(tmp_path, {"preset": str(own)}).motion == "full"


def test_a_wrong_preset_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    own = write(tmp_path / "mine.yaml", {"motions": "full"})
    chained = write(tmp_path / "chained.yaml", {"preset": "36p"})
    for preset, message in (
        ("37p", "no preset '37p' .there are: 24p, 36p, acompcor, compcor, lfb, none, scrubbing, simple."),
        (str(tmp_path / "absent.yaml"), "no such file"),
        (str(own), "motions: unknown key"),
        (str(chained), "cannot start from another"),
    ):
        with pytest.raises(InputError, match=message):
            preprocess_of(tmp_path, {"preset": preset})


def test_aroma_images_are_not_smoothed_again(tmp_path: Path) -> None:
    aroma = {"strategy": ["high_pass", "wm_csf", "ica_aroma"], "ica_aroma": "full"}
    own = write(tmp_path / "aroma.yaml", aroma)
    for preprocess in (aroma, {"preset": str(own)}):
        with pytest.raises(InputError, match=r"smoothing_fwhm_mm: .* set it to null"):
            preprocess_of(tmp_path, preprocess)
        assert preprocess_of(tmp_path, preprocess, parcellate={"smoothing_fwhm_mm": None}).takes_aroma_images
    assert not preprocess_of(tmp_path, {"preset": str(own), "ica_aroma": "basic"}).takes_aroma_images


def test_aroma_images_are_not_in_what_hcp_distributes(tmp_path: Path) -> None:
    datasets = {"a": {"role": "upstream", "derivatives": "hcp", "layout": "hcp"}}
    sections = {"datasets": datasets, "parcellate": {"smoothing_fwhm_mm": None}}
    with pytest.raises(InputError, match="layout hcp has no ICA-AROMA images"):
        preprocess_of(tmp_path, {"strategy": ["ica_aroma"], "ica_aroma": "full"}, **sections)


@pytest.mark.parametrize("number", [-1, 0])
def test_there_is_at_least_one_component(number: int) -> None:
    # -1 was all but the last one.
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        PreprocessOptions.model_validate({"strategy": ["compcor"], "n_compcor": number})


def test_contracts_name_the_kind_of_aroma_only_where_images_are_aromas() -> None:
    assert "ica_aroma" not in PreprocessOptions().regression()
    full = PreprocessOptions(strategy=["ica_aroma"], ica_aroma="full")
    assert full.regression()["ica_aroma"] == "full"


@pytest.mark.parametrize(
    ("content", "image"),
    [
        ({"path": "mine_dseg.nii.gz", "name": "Mine"}, "mine_dseg.nii.gz"),
        ({"name": "difumo"}, "data/atlas/difumo-1024-2mm.nii.gz"),
        ({"name": "difumo", "dimension": 64, "resolution_mm": 3}, "data/atlas/difumo-64-3mm.nii.gz"),
        ({"name": "schaefer", "variant": "17networks"}, "data/atlas/schaefer-400-17networks-2mm.nii.gz"),
        ({"name": "aal", "cache": "/shared"}, "/shared/aal-3v2.nii.gz"),
        ({"name": "harvard-oxford"}, "data/atlas/harvard-oxford-cort-maxprob-thr25-2mm.nii.gz"),
    ],
)
def test_an_atlas_is_an_image_or_one_that_is_fetched(content: dict[str, Any], image: str) -> None:
    options = parse(AtlasOptions, content, "config")
    assert options.image == image
    assert (options.fetched == []) == ("path" in content)
    # What is passed on to stages as JSON means the same.
    assert parse(AtlasOptions, options.model_dump_json(), "--atlas") == options


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "give the path of an image"),
        ({"name": "schafer"}, "difumo, schaefer, aal, harvard-oxford"),
        ({"name": "difumo", "dimension": 100}, r"dimension: 100 \(possible: 64, 128, 256, 512, 1024\)"),
        ({"name": "aal", "dimension": 116}, "nothing, aal has no dimension"),
        ({"name": "aal", "labels": "names.tsv"}, "comes with it"),
        ({"path": "a.nii.gz", "dimension": 64}, "only for an atlas that is fetched"),
        ({"path": "a.nii.gz", "sha256": "abc"}, "pattern"),
    ],
)
def test_an_atlas_that_does_not_exist_is_an_error(content: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(AtlasOptions, content, "config")


def test_variables_in_paths_are_expanded_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "atlas": {"path": "${STUDY}/atlas.nii.gz"},
        "datasets": {"a": {"role": "upstream", "derivatives": "$STUDY/derivatives"}},
    }
    config = parse(Config, content, "my.yaml")
    monkeypatch.delenv("STUDY", raising=False)
    with pytest.raises(InputError) as caught:
        resolve(config, CHECKOUT)
    assert [problem.entity for problem in caught.value.problems] == ["atlas.path", "datasets.a.derivatives"]
    monkeypatch.setenv("STUDY", "/study")
    resolved = resolve(config, CHECKOUT)
    assert resolved.atlas is not None
    assert resolved.atlas.path == "/study/atlas.nii.gz"
    assert resolved.datasets["a"].derivatives == "/study/derivatives"


SHIPPED = sorted((CHECKOUT / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_configs_that_come_along_load(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAXBY", "/haxby")
    monkeypatch.setenv("SONG", "/song")
    monkeypatch.setenv("STUDY", "/study")
    monkeypatch.setenv("MDTB", "/mdtb")
    # Weights have to be there.
    for name in ("gpt2", "bert-base-uncased", "autoencoding", "csm", "sequence_bert", "network_bert"):
        (tmp_path / name).mkdir()
    for variable in ("PREPRINT", "LANGUAGE_MODELS", "WEIGHTS", "SHARDS"):
        monkeypatch.setenv(variable, str(tmp_path))
    config = load_config(path, CHECKOUT)
    assert all(not isinstance(dataset.task, str) for dataset in config.datasets.values())


@pytest.mark.parametrize(
    "path", sorted((CHECKOUT / "config" / "tasks").glob("*.yaml")), ids=lambda path: path.name
)
def test_task_files_that_come_along_load(path: Path) -> None:
    task = parse(TaskOptions, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    if path.name == "hcp.yaml":
        assert task.labels is not None
        assert len(set(task.labels)) == 20


def test_a_dataset_has_the_split_options_of_its_role() -> None:
    rest = {"role": "upstream", "derivatives": "a"}
    assert isinstance(parse(DatasetOptions, {**rest, "split": {"group": "f"}}, "x").split, UpstreamSplitOptions)
    assert isinstance(parse(DatasetOptions, {**TASK, "split": {"group": "f"}}, "x").split, DownstreamSplitOptions)
    wrong = {"rest": {**rest, "split": {"train": [1]}}, "task": {**TASK, "split": {"trains": [1]}}}
    assert problems({**SMALLEST, "datasets": wrong}) == {
        "datasets.rest.split.train": "unknown key",
        "datasets.task.split.trains": "unknown key (or is 'train' meant?)",
    }


def test_datasets_from_one_folder_have_the_same_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    one, two, other, named, remote = (
        parse(DatasetOptions, {"role": "upstream", **options}, "x").people
        for options in (
            {"derivatives": "data"},
            {"shards": str(tmp_path / "link")},
            {"derivatives": "data2"},
            {"derivatives": "data", "source": "elsewhere"},
            {"shards": "https://a.org/b"},
        )
    )
    assert one == two != other
    assert (named, remote) == ("elsewhere", "https://a.org/b")


def test_participants_are_looked_for_in_bids_and_above_the_derivatives(tmp_path: Path) -> None:
    def found(**options: str) -> str | None:
        role = {"role": "upstream", "derivatives": str(tmp_path / "a/derivatives/fmriprep")}
        return parse(DatasetOptions, {**role, **options}, "x").participants_table

    above, raw = tmp_path / "a/participants.tsv", tmp_path / "raw/participants.tsv"
    above.parent.mkdir()
    raw.parent.mkdir()
    # Where it should be, for the error.
    assert found() == str(tmp_path / "a/derivatives/participants.tsv")
    above.touch()
    assert found() == found(bids=str(raw.parent)) == str(above)
    raw.touch()
    assert found(bids=str(raw.parent)) == str(raw)
    assert found(participants="mine.tsv") == "mine.tsv"
    assert parse(DatasetOptions, {"role": "upstream", "shards": "a"}, "x").participants_table is None


def test_each_stage_has_a_revision_and_a_section() -> None:
    assert set(REVISIONS) == set(STAGES) <= set(Config.model_fields)


def test_the_example_of_the_first_page_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    example = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert advise(parse(Config, example, "README")) == []


def test_the_example_in_the_readme_loads() -> None:
    text = (CHECKOUT / "config" / "README.md").read_text(encoding="utf-8")
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert set(parse(Config, example, "README").datasets) == {"rest01", "faces"}


def warnings_of(tmp_path: Path, **sections: Any) -> list[str]:
    content = {**SMALLEST, **sections}
    return advise(load_config(write(tmp_path / "config.yaml", content), CHECKOUT))


def test_datasets_that_one_model_meets_and_that_are_prepared_differently_are_named(tmp_path: Path) -> None:
    def said(allowed: list[str], strategy: list[str], **upstream: Any) -> list[str]:
        lines = warnings_of(
            tmp_path,
            atlas={"path": "atlas_dseg.nii.gz"},
            datasets={
                "rest": {"role": "upstream", "derivatives": "d", "preprocess": {"strategy": strategy}},
                "movie": {"role": "upstream", "derivatives": "e"},
                "faces": {"role": "downstream", "derivatives": "f", "bids": "b", "task": {"delay_s": 5}},
            },
            pretrain={"experiments": {"net": {"framework": "csm", "datasets": ["rest"], **upstream}}},
            adapt={
                "baselines": [],
                "experiments": {"net": {"pretrained": "net", "allow_mismatch": allowed}},
            },
        )
        return [line for line in lines if "prepared in another way" in line]

    default = ["motion", "wm_csf", "global_signal"]
    (line,) = [line for line in said([], ["motion"]) if line.startswith("datasets.faces")]
    assert "prepared in another way than rest (confounds)" in line
    assert "adapt.experiments.net" in line
    assert "allow_mismatch: [confounds]" in line
    assert not said([], default)
    # A model of both kinds meets either, but is not trained on both without a word.
    (both,) = said([], ["motion"], datasets=["rest", "movie"])
    assert both.startswith("datasets.rest: prepared in another way than movie (confounds)")
    # Linear pretraining, which is always there, meets both as well.
    assert "pretrain.experiments.net and 1 more will stop" in both


def test_data_that_an_imported_network_does_not_fit_are_named_before_anything_is_prepared(tmp_path: Path) -> None:
    model = tmp_path / "weights"
    model.mkdir()

    def said(allowed: list[str], **contract: Any) -> list[str]:
        (model / "contract.json").write_text(json.dumps(contract))
        lines = warnings_of(
            tmp_path,
            atlas={"path": "atlas_dseg.nii.gz"},
            datasets={"faces": {"role": "downstream", "derivatives": "f", "bids": "b", "task": {"delay_s": 5}}},
            adapt={
                "baselines": [],
                "experiments": {"old": {"pretrained": str(model), "allow_mismatch": allowed}},
            },
        )
        return [line for line in lines if "prepared in another way" in line]

    fits = {"smoothing_fwhm_mm": 3.0, "mask": True, "space": "MNI152NLin2009cAsym", "t_r_s": None}
    assert not said([], **fits)
    (line,) = said([], **{**fits, "mask": False, "images": "any"})
    assert f"datasets.faces: prepared in another way than {model} (mask)" in line
    assert "allow_mismatch: [mask]" in line
    assert not said(["mask"], **{**fits, "mask": False})
    # A network that was trained on both kinds of data fits either.
    assert not said([], **{**fits, "mask": False}, varied={"mask": [False, True]})


def test_a_task_without_a_delay_is_warned_about(tmp_path: Path) -> None:
    def said(**task: Any) -> list[str]:
        where = {"bids": "b", "derivatives": "d"}
        return warnings_of(tmp_path, datasets={"a": {"role": "downstream", "task": task, **where}})

    assert any("datasets.a.task: without delay_s" in line for line in said(column="state"))
    for task in ({"delay_s": 0}, {"delay_s": 5}, {"window_s": [4, 10]}):
        assert not any("delay_s" in line for line in said(**task))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"window_s": [4, 10], "delay_s": 5}, "leave out delay_s"),
        ({"window_s": [10, 4]}, "need begin < end"),
        ({"minimum_frames": 1}, "a trial of one frame has no dynamics"),
        ({"labels": ["go", "stop", "go"]}, "'go' stands there more than once"),
    ],
)
def test_options_of_trials_that_contradict_each_other_are_refused(task: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(TaskOptions, task, "task")


def test_datasets_may_have_options_of_their_own(tmp_path: Path) -> None:
    own = {
        "preprocess": {"strategy": ["motion"], "exclude": {"mean_fd_mm": 0.3}},
        "parcellate": {"detrend": False},
    }
    images = {"role": "upstream", "derivatives": "rest"}
    content = {
        **SMALLEST,
        "datasets": {"a": images, "b": {**images, **own}, "c": {**images, "preprocess": {"preset": "none"}}},
        "preprocess": {"preset": "36p", "fd_threshold_mm": 0.5, "exclude": {"maximum_fd_mm": 5}},
        "parcellate": {"smoothing_fwhm_mm": None},
    }
    config = load_config(write(tmp_path / "config.yaml", content), CHECKOUT)
    study, other, plain = (config.preprocess_of(name) for name in "abc")
    assert study == config.preprocess
    assert (study.motion, study.fd_threshold_mm) == ("full", 0.5)
    # What the dataset does not name is the study's.
    assert (other.strategy, other.motion, other.fd_threshold_mm) == (["motion"], "full", 0.5)
    assert (other.exclude.mean_fd_mm, other.exclude.maximum_fd_mm) == (0.3, 5)
    # A preset is a start of its own.
    assert (plain.strategy, plain.fd_threshold_mm, plain.exclude.maximum_fd_mm) == ([], None, None)
    assert [config.parcellate_of(name).detrend for name in "abc"] == [True, False, True]
    assert config.parcellate_of("b").smoothing_fwhm_mm is None


def test_a_dataset_may_take_aroma_images_beside_others(tmp_path: Path) -> None:
    images = {"role": "upstream", "derivatives": "rest"}
    aroma = {**images, "preprocess": {"strategy": ["ica_aroma"], "ica_aroma": "full"}}
    unsmoothed = {**aroma, "parcellate": {"smoothing_fwhm_mm": None}}
    assert preprocess_of(tmp_path, {}, datasets={"a": images, "b": unsmoothed})
    with pytest.raises(InputError, match=r"set it to null \(for b\)"):
        preprocess_of(tmp_path, {}, datasets={"a": images, "b": aroma})


def test_cosines_and_butterworth_filter_are_not_used_together(tmp_path: Path) -> None:
    assert warnings_of(tmp_path) == []
    (line,) = warnings_of(tmp_path, preprocess={"preset": "acompcor"})
    assert "parcellate.high_pass_hz 0.008 is left out" in line
    assert warnings_of(tmp_path, preprocess={"preset": "acompcor"}, parcellate={"high_pass_hz": None}) == []
    cosines, none = PreprocessOptions(strategy=["compcor"]), PreprocessOptions(strategy=["motion"])
    filters = ParcellateOptions(low_pass_hz=0.1)
    assert with_one_high_pass(filters, none) == filters
    kept = with_one_high_pass(filters, cosines)
    assert (kept.high_pass_hz, kept.low_pass_hz) == (None, 0.1)


@pytest.mark.parametrize(
    ("atlas", "template"),
    [
        ({"path": "tpl-MNI152NLin6Asym_atlas-X_dseg.nii.gz"}, "MNI152NLin6Asym"),
        ({"path": "atlas-X_space-MNI152NLin6Asym_dseg.nii.gz"}, "MNI152NLin6Asym"),
        ({"path": "tpl-MNI152NLin2009cAsym_atlas-X_dseg.nii.gz"}, None),
        ({"path": "mine.nii.gz"}, None),
        ({"path": "mine.nii.gz", "space": "MNIColin27"}, "MNIColin27"),
        ({"name": "schaefer"}, "MNI152NLin6Asym"),
        ({"name": "aal"}, "MNIColin27"),
        ({"name": "aal", "space": "MNI152NLin2009cAsym"}, None),
    ],
)
def test_an_atlas_in_another_template_than_the_images_is_named(
    tmp_path: Path, atlas: dict[str, str], template: str | None
) -> None:
    lines = warnings_of(tmp_path, atlas=atlas)
    assert [f"the atlas is in {template}" in line for line in lines] == [True] * (template is not None)


def test_what_baselines_look_at_meets_the_same_runs_as_the_networks(tmp_path: Path) -> None:
    experiments = {"a": {"framework": "csm", "allow_mismatch": ["space"]}, "b": {"framework": "csm"}}
    content = {**SMALLEST, "pretrain": {"experiments": experiments}}
    found = load_config(write(tmp_path / "config.yaml", content), CHECKOUT).pretrain.experiments
    assert found["components"].allow_mismatch == ["space"]


@pytest.mark.parametrize(("steps", "every"), [(5, 1), (300, 30), (10_000, 1000), (300_000, 1000)])
def test_short_trainings_are_validated_more_than_once(steps: int, every: int) -> None:
    assert PretrainOptions(framework="csm", steps=steps).validation_steps == every
    assert PretrainOptions(framework="csm", steps=steps, evaluate_every=7).validation_steps == 7


def test_few_test_units_are_warned_about(tmp_path: Path) -> None:
    def lines(**split: Any) -> list[str]:
        return warnings_of(tmp_path, datasets={"a": {**TASK, "task": {"delay_s": 5.0}, "split": split}})

    (line,) = lines(test=1, train=[2])
    assert "a single test unit" in line
    (line,) = lines(test=3, train=[2])
    assert "3 test units (split.test: 3): an interval over them reaches 4.3 standard errors" in line
    assert lines(test=4) == lines(test="leave_one_out") == []


def test_weights_are_found_by_variables(tmp_path, monkeypatch):
    (tmp_path / "csm").mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(
        "datasets: {a: {role: downstream, shards: a}, rest: {role: upstream, shards: rest}}\n"
        "pretrain: {experiments: {warm: {framework: csm, initialise: '${MODELS}/csm'}}}\n"
        "adapt: {baselines: [], controls: [], experiments: {csm: {pretrained: '${MODELS}/csm'}}}\n"
    )
    with pytest.raises(InputError, match="environment variable that is not set") as error:
        load_config(config, tmp_path)
    assert {problem.entity for problem in error.value.problems} == {
        "pretrain.experiments.warm.initialise",
        "adapt.experiments.csm.pretrained",
    }
    monkeypatch.setenv("MODELS", str(tmp_path))
    read = load_config(config, tmp_path)
    assert read.adapt.experiments["csm"].pretrained == f"{tmp_path}/csm"
    assert read.pretrain.experiments["warm"].initialise == f"{tmp_path}/csm"
    monkeypatch.setenv("MODELS", "/nowhere")
    with pytest.raises(InputError, match="no folder"):
        load_config(config, tmp_path)


def test_people_of_one_folder_with_both_roles_are_warned_about(tmp_path: Path) -> None:
    def said(**upstream: Any) -> list[str]:
        task = {"role": "downstream", "derivatives": "d", "bids": "b", "task": {"delay_s": 5}}
        datasets = {"rest": {"role": "upstream", "derivatives": "d", **upstream}, "task": task}
        return [line for line in warnings_of(tmp_path, datasets=datasets) if "datasets.rest" in line]

    (line,) = said()
    assert "the same folder as those of task" in line
    assert said(source="others") == said(split={"shared_people": "allow"}) == []


class TestLabels:
    def test_a_resolution_may_be_written_as_a_number(self):
        assert DatasetOptions(role="upstream", derivatives="x", resolution=2).resolution == "2"

    def test_numbers_for_subjects_are_refused_since_yaml_loses_their_zeros(self):
        with pytest.raises(ValueError, match=r"1 is a number here; write labels in quotes, as in \['01', '02'\]"):
            DatasetOptions(role="upstream", derivatives="x", subjects=[1, 2])
