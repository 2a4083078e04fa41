"""The real sarcoma cases as NIfTI: three images and three masks a patient, through ingest, voxel by voxel."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.filebasedimages import ImageFileError

from pipeline.cases import Record
from pipeline.errors import PipelineError
from pipeline.nifti.volume import image_of, read_nifti
from pipeline.run import batch
from pipeline.store import records
from pipeline.store.pseudonyms import Pseudonyms

PATIENTS = ("STS_002", "STS_008", "STS_019", "STS_031")
FILES = {"ct": "CT_image", "mr": "MR_T1_image", "pet": "PET_image"}
MASKS = {"ct_tumour": "CT_mask", "mr_tumour": "MR_T1_mask", "pet_tumour": "PET_mask"}
SPEC = """\
name: sts_nifti
description: Soft-tissue sarcoma, images and masks as NIfTI.
roles:
  ct: {modality: CT, unit: HU, files: "{case}/CT_image.nii.gz"}
  mr: {modality: MR, files: "{case}/MR_T1_image.nii.gz"}
  pet: {modality: PT, unit: SUVbw, files: "{case}/PET_image.nii.gz"}
masks:
  ct_tumour: {of: ct, files: "{case}/CT_mask.nii.gz", values: {tumour: 1}}
  mr_tumour: {of: mr, files: "{case}/MR_T1_mask.nii.gz", values: {tumour: 1}}
  pet_tumour: {of: pet, files: "{case}/PET_mask.nii.gz", values: {tumour: 1}}
"""


@pytest.fixture(scope="module")
def ingested(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Record]]:
    """Patient -> the stage's folder and record."""
    out, spec = tmp_path_factory.mktemp("sts"), tmp_path_factory.mktemp("spec") / "spec.yaml"
    spec.write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_HOME", str(tmp_path_factory.mktemp("home")))
        batch.run(batch.Plan(real_images / "sts_nifti", out, spec, stages=("ingest",)))
        names = {patient: Pseudonyms(out).of("case", patient) for patient in PATIENTS}
    found = records.of_run(out)
    assert set(found) == set(names.values())
    return {patient: (out / "cases" / name / "ingest", found[name][0]) for patient, name in names.items()}


@pytest.mark.parametrize("patient", PATIENTS)
def test_images_and_masks_equal_the_files(
    real_images: Path, ingested: dict[str, tuple[Path, Record]], patient: str
) -> None:
    folder, record = ingested[patient]
    assert record.status == "done" and record.flags == ()
    for key, name in {**FILES, **MASKS}.items():
        truth = nib.as_closest_canonical(nib.load(real_images / "sts_nifti" / patient / f"{name}.nii.gz"))
        stored = nib.load(folder / f"{key}.nii.gz")
        np.testing.assert_array_equal(np.asarray(stored.dataobj), np.asarray(truth.dataobj))
        np.testing.assert_allclose(stored.affine, truth.affine, atol=1e-3)
    assert nib.load(folder / "ct.nii.gz").get_data_dtype() == np.int16
    assert nib.load(folder / "pet.nii.gz").get_data_dtype() == np.float32


@pytest.mark.parametrize("patient", PATIENTS)
def test_volumes_of_the_masks(real_images: Path, ingested: dict[str, tuple[Path, Record]], patient: str) -> None:
    _, record = ingested[patient]
    for key, name in MASKS.items():
        truth = nib.load(real_images / "sts_nifti" / patient / f"{name}.nii.gz")
        volume_ml = float(np.prod(truth.header.get_zooms())) * int(np.asarray(truth.dataobj).sum()) / 1000
        assert record.measures[f"{key}_tumour_volume_ml"] == pytest.approx(volume_ml, rel=1e-5)


def test_every_sound_volume_of_all_sets_is_read_as_nibabel_reads_it(real_images: Path) -> None:
    """What is refused is no finite scalar volume by nibabel either; where a sound file lies is never doubted."""
    paths = [path for path in sorted(real_images.rglob("*.nii*")) if path.is_file() and path.stat().st_size < 3_000_000]
    assert len(paths) > 300
    for path in paths:
        try:
            image = nib.load(path)
        except ImageFileError:  # what nibabel cannot read either
            with pytest.raises(PipelineError):
                read_nifti(path)
            continue
        try:
            volume = read_nifti(path)
        except PipelineError:
            one_volume = len(image.shape) == 3 or max(image.shape[3:]) == 1
            assert (
                not one_volume or image.get_data_dtype().kind not in "iuf" or not np.isfinite(image.get_fdata()).all()
            )
            continue
        values = np.asanyarray(image.dataobj)
        np.testing.assert_array_equal(values.reshape(volume.values.shape), volume.values)
        np.testing.assert_allclose(volume.affine, image.affine, atol=1e-3)
        assert image_of(volume).shape[1:] == volume.values.shape
