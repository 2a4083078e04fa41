"""Files made by hand, sound and damaged: what is read lies where the position phantom says, and the rest is refused."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from pipeline import geometry, volumes
from pipeline.cases import NiftiFile
from pipeline.errors import CaseError, QuarantineError, UsageError
from pipeline.nifti.volume import image_of, read_argument, read_nifti
from tests.phantoms.phantom import position_error, position_phantom

SHAPE = (12, 11, 9)
PHANTOM = position_phantom(SHAPE)
VALUES = PHANTOM.numpy()[0]
AFFINE = volumes.affine_of(PHANTOM)


@dataclass(frozen=True)
class Patch:
    """A field of a NIfTI-1 header, by its offset and struct format, set to what it must not be."""

    offset: int
    form: str
    values: tuple[Any, ...]


def make(
    path: Path,
    values: np.ndarray = VALUES,
    affine: np.ndarray = AFFINE,
    codes: tuple[int, int] = (1, 1),
    kind: type[nib.Nifti1Image] = nib.Nifti1Image,
    **changes: Any,
) -> Path:
    image = kind(values, affine, **changes)
    image.set_sform(affine, code=codes[0])
    image.set_qform(affine, code=codes[1])
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def patched(path: Path, *patches: Patch) -> Path:
    content = bytearray(make(path).read_bytes())
    for patch in patches:
        struct.pack_into(f"<{patch.form}", content, patch.offset, *patch.values)
    path.write_bytes(content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(QuarantineError) as failed:
        image_of(read_nifti(path))
    assert failed.value.code == "E_NIFTI"
    assert str(path.parent) not in failed.value.message and path.name not in failed.value.message
    return failed.value.message


def image(path: Path) -> MetaTensor:
    return image_of(read_nifti(path))


# ---- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1)])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "packed_though_its_name_says_not.nii"])
def test_the_position_phantom_lies_where_it_says(tmp_path: Path, name: str, codes: tuple[int, int]) -> None:
    path = make(tmp_path / name, codes=codes)
    if "packed" in name:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert position_error(image(path)) < 1e-3


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("order", ["<", ">"])
def test_versions_pairs_and_byte_orders(tmp_path: Path, kind: type[nib.Nifti1Image], order: str) -> None:
    """Also what no standard reader wrote: both orders come from nibabel, the oracle is the phantom."""
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(np.float32).newbyteorder(order))
    name = "x.hdr" if kind in (nib.Nifti1Pair, nib.Nifti2Pair) else "x.nii"
    path = make(tmp_path / name, kind=kind, header=header)
    assert path.read_bytes()[:4] == struct.pack(f"{order}i", 540 if "2" in kind.__name__ else 348)
    assert position_error(image(path)) < 1e-3
    assert len(NiftiFile(path).files) == (2 if name == "x.hdr" else 1)


def test_a_left_handed_grid(tmp_path: Path) -> None:
    """A negative pixdim[0] turns the qform's third axis round."""
    flipped = AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
    flipped[:3, 3] = geometry.apply(AFFINE, [[0, 0, SHAPE[2] - 1]])[0]
    path = make(tmp_path / "x.nii", VALUES[:, :, ::-1], flipped, codes=(0, 1))
    assert struct.unpack_from("<f", path.read_bytes(), 76)[0] == -1
    assert position_error(image(path)) < 1e-3


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_units_become_mm_and_say_so(tmp_path: Path, unit: str) -> None:
    path, factor = tmp_path / "x.nii", {"meter": 0.001, "micron": 1000.0}[unit]
    stored = nib.Nifti1Image(VALUES, np.diag([factor] * 3 + [1.0]) @ AFFINE)
    stored.header.set_xyzt_units(unit)
    nib.save(stored, path)
    volume = read_nifti(path)
    assert position_error(image_of(volume)) < 1e-3
    assert [note.split(":")[0] for note in volume.notes] == ["N_UNITS"]


def test_unknown_units_are_mm(tmp_path: Path) -> None:
    volume = read_nifti(patched(tmp_path / "x.nii", Patch(123, "B", (0,))))
    assert position_error(image_of(volume)) < 1e-3 and volume.notes == ()


def test_one_volume_of_a_series_is_a_volume(tmp_path: Path) -> None:
    assert position_error(image(make(tmp_path / "x.nii.gz", VALUES[..., None]))) < 1e-3
    assert position_error(image(make(tmp_path / "y.nii.gz", VALUES[..., None, None]))) < 1e-3


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
def test_whole_numbers_of_any_type_stay_exact(tmp_path: Path, kind: type) -> None:
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 251
    found = image(make(tmp_path / "x.nii.gz", values.astype(kind), dtype=kind))
    assert found.numpy().dtype == np.int16
    np.testing.assert_array_equal(found.numpy()[0], values)


def test_what_does_not_fit_int16_is_float(tmp_path: Path) -> None:
    values = np.full(SHAPE, 40000, np.uint16)
    found = image(make(tmp_path / "x.nii.gz", values, dtype=np.uint16)).numpy()
    assert found.dtype == np.float32 and (found == 40000).all()
    fractions = np.linspace(0, 1, values.size).reshape(SHAPE)
    found = image(make(tmp_path / "y.nii.gz", fractions, dtype=np.float64)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], fractions, atol=1e-7)


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [(0.0, 5.0, "raw"), (np.nan, np.nan, "raw"), (1.0, 0.0, "raw"), (0.5, -3.0, "scaled")],
)
def test_slope_and_intercept(tmp_path: Path, slope: float, intercept: float, expected: str) -> None:
    """A slope of 0 says that nothing is scaled (nifti1.h); NaN is what nibabel writes for it."""
    stored = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    path = make(tmp_path / "x.nii", stored)
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, slope, intercept)
    path.write_bytes(content)
    truth = stored if expected == "raw" else stored * 0.5 - 3
    np.testing.assert_array_equal(image(path).numpy()[0], truth)


def test_extensions_are_skipped_and_not_kept(tmp_path: Path) -> None:
    stored = nib.Nifti1Image(VALUES, AFFINE)
    stored.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"DOE^JOHN" * 10))
    nib.save(stored, tmp_path / "x.nii.gz")
    found = image(tmp_path / "x.nii.gz")
    assert position_error(found) < 1e-3
    assert "DOE" not in str(found.meta)


def test_all_copies_in_a_gzip_are_one_content(tmp_path: Path) -> None:
    """bgzip and pigz write several members; they are read as one."""
    content = make(tmp_path / "x.nii").read_bytes()
    (tmp_path / "y.nii.gz").write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    assert position_error(image(tmp_path / "y.nii.gz")) < 1e-3


# ---- what is refused -------------------------------------------------------------------------------------------------

DIM, DATATYPE, PIXDIM, VOX_OFFSET, SLOPE, UNITS = 40, 70, 76, 108, 112, 123
QFORM_CODE, SFORM_CODE, QUATERNION, QOFFSET, SROW_X = 252, 254, 256, 268, 280


@pytest.mark.parametrize(
    ("patches", "words"),
    [
        ([Patch(QOFFSET, "f", (-1.7,))], r"sform \(code 1\) and qform \(code 1\) differ by 30.0 mm"),
        ([Patch(QFORM_CODE, "2h", (0, 0))], "both codes are 0"),
        ([Patch(SFORM_CODE, "h", (77,))], "codes of 0 to 5 for sform and qform, got 77 and 1"),
        ([Patch(PIXDIM + 4, "f", (0.0,))], "voxel sizes above 0 in pixdim, got 0 x 1.1 x 2.5"),
        ([Patch(PIXDIM + 8, "f", (-1.1,))], "got 0.9 x -1.1 x 2.5"),
        ([Patch(PIXDIM + 12, "f", (np.nan,))], "got 0.9 x 1.1 x nan"),
        (
            [Patch(QFORM_CODE, "h", (0,)), Patch(PIXDIM + 4, "3f", (1.8, 2.2, 5.0))],
            "sform has voxels of 0.9 x 1.1 x 2.5",
        ),
        ([Patch(QFORM_CODE, "h", (0,)), Patch(SROW_X, "12f", (0.0,) * 12)], "sform cannot be used.*length 0"),
        ([Patch(QFORM_CODE, "h", (0,)), Patch(SROW_X + 4, "f", (0.5,))], "sform cannot be used.*shears"),
        ([Patch(QFORM_CODE, "h", (0,)), Patch(SROW_X, "f", (np.nan,))], "sform cannot be used.*finite"),
        ([Patch(QUATERNION, "3f", (0.9, 0.9, 0.9))], "a rotation in the qform"),
        ([Patch(QUATERNION, "f", (np.nan,))], "a rotation in the qform"),
        ([Patch(UNITS, "B", (5,))], "unit code 5"),
        ([Patch(UNITS, "B", (1,))], "a volume of 1 to 10000 mm, got 22500 mm"),
        ([Patch(DATATYPE, "h", (32,))], "scalar voxels, got complex64"),
        ([Patch(DATATYPE, "h", (128,))], "scalar voxels, got RGB"),
        ([Patch(DATATYPE, "h", (77,))], "unknown data type 77"),
        ([Patch(DIM, "4h", (2, 12, 99, 1))], r"one volume, got an image of shape \(12, 99\); one slice"),
        ([Patch(DIM, "5h", (4, 12, 11, 3, 3))], r"one volume, got an image of shape \(12, 11, 3, 3\)"),
        ([Patch(DIM, "6h", (5, 12, 11, 3, 1, 3))], r"one volume, got an image of shape \(12, 11, 3, 1, 3\)"),
        ([Patch(DIM, "4h", (3, 12, -11, 9))], "one volume"),
        ([Patch(DIM + 2, "3h", (3000, 3000, 3000))], "Expected 108000000000 bytes of voxels"),
        ([Patch(DIM + 6, "h", (10,)), Patch(QFORM_CODE, "h", (0,))], "Expected 5280 bytes of voxels.*got fewer"),
        ([Patch(VOX_OFFSET, "f", (100.0,))], "vox_offset to be a whole number of 352 or more, got 100"),
        ([Patch(VOX_OFFSET, "f", (1e6,))], "got fewer"),
        ([Patch(SLOPE, "2f", (np.inf, 0.0))], "finite scl_slope"),
        ([Patch(SLOPE, "2f", (2.0, np.nan))], "finite scl_slope and scl_inter, got 2 and nan"),
        ([Patch(344, "4s", (b"\0\0\0\0",))], "an Analyze header"),
        ([Patch(344, "4s", (b"ni1\0",))], "an .img file beside the .hdr"),
        ([Patch(0, "i", (7,))], "Expected a NIfTI header"),
        ([Patch(352 + 4 * 7, "2f", (np.nan, np.inf))], "finite values, got 2 that are NaN or infinite"),
    ],
)
def test_a_file_that_does_not_say_one_thing(tmp_path: Path, patches: list[Patch], words: str) -> None:
    message = refused(patched(tmp_path / "x.nii", *patches))
    assert re.search(words, message), message


def test_a_small_difference_of_the_affines_is_rounding(tmp_path: Path) -> None:
    """0.1 mm is the limit at the farthest corner; origins that lie 0.05 mm apart pass, 0.15 mm do not."""
    moved = float(np.float32(AFFINE[0, 3]))
    assert image(patched(tmp_path / "x.nii", Patch(QOFFSET, "f", (moved + 0.05,)))).shape[1:] == SHAPE
    assert "differ by" in refused(patched(tmp_path / "x.nii", Patch(QOFFSET, "f", (moved + 0.15,))))


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-3],
        lambda content: content[: len(content) // 2],
        lambda content: content[:30],
        lambda content: content[:-6] + bytes([content[-6] ^ 1]) + content[-5:],
        lambda content: content[:700] + bytes([content[700] ^ 16]) + content[701:],
    ],
    ids=["cut at the checksum", "cut in the middle", "cut in the header", "checksum", "bit"],
)
def test_damaged_gzip(tmp_path: Path, damage: Damage) -> None:
    """SimpleITK reads the cut ones without a word (FAULTS, the second of the worst)."""
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    path = make(tmp_path / "x.nii.gz", noise)
    path.write_bytes(damage(path.read_bytes()))
    assert "cannot be read whole" in refused(path)


def test_a_flipped_bit_that_still_unpacks_is_found_by_the_checksum(tmp_path: Path) -> None:
    """Stored, not deflated: every bit of the voxels can be turned without any effect but a wrong value."""
    content = bytearray(gzip.compress(make(tmp_path / "x.nii").read_bytes(), compresslevel=0))
    content[2000] ^= 1
    (tmp_path / "x.nii.gz").write_bytes(content)
    assert "cannot be read whole" in refused(tmp_path / "x.nii.gz")


def test_short_empty_and_foreign_files(tmp_path: Path) -> None:
    path = make(tmp_path / "x.nii")
    path.write_bytes(path.read_bytes()[:-1])
    assert f"Expected {VALUES.nbytes} bytes of voxels" in refused(path)
    second = make(tmp_path / "second.nii", kind=nib.Nifti2Image).read_bytes()
    for content in (b"", b"\x1f\x8b", b"no image at all" * 100, second[:500]):
        path.write_bytes(content)
        refused(path)


def test_values_beyond_float32(tmp_path: Path) -> None:
    values = np.zeros(SHAPE)
    values[3, 2, 1] = 1e39
    assert "fit float32" in refused(make(tmp_path / "x.nii", values, dtype=np.float64))


def test_a_cut_pair(tmp_path: Path) -> None:
    path = make(tmp_path / "x.hdr", kind=nib.Nifti1Pair)
    voxels = tmp_path / "x.img"
    voxels.write_bytes(voxels.read_bytes()[:-4])
    assert "got fewer" in refused(path)
    voxels.unlink()
    assert "an .img file beside" in refused(path)


def test_a_command_names_the_path(tmp_path: Path) -> None:
    assert position_error(read_argument(make(tmp_path / "x.nii"))) < 1e-3
    path = patched(tmp_path / "x.nii", Patch(QFORM_CODE, "2h", (0, 0)))
    for name, code in ((path, "E_NIFTI"), (tmp_path / "missing.nii.gz", "E_INPUT")):
        with pytest.raises(UsageError, match=f"{code}.*{name}"):
            read_argument(name)
    with pytest.raises(CaseError) as failed:
        read_nifti(tmp_path / "missing.nii.gz")
    assert failed.value.code == "E_UNREADABLE"


def test_no_damage_of_a_header_is_a_surprise(tmp_path: Path) -> None:
    """Random bytes in the header: the file is read or refused as what it is, and never in another way."""
    random = np.random.default_rng(7)
    whole = make(tmp_path / "x.nii").read_bytes()
    outcomes = set()
    for _ in range(400):
        content = bytearray(whole)
        for place in random.integers(0, 352, size=3):
            content[place] = random.integers(256)
        (tmp_path / "y.nii").write_bytes(content)
        try:
            image(tmp_path / "y.nii")
            outcomes.add("read")
        except QuarantineError as error:
            outcomes.add(error.code)
    assert outcomes == {"read", "E_NIFTI"}
