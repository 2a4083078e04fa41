from __future__ import annotations

import pytest

from pipeline.spec.paths import compile_pattern, placeholders


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{case}/CT.nii.gz", "STS_002/CT.nii.gz", {"case": "STS_002"}),
        ("{case}/CT.nii.gz", "STS_002/CT_nii.gz", None),
        ("{case}/CT.nii.gz", "a/STS_002/CT.nii.gz", None),
        ("*/{case}/CT.nii.gz", "a/STS_002/CT.nii.gz", {"case": "STS_002"}),
        ("**/{case}/CT.nii.gz", "STS_002/CT.nii.gz", {"case": "STS_002"}),
        ("**/{case}/CT.nii.gz", "a/b/STS_002/CT.nii.gz", {"case": "STS_002"}),
        ("sub-{case}/anat/sub-{case}_*T1w.nii", "sub-01/anat/sub-01_acq-x_T1w.nii", {"case": "01"}),
        ("sub-{case}/anat/sub-{case}_*T1w.nii", "sub-01/anat/sub-02_T1w.nii", None),
        ("sub-{case}/ses-{session}/*.nii", "sub-1/ses-b/x.nii", {"case": "1", "session": "b"}),
        ("images/{case}_000?.nii", "images/hippo_7_0001.nii", {"case": "hippo_7"}),
        ("{case}_*.nii", "a_b_c.nii", {"case": "a"}),
        ("(x+)/{case}.nii", "(x+)/a.nii", {"case": "a"}),
        ("{case}.nii", ".nii", None),
        ("Übersicht/{case}.nii", "Übersicht/Größe.nii", {"case": "Größe"}),
    ],
)
def test_what_a_pattern_fits(pattern: str, path: str, found: dict[str, str] | None) -> None:
    match = compile_pattern(pattern).fullmatch(path)
    assert (match.groupdict() if match else None) == found


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("/data/{case}.nii", "below the input folder"),
        ("../{case}.nii", "below the input folder"),
        ("a\\{case}.nii", "below the input folder"),
        ("*/CT.nii", "needs {case}"),
        ("{patient}/{case}.nii", "not {patient}"),
        ("{case}*.nii", "nothing says where the one ends"),
        ("*{case}.nii", "nothing says where the one ends"),
        ("{session}{case}.nii", "nothing says where the one ends"),
        ("{case}/**.nii", "inside a name"),
        ("{case}/a**/x.nii", "inside a name"),
    ],
)
def test_what_cannot_say_which_part_is_the_case(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compile_pattern(pattern)


def test_placeholders() -> None:
    assert placeholders("{case}/{session}/x.nii") == {"case", "session"}
    assert placeholders("{case}/x.nii") == {"case"}
