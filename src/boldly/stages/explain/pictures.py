"""Maps as pictures: glass brains and slices of all states on a page, and an interactive page, all made offline."""

from __future__ import annotations

import gc
import html
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from boldly.files import atomic_path

# Heights of axial slices in MNI space, mm.
_SLICES_MM = (-24, -8, 8, 24, 40, 56)
# Voxels of the brain behind maps: fine behind fine maps; coarse in pages, which are to be small.
_FINE_MM, _COARSE_MM = 2, 4
# Share of the largest value below which nothing is painted.
_THRESHOLD = 0.1
_MOST_SLICES = 3
# Fewest voxels of an interactive view along any axis.
_LEAST_DEPTH = 8
_ROW_IN, _WIDTH_IN, _HEAD_IN = 1.05, 10.0, 0.55
_COLOURS = "RdBu_r"
# Parts of a page that are longer than this are kept once, whatever number of states shares them.
_LONG = 500


def scale_of(volumes: NDArray[np.float32]) -> float:
    """Return the value at the end of the colour scale, the same for all states: nearly the largest."""
    inside = np.abs(volumes[volumes != 0])
    return float(np.quantile(inside, 0.995)) if inside.size else 1.0


def draw(path: Path, images: Sequence[nib.Nifti1Image], states: Sequence[str], *, title: str, unit: str,
         scale: float, in_mni: bool, dpi: int = 130) -> None:  # fmt: skip
    """Draw a row for each state: its glass brain, seen from four sides, and slices; in other spaces slices alone.

    Parameters
    ----------
    path : Path
        PNG to write.
    images : sequence of Nifti1Image
        A map for each state.
    states : sequence of str
        Their names.
    title, unit : str
        What is shown, and in what unit.
    scale : float
        Value at the end of the colour scale.
    in_mni : bool
        Whether the maps are in an MNI space, whose brain is drawn around them.
    dpi : int, default=130
        Resolution.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    # A brain from all sides takes a line; of a few slices several states fit into one.
    per_line = 1 if in_mni else max(1, _MOST_SLICES // len(_cuts(images[0])))
    height = _HEAD_IN + _ROW_IN * -(-len(images) // per_line)
    figure = Figure(figsize=(_WIDTH_IN, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.01, 1 - 0.16 / height, title, fontsize=11, fontweight="bold", va="top")
    for number, (image, state) in enumerate(zip(images, states, strict=True)):
        line, column = divmod(number, per_line)
        left, bottom = column / per_line, 1 - (_HEAD_IN + _ROW_IN * (line + 1)) / height
        figure.text(left + 0.01, bottom + 0.5 * _ROW_IN / height, _broken(state), fontsize=8, va="center")
        place = (left + 0.12, bottom, 1 / per_line - 0.13, 0.94 * _ROW_IN / height)
        with _quiet():
            _draw_row(figure, image, place, scale, in_mni)
    bar = figure.add_axes((0.72, 1 - 0.24 / height, 0.24, 0.08 / height))
    colours = figure.colorbar(ScalarMappable(Normalize(-scale, scale), _COLOURS), bar, orientation="horizontal")
    colours.set_ticks([-scale, 0, scale], labels=[f"{-scale:.2g}", "0", f"{scale:.2g}"])
    bar.tick_params(labelsize=7, length=2, pad=1)
    figure.text(0.71, 1 - 0.2 / height, unit, fontsize=7.5, ha="right", va="center")
    if in_mni:
        heights = ", ".join(map(str, _SLICES_MM))
        figure.text(0.99, 1 - 0.48 / height, f"slices at z = {heights} mm", fontsize=6.5, ha="right", va="center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={"Software": None})


def _draw_row(figure: Any, image: nib.Nifti1Image, place: tuple[float, float, float, float], scale: float,
              in_mni: bool) -> None:  # fmt: skip
    from nilearn import plotting

    left, bottom, width, height = place
    about = {"figure": figure, "vmax": scale, "vmin": -scale, "threshold": _THRESHOLD * scale, "colorbar": False}
    about |= {"cmap": _COLOURS, "annotate": False}
    if in_mni:
        glass = (left, bottom, 0.47 * width, height)
        plotting.plot_glass_brain(image, display_mode="lyrz", axes=glass, plot_abs=False, **about)
        rest = (left + 0.49 * width, bottom, 0.51 * width, height)
        plotting.plot_stat_map(
            image, bg_img=_background(image), display_mode="z", cut_coords=list(_SLICES_MM), axes=rest,
            black_bg=False, **about,
        )  # fmt: skip
        return
    # Nothing shows where the brain is but the map itself: small values are painted too.
    about["threshold"] = 0
    plotting.plot_stat_map(
        image, bg_img=None, display_mode="z", cut_coords=_cuts(image), axes=place, black_bg=False, **about
    )


def _cuts(image: nib.Nifti1Image) -> list[float]:
    """Return heights of slices through the middles of those slices of an image that hold values, three at most."""
    held = np.flatnonzero(np.asarray(image.dataobj).any(axis=(0, 1)))
    if not len(held):
        held = np.arange(image.shape[2])
    chosen = held[np.unique(np.linspace(0, len(held) - 1, min(_MOST_SLICES, len(held))).round().astype(int))]
    return [float((image.affine @ [0, 0, k, 1])[2]) for k in chosen]


def write_view(path: Path, images: Sequence[nib.Nifti1Image], states: Sequence[str], *, title: str, scale: float,
               in_mni: bool) -> None:  # fmt: skip
    """Write an interactive page: slices to click through, and the state to choose; one file, nothing is loaded.

    Parameters as for `draw`.
    """
    from nilearn import plotting

    documents = []
    for image, state in zip(images, states, strict=True):
        with _quiet():
            view = plotting.view_img(
                image, bg_img=_background() if in_mni else False, threshold=_THRESHOLD * scale, vmax=scale,
                cmap=_COLOURS, title=state, black_bg=False, colorbar=True,
                resampling_interpolation="continuous" if in_mni else "nearest",
            )  # fmt: skip
        documents.append(str(view.get_standalone()))
    with atomic_path(path) as temporary:
        temporary.write_text(_page(documents, states, title), encoding="utf-8")


def _page(documents: Sequence[str], states: Sequence[str], title: str) -> str:
    """Return one page of several; lines that they share, scripts and the brain behind, stand in it once."""
    table: dict[str, int] = {}
    pages = [
        [table.setdefault(line, len(table)) if len(line) > _LONG else line for line in page.split("\n")]
        for page in documents
    ]
    options = "".join(f"<option>{html.escape(state)}</option>" for state in states)
    # "</" would end the script in which it stands.
    lines, parts = (json.dumps(content).replace("</", "<\\/") for content in (list(table), pages))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>
<body style="font-family: sans-serif; margin: 1em">
<h1 style="font-size: 1.1em">{html.escape(title)}</h1>
<label>State: <select id="state">{options}</select></label>
<iframe id="map" title="map" style="border: 0; width: 100%; height: 430px; margin-top: 1em"></iframe>
<script>
const lines = {lines};
const pages = {parts};
const state = document.getElementById("state");
function show() {{
  const page = pages[state.selectedIndex].map((part) => typeof part === "number" ? lines[part] : part);
  document.getElementById("map").srcdoc = page.join("\\n");
}}
state.addEventListener("change", show);
show();
</script></body></html>
"""


def has_depth(image: nib.Nifti1Image) -> bool:
    """Tell whether an image can be cut in three directions: a few slices are a line from the side."""
    return min(image.shape[:3]) >= _LEAST_DEPTH


def _background(image: nib.Nifti1Image | None = None) -> nib.Nifti1Image:
    """Return the brain behind a map, which nilearn comes with; coarse without one."""
    from nilearn.datasets import load_mni152_template

    # A map is resampled to the voxels of what is behind it.
    is_fine = image is not None and min(image.header.get_zooms()[:3]) < _COARSE_MM
    return load_mni152_template(resolution=_FINE_MM if is_fine else _COARSE_MM)


def _broken(state: str) -> str:
    """Break a long name into lines."""
    lines: list[str] = []
    for word in state.split():
        if lines and len(lines[-1]) + len(word) < 16:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(line if len(line) <= 18 else f"{line[:17]}…" for line in lines)


@contextmanager
def _quiet() -> Iterator[None]:
    """Draw without warnings on single slices, and without the search for garbage before each access to an image.

    nilearn asks for that search many times a picture; what was there before cannot become garbage meanwhile.
    """
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.unfreeze()
