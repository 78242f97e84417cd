"""Images of the made-up brain as files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
from numpy.typing import NDArray

from boldly.files import atomic_path
from boldly.simulation.anatomy import anatomy

_MNI_CODE = 4
# zlib's code for the largest window within a gzip header.
_GZIP_WINDOW = 31


def write_nifti(path: Path, data: NDArray[Any], *, t_r: float | None = None, slope: float | None = None) -> None:
    """Write a compressed image in template space; the same data give the same bytes.

    Parameters
    ----------
    path : Path
        Final name.
    data : array
        Numbers as stored.
    t_r : float, optional
        Repetition time of a 4-D image, s.
    slope : float, optional
        Intensity of one stored unit; default: numbers are intensities.
    """
    image = nib.Nifti1Image(data, anatomy().affine)
    image.header.set_xyzt_units("mm", "sec" if t_r is not None else None)
    if t_r is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], t_r))
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    image.header["descrip"] = b"simulated by boldly, no brain data"
    image.set_sform(image.affine, _MNI_CODE)
    image.set_qform(image.affine, _MNI_CODE)
    with atomic_path(path) as temporary:
        # A header without name and time, so that the same data give the same bytes. Noise repeats itself only
        # where the image is empty: looking for runs is as good as looking for matches, and faster.
        packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW, 9, zlib.Z_RLE)
        temporary.write_bytes(packer.compress(image.to_bytes()) + packer.flush())
