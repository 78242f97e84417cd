"""The repetition time of a run: from JSON sidecars, checked against the image header."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from boldly import bids
from boldly.records import Problem
from boldly.signals.headers import Header
from boldly.stages.index.survey import RunFiles, applies

_LARGEST_DIFFERENCE_S = 1e-3
_PLAUSIBLE_S = (0.1, 20.0)
# Written by software that does not know the repetition time.
_PLACEHOLDERS_S = (0.0, 1.0)
_DECIMALS = 5


class _SidecarError(ValueError):
    def __init__(self, path: Path, message: str) -> None:
        self.path = path
        super().__init__(message)


class RepetitionTimes:
    """Finds repetition times; remembers which sidecars a folder holds.

    Parameters
    ----------
    roots : iterable of Path
        Dataset folders in which sidecars are looked for: the derivatives, then the raw data.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(roots)
        self._read: dict[Path, object] = {}
        self._listed: dict[Path, list[tuple[Path, dict[str, str]]]] = {}

    def of(self, run: RunFiles, image: Path, header: Header) -> tuple[float, list[Problem]]:
        """Return the repetition time of a run and what is wrong with it.

        It is that of the image's own sidecar, else of the most specific sidecar that applies to it by BIDS
        inheritance (derivatives first, then raw data), else of the header. A header value of exactly 0 or 1 s
        beside a sidecar is taken for a placeholder, as conversion software writes it.

        Returns
        -------
        t_r : float
            Seconds, 5 decimals; nan when unknown.
        problems : list of Problem
            When it is missing, implausible (0.1 s or less, more than 20 s), or sidecar and header differ by more
            than 1 ms.
        """

        def problem(where: Path, message: str, remedy: str) -> list[Problem]:
            return [Problem(str(where), run.key, message, f"{remedy}, or exclude the run")]

        try:
            stated, source = self._stated(image)
        except _SidecarError as error:
            return math.nan, problem(error.path, str(error), "correct the file")
        t_r = round(header.t_r if stated is None else stated, _DECIMALS)
        if t_r == 0:
            message = "no repetition time, neither in a JSON sidecar nor in the image header"
            return math.nan, problem(image, message, f"write RepetitionTime (s) into {bids.sidecar(image).name}")
        if not _PLAUSIBLE_S[0] < t_r <= _PLAUSIBLE_S[1]:
            guess = " (probably ms)" if t_r > _PLAUSIBLE_S[1] else ""
            field = "the zoom of the time axis and its unit" if source is None else "RepetitionTime, in seconds"
            message = f"a repetition time of {t_r:g} s is implausible{guess}"
            return t_r, problem(source or image, message, f"correct {field}")
        if header.t_r not in _PLACEHOLDERS_S and abs(header.t_r - t_r) > _LARGEST_DIFFERENCE_S:
            message = f"repetition times differ: {t_r:g} s in the sidecar, {header.t_r:g} s in {image.name}"
            return t_r, problem(source or image, message, "correct the wrong one")
        return t_r, []

    def _stated(self, image: Path) -> tuple[float | None, Path | None]:
        for path in self._sidecars(image):
            try:
                if path not in self._read:
                    self._read[path] = json.loads(path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise _SidecarError(path, f"the sidecar is not readable JSON: {error}") from None
            content = self._read[path]
            value = content.get("RepetitionTime") if isinstance(content, dict) else None
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise _SidecarError(path, f"RepetitionTime is {value!r}, not a positive number of seconds")
            return float(value), path
        return None, None

    def _sidecars(self, image: Path) -> Iterable[Path]:
        yield bids.sidecar(image)
        found = bids.entities(image.name)
        parts = [f"{key}-{found[key]}" for key in ("sub", "ses") if key in found] + ["func"]
        for root in self._roots:
            for depth in range(len(parts), -1, -1):
                fitting = [item for item in self._list(root.joinpath(*parts[:depth])) if applies(item[1], found)]
                yield from (path for path, _ in sorted(fitting, key=lambda item: -len(item[1])))

    def _list(self, folder: Path) -> list[tuple[Path, dict[str, str]]]:
        if folder not in self._listed:
            # The echoes of a run share its repetition time.
            self._listed[folder] = [
                (path, {k: v for k, v in bids.entities(path.name).items() if k not in ("echo", "part")})
                for path in sorted(folder.glob("*bold.json"))
            ]
        return self._listed[folder]
