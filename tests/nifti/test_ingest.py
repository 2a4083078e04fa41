"""A tree of NIfTI files through the ingest bundle: cases, masks, what is refused, and that no name gets out."""

from __future__ import annotations

import csv
import json
import os
import stat
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from pipeline import geometry, volumes
from pipeline.cases import NiftiFile, Record
from pipeline.errors import UsageError
from pipeline.nifti.ingest import FindFiles
from pipeline.run import batch
from pipeline.run.stage import scrub
from pipeline.spec.spec import Mask, Role, Spec, save_spec
from pipeline.store import records
from pipeline.store.files import open_file
from pipeline.store.pseudonyms import Pseudonyms
from tests.phantoms.phantom import position_error, position_phantom
from tests.store.test_files import refusing

NAME = "DOE_JOHN"
CT = position_phantom((12, 11, 9))
MR = position_phantom((10, 12, 8), spacing_mm=(1.3, 0.8, 3.0), angles_deg=(5.0, -9.0, 30.0))


def write(image: MetaTensor, path: Path, kind: type = np.float32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = nib.Nifti1Image(image.numpy()[0].astype(kind), volumes.affine_of(image), dtype=kind)
    nib.save(stored, path)
    return path


def label(of: MetaTensor = CT) -> MetaTensor:
    """A mask with the values 0, 1 (24 voxels) and 4 (3 voxels), off the centre."""
    values = np.zeros(of.shape[1:], np.uint8)
    values[1:5, 2:5, 3:5] = 1
    values[6:9, 8, 1] = 4
    return volumes.volume(values, volumes.affine_of(of))


def turned(image: MetaTensor) -> MetaTensor:
    """The same voxels at the same places, in a file whose axes run the other way round and in another order."""
    stored = nib.Nifti1Image(image.numpy()[0], volumes.affine_of(image))
    orientation = nib.orientations.axcodes2ornt(("S", "L", "P"))
    now = nib.io_orientation(stored.affine)
    other = stored.as_reoriented(nib.orientations.ornt_transform(now, orientation))
    return volumes.volume(np.asarray(other.dataobj), other.affine)


def spec(**changes: object) -> Spec:
    parts = {
        "name": "x",
        "description": "x",
        "roles": {
            "ct": Role(modality="CT", files="{case}/CT_image.nii.gz"),
            "mr": Role(modality="MR", files="{case}/MR*_image.nii*", required=False),
        },
        "masks": {
            "lesion": Mask(of="ct", files="{case}/CT_mask.nii.gz", values={"core": 1, "oedema": 4}, required=False)
        },
    }
    return Spec(**{**parts, **changes})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    for case in (NAME, "2"):
        write(CT, root / case / "CT_image.nii.gz")
    write(MR, root / NAME / "MR_T1_image.nii")
    write(label(), root / NAME / "CT_mask.nii.gz", np.uint8)
    write(CT, root / NAME / "other.nii.gz")
    (root / NAME / "note.txt").write_text(NAME)
    return root


def case_id(tmp_path: Path, *name: str) -> str:
    return Pseudonyms(tmp_path / "out").of("case", *name)


def run(root: Path, tmp_path: Path, wanted: Spec) -> dict[str, Record]:
    """Through the bundle itself."""
    save_spec(wanted, tmp_path / "spec")
    plan = batch.Plan(root, tmp_path / "out", tmp_path / "spec" / "spec.yaml", stages=("ingest",))
    return {name: found[0] for name, found in batch.run(plan).items()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def image(tmp_path: Path, case: str, key: str) -> MetaTensor:
    stored = nib.load(tmp_path / "out" / "cases" / case_id(tmp_path, case) / "ingest" / f"{key}.nii.gz")
    return volumes.volume(np.asarray(stored.dataobj), stored.affine)


def test_a_tree_becomes_cases(tree: Path, tmp_path: Path) -> None:
    found = run(tree, tmp_path, spec())
    assert {name: record.status for name, record in found.items()} == {
        case_id(tmp_path, NAME): "done",
        case_id(tmp_path, "2"): "done",
    }
    for key, truth in {"ct": CT, "mr": MR}.items():
        stored = image(tmp_path, NAME, key)
        assert position_error(stored) < 1e-3
        assert geometry.orientation_of(volumes.affine_of(stored)) == "RAS"
        assert sorted(stored.shape) == sorted(truth.shape)
    record = found[case_id(tmp_path, NAME)]
    assert {item.key for item in record.inputs} == {"ct", "mr", "lesion"}
    assert {item.key for item in record.artifacts} == {"ct", "mr", "lesion", "sections"}
    assert {item.path for item in record.inputs} == {""} and record.flags == ()
    assert found[case_id(tmp_path, "2")].flags == (
        "N_NO_ROLE: no file fits the optional role mr",
        "N_NO_MASK: lesion: no file fits it",
    )


def in_order(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(np.round(points, 2).T)]


def test_masks_keep_their_values_and_places(tree: Path, tmp_path: Path) -> None:
    write(turned(label()), tree / NAME / "CT_mask.nii.gz", np.uint8)
    found = run(tree, tmp_path, spec())[case_id(tmp_path, NAME)]
    mask, ct = image(tmp_path, NAME, "lesion"), image(tmp_path, NAME, "ct")
    volumes.require_same_grid(mask, ct, ("mask", "ct"))
    assert mask.numpy().dtype == np.uint8
    for value in (1, 4):
        places, expected = (
            geometry.apply(volumes.affine_of(item), np.argwhere(item.numpy()[0] == value)) for item in (mask, label())
        )
        np.testing.assert_allclose(in_order(places), in_order(expected), atol=1e-4)
    voxel_ml = 0.9 * 1.1 * 2.5 / 1000
    measured = found.measures
    assert measured["lesion_source"] == "NIfTI" and measured["lesion_labels"] == "1 core, 4 oedema"
    assert measured["lesion_core_volume_ml"] == pytest.approx(24 * voxel_ml, abs=1e-6)
    assert measured["lesion_oedema_volume_ml"] == pytest.approx(3 * voxel_ml, abs=1e-6)


def test_an_empty_label_is_said(tree: Path, tmp_path: Path) -> None:
    mask = label()
    mask[mask == 4] = 0
    write(mask, tree / NAME / "CT_mask.nii.gz", np.uint8)
    record = run(tree, tmp_path, spec())[case_id(tmp_path, NAME)]
    assert record.flags == ("N_MASK_EMPTY: lesion: oedema has no voxel",)


def moved(mm: float) -> MetaTensor:
    affine = volumes.affine_of(CT).copy()
    affine[2, 3] += mm
    return volumes.volume(label().numpy(), affine)


def test_a_bad_file_is_its_case_alone(tree: Path, tmp_path: Path) -> None:
    damage = {
        "cut": ("CT_image.nii.gz", "E_NIFTI", "ct: The file cannot be read whole"),
        "moved": ("CT_mask.nii.gz", "E_GRID", "lesion: Expected the grid of ct, got one that lies 0.20 mm off"),
        "small": (
            "CT_mask.nii.gz",
            "E_GRID",
            "lesion: Expected the grid of ct, got (",
        ),
        "strange": ("CT_mask.nii.gz", "E_NIFTI", "lesion: Expected the values 0, 1, 4, got 3 too"),
        "flat": ("CT_image.nii.gz", "E_NIFTI", "ct: Expected a volume, got (12, 11, 1) voxels"),
        "soft": ("CT_mask.nii.gz", "E_NIFTI", "lesion: Expected the values 0, 1, 4, got 0.5 too"),
    }
    for name in damage:
        write(CT, tree / name / "CT_image.nii.gz")
        write(label(), tree / name / "CT_mask.nii.gz", np.uint8)
    cut = tree / "cut" / "CT_image.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-9])
    write(moved(0.2), tree / "moved" / "CT_mask.nii.gz", np.uint8)
    write(volumes.volume(label().numpy()[0, :, :, :8], volumes.affine_of(CT)), tree / "small" / "CT_mask.nii.gz")
    strange, soft = label(), label().float()
    strange[0, 0, 0, 0], soft[0, 0, 0, 0] = 3, 0.5
    write(strange, tree / "strange" / "CT_mask.nii.gz", np.uint8)
    write(soft, tree / "soft" / "CT_mask.nii.gz")
    write(volumes.volume(CT.numpy()[0, :, :, :1], volumes.affine_of(CT)), tree / "flat" / "CT_image.nii.gz")
    found = run(tree, tmp_path, spec())
    for name, (_, code, words) in damage.items():
        record = found[case_id(tmp_path, name)]
        assert record.status == "quarantined" and record.error is not None
        assert (record.error.code, words in record.error.message) == (code, True), record.error
    assert found[case_id(tmp_path, NAME)].status == found[case_id(tmp_path, "2")].status == "done"


def test_a_pipe_is_no_volume_to_wait_for(tree: Path, tmp_path: Path) -> None:
    (tree / "piped").mkdir()
    os.mkfifo(tree / "piped" / "CT_image.nii.gz")
    found = run(tree, tmp_path, spec())
    assert case_id(tmp_path, "piped") not in found
    assert found[case_id(tmp_path, "2")].status == "done"
    with pytest.raises(OSError, match="not a file"):
        open_file(tree / "piped" / "CT_image.nii.gz")


def test_another_key_is_refused(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(tree, tmp_path, spec())
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "another"))
    with pytest.raises(UsageError, match=r"E_KEY: .*another pseudonym key"):
        run(tree, tmp_path, spec())
    assert records.of_run(tmp_path / "out").keys() == before.keys()


def test_rounding_of_a_header_is_no_other_grid(tree: Path, tmp_path: Path) -> None:
    """A mask whose header is 0.02 mm off lies on the image's grid, and gets exactly its affine."""
    write(moved(0.02), tree / NAME / "CT_mask.nii.gz", np.uint8)
    assert run(tree, tmp_path, spec())[case_id(tmp_path, NAME)].status == "done"
    affines = [volumes.affine_of(image(tmp_path, NAME, key)) for key in ("ct", "lesion")]
    np.testing.assert_array_equal(*affines)


def test_several_and_none(tree: Path, tmp_path: Path) -> None:
    write(MR, tree / NAME / "MR_T2_image.nii")
    write(CT, tree / "3" / "CT_mask.nii.gz")
    cases = {case["case_id"]: case for case in FindFiles(tree, tmp_path / "out", spec())()}
    faults = {name: case["fault"] and case["fault"].code for name, case in cases.items()}
    assert faults == {
        case_id(tmp_path, NAME): "E_AMBIGUOUS",
        case_id(tmp_path, "2"): None,
        case_id(tmp_path, "3"): "E_MISSING_ROLE",
    }
    both = spec(roles={name: Role(modality="CT", files="{case}/CT_image.nii.gz") for name in ("ct", "again")}, masks={})
    (case, *_) = FindFiles(tree, tmp_path / "out", both)()
    assert case["fault"].message == "One file fits ct and again."


def test_the_table_has_every_file_and_no_name(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    (tree / "2" / "CT_image.nii.gz").write_bytes(b"cut")
    run(tree, tmp_path, spec())
    table = {row["verdict"] + row["role"]: row for row in rows(tmp_path / "out" / "series.csv")}
    assert len(table) == 5
    assert table["chosenct"]["voxels"] == "12 x 11 x 9"
    assert table["chosenct"]["voxel_size_mm"] == "0.9 x 1.1 x 2.5"
    assert table["not chosen"]["reason"] == "its path fits no `files` of the spec"
    assert table["set asidect"]["code"] == "E_NIFTI"
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert NAME not in path.name and NAME.encode() not in path.read_bytes(), path.name
    (private,) = (tandem_home / "links").rglob("series.csv")
    assert {row["name"] for row in rows(private)} == {NAME, "2", ""}
    assert str(tree / NAME / "CT_image.nii.gz") in {row["path"] for row in rows(private)}
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_sessions_are_cases_of_their_own(tmp_path: Path) -> None:
    for session in ("a", "b"):
        write(CT, tmp_path / "in" / f"sub-1/ses-{session}/anat/sub-1_ses-{session}_CT.nii.gz")
    wanted = spec(
        roles={"ct": Role(modality="CT", files="sub-{case}/ses-{session}/**/sub-{case}_*CT.nii.gz")}, masks={}
    )
    cases = FindFiles(tmp_path / "in", tmp_path / "out", wanted)()
    assert {case["case_id"] for case in cases} == {case_id(tmp_path, "1", session) for session in ("a", "b")}
    assert all(case["fault"] is None for case in cases)


def test_companions_of_macos_are_no_files_of_a_case(tree: Path, tmp_path: Path) -> None:
    """`._NAME` beside each file (AppleDouble), one of them cut, and what `{case}` alone would take for a case."""
    flat = tree / "flat"
    write(CT, flat / "9_CT.nii.gz")
    for path in [*tree.rglob("*.nii*")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X        " + bytes(100))
    (flat / "._9_CT.nii.gz").write_bytes(b"")
    wanted = spec(roles={"ct": Role(modality="CT", files="{case}/CT*.nii.gz")}, masks={})
    (tree / NAME / "CT_mask.nii.gz").unlink()
    cases = FindFiles(tree, tmp_path / "out", wanted)()
    assert {case["case_id"]: case["fault"] for case in cases} == {case_id(tmp_path, name): None for name in (NAME, "2")}
    alone = spec(roles={"ct": Role(modality="CT", files="flat/{case}_CT.nii.gz")}, masks={})
    assert [case["case_id"] for case in FindFiles(tree, tmp_path / "out", alone)()] == [case_id(tmp_path, "9")]
    assert {row["verdict"] for row in rows(tmp_path / "out" / "series.csv")} == {"chosen", "not chosen"}


def test_a_name_is_the_same_however_its_letters_are_composed(tmp_path: Path) -> None:
    """macOS writes ü as u and two dots (NFD); the spec may be written in either form, too."""
    nfc, nfd = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    write(CT, tmp_path / "in" / "ct" / f"{nfd}.nii.gz")
    write(MR, tmp_path / "in" / "mr" / f"{nfc}.nii.gz")
    write(CT, tmp_path / "in" / nfd / "x.nii.gz")
    roles = {name: Role(modality=name.upper(), files=f"{name}/{{case}}.nii.gz") for name in ("ct", "mr")}
    (case,) = FindFiles(tmp_path / "in", tmp_path / "out", spec(roles=roles, masks={}))()
    assert case["case_id"] == case_id(tmp_path, nfc) and case["fault"] is None
    assert {case["ct"].path.name, case["mr"].path.name} == {f"{nfd}.nii.gz", f"{nfc}.nii.gz"}
    for form in (nfc, nfd):
        role = Role(modality="CT", files=f"{form}/{{case}}.nii.gz")
        assert len(FindFiles(tmp_path / "in", tmp_path / "out", spec(roles={"ct": role}, masks={}))()) == 1


def test_names_in_latin_1_are_cases(tmp_path: Path, tandem_home: Path) -> None:
    name = os.fsdecode(b"M\xfcller")
    write(CT, tmp_path / "in" / "x" / "CT_image.nii.gz")
    (tmp_path / "in" / "x").rename(tmp_path / "in" / name)
    assert [record.status for record in run(tmp_path / "in", tmp_path, spec()).values()] == ["done"]
    (private,) = (tandem_home / "links").rglob("series.csv")
    assert [row["name"] for row in rows(private)] == [r"M\udcfcller"]


def test_entries_that_are_not_read_are_counted_by_their_reason(
    tree: Path, tmp_path: Path, tandem_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "closed").mkdir()
    (tree / "twice").symlink_to(tree / "2")
    (tree / "3").symlink_to(tmp_path / "store")
    write(CT, tmp_path / "store" / "CT_image.nii.gz")
    monkeypatch.setattr(os, "scandir", refusing(tree / "closed", os.scandir))
    cases = FindFiles(tree, tmp_path / "out", spec())()
    assert {case["case_id"] for case in cases} == {case_id(tmp_path, name) for name in (NAME, "2", "3")}
    counts = json.loads((tmp_path / "out" / "scan.json").read_text())
    assert counts == {"files_nifti": 6, "files_unreadable": 1, "files_not_nifti": 2}
    (private,) = (tandem_home / "links").rglob("files.csv")
    assert {Path(row["path"]).name: (row["code"], row["reason"]) for row in rows(private)} == {
        "closed": ("E_UNREADABLE", "It cannot be read (Permission denied)."),
        "twice": ("", "a link to a folder that is read elsewhere"),
        "note.txt": ("", "not NIfTI"),
    }
    said = capsys.readouterr().err
    assert "1 file or folder could not be read" in said and "1 links lead to folders that are read elsewhere" in said


def test_a_pattern_that_no_file_fits_and_files_that_fit_none_are_said(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    misspelt = {**spec().roles, "mr": Role(modality="MR", files="{case}/MRR*.nii", required=False)}
    FindFiles(tree, tmp_path / "out", spec(roles=misspelt))()
    said = capsys.readouterr().err
    assert "mr: no file of the tree fits `files: {case}/MRR*.nii`" in said
    assert "2 files without a place in the spec: see " in said  # the MR, and other.nii.gz
    FindFiles(tree, tmp_path / "again", spec())()
    said = capsys.readouterr().err
    assert "no file of the tree" not in said and "1 file without a place" in said


def test_units_are_flagged(tree: Path, tmp_path: Path) -> None:
    affine = volumes.affine_of(CT)
    stored = nib.Nifti1Image(CT.numpy()[0], np.diag([0.001] * 3 + [1.0]) @ affine)
    stored.header.set_xyzt_units("meter")
    nib.save(stored, tree / "2" / "CT_image.nii.gz")
    record = run(tree, tmp_path, spec())[case_id(tmp_path, "2")]
    assert record.flags[-1] == "N_UNITS: ct: lengths in metres were turned into mm"
    assert position_error(image(tmp_path, "2", "ct")) < 1e-2


def test_the_second_run_does_nothing_until_a_file_changes(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path, spec())
    folder = tmp_path / "out" / "cases" / case_id(tmp_path, NAME) / "ingest"
    before, first = records.read(folder), (folder / "record.json").stat().st_mtime_ns
    run(tree, tmp_path, spec())
    assert (folder / "record.json").stat().st_mtime_ns == first
    changed = MR.clone()
    changed[0, 1, 2, 3] += 1
    write(changed, tree / NAME / "MR_T1_image.nii")
    after = run(tree, tmp_path, spec())[case_id(tmp_path, NAME)]
    assert before is not None and after.key != before.key


def test_what_cannot_start(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_OUT"):
        FindFiles(tree, tree / "out", spec())()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="E_EMPTY"):
        FindFiles(tmp_path / "empty", tmp_path / "out", spec())()
    (tmp_path / "empty" / "x.png").touch()
    with pytest.raises(UsageError, match=r"got none of 1 files. Check the path, and `files` in the data spec"):
        FindFiles(tmp_path / "empty", tmp_path / "out", spec())()
    other = spec(roles={"ct": Role(modality="CT", files="x/{case}.nii")}, masks={})
    with pytest.raises(UsageError, match="E_NO_CASES"):
        FindFiles(tree, tmp_path / "out", other)()
    assert {row["reason"] for row in rows(tmp_path / "out" / "series.csv")} == {"its path fits no `files` of the spec"}


def test_paths_are_taken_out_of_what_is_kept(tree: Path) -> None:
    path = tree / NAME / "CT_image.nii.gz"
    text = f"at {path}, in {path.parent}, of CT_image.nii.gz"
    assert scrub(text, {"ct": NiftiFile(path)}) == "at <input>, in <input>, of <input>"
