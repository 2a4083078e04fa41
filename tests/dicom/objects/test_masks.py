"""Masks of a data spec, from the DICOM tree to the label image: which object is taken, and what is refused."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from pipeline.cases import Record
from pipeline.run import batch
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import SPEC_FILE, Spec, save_spec
from pipeline.volumes import affine_of
from tests.dicom.objects.structures import circle, polygon, to_lps, write_rtstruct, write_seg
from tests.phantoms.phantom import position_phantom

SHAPE = (24, 20, 12)
IMAGE = position_phantom(SHAPE)
AFFINE = affine_of(IMAGE)
SQUARE = [(4.5, 5.5), (10.5, 5.5), (10.5, 12.5), (4.5, 12.5)]
BESIDE = [(x + 4, y + 1) for x, y in SQUARE]
CANARY = "GTV Dr Canary"
ROLES = {"ct": {"modality": "CT", "unit": "HU"}}


def box(points: list[tuple[float, float]], slices: range) -> npt.NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    (i0, j0), (i1, j1) = np.ceil(np.min(points, axis=0)).astype(int), np.ceil(np.max(points, axis=0)).astype(int)
    mask[i0:i1, j0:j1, slices.start : slices.stop] = True
    return mask


def drawn(points: list[tuple[float, float]], slices: range) -> list[npt.NDArray[np.float64]]:
    return [polygon(points, k, AFFINE) for k in slices]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_series(IMAGE, tmp_path / "in" / "ct")
    return tmp_path / "in"


def images(tree: Path) -> list[Path]:
    """The CT's files in the order of K: `write_series` gives the same again."""
    return write_series(IMAGE, tree / "ct")


def spec_of(tmp_path: Path, **mask: Any) -> Path:
    entry = {"of": "ct", "labels": {"gtv": "^GTV"}, **mask}
    spec = Spec.model_validate({"name": "x", "description": "x", "roles": ROLES, "masks": {"lesion": entry}})
    save_spec(spec, tmp_path)
    return tmp_path / SPEC_FILE


def ingest(tree: Path, spec: Path) -> tuple[Record, Path]:
    """The one case's record of ingest, and the run folder."""
    out = tree.parent / "out"
    ((record,),) = batch.run(batch.Plan(tree, out, spec, stages=("ingest",))).values()
    return record, out


def mask_of(out: Path, name: str = "lesion") -> nib.Nifti1Image:
    (path,) = (out / "cases").glob(f"*/ingest/{name}.nii.gz")
    return nib.load(path)


def reoriented(mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return nib.as_closest_canonical(nib.Nifti1Image(mask.astype(np.uint8), AFFINE)).get_fdata()


def test_a_structure_set_becomes_a_label_image_on_its_role(tree: Path, tmp_path: Path) -> None:
    regions = {CANARY: drawn(SQUARE, range(3, 7)), "Body": drawn(BESIDE, range(12))}
    write_rtstruct(tree / "rs", images(tree), regions)
    record, out = ingest(tree, spec_of(tmp_path))
    assert record.status == "done", record.error
    mask = mask_of(out)
    np.testing.assert_array_equal(mask.get_fdata(), reoriented(box(SQUARE, range(3, 7))))
    (ct,) = (out / "cases").glob("*/ingest/ct.nii.gz")
    np.testing.assert_array_equal(mask.affine, nib.load(ct).affine)
    assert mask.get_data_dtype() == np.uint8 and nib.aff2axcodes(mask.affine) == ("R", "A", "S")
    assert record.measures["lesion_source"] == "RTSTRUCT" and record.measures["lesion_labels"] == "1 gtv"
    assert record.measures["lesion_gtv_volume_ml"] == pytest.approx(6 * 7 * 4 * 0.9 * 1.1 * 2.5 / 1000, rel=1e-5)


def test_names_of_regions_stay_private(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    write_rtstruct(tree / "rs", images(tree), {CANARY: drawn(SQUARE, range(3, 7))})
    _, out = ingest(tree, spec_of(tmp_path))
    for path in (path for path in out.rglob("*") if path.is_file()):
        assert b"Canary" not in path.read_bytes(), path.name
    (private,) = (tandem_home / "links").rglob("rois.csv")
    (row,) = csv.DictReader(private.open(newline=""))
    assert row["region"] == CANARY and row["modality"] == "RTSTRUCT"
    table = {row["modality"]: row for row in csv.DictReader((out / "series.csv").open(newline=""))}
    assert table["RTSTRUCT"]["role"] == "lesion" and table["RTSTRUCT"]["verdict"] == "chosen"
    assert table["RTSTRUCT"]["code"] == "" and row["series"] == table["RTSTRUCT"]["series"]


def test_labels_united_and_overlapping(tree: Path, tmp_path: Path) -> None:
    regions = {
        "GTV a": drawn(SQUARE, range(3, 6)),
        "GTV b": drawn(SQUARE, range(6, 8)),
        "node": drawn(BESIDE, range(5, 9)),
    }
    write_rtstruct(tree / "rs", images(tree), regions)
    record, out = ingest(tree, spec_of(tmp_path, labels={"gtv": "^GTV", "node": "^node$"}))
    first, second = box(SQUARE, range(3, 8)), box(BESIDE, range(5, 9))
    expected = np.where(second, 2, np.where(first, 1, 0))
    np.testing.assert_array_equal(mask_of(out).get_fdata(), reoriented(expected))
    assert record.measures["lesion_labels"] == "1 gtv, 2 node"
    shared = int((first & second).sum())
    assert f"N_MASK_OVERLAP: lesion: {shared} voxels belong to several labels; the later label has them" in record.flags


def test_a_segmentation_does_as_well(tree: Path, tmp_path: Path) -> None:
    truth = box(BESIDE, range(4, 9))
    write_seg(tree / "seg", images(tree), {"GTV": np.where(truth, 0.8, 0.1)}, "FRACTIONAL")
    record, out = ingest(tree, spec_of(tmp_path))
    assert record.status == "done", record.error
    np.testing.assert_array_equal(mask_of(out).get_fdata(), reoriented(truth))
    assert record.measures["lesion_source"] == "SEG FRACTIONAL, from 0.5 on"


@pytest.mark.parametrize(
    ("reference", "changes", "taken"),
    [
        ("series", {}, True),
        ("images", {}, True),
        (None, {}, True),
        ("series", {"frame": "1.2.3"}, False),
        ("nothing", {}, False),
    ],
)
def test_an_object_has_to_refer_to_the_series(
    tree: Path, tmp_path: Path, reference: str | None, changes: dict[str, str], taken: bool
) -> None:
    contours = {"GTV": drawn(SQUARE, range(3, 7))}
    write_rtstruct(tree / "rs", images(tree), contours, reference=reference, **changes)
    record, _ = ingest(tree, spec_of(tmp_path))
    assert record.status == ("done" if taken else "quarantined")
    if not taken:
        assert record.error is not None and record.error.code == "E_MASK_ROI"
        assert record.error.message == "lesion: No structure set or segmentation refers to the series of ct."


def test_two_that_fit_are_ambiguous_unless_the_latest_is_preferred(tree: Path, tmp_path: Path) -> None:
    write_rtstruct(tree / "rs1", images(tree), {"GTV": drawn(SQUARE, range(3, 7))}, StructureSetTime="100000")
    write_rtstruct(tree / "rs2", images(tree), {"GTV": drawn(BESIDE, range(3, 7))}, StructureSetTime="110000")
    write_rtstruct(tree / "rs3", images(tree), {"Body": drawn(SQUARE, range(3, 7))}, StructureSetTime="120000")
    record, _ = ingest(tree, spec_of(tmp_path))
    assert record.status == "quarantined" and record.error is not None and record.error.code == "E_AMBIGUOUS"
    record, out = ingest(tree, spec_of(tmp_path, prefer="latest"))
    assert record.status == "done"
    np.testing.assert_array_equal(mask_of(out).get_fdata(), reoriented(box(BESIDE, range(3, 7))))
    table = [row for row in csv.DictReader((out / "series.csv").open(newline="")) if row["modality"] == "RTSTRUCT"]
    reasons = {row["reason"] for row in table if not row["role"]}
    assert len(table) == 3 and all("lesion: " in reason for reason in reasons)
    assert any("another object is newer" in reason for reason in reasons)
    assert any("no region for gtv" in reason for reason in reasons)


@pytest.mark.parametrize(("required", "status"), [(True, "quarantined"), (False, "done")])
def test_no_region_matches(tree: Path, tmp_path: Path, required: bool, status: str) -> None:
    write_rtstruct(tree / "rs", images(tree), {CANARY: drawn(SQUARE, range(3, 7))})
    labels = {"gtv": "^GTV", "edema": "(?i)^edema"}
    record, out = ingest(tree, spec_of(tmp_path, labels=labels, required=required))
    message = "lesion: None of 1 structure sets or segmentations has a region for edema /(?i)^edema/."
    assert record.status == status
    if required:
        assert record.error is not None and (record.error.code, record.error.message) == ("E_MASK_ROI", message)
    else:
        assert f"N_NO_MASK: {message}" in record.flags
        assert not list(out.rglob("lesion.nii.gz")) and list(out.rglob("ct.nii.gz"))


def test_a_region_without_contours(tree: Path, tmp_path: Path) -> None:
    write_rtstruct(tree / "rs", images(tree), {"GTV": []})
    record, _ = ingest(tree, spec_of(tmp_path))
    assert record.error is not None and record.error.code == "E_MASK_ROI" and "/^GTV/" in record.error.message


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        (b"CLOSED_PLANAR", b"CLOSED_PLANAR", ""),
        (b"-", b"x", "a contour holds something that is no number"),
        (b"\x06\x30\x26\x00LO", b"\x06\x30\x26\x00ZZ", "cannot be read, and no other refers to ct"),
    ],
)
def test_a_broken_object_is_told_from_a_missing_one(
    tree: Path, tmp_path: Path, good: bytes, bad: bytes, words: str
) -> None:
    path = write_rtstruct(tree / "rs", images(tree), {"GTV": drawn(SQUARE, range(3, 7))})
    whole = path.read_bytes()
    start = whole.index(b"CLOSED_PLANAR") if good == b"-" else 400
    path.write_bytes(whole[:start] + whole[start:].replace(good, bad))
    record, _ = ingest(tree, spec_of(tmp_path))
    assert record.status == ("quarantined" if words else "done")
    assert words == "" or (record.error is not None and record.error.code == "E_MASK")
    assert words == "" or (record.error is not None and words in record.error.message.lower())


def test_a_mask_of_an_optional_role_that_is_missing_is_not_asked_for(tree: Path, tmp_path: Path) -> None:
    roles = {**ROLES, "mr": {"modality": "MR", "required": False}}
    masks = {"lesion": {"of": "mr", "labels": {"gtv": "^GTV"}}}
    spec = Spec.model_validate({"name": "x", "description": "x", "roles": roles, "masks": masks})
    assert spec.needed == {"ct"}
    save_spec(spec, tmp_path)
    record, out = ingest(tree, tmp_path / SPEC_FILE)
    assert record.status == "done" and not list(out.rglob("lesion.nii.gz"))


def test_contours_of_a_tilted_series_lie_on_its_upright_grid(tmp_path: Path) -> None:
    """An upright cylinder, drawn on slices that lean by 15 degrees, is upright on the grid that was straightened."""
    straight = position_phantom((40, 36, 12), spacing_mm=(1.0, 1.2, 2.5), angles_deg=(0, 0, 0))
    paths = write_series(straight, tmp_path / "in" / "ct")
    for k, path in enumerate(paths):
        header = pydicom.dcmread(path)
        x, y, z = map(float, header.ImagePositionPatient)
        header.ImagePositionPatient = [x, round(y + 2.5 * k * math.tan(math.radians(15)), 6), z]
        header.save_as(path)
    center = to_lps([(19.3, 21.6, 0)], affine_of(straight))[0]
    ring = circle((0, 0), (8.4, 8.4))
    z_mm = to_lps([(0, 0, k) for k in range(2, 9)], affine_of(straight))[:, 2]
    contours = [np.column_stack([center[:2] + ring, np.full(len(ring), z)]) for z in z_mm]
    write_rtstruct(tmp_path / "in" / "rs", paths, {"GTV": contours})
    record, out = ingest(tmp_path / "in", spec_of(tmp_path))
    assert record.status == "done" and any("N_TILT_CORRECTED" in flag for flag in record.flags), record.error
    mask = mask_of(out)
    voxels = np.argwhere(np.ones(mask.shape, bool))
    points = voxels @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    near = np.hypot(points[:, 0] + center[0], points[:, 1] + center[1])  # RAS against LPS
    between = (points[:, 2] > z_mm.min() - 1) & (points[:, 2] < z_mm.max() + 1)
    found = mask.get_fdata().astype(bool)[tuple(voxels.T)]
    assert found.sum() > 1000
    sure = np.abs(near - 8.4) > 0.02
    np.testing.assert_array_equal(found[sure], ((near < 8.4) & between)[sure])


def test_the_mask_is_an_input(tree: Path, tmp_path: Path) -> None:
    """Nothing is done twice, but a structure set that was drawn anew is."""
    write_rtstruct(tree / "rs", images(tree), {"GTV": drawn(SQUARE, range(3, 7))})
    first, _ = ingest(tree, spec_of(tmp_path))
    again, _ = ingest(tree, spec_of(tmp_path))
    assert again == first and {item.key for item in first.inputs} == {"ct", "lesion"}
    write_rtstruct(tree / "rs", images(tree), {"GTV": drawn(SQUARE, range(3, 9))})
    anew, _ = ingest(tree, spec_of(tmp_path))
    assert anew.key != first.key
    assert anew.measures["lesion_gtv_volume_ml"] == pytest.approx(
        1.5 * first.measures["lesion_gtv_volume_ml"], rel=1e-5
    )


def test_the_later_stages_run_with_masks(tree: Path, tmp_path: Path) -> None:
    write_rtstruct(tree / "rs", images(tree), {"GTV": drawn(SQUARE, range(3, 7))})
    found = batch.run(batch.Plan(tree, tmp_path / "out", spec_of(tmp_path)))
    (of_case,) = found.values()
    assert {record.stage: record.status for record in of_case} == dict.fromkeys(
        ("ingest", "preprocess", "report"), "done"
    )


def test_another_patients_object_is_not_taken(tree: Path, tmp_path: Path) -> None:
    other = write_series(IMAGE, tmp_path / "other", SeriesHeader(patient_id="SIM-0002"))
    write_rtstruct(tree / "rs", other, {"GTV": drawn(SQUARE, range(3, 7))})
    record, _ = ingest(tree, spec_of(tmp_path))
    assert record.error is not None and record.error.code == "E_MASK_ROI"


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ({"of": "mr", "labels": {"a": "b"}}, "does not define"),
        ({"of": "ct", "labels": {}}, "needs `labels`"),
        ({"of": "ct", "labels": {"A": "b"}}, "cannot name a label"),
        ({"of": "ct", "labels": {"a": "("}}, "not a regular expression"),
    ],
)
def test_a_wrong_spec_is_refused(mask: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Spec.model_validate({"name": "x", "description": "x", "roles": ROLES, "masks": {"m": mask}})
    with pytest.raises(ValueError, match="cannot name a mask"):
        good = {"of": "ct", "labels": {"a": "b"}}
        Spec.model_validate({"name": "x", "description": "x", "roles": ROLES, "masks": {"ct": good}})


def other_images(tree: Path) -> list[Path]:
    """An MR of the patient in a frame of reference of its own, which lies where the CT does by chance."""
    return write_series(IMAGE, tree / "mr", SeriesHeader(modality="MR", series_number=7, frame="2"))


def frame_of(paths: list[Path]) -> str:
    return str(pydicom.dcmread(paths[0]).FrameOfReferenceUID)


@pytest.mark.parametrize("kind", ["its own frame", "its images", "nothing"])
def test_a_region_of_another_frame_of_reference_is_not_filled(tree: Path, tmp_path: Path, kind: str) -> None:
    """A structure set of CT and MR: the region was drawn on the MR, or does not say where."""
    mr = other_images(tree)
    changes: dict[str, Any] = {"frames": {"GTV": frame_of(mr) if kind == "its own frame" else ""}}
    changes |= {"drawn_on": {"GTV": mr[0]}} if kind == "its images" else {}
    regions = {"Body": drawn(BESIDE, range(12)), "GTV": drawn(SQUARE, range(3, 7))}
    write_rtstruct(tree / "rs", images(tree), regions, others=[mr], **changes)
    record, _ = ingest(tree, spec_of(tmp_path))
    assert record.status == "quarantined" and record.error is not None
    assert record.error.code == ("E_MASK" if kind == "nothing" else "E_MASK_ROI")
    assert "frame of reference" in record.error.message


def test_the_region_of_the_images_frame_is_filled_and_the_other_said(tree: Path, tmp_path: Path) -> None:
    mr = other_images(tree)
    regions = {"GTV ct": drawn(SQUARE, range(3, 7)), "GTV mr": drawn(BESIDE, range(12))}
    write_rtstruct(tree / "rs", images(tree), regions, others=[mr], frames={"GTV mr": frame_of(mr)})
    record, out = ingest(tree, spec_of(tmp_path))
    np.testing.assert_array_equal(mask_of(out).get_fdata(), reoriented(box(SQUARE, range(3, 7))))
    words = "N_OTHER_FRAME: lesion: gtv: 1 regions lie in another frame of reference and were left out"
    assert words in record.flags


def test_a_frame_that_the_contours_images_contradict_is_refused(tree: Path, tmp_path: Path) -> None:
    mr = other_images(tree)
    regions = {"GTV": drawn(SQUARE, range(3, 7))}
    write_rtstruct(tree / "rs", images(tree), regions, others=[mr], drawn_on={"GTV": mr[0]})
    record, _ = ingest(tree, spec_of(tmp_path))
    assert record.error is not None and record.error.code == "E_MASK" and "got several" in record.error.message


def test_a_region_without_frame_is_filled_where_there_is_one_alone(tree: Path, tmp_path: Path) -> None:
    write_rtstruct(tree / "rs", images(tree), {"GTV": drawn(SQUARE, range(3, 7))}, frames={"GTV": ""})
    _, out = ingest(tree, spec_of(tmp_path))
    np.testing.assert_array_equal(mask_of(out).get_fdata(), reoriented(box(SQUARE, range(3, 7))))


def test_a_number_that_two_regions_have_is_refused(tree: Path, tmp_path: Path) -> None:
    """By the number alone the GTV would get the body's contours."""
    regions = {"GTV": drawn(SQUARE, range(3, 7)), "Body": drawn(BESIDE, range(12)), "node": drawn(SQUARE, range(2, 4))}
    write_rtstruct(tree / "rs", images(tree), regions, numbers={"GTV": 5, "Body": 5})
    record, _ = ingest(tree, spec_of(tmp_path))
    assert record.error is not None and record.error.code == "E_MASK" and "one ROINumber" in record.error.message
    shutil.rmtree(tree.parent / "out")
    record, _ = ingest(tree, spec_of(tmp_path, labels={"node": "^node"}))
    assert record.status == "done"


def test_a_number_that_two_segments_have_is_refused(tree: Path, tmp_path: Path) -> None:
    path = write_seg(tree / "seg", images(tree), {"GTV": box(SQUARE, range(3, 7)), "node": box(BESIDE, range(2, 4))})
    found = pydicom.dcmread(path)
    found.SegmentSequence[1].SegmentNumber = 1
    found.save_as(path)
    record, _ = ingest(tree, spec_of(tmp_path))
    assert record.error is not None and record.error.code == "E_MASK" and "one SegmentNumber" in record.error.message


def test_a_structure_set_of_another_person_is_refused(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    write_rtstruct(tree / "rs", images(tree), {"GTV": drawn(SQUARE, range(3, 7))}, PatientName="Canary^Tom")
    record, out = ingest(tree, spec_of(tmp_path))
    assert record.error is not None and record.error.code == "E_CONTRADICTION"
    assert not any(b"Canary" in path.read_bytes() for path in out.rglob("*") if path.is_file())
    (private,) = (tandem_home / "links").rglob("contradictions.csv")
    assert {row["value"] for row in csv.DictReader(private.open(newline=""))} == {"Canary^Tom", "Simulated^One"}
