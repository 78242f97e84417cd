"""Write benchmarks/README.md from the scripts beside it and the tables that they left in results/benchmarks.

Usage: python benchmarks/page.py
"""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd

from boldly.files import atomic_path

HERE = Path("benchmarks")
TABLES = Path("results/benchmarks")
INTRODUCTION = """# Benchmarks

One script for each headline figure. Each measures boldly and what it is compared with in one run, prints the table
and writes it to `results/benchmarks/<name>.tsv`; `make benchmarks` runs those that need no real data, no GPU and
no cluster, and writes this page. `ratio` is how many times better boldly is. All tables so far come from a machine
with 2 CPU cores.
"""


def main() -> None:
    with atomic_path(HERE / "README.md") as temporary:
        temporary.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page: what each script says of itself, and its table."""
    parts = [INTRODUCTION]
    for script in sorted(HERE.glob("*.py")):
        path = TABLES / f"{script.stem}.tsv"
        if not path.exists():
            continue
        table = pd.read_csv(path, sep="\t", keep_default_na=False)
        text = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").split("\n\nUsage:")
        about = _markdown(text[0], set(table.iloc[:, 0]))
        parts.append(f"## {script.stem}\n\n`python {script}`\n\n{about}\n\n{_rows(table)}\n")
    return "\n".join(parts)


def _markdown(docstring: str, metrics: set[str]) -> str:
    """Turn what a docstring says about each metric (`metric: explanation`, then indented lines) into a list."""
    lines = []
    for line in docstring.split("\n"):
        name, colon, rest = line.partition(": ")
        lines.append(f"- **{name}**: {rest}" if colon and name in metrics else line.replace("    ", "  ", 1))
    return "\n".join(lines)


def _rows(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns)]
    rows += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: object) -> str:
    try:
        return f"{float(str(value)):.4g}"
    except ValueError:
        return str(value)


if __name__ == "__main__":
    main()
