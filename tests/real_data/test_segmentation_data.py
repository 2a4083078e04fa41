"""Real packs as datasets for nnU-Net: voxels and places are those of the files, whatever their axes were."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.commands.convert import convert_back, convert_nnunet

pytestmark = pytest.mark.real_data
PATIENTS = ("STS_002", "STS_004", "STS_005")


def test_sarcomas(real_images: Path, tmp_path: Path) -> None:
    """Stored L, P, S: turned upright for the network, and turned back."""
    root = real_images / "sts_fusion_lowres"
    for patient in PATIENTS:
        (tmp_path / "sts").mkdir(exist_ok=True)
        (tmp_path / "sts" / patient).symlink_to(root / patient)
    found = convert_nnunet(tmp_path / "raw", 501, "SarcomaCTMR", sts=tmp_path / "sts", folds=3)
    assert found.failed == {} and found.shown == {patient: [1] for patient in PATIENTS}
    for number, name in enumerate(("CT", "PET_SUVx100", "MR_T1")):
        source = nib.load(root / "STS_004" / f"{name}.nii.gz")
        written = nib.load(found.folder / "imagesTr" / f"STS_004_{number:04d}.nii.gz")
        turned = nib.as_closest_canonical(source)
        assert nib.aff2axcodes(written.affine) == ("R", "A", "S") != nib.aff2axcodes(source.affine)
        assert (np.asarray(written.dataobj) == np.asarray(turned.dataobj)).all()
        assert np.abs(written.affine - turned.affine).max() < 1e-3
    assert json.loads((found.folder / "dataset.json").read_text())["channel_names"] == {
        "0": "CT",
        "1": "PET",
        "2": "MR",
    }
    convert_back(found.folder / "labelsTr", found.folder, tmp_path / "back")
    truth, back = (nib.load(path) for path in (root / "STS_005" / "GTV.nii.gz", tmp_path / "back" / "STS_005.nii.gz"))
    assert (np.asarray(truth.dataobj) == np.asarray(back.dataobj)).all()
    assert np.abs(truth.affine - back.affine).max() < 1e-4


def test_atria(real_images: Path, tmp_path: Path) -> None:
    """Upright files with consecutive labels need no change: they are the same bytes."""
    root = real_images / "la_mr"
    given = [f"{key}={root}/la_tr0{{case}}_{end}.nii.gz" for key, end in (("mr", "mr"), ("heart", "la"))]
    found = convert_nnunet(tmp_path / "raw", 2, "Heart", "left_atrium", nifti=given, copy=True)
    assert len(found.shown) == 10
    for kind, end in (("images", "mr"), ("labels", "la")):
        written = found.folder / f"{kind}Tr" / f"3{'_0000' if end == 'mr' else ''}.nii.gz"
        assert written.read_bytes() == (root / f"la_tr03_{end}.nii.gz").read_bytes()
