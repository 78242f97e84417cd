"""The documents that are made from the config models: ``python -m boldly.documents`` writes them anew.

They are the JSON schema of the config, and the option tables between the markers of config/README.md.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from boldly.config import (
    AdaptOptions,
    AdaptSection,
    AtlasOptions,
    BatchOptions,
    Config,
    DatasetOptions,
    DecodeOptions,
    DeviceOptions,
    DownstreamSplitOptions,
    EvaluateOptions,
    ExclusionOptions,
    ExplainOptions,
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
from boldly.config.described import IN_WORDS, described
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
    "explain": ExplainOptions,
    "decode.<name>": DecodeOptions,
    "figures": FiguresOptions,
    "batches": BatchOptions,
    "devices.<name>": DeviceOptions,
}

_MARKED = re.compile(r"(<!-- options: (?P<name>\S+) -->\n).*?(<!-- end of options -->)", re.DOTALL)


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
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for option in described(model):
        default = option.default if option.default in IN_WORDS else f"`{option.default}`"
        cells = (f"`{option.name}`", option.kind, default, option.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


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
