"""Raw datasets out of a run folder, and out of the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.cases import Artifact, Record
from pipeline.commands.convert import convert_nnunet
from pipeline.errors import UsageError
from pipeline.spec.spec import Mask, Role, Spec, save_spec
from pipeline.store import records
from pipeline.store.pseudonyms import Pseudonyms
from tests.segmentation.test_dataset import SHAPE, decathlon, in_space, lesion, write


def run_folder(tmp_path: Path, spec: Spec, keys: Mapping[str, str]) -> Path:
    """A run folder of four cases, as stages leave it."""
    out = tmp_path / "run"
    for number in range(4):
        case = f"case-{number:04d}"
        folder = records.case_folder(out, case) / "register"
        made = []
        for key, kind in keys.items():
            values = lesion(number) if kind == "label" else np.random.default_rng(number).integers(0, 99, SHAPE)
            path = write(values, folder / f"{key}.nii.gz", np.diag([1.0, 2, 3, 1]))
            made.append(Artifact(key, kind, path.relative_to(out).as_posix(), ""))
        status = "done" if number else "failed"
        records.write(Record(case, "register", "k", status, artifacts=tuple(made)), folder)
    save_spec(spec, out)
    return out


def test_a_run_folder_gives_the_aligned_images(tmp_path: Path) -> None:
    spec = Spec(
        name="x",
        description="x",
        roles={"ct": Role(modality="CT"), "mr": Role(modality="MR")},
        masks={"lesion": Mask(of="mr", labels={"rim": "a", "core": "b"})},
        register={"fixed": "ct", "moving": ["mr"]},
        segment={"channels": {"ct": "CT", "mr": "MR"}, "label": "lesion"},
    )
    keys = {"ct": "image", "mr": "image", "mr_aligned": "image", "lesion": "label", "lesion_aligned": "label"}
    out = run_folder(tmp_path, spec, keys)
    for path in out.rglob("lesion_aligned.nii.gz"):
        write(np.searchsorted([0, 7, 12], lesion(int(path.parts[-3][-4:]))), path, np.diag([1.0, 2, 3, 1]), np.uint8)
    found = convert_nnunet(tmp_path / "raw", 1, "Run", cases=out, folds=3)
    assert {case: fault.code for case, fault in found.failed.items()} == {"case-0000": "E_CHANNELS"}
    aligned = out / "cases" / "case-0002" / "register" / "mr_aligned.nii.gz"
    assert (found.folder / "imagesTr" / "case-0002_0001.nii.gz").samefile(aligned)
    assert (found.folder / "labelsTr" / "case-0003.nii.gz").samefile(
        out / "cases" / "case-0003" / "register" / "lesion_aligned.nii.gz"
    )


def test_whose_a_case_is_comes_from_the_private_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "home"))
    spec = Spec(
        name="x",
        description="x",
        case="study",
        roles={"ct": Role(modality="CT")},
        masks={"lesion": Mask(of="ct", labels={"rim": "a", "core": "b"})},
        segment={"channels": {"ct": "CT"}, "label": "lesion"},
    )
    out = run_folder(tmp_path, spec, {"ct": "image", "lesion": "label"})
    for path in out.rglob("lesion.nii.gz"):
        write(np.ones(SHAPE), path, np.diag([1.0, 2, 3, 1]), np.uint8)
    with pytest.raises(UsageError, match=r"whose each case of .* is") as error:
        convert_nnunet(tmp_path / "raw", 1, "Run", cases=out, folds=2)
    assert error.value.code == "E_FOLD" and "--patients" in error.value.remedy
    rows = [(f"case-{number:04d}", f"DOE {number // 3}") for number in range(1, 4)]
    Pseudonyms(out).keep("series.csv", ("case_id", "patient_id"), rows)
    folder = convert_nnunet(tmp_path / "raw", 1, "Run", cases=out, folds=2).folder
    folds = json.loads((folder / "splits_final.json").read_text())
    assert sorted(fold["val"] for fold in folds) == [["case-0001", "case-0002"], ["case-0003"]]
    assert b"DOE" not in b"".join(path.read_bytes() for path in folder.glob("*.*s*"))


def test_the_decathlons_channels_are_parted(tmp_path: Path) -> None:
    task = decathlon(tmp_path)
    found = convert_nnunet(tmp_path / "raw", 2, "Tumour", msd=task, folds=2)
    values = np.random.default_rng(1).integers(0, 900, (*SHAPE, 2))
    for channel in range(2):
        alone = write(values[..., channel], tmp_path / "alone.nii.gz", kind=np.float32)
        assert in_space(found.folder / "imagesTr" / f"T_1_{channel:04d}.nii.gz") == in_space(alone)
    assert len(list((found.folder / "imagesTs").iterdir())) == 2
    dataset = json.loads((found.folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "FLAIR", "1": "T1w"} and dataset["numTraining"] == 2
    assert dataset["labels"] == {"background": 0, "edema": 1, "tumour": 2}


@pytest.mark.parametrize(
    "labels",
    [
        '{"0": "background", "1": "ignore", "2": "Ignore"}',
        '{"0": "background", "1": "a", "1": "b"}',
        '{"0": "background", "1": "a", "2": "a"}',
    ],
)
def test_the_decathlons_labels_are_looked_at(tmp_path: Path, labels: str) -> None:
    with pytest.raises(UsageError) as error:
        convert_nnunet(tmp_path / "raw", 2, "Tumour", msd=decathlon(tmp_path, labels))
    assert error.value.code == "E_LABEL"
