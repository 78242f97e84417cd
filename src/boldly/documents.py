"""The documents that are made from the config models: ``python -m boldly.documents`` writes them anew.

They are the JSON schema of the config, and the option tables between the markers of config/README.md.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from boldly.config import (
    AdaptOptions,
    AdaptSection,
    AtlasOptions,
    Config,
    DatasetOptions,
    DeviceOptions,
    DownstreamSplitOptions,
    EvaluateOptions,
    ExclusionOptions,
    ExportOptions,
    FiguresOptions,
    GridOptions,
    IndexOptions,
    ParcellateOptions,
    PreprocessOptions,
    PretrainOptions,
    RestOptions,
    Section,
    ShardOptions,
    SignalExclusionOptions,
    SplitOptions,
    TaskOptions,
    UpstreamSplitOptions,
)
from boldly.files import atomic_path

SCHEMA = Path("workflow/schemas/config.schema.json")
README = Path("config/README.md")

# Where each model stands in a config file: the name of its table.
TABLES: dict[str, type[Section]] = {
    "atlas": AtlasOptions,
    "datasets.<name>": DatasetOptions,
    "datasets.<name>.task": TaskOptions,
    "datasets.<name>.task.rest": RestOptions,
    "index": IndexOptions,
    "preprocess": PreprocessOptions,
    "preprocess.exclude": ExclusionOptions,
    "parcellate.exclude": SignalExclusionOptions,
    "parcellate": ParcellateOptions,
    "shard": ShardOptions,
    "export": ExportOptions,
    "split": SplitOptions,
    "split.upstream": UpstreamSplitOptions,
    "split.downstream": DownstreamSplitOptions,
    "pretrain.experiments.<name>": PretrainOptions,
    "pretrain.grids.<name>": GridOptions,
    "adapt": AdaptSection,
    "adapt.experiments.<name>": AdaptOptions,
    "evaluate": EvaluateOptions,
    "figures": FiguresOptions,
    "devices.<name>": DeviceOptions,
}

_MARKED = re.compile(r"(<!-- options: (?P<name>\S+) -->\n).*?(<!-- end of options -->)", re.DOTALL)
_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def render(root: Path) -> dict[Path, str]:
    """Return the text that each document should have.

    Parameters
    ----------
    root : Path
        The checkout. The README there is read: what stands outside the markers is kept.

    Returns
    -------
    dict of Path to str
        By path in the checkout.

    Raises
    ------
    ValueError
        If the README has no place for a table, or one for a table that does not exist.
    """
    readme = (root / README).read_text(encoding="utf-8")
    places = [match["name"] for match in _MARKED.finditer(readme)]
    if sorted(places) != sorted(TABLES):
        wrong = sorted(set(places) ^ set(TABLES)) or "twice the same"
        raise ValueError(f"{README}: the markers are not one for each table: {wrong}")
    return {
        SCHEMA: schema(),
        README: _MARKED.sub(lambda match: f"{match[1]}\n{table(TABLES[match['name']])}\n{match[3]}", readme),
    }


def schema() -> str:
    """Return the JSON schema of the config."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def table(model: type[Section]) -> str:
    """Return a table of a model's options as Markdown, its own before those that it shares."""
    content = model.model_json_schema()
    own = [name for name in model.model_fields if name in model.__annotations__]
    shared = [name for name in model.model_fields if name not in own]
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for name in own + shared:
        option = content["properties"][name]
        cells = [f"`{name}`", _type(option), _default(model, name), option.get("description", "")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(model: type[Section], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Section):
        return "see below"
    if default is None:
        return "none"
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def _type(option: dict[str, Any]) -> str:
    """Put the schema of one option into words."""
    if "anyOf" in option:
        # That an option may be left out stands in its default.
        words = [_type(choice) for choice in option["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "$ref" in option:
        return "options"
    if "const" in option:
        return f"`{option['const']}`"
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    if option.get("type") == "array":
        if "prefixItems" in option:
            return f"{len(option['prefixItems'])} x {_type(option['prefixItems'][0])}"
        return f"list of {_type(option['items']) if option.get('items') else 'values'}"
    if option.get("type") == "object":
        # Names that must have a form of their own stand under that form.
        values = option.get("additionalProperties") or next(iter(option["patternProperties"].values()))
        return f"names to {_type(values) if isinstance(values, dict) else 'values'}"
    if "type" not in option:
        return "value"
    limits = ", ".join(f"{sign} {option[word]:g}" for word, sign in _LIMITS.items() if word in option)
    return f"{_WORDS[option['type']]} {limits}".rstrip()


def main() -> int:
    """Write the documents of the checkout in the current folder."""
    root = Path.cwd()
    if not (root / README).exists():
        print(f"boldly.documents: no {README} here; run it at the top of the checkout", file=sys.stderr)
        return 1
    for path, text in render(root).items():
        with atomic_path(root / path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
