"""The picture of the workflow, a box for each stage: ``make rulegraph``."""

from __future__ import annotations

import re
import sys

# Rules whose names say no stage; the others begin with theirs.
STAGES = {"prepare_batch": "preprocess\nparcellate\nshard", "figure": "figures"}
LEFT_OUT = ("all", "help")
BOX = 'shape=box, style="rounded,filled", fillcolor="#e3edf8", color="#0b5cad", fontname="sans-serif", fontsize=13'


def merged(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the stages of a graph of rules, in the order they appear, and what needs what.

    Parameters
    ----------
    text : str
        What ``snakemake --rulegraph`` prints.
    """
    rules = dict(re.findall(r'^\s*(\d+)\[label = "([^"\\]+)', text, re.MULTILINE))
    stages = {number: stage(name) for number, name in rules.items() if name not in LEFT_OUT}
    found = re.findall(r"^\s*(\d+) -> (\d+)", text, re.MULTILINE)
    pairs = {(stages[one], stages[other]) for one, other in found if one in stages and other in stages}
    return sorted(set(stages.values())), sorted((one, other) for one, other in pairs if one != other)


def stage(rule: str) -> str:
    """Return the stage of a rule."""
    return STAGES.get(rule) or STAGES.get(rule.split("_")[0]) or rule.split("_")[0]


def drawn(nodes: list[str], edges: list[tuple[str, str]]) -> str:
    """Return the graph as Graphviz reads it, without edges that follow from others."""
    lines = [f'"{node}" [label="{node}"];'.replace("\n", r"\n") for node in nodes]
    shown = [(one, other) for one, other in edges if not _follows(edges, one, other)]
    lines += [f'"{one}" -> "{other}";'.replace("\n", r"\n") for one, other in shown]
    looks = f'rankdir=LR; bgcolor="transparent"; node [{BOX}]; edge [color="#5a6472"];'
    return f"digraph {{ {looks} {' '.join(lines)} }}\n"


def _follows(edges: list[tuple[str, str]], start: str, end: str) -> bool:
    """Tell whether a longer way leads from start to end."""
    seen, open_ones = set(), [other for one, other in edges if one == start and other != end]
    while open_ones:
        here = open_ones.pop()
        if here == end:
            return True
        if here not in seen:
            seen.add(here)
            open_ones += [other for one, other in edges if one == here]
    return False


if __name__ == "__main__":
    print(drawn(*merged(sys.stdin.read())))
