from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import soundfile
from PIL import Image

from pipeline.comparison.duplicates import find_duplicates, require_apart, shared_between_folds
from pipeline.comparison.stream_features import read_raw
from pipeline.errors import CaseError, UsageError
from pipeline.learning.table import Row

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (20, 30), dtype=np.uint8)
SOUND = RANDOM.integers(-9000, 9000, 4000, dtype=np.int16)


def files(folder: Path) -> dict[str, Path]:
    """The same picture, volume and sound in several packings, and others that differ in one value."""
    other, volume = GREY.copy(), RANDOM.normal(size=(4, 5, 6)).astype(np.float32)
    other[3, 4] ^= 1
    for name, array in {
        "a.png": GREY,
        "b.tif": GREY,
        "colour.png": np.stack([GREY] * 3, 2),
        "other.png": other,
    }.items():
        Image.fromarray(array).save(folder / name)
    (folder / "copy.bin").write_bytes(b"x")
    (folder / "copy2.bin").write_bytes(b"x")
    for name in ("v.nii", "w.nii.gz"):
        nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / name)
    soundfile.write(folder / "s.wav", SOUND, 8000)
    soundfile.write(folder / "s.flac", SOUND, 8000)
    return {path.name: path for path in sorted(folder.iterdir())}


def rows(*items: tuple[str, Path, int]) -> list[Row]:
    return [Row(name, name, {"x": path}, 0, None, (), fold) for name, path, fold in items]


def test_what_is_equal_in_its_pixels_is_found_whatever_it_is_packed_in(tmp_path: Path) -> None:
    given = files(tmp_path)
    found = {frozenset(path.name for path in group) for group in find_duplicates(given.values())}
    assert found == {
        frozenset({"a.png", "b.tif", "colour.png"}),
        frozenset({"copy.bin", "copy2.bin"}),
        frozenset({"v.nii", "w.nii.gz"}),
        frozenset({"s.wav", "s.flac"}),
    }


def test_pixels_count_and_not_names_but_shape_does(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    Image.fromarray(GREY.reshape(30, 20)).save(tmp_path / "b.png")
    assert find_duplicates([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "a.png"]) == ()


def test_shared_files_are_named_where_they_lie_in_two_folds_alone(tmp_path: Path) -> None:
    given = files(tmp_path)
    a, b, other = (given[name] for name in ("a.png", "b.tif", "other.png"))
    assert shared_between_folds(rows(("one", a, 0), ("two", b, 0), ("three", other, 1))) == ()
    assert shared_between_folds(rows(("one", a, 0), ("two", b, 1), ("three", other, 1))) == (("one", "two"),)
    assert shared_between_folds(rows(("one", other, 0), ("two", other, 1))) == (("one", "two"),)
    with pytest.raises(UsageError, match=r"E_DUPLICATE.*one and two"):
        require_apart(rows(("one", a, 0), ("two", b, 1)))
    require_apart(rows(("one", a, 0), ("two", other, 1)))


def test_raw_files_are_as_they_were_written(tmp_path: Path) -> None:
    given = files(tmp_path)
    assert (read_raw(given["colour.png"]).values == GREY).all()
    sound = read_raw(given["s.flac"])
    assert sound.sampling == (8000.0,) and sound.values.shape == (4000, 1)
    np.testing.assert_allclose(sound.values[:, 0] * 32768, SOUND)
    assert read_raw(given["w.nii.gz"]).values.shape == (4, 5, 6)
    Image.fromarray(GREY.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    assert (read_raw(tmp_path / "deep.png").values == GREY.astype(np.uint16) * 200).all()


@pytest.mark.parametrize("name", ["cut.png", "cut.nii.gz", "cut.wav", "cut.nii", "what.webm"])
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"RIFF1234")
    with pytest.raises(CaseError, match="E_UNREADABLE"):
        read_raw(path)
