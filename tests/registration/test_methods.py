from __future__ import annotations

import re

import pytest

from pipeline.errors import UsageError
from pipeline.registration.request import Method, method, transform_of
from tests.registration.conftest import MAPS, quick

SHIPPED = sorted(path.stem for path in MAPS.glob("*.txt"))


@pytest.mark.parametrize(
    ("transform", "modalities", "names"),
    [
        ("rigid", ("CT", "MR"), ["rigid_ct_mr"]),
        ("rigid", ("MR", "MR"), ["rigid_mr_mr"]),
        ("rigid", ("PT", "CT"), ["rigid_pet_ct"]),
        ("rigid", ("CT", "PT"), ["rigid_pet_ct"]),
        ("rigid", ("NM", "US"), ["rigid_ct_mr"]),
        ("affine", ("MR", "MR"), ["rigid_mr_mr", "affine"]),
        ("bspline", ("CT", "MR"), ["rigid_ct_mr", "bspline_ct_mr"]),
        ("bspline", ("MR", "MR"), ["rigid_mr_mr", "bspline_mr_mr"]),
        ("bspline", ("CT", "CT"), ["rigid_ct_mr", "affine", "bspline_ct_ct_thorax"]),
        ("landmarks_rigid", ("CT", "MR"), []),
    ],
)
def test_the_maps_of_a_transform(transform: str, modalities: tuple, names: list) -> None:
    expected = tuple((MAPS / f"{name}.txt").read_text() for name in names)
    assert method(transform, modalities, MAPS) == Method(transform, expected)


def test_a_shipped_name_or_a_file_takes_the_last_maps_place(tmp_path) -> None:
    named = method("bspline", ("MR", "MR"), MAPS, "bspline_ct_mr")
    assert named.maps[1] == (MAPS / "bspline_ct_mr.txt").read_text()
    assert named.refinements == ("bspline",)
    (tmp_path / "own.txt").write_text(quick("affine", NumberOfResolutions=1))
    assert method("affine", ("CT", "MR"), MAPS, str(tmp_path / "own.txt")).maps[1] == (tmp_path / "own.txt").read_text()


@pytest.mark.parametrize(
    ("transform", "text", "words"),
    [
        ("rigid", quick("rigid_ct_mr", NumberOfResolutions=0), "1 or more"),
        ("bspline", quick("affine"), "bspline transform, got affine"),
        ("affine", '(Transform "SplineKernelTransform")', "another one"),
        ("affine", '(Transform "AffineTransform")', "NumberOfResolutions"),
    ],
)
def test_maps_that_are_refused(tmp_path, transform: str, text: str, words: str) -> None:
    (tmp_path / "own.txt").write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        method(transform, ("CT", "MR"), MAPS, str(tmp_path / "own.txt"))
    assert caught.value.code == "E_CONFIG"


def test_a_map_that_is_not_there_says_where_the_shipped_ones_lie() -> None:
    with pytest.raises(UsageError, match=r"E_CONFIG: .*got rigid_of_mine .*--bundle_root"):
        method("rigid", ("CT", "MR"), MAPS, "rigid_of_mine")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_map_says_where_its_values_come_from(name: str) -> None:
    """A map is of the transform in its name, repeats itself (a seed), and passes no number of threads."""
    text = (MAPS / f"{name}.txt").read_text()
    assert transform_of(text) == name.split("_")[0]
    assert re.search(r"^\(RandomSeed \d+\)", text, re.MULTILINE)
    assert "Threads" not in text
    for key in ("NumberOfResolutions", "Metric", "NumberOfSpatialSamples", "MaximumNumberOfIterations", "Transform"):
        block = text[: text.index(f"\n({key} ")].rsplit("\n\n", 1)[-1]
        assert "//" in block, f"{name}: {key} has no source"
