from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.nifti import check_nifti

AFFINE = np.array([[-0.9, 0.0, 0.0, 5.0], [0.0, 1.1, 0.0, -7.0], [0.0, 0.0, 3.0, 11.0], [0.0, 0.0, 0.0, 1.0]])


def make(
    path: Path, array: np.ndarray | None = None, affine: np.ndarray = AFFINE, codes: tuple[int, int] = (1, 1)
) -> Path:
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5) if array is None else array
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, code=codes[0])
    image.set_qform(AFFINE, code=codes[1])
    nib.save(image, path)
    return path


def test_a_sound_file_passes(tmp_path: Path) -> None:
    check_nifti(make(tmp_path / "x.nii.gz"))
    check_nifti(make(tmp_path / "x.nii.gz", codes=(1, 0)))


def test_faulty_files_are_refused_with_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    shifted, sheared = AFFINE.copy(), AFFINE.copy()
    shifted[0, 3] += 30
    sheared[0, 1] = 0.3
    cases = {
        "differ by 30.0 mm": {"affine": shifted},
        "its axes are not orthogonal": {"affine": sheared, "codes": (1, 0)},
        "neither sform nor qform": {"codes": (0, 0)},
        "expected one scalar volume, got shape (3, 4)": {"array": np.zeros((3, 4), np.float32)},
        "got shape (3, 4, 5, 2)": {"array": np.zeros((3, 4, 5, 2), np.float32)},
        "expected finite values": {"array": np.full((3, 4, 5), np.nan, np.float32)},
    }
    for words, changes in cases.items():
        with pytest.raises(UsageError) as failed:
            check_nifti(make(path, **changes))
        assert failed.value.code == "E_NIFTI"
        assert words.removeprefix("its axes") in failed.value.message, failed.value.message


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    """SimpleITK reads such a file without a word (FAULTS, the second of the worst)."""
    noise = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    path = make(tmp_path / "x.nii.gz", noise)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UsageError, match="cannot be read whole"):
        check_nifti(path)
    with pytest.raises(UsageError, match="E_NIFTI"):
        check_nifti(tmp_path / "missing.nii.gz")
