from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from boldly.signals.headers import HeaderError, read_header

TURNED = np.array([[0.0, -2, 0, 5], [2, 0, 0, 1], [0, 0, 3, 0], [0, 0, 0, 1]])


def save(path, affine, zooms=None):
    image = nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), None)
    image.header.set_sform(affine, 1)
    image.header.set_zooms((*(zooms or np.linalg.norm(affine[:3, :3], axis=0)), 2.0))
    nib.save(image, path)
    return path


def test_a_turned_affine_is_read(tmp_path):
    grid = read_header(save(tmp_path / "bold.nii", TURNED)).grid
    assert grid is not None
    assert np.allclose(grid.affine, TURNED)


def test_a_sheared_affine_is_refused_with_the_defect(tmp_path):
    sheared = TURNED.copy()
    sheared[0, 2] = 0.3
    with pytest.raises(HeaderError, match=r"sheared.*fMRIPrep 20\.2\.0"):
        read_header(save(tmp_path / "bold.nii", sheared))


def test_an_affine_of_another_voxel_size_than_the_header_is_refused(tmp_path):
    with pytest.raises(HeaderError, match="affine 2 x 2 x 3 mm, header 2 x 2 x 2 mm"):
        read_header(save(tmp_path / "bold.nii", TURNED, zooms=(2.0, 2.0, 2.0)))


@pytest.mark.parametrize(
    ("zoom", "unit", "t_r"),
    [(1.0, "unknown", 0.0), (1.0, "sec", 1.0), (1000.0, "msec", 1.0), (2.0, "unknown", 2.0)],
)
def test_one_without_a_unit_is_no_repetition_time(tmp_path, zoom, unit, t_r):
    # An image that nibabel writes of an array has it, whatever the repetition time was.
    plain = nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)).header
    assert (plain.get_zooms()[3], plain.get_xyzt_units()[1]) == (1.0, "unknown")
    image = nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4))
    image.header["pixdim"][4] = zoom
    image.header.set_xyzt_units("mm", unit)
    nib.save(image, tmp_path / "bold.nii.gz")
    assert read_header(tmp_path / "bold.nii.gz").t_r == t_r


def test_an_image_that_does_not_say_where_its_voxels_are_is_refused(tmp_path):
    # nibabel would guess an affine that has left and right the other way round than most templates.
    image = nib.nifti1.load(save(tmp_path / "bold.nii", np.diag([2.0, 2, 2, 1])))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "lost.nii.gz")
    assert nib.nifti1.load(tmp_path / "lost.nii.gz").affine[0, 0] == -2
    with pytest.raises(HeaderError, match="sform_code and qform_code are 0") as caught:
        read_header(tmp_path / "lost.nii.gz")
    assert "set_sform" in caught.value.remedy
