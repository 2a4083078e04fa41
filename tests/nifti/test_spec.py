"""The keys `files` and `values` of a data spec: what is refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.spec.spec import Spec, every_volume, load_spec, of_run, save_spec

GOOD = """\
name: sts
description: Images and masks as NIfTI.
roles:
  ct: {modality: CT, files: "{case}/CT.nii.gz"}
  pet: {modality: PT, unit: SUVbw, files: "{case}/PET*.nii.gz", required: false}
masks:
  tumour: {of: ct, files: "{case}/mask.nii.gz", values: {core: 1, oedema: 4}}
"""
PET = '{modality: PT, unit: SUVbw, files: "{case}/PET*.nii.gz", required: false}'


def load(tmp_path: Path, text: str) -> Spec:
    (tmp_path / "x.yaml").write_text(text)
    return load_spec(tmp_path / "x.yaml")


def test_a_spec_of_files_is_read_and_kept(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD)
    assert spec.from_files
    assert spec.suv_roles == []
    assert "tumour" in spec.needed
    assert spec.masks["tumour"].values == {"core": 1, "oedema": 4}
    save_spec(spec, tmp_path)
    assert of_run("", tmp_path) == spec
    assert not every_volume().from_files


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (', files: "{case}/CT.nii.gz"', "", "`roles.ct` has no `files`, but others have"),
        (PET, "{modality: PT}", "`roles.pet` has no `files`, but others have"),
        ("{case}/PET", "{case}/{session}/PET", "either every `files` has {session}, or none has"),
        ("{case}/CT", "*/CT", "line 4: roles.ct.files: `files` needs {case}"),
        ("{case}/mask", "/mask", "line 7: masks.tumour.files: `files` is a path below"),
        ("modality: CT,", "modality: CT, orientation: axial,", "`orientation` is about DICOM headers"),
        ("modality: CT,", "modality: CT, prefer: most_instances,", "`prefer` is about DICOM headers"),
        ("modality: CT,", "modality: CT, min_instances: 9,", "`min_instances` is about DICOM headers"),
        ("description: ", "case: study\ndescription: ", "`case` is for DICOM"),
        ("values: {core: 1, oedema: 4}", "labels: {core: c}", "needs `values`, and neither `labels` nor"),
        (', files: "{case}/mask.nii.gz", values', ", labels: {core: c}, values", "a mask needs `labels`"),
        ("oedema: 4", "oedema: 1", "different whole numbers from 1 to 65535"),
        ("oedema: 4", "oedema: 0", "different whole numbers from 1 to 65535"),
        ("oedema: 4", "Oedema: 4", "lower-case letters"),
        ('files: "{case}/CT', 'file: "{case}/CT', "did you mean `files`?"),
    ],
)
def test_a_mistake_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(UsageError) as failed:
        load(tmp_path, GOOD.replace(old, new))
    assert failed.value.code == "E_SPEC"
    assert words in failed.value.message, failed.value.message
