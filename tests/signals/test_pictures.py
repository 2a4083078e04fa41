"""Pictures of every kind that are one picture, against what Pillow and tifffile wrote; and those that are unfit."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from pipeline import api
from pipeline.columns import read_rows
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import LPS_RAS
from pipeline.grey import read_grey
from pipeline.signals.pictures import Picture, fitted, levelled, read_picture
from pipeline.signals.transforms import ReadPicturesd
from tests.dicom.series import test_radiograph as radiograph

#: (rows, columns): brighter to the right and, more, downwards; no symmetry.
RAMP = np.add.outer(4 * np.arange(30), 2 * np.arange(50)).astype(np.uint8)
DEEP = RAMP.astype(np.uint16) * 257
SIZE = (50, 40)


def save(path: Path, values: Any = RAMP, mode: str = "", **how: Any) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **how)
    return path


def nifti(path: Path, values: Any, affine: Any = LPS_RAS) -> Path:
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def png(path: Path, columns: int, rows: int, bits: int, colour: int, content: bytes) -> Path:
    """A PNG by hand: what Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", columns, rows, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_one_picture_is_one_array_whatever_it_is_saved_as(tmp_path: Path) -> None:
    opaque = np.stack([RAMP, RAMP, RAMP, np.full_like(RAMP, 255)], -1)
    paths = [
        *(save(tmp_path / f"grey.{suffix}") for suffix in ("png", "tif", "bmp")),
        *(save(tmp_path / f"deep.{suffix}", DEEP) for suffix in ("png", "tif")),
        save(tmp_path / "packed.tif", DEEP, compression="tiff_lzw"),
        save(tmp_path / "rgb.png", mode="RGB"),
        save(tmp_path / "palette.png", mode="P"),
        save(tmp_path / "opaque.png", opaque),
    ]
    tifffile.imwrite(tmp_path / "order.tif", DEEP.astype(">u2"), byteorder=">")
    for path in [*paths, tmp_path / "order.tif"]:
        found, flags = levelled(read_picture(path))
        assert found.shape == (1, 50, 30) and flags == (), path.name
        assert np.allclose(found[0], RAMP.T / 255, atol=1e-6), path.name
    for name, mode in (("grey.jpg", ""), ("rgb.jpg", "RGB")):
        found, _ = levelled(read_picture(save(tmp_path / name, mode=mode, quality=90)))
        assert np.abs(found[0] - RAMP.T / 255).max() < 0.05, name


def test_pictures_are_turned_and_inverted_as_their_files_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the picture is seen when it is turned clockwise by 90 degrees
    seen = np.rot90(RAMP, -1)
    for path in (
        save(tmp_path / "a.png", exif=exif),
        save(tmp_path / "a.jpg", exif=exif, quality=95),
        save(tmp_path / "a.tif", tiffinfo={274: 6}),
    ):
        found = read_grey(path)
        assert np.abs(found.values - seen).max() < 5 and found.flags[0].startswith("N_TURNED: as its EXIF says")
    for name, values in (("eight.tif", RAMP), ("sixteen.tif", DEEP)):
        tifffile.imwrite(tmp_path / name, values, photometric="miniswhite")
        white = np.iinfo(values.dtype).max
        assert np.array_equal(read_grey(tmp_path / name).values, white - values.astype(float)), name
        assert read_grey(tmp_path / name).flags == ("N_INVERTED: 0 was white",)


def test_a_radiograph_is_one_array_as_png_and_as_ingest_writes_it(tmp_path: Path) -> None:
    """The axes are those of `pipeline.dicom.pixels.projection`; files stored otherwise are turned."""
    columns_rows = RAMP.T[..., None].astype(np.int16)
    stored = nifti(tmp_path / "a.nii.gz", columns_rows)
    nib.save(nib.as_closest_canonical(nib.load(stored)), tmp_path / "ras.nii.gz")
    coronal = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    nifti(tmp_path / "coronal.nii.gz", columns_rows, coronal)
    nib.save(nib.as_closest_canonical(nib.load(tmp_path / "coronal.nii.gz")), tmp_path / "coronal_ras.nii.gz")
    nifti(tmp_path / "flat.nii", columns_rows[..., 0])
    expected = read_picture(save(tmp_path / "a.png")).values
    for name in ("a.nii.gz", "ras.nii.gz", "coronal.nii.gz", "coronal_ras.nii.gz", "flat.nii"):
        found = read_picture(tmp_path / name)
        assert np.array_equal(found.values, expected) and found.white is None, name
    read = ReadPicturesd(["a", "b"], SIZE, "percentiles")({"a": tmp_path / "a.png", "b": tmp_path / "ras.nii.gz"})
    assert torch.equal(read["a"], read["b"])


def test_an_ingested_radiograph_is_that_of_its_pixels(tmp_path: Path) -> None:
    radiograph.write(tmp_path / "in")
    role = "roles:\n  xray: {modality: DX, dimensions: 2}\n"
    (tmp_path / "spec.yaml").write_text(f"name: xray\ndescription: A radiograph.\n{role}")
    (records,) = api.ingest(tmp_path / "in", tmp_path / "out", tmp_path / "spec.yaml").values()
    (artifact,) = [item for item in records[0].artifacts if item.kind == "image"]
    found = read_picture(tmp_path / "out" / artifact.path)
    assert np.array_equal(found.values[0].T, radiograph.stored())
    assert found.spacing_mm == pytest.approx((0.2, 0.14))


def test_what_is_unfit_is_refused_with_code_and_remedy(tmp_path: Path) -> None:
    marked = np.repeat(RAMP[..., None], 3, -1)
    marked[5:8, 5:9] = [255, 0, 0]
    clear = np.stack([RAMP] * 4, -1)
    whole = save(tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.png").write_bytes(save(tmp_path / "whole.png").read_bytes()[:-40])
    (tmp_path / "dicom.png").write_bytes(bytes(128) + b"DICM" + bytes(90))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    pages = [Image.fromarray(RAMP), Image.fromarray(RAMP)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    tifffile.imwrite(tmp_path / "colours.tif", np.repeat(DEEP[..., None], 3, -1), photometric="rgb")
    colours16 = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in DEEP)
    colours, depth = "E_NOT_SCALAR: Expected a grey picture, got", "E_PICTURE: Expected one channel of 16 bits"
    for path, message in {
        save(tmp_path / "photo.jpg", marked): f"{colours} colours",
        save(tmp_path / "marked.png", marked): f"{colours} colours",
        save(tmp_path / "cmyk.jpg", marked, "CMYK"): f"{colours} the colours CMYK",
        save(tmp_path / "palette.png", marked, "P"): f"{colours} colours",
        save(tmp_path / "clear.png", clear): "E_PICTURE: .* seen through",
        save(tmp_path / "float.tif", RAMP.astype(np.float32)): "E_PICTURE: Expected 8 or 16 bits",
        save(tmp_path / "bits.png", RAMP > 50): "E_PICTURE: Expected 8 or 16 bits",
        save(tmp_path / "other.gif"): "E_PICTURE: .* another kind of file",
        save(tmp_path / "blank.png", np.full((30, 50), 7, np.uint8)): "E_BLANK: Expected a picture with contrast",
        save(tmp_path / "one.png", RAMP[:1, :1]): "E_SIZE: Expected 4 pixels a side or more, got 1 x 1",
        save(tmp_path / "wide.png", np.zeros((10, 60_000), np.uint8)): "E_SIZE: .* got 60000 x 10",
        png(tmp_path / "colours.png", 50, 30, 16, 2, colours16): depth,
        tmp_path / "colours.tif": depth,
        png(tmp_path / "huge.png", 60_000, 60_000, 8, 0, b""): "E_SIZE: .* more than can be counted",
        png(tmp_path / "large.png", 8_000, 9_000, 8, 0, b""): "E_SIZE: .* got 8000 x 9000",
        tmp_path / "pages.tif": "E_MULTIFRAME: Expected one picture, got a file with 2 pages",
        tmp_path / "cut.jpg": "E_PICTURE: Expected a whole picture",
        tmp_path / "cut.png": "E_PICTURE: Expected a whole picture",
        tmp_path / "dicom.png": "E_PICTURE: Expected a picture, got a DICOM file. .*tandem ingest",
        tmp_path / "text.png": "E_PICTURE: Expected a picture",
        tmp_path / "empty.png": "E_PICTURE: Expected a picture",
        tmp_path / "absent.png": "E_PICTURE: Expected a whole picture",
        tmp_path: "E_PICTURE: .* not a file",
        nifti(tmp_path / "volume.nii", np.zeros((10, 10, 3), np.int16)): "E_PICTURE: Expected an image of one slice",
        nifti(tmp_path / "time.nii", np.zeros((10, 10, 1, 4), np.int16)): "E_PICTURE: Expected an image of one slice",
        nifti(tmp_path / "nan.nii", np.full((10, 10, 1), np.nan)): "E_NIFTI: Expected finite values",
        nifti(tmp_path / "complex.nii", np.zeros((10, 10, 1), np.complex64)): "E_NOT_SCALAR",
        tmp_path / "absent.nii": "E_NIFTI",
    }.items():
        with pytest.raises(CaseError, match=message) as caught:
            read_picture(path)
        assert caught.value.remedy and str(tmp_path) not in caught.value.message, path.name


def test_brightness_stays_by_bits_and_goes_by_percentiles(tmp_path: Path) -> None:
    bright, faint = RAMP.astype(np.float64), 0.25 * RAMP.astype(np.float64) + 20
    for values, name in ((bright, "bright"), (faint, "faint")):
        save(tmp_path / f"{name}.png", np.rint(values * 257).astype(np.uint16))
    pictures = [read_picture(tmp_path / f"{name}.png") for name in ("bright", "faint")]
    full = [levelled(picture)[0].mean() for picture in pictures]
    assert full == pytest.approx([bright.mean() / 255, faint.mean() / 255], abs=1e-4)
    own = [levelled(picture, "percentiles")[0] for picture in pictures]
    assert np.abs(own[0] - own[1]).max() < 1e-3
    low, high = np.percentile(pictures[0].values, [0.5, 99.5])
    assert own[0].min() == 0 and own[0].max() == 1
    assert own[0][0, 25, 15] == pytest.approx((257.0 * RAMP[15, 25] - low) / (high - low), abs=1e-6)
    given, _ = levelled(pictures[0], [0, 257 * 100])
    assert given[0, 25, 15] == pytest.approx(min(1, RAMP[15, 25] / 100))
    dark = replace(pictures[0], values=pictures[0].values / 16)  # 12 bits in 16
    assert levelled(dark)[1][0].startswith("N_DARK: ")
    with pytest.raises(CaseError, match=r"E_PICTURE: .* says what is white.*percentiles"):
        levelled(replace(dark, white=None))
    spotted = np.zeros((1, 50, 50), np.float32)
    spotted[0, 0, 0] = 1
    with pytest.raises(CaseError, match="E_BLANK"):
        levelled(Picture(spotted, white=255.0), "percentiles")


@pytest.mark.parametrize("intensity", ["ful", [1], [2, 1], [0, float("nan")], []])
def test_other_intensities_are_refused(intensity: Any) -> None:
    with pytest.raises(UsageError, match="E_OPTION: Expected intensity full, percentiles or"):
        ReadPicturesd("xray", SIZE, intensity)


def test_pictures_are_padded_and_never_stretched() -> None:
    """A disc stays a disc: its width and height, in pixels of the result, are equal whatever the picture's sides."""
    for columns, rows, mm in (
        (120, 60, (1.0, 1.0)),
        (60, 120, (1.0, 1.0)),
        (120, 60, (1.0, 2.0)),
        (37, 201, (0.7, 0.7)),
    ):
        x, y = (np.arange(columns) - columns / 2 + 0.5) * mm[0], (np.arange(rows) - rows / 2 + 0.5) * mm[1]
        radius = 0.4 * min(columns * mm[0], rows * mm[1])
        disc = (np.hypot(*np.meshgrid(x, y, indexing="ij")) < radius).astype(np.float32)[None]
        found = fitted(disc, mm, (64, 48))
        assert found.shape == (1, 64, 48) and found.dtype == torch.float32
        scale = min(64 / (columns * mm[0]), 48 / (rows * mm[1]))
        wide, high = float(found[0].amax(1).sum()), float(found[0].amax(0).sum())
        assert wide == pytest.approx(2 * radius * scale, abs=1.5) and high == pytest.approx(wide, abs=1.0)
        middle = torch.nonzero(found[0] > 0.5).float().mean(0)
        assert middle.tolist() == pytest.approx([31.5, 23.5], abs=0.6)
    same = np.random.default_rng(0).random((1, 28, 28), dtype=np.float32)
    assert torch.equal(fitted(same, (1, 1), (28, 28)), torch.from_numpy(same))
    with pytest.raises(CaseError, match="E_SIZE: Expected a picture that is seen at 64 x 48"):
        fitted(np.zeros((1, 5000, 8), np.float32), (1, 1), (64, 48))


def test_a_shrunken_picture_is_smoothed_first() -> None:
    stripes = np.tile(np.array([0, 1], np.float32), 128)[None, :, None].repeat(256, 2)
    assert np.abs(fitted(stripes, (1, 1), (32, 32)).numpy() - 0.5).max() < 0.05


def test_the_transform_puts_pictures_in_the_place_of_paths(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    case = {
        "case_id": "a",
        "xray": save(tmp_path / "a.png", DEEP // 16, exif=exif),
        "other": 1,
        "flags": ["N_NO_ROLE: mr"],
    }
    found = ReadPicturesd(["xray", "slice"], list(SIZE))(case)
    assert found["xray"].shape == (1, *SIZE) and type(found["xray"]) is torch.Tensor and "slice" not in found
    assert found["xray"].min() == -1 and found["other"] == 1 and case["flags"] == ["N_NO_ROLE: mr"]
    codes = [flag.split(": ")[:2] for flag in found["flags"]]
    assert codes == [["N_NO_ROLE", "mr"], ["N_TURNED", "xray"], ["N_DARK", "xray"]]
    assert ReadPicturesd("xray", SIZE)({"case_id": "a"}) == {"case_id": "a"}
    with pytest.raises(UsageError, match="E_OPTION: Expected two whole numbers"):
        ReadPicturesd("xray", (50, 40, 1))


@pytest.mark.real_data
@pytest.mark.parametrize(("pack", "key", "cases"), [("cxr3", "cxr", 485), ("ct_slices", "ct", 470)])
def test_every_picture_of_the_public_sets_is_read(pack: str, key: str, cases: int, real_images: Path) -> None:
    folder = real_images / pack
    rows = read_rows(folder / "cases.csv", ["case_id", key])
    read = ReadPicturesd(key, (64, 64))
    found = [read({key: folder / row[key]}) for row in rows]
    assert len(found) == cases and not any(case["flags"] for case in found)
    assert all(case[key].shape == (1, 64, 64) and float(case[key].std()) > 0.05 for case in found)
