"""The documents that are made from the config models are those of the models."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from boldly import documents
from boldly.config import AdaptOptions, Config, DownstreamSplitOptions, PretrainOptions, Section

CHECKOUT = Path(__file__).resolve().parents[1]
RENDERED = documents.render(CHECKOUT)


@pytest.mark.parametrize("path", RENDERED, ids=str)
def test_a_document_is_up_to_date(path: Path) -> None:
    assert (CHECKOUT / path).read_text(encoding="utf-8") == RENDERED[path], "run python -m boldly.documents"


def models(model: type[Section]) -> set[type[Section]]:
    """Return the models that a model is made of, itself included."""
    found = {model}
    for name in model.model_json_schema().get("$defs", {}):
        found |= {one for one in all_sections(Section) if one.__name__ == name}
    return found


def all_sections(base: type[Section]) -> set[type[Section]]:
    return {base} | {one for child in base.__subclasses__() for one in all_sections(child)}


def test_every_section_of_the_config_has_a_table() -> None:
    # A section of named experiments (and grids of them) is shown by these.
    shown = set(documents.TABLES.values())
    missing = {one for one in models(Config) - shown if not one.model_fields.keys() <= {"experiments", "grids"}}
    missing -= {Config}
    assert missing == set()


def test_every_option_has_a_description() -> None:
    for model in models(Config):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_a_table_has_type_limits_default_and_meaning() -> None:
    lines = documents.table(DownstreamSplitOptions).splitlines()
    assert lines[2].startswith('| `by` | `subject`, `run` | `"subject"` | Unit of the split;')
    assert "| `train` | list of whole number | none | Numbers of training units" in lines[3]
    assert "| `test` | whole number or `leave_one_out` | none |" in lines[5]
    assert "| `draws` | whole number ≥ 1 | `5` |" in lines[6]


def test_own_options_come_before_shared_ones() -> None:
    assert documents.table(PretrainOptions).splitlines()[2].startswith("| `framework` |")
    assert documents.table(AdaptOptions).splitlines()[2].startswith("| `pretrained` |")


def test_text_outside_the_markers_is_kept(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    text = (CHECKOUT / "config" / "README.md").read_text(encoding="utf-8")
    changed = text.replace("# The config\n", "# The config\n\nA sentence of mine.\n").replace("required", "WRONG")
    (tmp_path / "config" / "README.md").write_text(changed, encoding="utf-8")
    rendered = documents.render(tmp_path)[documents.README]
    assert "A sentence of mine." in rendered
    assert "WRONG" not in rendered


def test_a_table_without_a_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    text = (CHECKOUT / "config" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "config" / "README.md").write_text(text.replace("<!-- options: shard -->", ""), encoding="utf-8")
    with pytest.raises(ValueError, match="shard"):
        documents.render(tmp_path)


CONFIGS = sorted(path for path in (CHECKOUT / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_that_come_along_agree_with_the_schema(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json.loads(documents.schema())).validate(content)


def test_the_schema_refuses_an_unknown_key() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(documents.schema()))
    config = {"atlas": {"path": "a.nii"}, "datasets": {"a": {"role": "upstream", "derivatives": "a"}}}
    assert validator.is_valid(config)
    assert not validator.is_valid({**config, "atlas": {"path": "a.nii", "pth": "b"}})
