"""Raw datasets: what nnU-Net's own readers and checks find in them, every refusal, and the way back voxel for voxel."""

from __future__ import annotations

import csv
import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.commands.convert import convert_back, convert_nnunet, show_written
from pipeline.errors import CaseError, UsageError
from pipeline.segmentation.dataset import check_case
from tests.tandem_process import call

#: Oblique, anisotropic, axes in another order than RAS.
TURN = Rotation.from_euler("xyz", [7, -11, 4], degrees=True).as_matrix()
AFFINE = nib.affines.from_matvec(TURN @ np.array([[0, -1.9, 0], [0.9, 0, 0], [0, 0, -2.5]]), [40, -7, 11])
SHAPE = (7, 6, 5)
SPEC = """
name: two
description: x
roles:
  ct: {modality: CT, files: "{case}/ct.nii.gz"}
  mr: {modality: MR, files: "{case}/mr.nii.gz"}
masks:
  lesion: {of: ct, files: "{case}/lesion.nii.gz", values: {core: 12, rim: 7}}
segment:
  channels: {mr: T1, ct: CT}
  label: lesion
"""


def write(values: Any, path: Path, affine: Any = AFFINE, kind: type = np.int16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, kind), affine, dtype=kind), path)
    return path


def lesion(seed: int) -> Any:
    return np.random.default_rng(seed).choice([0, 7, 12], SHAPE, p=[0.6, 0.2, 0.2])


def write_case(root: Path, case: str, seed: int, affine: Any = AFFINE) -> None:
    random = np.random.default_rng(seed + 100)
    for name in ("ct", "mr"):
        write(random.integers(-900, 900, SHAPE), root / case / f"{name}.nii.gz", affine)
    write(lesion(seed), root / case / "lesion.nii.gz", affine, np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for number in range(4):
        write_case(root, f"p{number}", number)
    (tmp_path / "two.yaml").write_text(SPEC)
    return root


def patterns(root: Path) -> list[str]:
    return [f"{key}={root}/{{case}}/{key}.nii.gz" for key in ("ct", "mr", "lesion")]


def convert(root: Path, **more: Any):  # type: ignore[no-untyped-def]
    given = {"spec": root.parent / "two.yaml", "nifti": patterns(root), "folds": 2, **more}
    return convert_nnunet(root.parent / "raw", 7, "Two", **given)


def in_space(path: Path) -> dict[tuple[float, ...], float]:
    """The values of a volume by the places of their voxels."""
    image = nib.load(path)
    places = nib.affines.apply_affine(image.affine, np.argwhere(np.ones(image.shape))).round(2)
    return dict(zip(map(tuple, places.tolist()), np.asarray(image.dataobj).ravel().tolist(), strict=True))


def decathlon(root: Path, labels: str = '{"0": "background", "1": "edema", "2": "tumour"}') -> Path:
    task = root / "Task01_Tumour"
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 900, (*SHAPE, 2))
        part = "Ts" if number == 2 else "Tr"
        write(values, task / f"images{part}" / f"T_{number}.nii.gz", kind=np.float32)
        write(np.random.default_rng(number).integers(0, 3, SHAPE), task / "labelsTr" / f"T_{number}.nii.gz")
    training = [{"image": f"./imagesTr/T_{n}.nii.gz", "label": f"./labelsTr/T_{n}.nii.gz"} for n in range(2)]
    about = {
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": 0,
        "training": training,
        "test": ["./imagesTs/T_2.nii.gz"],
    }
    (task / "dataset.json").write_text(json.dumps(about).replace('"labels": 0', f'"labels": {labels}'))
    return task


def test_images_and_labels_are_the_same_in_space_and_labels_are_consecutive(source: Path) -> None:
    found = convert(source)
    assert found.failed == {} and found.folder.name == "Dataset007_Two"
    for number, role in enumerate(("mr", "ct")):
        written = found.folder / "imagesTr" / f"p1_{number:04d}.nii.gz"
        assert nib.aff2axcodes(nib.load(written).affine) == ("R", "A", "S")
        assert in_space(written) == in_space(source / "p1" / f"{role}.nii.gz")
    numbers = {0: 0, 7: 1, 12: 2}
    truth = {at: numbers[value] for at, value in in_space(source / "p2" / "lesion.nii.gz").items()}
    assert in_space(found.folder / "labelsTr" / "p2.nii.gz") == truth
    dataset = json.loads((found.folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "T1", "1": "CT"}
    assert dataset["labels"] == {"background": 0, "rim": 1, "core": 2} and dataset["numTraining"] == 4
    about = json.loads((found.folder / "tandem.json").read_text())
    assert about["label_map"] == {"1": 7, "2": 12} and about["channels"] == ["mr", "ct"]
    folds = json.loads((found.folder / "splits_final.json").read_text())
    assert sorted(folds[0]["val"] + folds[1]["val"]) == ["p0", "p1", "p2", "p3"]


def test_nothing_names_the_machine(source: Path) -> None:
    folder = convert(source).folder
    texts = b"".join(path.read_bytes() for path in folder.rglob("*.[jc]s*"))
    assert os.fsencode(source.parent) not in texts and b"Tandem" in texts
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_the_way_back_gives_values_and_grid_of_the_source(source: Path) -> None:
    found = convert(source)
    out = source.parent / "back"
    assert convert_back(found.folder / "labelsTr", found.folder, out) == dict.fromkeys(["p0", "p1", "p2", "p3"])
    for number in range(4):
        back = nib.load(out / f"p{number}.nii.gz")
        assert (np.asarray(back.dataobj) == lesion(number)).all()
        assert np.abs(back.affine - AFFINE).max() < 1e-5


def test_the_way_back_of_a_new_image_keeps_its_grid(source: Path, tmp_path: Path) -> None:
    """What a model has said of an image that is no case of the dataset: the values are the source's again."""
    found, moved = convert(source), AFFINE + np.array([[0, 0, 0, 40.0], *np.zeros((3, 4))])
    said = np.zeros(SHAPE)
    said[1, 2, 3] = 2
    write(said, tmp_path / "new" / "p9.nii.gz", moved)
    assert convert_back(tmp_path / "new", found.folder, tmp_path / "b") == {"p9": None}
    back, new = (nib.as_closest_canonical(nib.load(tmp_path / folder / "p9.nii.gz")) for folder in ("b", "new"))
    assert np.abs(back.affine - new.affine).max() < 1e-5
    assert np.array_equal(np.asarray(back.dataobj), np.asarray(new.dataobj) * 6)  # 12 is the second label


def test_the_way_back_refuses_what_it_does_not_know(source: Path, tmp_path: Path) -> None:
    found = convert(source)
    stray = tmp_path / "stray"
    write(np.full(SHAPE, 3), stray / "p0.nii.gz")
    write(np.zeros((7, 6, 6)), stray / "p1.nii.gz")
    codes = {case: fault.code for case, fault in convert_back(stray, found.folder, tmp_path / "b").items() if fault}
    assert codes == {"p0": "E_LABEL", "p1": "E_GRID"}
    assert list((tmp_path / "b").iterdir()) == []
    for folder, dataset, code in ((tmp_path / "no", found.folder, "E_NO_CASES"), (stray, source, "E_INPUT")):
        with pytest.raises(UsageError) as refused:
            convert_back(folder, dataset, tmp_path / "b")
        assert refused.value.code == code


@pytest.mark.slow
def test_nnunets_own_integrity_check_passes_without_a_word(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In spawned processes, as nnU-Net does it."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    folder = convert(source).folder
    capfd.readouterr()
    verify_dataset_integrity(str(folder), 1)
    said = capfd.readouterr().out
    assert "verify_dataset_integrity Done" in said and "arning" not in said and "Error" not in said


def test_what_nnunet_only_warns_of_is_an_error(tmp_path: Path) -> None:
    image = write(np.ones(SHAPE), tmp_path / "a_0000.nii.gz")
    moved = AFFINE + np.array([[0, 0, 0, 40.0], *np.zeros((3, 4))])
    check_case([image], write(np.ones(SHAPE), tmp_path / "a.nii.gz"), [0, 1])
    with pytest.raises(CaseError, match="Origin mismatch") as refused:
        check_case([image], write(np.ones(SHAPE), tmp_path / "b.nii.gz", moved), [0, 1])
    assert refused.value.code == "E_GRID"
    with pytest.raises(CaseError, match="got: Unexpected labels found") as refused:
        check_case([image], tmp_path / "a.nii.gz", [0, 2])
    assert refused.value.code == "E_LABEL" and str(tmp_path) not in refused.value.message


def test_files_that_need_no_change_are_links_of_the_disk(tmp_path: Path) -> None:
    for number in range(2):
        write_case(tmp_path / "source", f"p{number}", number, np.diag([1.0, 2, 3, 1]))
    (tmp_path / "two.yaml").write_text(SPEC)
    folder = convert(tmp_path / "source").folder
    assert (folder / "imagesTr" / "p0_0001.nii.gz").samefile(tmp_path / "source" / "p0" / "ct.nii.gz")
    assert not (folder / "labelsTr" / "p0.nii.gz").samefile(tmp_path / "source" / "p0" / "lesion.nii.gz")
    (tmp_path / "two.yaml").write_text(SPEC.replace("core: 12, rim: 7", "core: 2, rim: 1"))
    for number in range(2):
        values = np.searchsorted([0, 7, 12], lesion(number))
        write(values, tmp_path / "source" / f"p{number}" / "lesion.nii.gz", np.diag([1.0, 2, 3, 1]), np.uint8)
    again = convert_nnunet(
        tmp_path / "raw", 8, "Again", tmp_path / "two.yaml", nifti=patterns(tmp_path / "source"), folds=2, copy=True
    ).folder
    assert not (again / "imagesTr" / "p0_0001.nii.gz").samefile(tmp_path / "source" / "p0" / "ct.nii.gz")
    assert (again / "labelsTr" / "p0.nii.gz").read_bytes() == (tmp_path / "source/p0/lesion.nii.gz").read_bytes()


def test_cases_that_fail_are_recorded_and_the_others_go_on(source: Path) -> None:
    moved, turned = AFFINE.copy(), AFFINE.copy()
    moved[0, 3] += 40
    turned[:, 1] *= -1
    (source / "p0" / "mr.nii.gz").unlink()
    for number in range(4, 9):
        write_case(source, f"p{number}", number)
    write(np.ones(SHAPE), source / "p4" / "mr.nii.gz", moved)
    write(np.ones(SHAPE), source / "p5" / "mr.nii.gz", turned)
    write(np.full(SHAPE, 9), source / "p6" / "lesion.nii.gz")
    write(np.full(SHAPE, np.nan), source / "p7" / "ct.nii.gz", kind=np.float32)
    whole = (source / "p8" / "ct.nii.gz").read_bytes()
    (source / "p8" / "ct.nii.gz").write_bytes(whole[: len(whole) // 2])
    found = convert(source)
    codes = {case: fault.code for case, fault in found.failed.items()}
    wanted = {"p0": "E_CHANNELS", "p4": "E_GRID", "p5": "E_GRID", "p6": "E_LABEL", "p7": "E_NIFTI", "p8": "E_NIFTI"}
    assert codes == wanted
    assert "Expected the channels mr, ct, in this order, got ct." in found.failed["p0"].message
    left = {path.name.split("_")[0].split(".")[0] for path in found.folder.rglob("*.nii.gz")}
    assert left == {"p1", "p2", "p3"}
    with (found.folder / "cases.csv").open(newline="") as stream:
        rows = {row["case_id"]: row for row in csv.DictReader(stream)}
    assert {case: row["code"] for case, row in rows.items() if row["status"] == "failed"} == wanted
    assert json.loads((found.folder / "dataset.json").read_text())["numTraining"] == 3


def refused(code: str, source: Path, **more: Any) -> str:
    with pytest.raises(UsageError) as error:
        convert(source, **more)
    assert error.value.code == code
    raw = source.parent / "raw"
    assert not raw.is_dir() or {path.name for path in raw.iterdir()} <= {".lock", "Dataset007_Two"}
    return error.value.message


def test_what_cannot_start_leaves_nothing(source: Path) -> None:
    assert "got 5 of 4" in refused("E_FOLD", source, folds=5)
    assert "Expected one of --cases" in refused("E_OPTION", source, msd=source)
    assert "Expected a pattern for each of mr, ct, lesion" in refused("E_OPTION", source, nifti=patterns(source)[:2])
    assert "{case}" in refused("E_OPTION", source, nifti=[*patterns(source)[:2], f"lesion={source}/a.nii.gz"])
    table = source.parent / "patients.csv"
    table.write_text("case_id,patient_id\n" + "".join(f"p{number},one\n" for number in range(4)))
    assert "one patient each, got 2 of 1" in refused("E_FOLD", source, patients=table)
    (source.parent / "two.yaml").write_text(SPEC + "  regions: {whole: [core, crust]}\n")
    assert "crust" in refused("E_LABEL", source)
    (source.parent / "two.yaml").write_text(SPEC)
    for number in range(4):
        (source / f"p{number}" / "ct.nii.gz").unlink()
    assert "got none. Expected the channels mr, ct" in refused("E_NO_CASES", source)


def test_a_number_that_is_taken_is_refused(source: Path) -> None:
    convert(source)
    assert "got Dataset007_Two there" in refused("E_OUT", source)


def test_visits_of_a_patient_stay_in_one_fold(tmp_path: Path) -> None:
    for number in range(6):
        write_case(tmp_path / "source", f"p{number // 2}_v{number % 2}", number)
    (tmp_path / "two.yaml").write_text(SPEC)
    given = [f"{key}={tmp_path}/source/{{case}}_v{{session}}/{key}.nii.gz" for key in ("ct", "mr", "lesion")]
    folder = convert(tmp_path / "source", nifti=given, folds=3).folder
    folds = json.loads((folder / "splits_final.json").read_text())
    assert [len({case[:2] for case in fold["val"]}) for fold in folds] == [1, 1, 1]
    assert sorted(case for fold in folds for case in fold["val"]) == [f"p{n // 2}_{n % 2}" for n in range(6)]


@pytest.mark.parametrize("where", ["link", "written"])
def test_a_full_disk_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "link":
        for number in range(4):
            write_case(source, f"p{number}", number, np.diag([1.0, 2, 3, 1]))
    monkeypatch.setattr(*((os, "link") if where == "link" else (Path, "replace")), full)
    assert "disk is full" in refused("E_DISK", source)


def test_a_file_with_other_channels_than_its_role_is_refused(source: Path, tmp_path: Path) -> None:
    """Two volumes in the file of one role, and one file for two roles: neither is a guess worth making."""
    write(np.ones((*SHAPE, 2)), source / "p0" / "mr.nii.gz")
    assert convert(source).failed["p0"].code == "E_CHANNELS"
    task = decathlon(tmp_path)
    for number in range(2):
        write(np.ones(SHAPE), task / "imagesTr" / f"T_{number}.nii.gz")
    with pytest.raises(UsageError, match=r"FLAIR|flair, t1w, got 1 of them") as error:
        convert_nnunet(tmp_path / "raw", 2, "Tumour", msd=task, folds=2)
    assert error.value.code == "E_NO_CASES"


def test_a_source_that_cannot_be_read_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no usable dataset") as error:
        convert_nnunet(tmp_path / "raw", 2, "Tumour", msd=source)
    assert error.value.code == "E_INPUT"
    task = decathlon(tmp_path)
    (task / "dataset.json").write_text((task / "dataset.json").read_text().replace("T1w", "CTA"))
    with pytest.raises(UsageError, match="named `CTA`") as error:
        convert_nnunet(tmp_path / "raw", 2, "Tumour", msd=task)
    assert error.value.code == "E_SPEC"
    write(np.ones(SHAPE), source / "again" / "p0" / "mr.nii.gz")
    given = [f"mr={source}/**/{{case}}/mr.nii.gz", *(item for item in patterns(source) if not item.startswith("mr="))]
    assert "mr of the case p0, got two" in refused("E_AMBIGUOUS", source, nifti=given)
    assert "such as mr=/data/" in refused("E_OPTION", source, nifti=["mr"])
    (source.parent / "two.yaml").write_text(SPEC.replace("  label: lesion\n", ""))
    assert "Expected a `label`" in refused("E_SPEC", source)
    assert "letters and digits" in refusal_of_name(source)


def refusal_of_name(source: Path) -> str:
    (source.parent / "two.yaml").write_text(SPEC)
    with pytest.raises(UsageError) as error:
        convert_nnunet(source.parent / "raw", 7, "a/b", source.parent / "two.yaml", nifti=patterns(source))
    assert error.value.code == "E_OPTION"
    return error.value.message


def test_a_disk_without_links_gets_copies_and_the_command_says_so(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def apart(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    for number in range(4):
        write_case(source, f"p{number}", number, np.diag([1.0, 2, 3, 1]))
    write(np.full(SHAPE, 7), source / "p0" / "lesion.nii.gz", np.diag([1.0, 2, 3, 1]), np.uint8)
    monkeypatch.setattr(os, "link", apart)
    found = convert(source, folds=4)
    assert found.copied == 8 and found.rare == {"core": 3}
    copy = found.folder / "imagesTr" / "p2_0001.nii.gz"
    assert copy.read_bytes() == (source / "p2" / "ct.nii.gz").read_bytes() and copy.stat().st_nlink == 1
    assert show_written(found) == 0
    said = capsys.readouterr().err
    assert "8 files copied" in said and "Only 3 patients show core" in said


def test_without_the_extra_it_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    assert "tandem-imaging[segment]" in refused("E_EXTRA", source)


def test_the_command_says_what_failed(source: Path) -> None:
    (source / "p0" / "mr.nii.gz").unlink()
    raw = source.parent / "raw"
    given = [part for pattern in patterns(source) for part in ("--nifti", pattern)]
    done = call(
        "convert",
        "nnunet",
        "-o",
        raw,
        "--dataset",
        "7",
        "--name",
        "Two",
        "--spec",
        source.parent / "two.yaml",
        "--folds",
        "3",
        *given,
    )
    assert done.code == 1 and "p0: E_CHANNELS" in done.err and "3 training cases, 1 failed" in done.out
    done = call(
        "convert",
        "back",
        raw / "Dataset007_Two" / "labelsTr",
        "--dataset",
        raw / "Dataset007_Two",
        "-o",
        source.parent / "b",
    )
    assert done.code == 0 and "3 label images, 0 failed" in done.out
    assert call("convert", "nnunet", "-o", raw, "--dataset", "7", "--name", "Two").code == 2
