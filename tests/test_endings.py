"""Names of files without what says their kind."""

from pathlib import Path

import pytest

from pipeline.endings import volume_stem


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("ct.nii", "ct"),
        ("ct.NII.GZ", "ct"),
        ("t1.v2.nii.gz", "t1.v2"),
        ("old.hdr", "old"),
        ("old.hdr.gz", "old"),
        ("a.nii_b.nii.gz", "a.nii_b"),
        ("study.2020", "study.2020"),
    ],
)
def test_the_stem_of_a_volume(name: str, stem: str) -> None:
    assert volume_stem(Path("folder") / name) == stem
