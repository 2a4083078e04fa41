"""Real structure sets, segmentations and PET: equal to the published masks, label volumes and SUV factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk

from pipeline import volumes
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.headers.scan import scan
from pipeline.dicom.objects.references import attach_masks
from pipeline.dicom.objects.segments import place, read_segmentation
from pipeline.dicom.pet.suv import uptake_of
from pipeline.dicom.pixels.volume import read
from pipeline.dicom.series.gate import candidates
from pipeline.dicom.series.select import Selection, select
from pipeline.run import batch
from pipeline.shipped import shipped
from pipeline.spec.spec import Mask, Role, Spec
from pipeline.store import records


@pytest.fixture(scope="module")
def ingested(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_HOME", str(tmp_path_factory.mktemp("home")))
        spec = shipped("data_specs", "sts_ct_pet_mr.yaml")
        batch.run(batch.Plan(real_images / "sts_ibsi_validation" / "dicom", out, spec, stages=("ingest",)))
    assert [case[0].status for case in records.of_run(out).values()] == ["done", "done"]
    return out


def published(folder: Path, name: str) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.load(folder / f"{name}.nii.gz"))


def of_patient(ingested: Path, role: str, truth: nib.Nifti1Image) -> nib.Nifti1Image:
    """The case's image of a role that has the published one's grid: the patients' names are gone."""
    images = [nib.load(path) for path in (ingested / "cases").glob(f"*/ingest/{role}.nii.gz")]
    (same,) = [image for image in images if image.shape == truth.shape]
    np.testing.assert_allclose(same.affine, truth.affine, atol=1e-3)
    return same


@pytest.mark.parametrize("patient", ["STS_002", "STS_008"])
@pytest.mark.parametrize(("role", "name"), [("ct", "CT"), ("mr", "MR_T1"), ("pet", "PET")])
def test_the_tumour_is_the_published_mask(
    real_images: Path, ingested: Path, patient: str, role: str, name: str
) -> None:
    truth = published(real_images / "sts_nifti" / patient, f"{name}_mask")
    mask = of_patient(ingested, f"tumour_{role}", truth)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(truth.dataobj))


@pytest.mark.parametrize("patient", ["STS_002", "STS_008"])
def test_the_pet_is_the_published_suv(real_images: Path, ingested: Path, patient: str) -> None:
    truth = published(real_images / "sts_nifti" / patient, "PET_image")
    suv, expected = (image.get_fdata() for image in (of_patient(ingested, "pet", truth), truth))
    assert np.abs(suv - expected).max() <= 1e-5 * expected.max()
    inside = expected > 0.01
    assert (np.abs(suv - expected)[inside] / expected[inside]).max() <= 1e-5


def test_the_factor_is_the_one_of_the_real_world_value_object(real_images: Path) -> None:
    found = candidates(scan(real_images / "remind_petct" / "example_patients").series)
    (pet,) = [item for item in found if item.modality == "PT"]
    (mapping,) = [item for item in found if item.modality == "RWV"]
    header = pydicom.dcmread(mapping.instances[0].path)
    values = header.ReferencedImageRealWorldValueMappingSequence[0].RealWorldValueMappingSequence[0]
    assert values.RealWorldValueIntercept == 0
    assert uptake_of(pet).factor == pytest.approx(values.RealWorldValueSlope, rel=1e-5)


def placed(seg: Path, segment: int, shape: tuple[int, ...], affine: Any) -> npt.NDArray[np.bool_]:
    (instance,) = read_header(seg).instances
    return place(read_segmentation(instance), [segment], shape, affine)


@pytest.mark.parametrize(
    ("seg", "labels", "values"),
    [
        ("liver.dcm", "liver_seg.nrrd", {1: 1}),
        ("partial_overlaps.dcm", "partial_overlaps-1.nrrd", {1: 1, 4: 4, 5: 5}),
        ("partial_overlaps.dcm", "partial_overlaps-2.nrrd", {2: 2}),
        ("partial_overlaps.dcm", "partial_overlaps-3.nrrd", {3: 3}),
        ("24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd", {1: 1}),
        ("23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd", {1: 1}),
        ("sparse-labelmap-noppv.dcm", "sparse_labelmap_noppv_seg.nrrd", {1: 1}),
        ("sparse-labelmap-ppv5.dcm", "sparse_labelmap_ppv5_seg.nrrd", {1: 1}),
    ],
)
def test_segments_equal_the_label_volumes(real_images: Path, seg: str, labels: str, values: dict[int, int]) -> None:
    folder = real_images / "dcmqi" / "data" / "segmentations"
    truth = volumes.from_sitk(sitk.ReadImage(str(folder / labels), sitk.sitkInt16))
    array = truth.numpy()[0]
    for segment, value in values.items():
        found = placed(folder / seg, segment, array.shape, volumes.affine_of(truth))
        np.testing.assert_array_equal(found, array == value)


@pytest.mark.parametrize("name", ["binary", "binary_fractional", "true_fractional"])
def test_highdicom_files_hold_what_their_pixels_show(real_images: Path, name: str) -> None:
    """Three slices, 1.25 mm apart: each frame, in the order of its position, is one slice."""
    path = real_images / "highdicom" / "data" / "test_files" / f"seg_image_ct_{name}.dcm"
    dataset = pydicom.dcmread(path)
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    z = [float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in frames]
    x, y, _ = map(float, frames[0].PlanePositionSequence[0].ImagePositionPatient)
    spacing = float(dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0])
    affine = np.array([[-spacing, 0, 0, -x], [0, -spacing, 0, -y], [0, 0, 1.25, min(z)], [0, 0, 0, 1]])
    half = 0.5 * dataset.get("MaximumFractionalValue", 1)
    expected = (dataset.pixel_array >= half)[np.argsort(z)].transpose(2, 1, 0)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(placed(path, 1, expected.shape, affine), expected)


def test_a_sagittal_segmentation_that_names_no_series_finds_its_own(real_images: Path) -> None:
    """42 of 60 slices, tied to the images by their frame of reference alone."""
    found = candidates(scan(real_images / "mirp_dce_mr" / "UCSF-BR-06").series)
    spec = Spec(
        name="x",
        description="x",
        roles={"mr": Role(modality="MR")},
        masks={"breast": Mask(of="mr", labels={"breast": "Breast"})},
    )
    selection: Selection = select(found, spec, lambda item: "case")
    (case,) = attach_masks(found, selection, spec).selection.cases
    assert case.fault is None
    image = read(case.series["mr"]).image
    instance = case.series["breast"].instances[0]
    mask = place(read_segmentation(instance), [1], image.shape[1:], volumes.affine_of(image))
    dataset = pydicom.dcmread(instance.path)
    of_position = {
        round(float(frame.PlanePositionSequence[0].ImagePositionPatient[0]), 2): pixels > 127
        for frame, pixels in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True)
    }
    empty = np.zeros((256, 256), bool)
    positions = [item.position or (0.0, 0.0, 0.0) for item in case.series["mr"].instances]
    slices = [of_position.pop(round(x, 2), empty) for x, _, _ in positions]
    assert not of_position and mask.sum() == 82527
    np.testing.assert_array_equal(mask, np.stack(slices).transpose(2, 1, 0))
