"""When the frames of a run were recorded: from JSON sidecars, checked against the image header."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from boldly import bids
from boldly.records import Problem
from boldly.signals.headers import Header
from boldly.stages.index.survey import RunFiles

_LARGEST_DIFFERENCE_S = 1e-3
_PLAUSIBLE_S = (0.1, 20.0)
# Written by software that does not know the repetition time.
_PLACEHOLDERS_S = (0.0, 1.0)
_DECIMALS = 5
# fMRIPrep before 21 spells those of CIFTI files with the image's whole name.
_SIDECARS = ("bold.json", "bold.dtseries.json")


class _SidecarError(ValueError):
    def __init__(self, path: Path, message: str) -> None:
        self.path = path
        super().__init__(message)


class Times:
    """Finds repetition times and the time of frame 0; remembers which sidecars a folder holds.

    Parameters
    ----------
    derivatives, raw : iterable of Path
        Dataset folders in which sidecars are looked for, the derivatives first.

    Attributes
    ----------
    assumed : set of str
        Keys of the runs whose slice timing was corrected to a moment that no sidecar names.
    """

    def __init__(self, derivatives: Iterable[Path], raw: Iterable[Path]) -> None:
        self._made, self._raw = tuple(derivatives), tuple(raw)
        self.assumed: set[str] = set()
        self._read: dict[Path, object] = {}
        self._listed: dict[Path, list[Path]] = {}

    def of(self, run: RunFiles, image: Path, header: Header) -> tuple[float, list[Problem]]:
        """Return the repetition time of a run and what is wrong with it.

        It is that of the image's own sidecar, else of the most specific sidecar that applies to it by BIDS
        inheritance (derivatives first, then raw data), else of the header. A header value of exactly 0 or 1 s
        beside a sidecar is taken for a placeholder, as conversion software writes it; 1 without a unit is one
        without a sidecar, too.

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

    def start(self, run: RunFiles, image: Path, t_r: float, n_volumes: int) -> tuple[float, list[Problem]]:
        """Return the time of frame 0 on the clock of the events (s, 5 decimals) and what is wrong with it.

        It is ``StartTime`` of the image's sidecar, which fMRIPrep 21 and newer write where they correct slice
        timing. fMRIPrep before corrects to the middle of the slice times and says no more than
        ``SliceTimingCorrected``: then the start is the middle of the raw sidecar's ``SliceTiming``, half a
        repetition time where there is none. Without a correction it is 0, the onset of the first volume.
        """
        try:
            stated, source = self._value(image, "StartTime", self._made)
            corrected, _ = self._value(image, "SliceTimingCorrected", self._made)
            if stated is None and corrected is True and not math.isnan(t_r):
                self.assumed.add(run.key)
                return round(self._middle(image, t_r), _DECIMALS), []
        except _SidecarError:
            # The repetition time comes from the same files and reports it.
            return 0.0, []
        if stated is None:
            return 0.0, []
        duration_s = math.inf if math.isnan(t_r) else n_volumes * t_r
        if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 <= stated < duration_s:
            message = f"StartTime is {stated!r}, no number of seconds from 0 to the end of the run"
            return 0.0, [Problem(str(source), run.key, message, "correct the file, or exclude the run")]
        return round(float(stated), _DECIMALS), []

    def _middle(self, image: Path, t_r: float) -> float:
        slices, _ = self._value(image, "SliceTiming", self._raw)
        try:
            middle = (min(slices) + max(slices)) / 2  # type: ignore[call-overload]
        except (TypeError, ValueError):
            return t_r / 2
        return middle if 0 <= middle < t_r else t_r / 2

    def _stated(self, image: Path) -> tuple[float | None, Path | None]:
        value, path = self._value(image, "RepetitionTime", (*self._made, *self._raw))
        if value is None or path is None:
            return None, None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise _SidecarError(path, f"RepetitionTime is {value!r}, not a positive number of seconds")
        return float(value), path

    def _value(self, image: Path, field: str, roots: Sequence[Path]) -> tuple[object, Path | None]:
        """Return the field of the most specific sidecar that has it, and this sidecar."""
        for path in self._sidecars(image, roots):
            try:
                if path not in self._read:
                    self._read[path] = json.loads(path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise _SidecarError(path, f"the sidecar is not readable JSON: {error}") from None
            content = self._read[path]
            if isinstance(content, dict) and content.get(field) is not None:
                return content[field], path
        return None, None

    def _sidecars(self, image: Path, roots: Sequence[Path]) -> Iterable[Path]:
        yield bids.sidecar(image)
        found = bids.entities(image.name)
        parts = [f"{key}-{found[key]}" for key in ("sub", "ses") if key in found] + ["func"]
        for root in roots:
            for depth in range(len(parts), -1, -1):
                for paths in bids.matches(self._list(root.joinpath(*parts[:depth])), found):
                    yield from paths

    def _list(self, folder: Path) -> list[Path]:
        if folder not in self._listed:
            self._listed[folder] = [path for path in bids.files_in(folder) if path.name.endswith(_SIDECARS)]
        return self._listed[folder]
