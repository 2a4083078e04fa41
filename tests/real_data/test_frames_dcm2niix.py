"""Mosaics and enhanced multi-frame images against dcm2niix's reference NIfTI: every voxel in its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread

from pipeline.cases import Instance
from pipeline.dicom.headers.header import read_header

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
NIH, ENHANCED = Path("dcm_qa_nih"), Path("dcm_qa_enh")


def affine_of(frames: Sequence[Instance]) -> npt.NDArray[np.float64]:
    """RAS affine of (column, row, frame), from the first and the last frame."""
    first, axes = frames[0], np.asarray(frames[0].orientation).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = axes[0] * first.spacing_mm[1], axes[1] * first.spacing_mm[0]
    affine[:3, 2] = (np.asarray(frames[-1].position) - first.position) / (len(frames) - 1)
    affine[:3, 3] = first.position
    return LPS_RAS @ affine


def on_grid(reference: nib.Nifti1Image, shape: Sequence[int], affine: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The reference's values at the voxels of another grid, whose voxels have to be the reference's own."""
    index = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), axis=-1)
    to_reference = np.linalg.inv(reference.affine) @ affine
    places = index @ to_reference[:3, :3].T + to_reference[:3, 3]
    assert np.abs(places - np.rint(places)).max() < 2e-3
    i, j, k = np.rint(places).astype(int).transpose(3, 0, 1, 2)
    assert min(i.min(), j.min(), k.min()) >= 0
    return np.asarray(reference.dataobj)[i, j, k]


@pytest.mark.parametrize(("series", "name"), [(3, "EPI_PE=AP"), (4, "EPI_PE=PA"), (5, "EPI_PE=RL"), (6, "EPI_PE=LR")])
def test_siemens_mosaics(real_images: Path, series: int, name: str) -> None:
    reference = nib.load(real_images / NIH / "Ref" / f"{name}_{series}.nii")
    files = sorted((real_images / NIH / "In" / "20180918Si" / f"mr_000{series}").rglob("*.dcm"))
    assert len(files) == reference.shape[3] == 2
    for time, path in enumerate(files):
        tiles = read_header(path).instances
        mosaic, side = dcmread(path).pixel_array, tiles[0].pixels.tiles
        rows, columns = tiles[0].rows, tiles[0].columns
        assert (len(tiles), side, rows, columns) == (5, 3, 72, 72)
        blocks = mosaic.reshape(side, rows, side, columns).transpose(0, 2, 1, 3).reshape(-1, rows, columns)
        volume = blocks[[tile.frame for tile in tiles]].transpose(2, 1, 0)
        assert np.array_equal(on_grid(reference, volume.shape, affine_of(tiles))[..., time], volume)


def test_siemens_enhanced(real_images: Path) -> None:
    """One file a time point, interleaved slices."""
    reference = nib.load(real_images / ENHANCED / "Ref" / "Siemens_REST1_w_SMS_PF7-8_6.nii")
    files = sorted((real_images / ENHANCED / "In" / "Siemens" / "XA10").glob("*.dcm"))
    for time, path in enumerate(files):
        frames = sorted(read_header(path).instances, key=lambda frame: frame.position[2])
        volume = dcmread(path).pixel_array[[frame.frame for frame in frames]].transpose(2, 1, 0)
        assert np.array_equal(on_grid(reference, volume.shape, affine_of(frames))[..., time], volume)


@pytest.mark.parametrize(("kind", "name"), [("M", "e1"), ("FIELD_MAP", "e2_fieldmaphz")])
def test_philips_enhanced_field_map(real_images: Path, kind: str, name: str) -> None:
    """Magnitude and field map lie at the same places and are told apart by the frames' own values."""
    folder = real_images / ENHANCED / "Ref"
    reference = nib.load(folder / f"Philips_WIP_B0_NS_801_{name}.nii")
    words = json.loads((folder / f"Philips_WIP_B0_NS_801_{name}.json").read_text())
    (path,) = (real_images / ENHANCED / "In" / "Philips").glob("*fMAP.dcm")
    frames = [frame for frame in read_header(path).instances if frame.tags["ImageType"].endswith(f"\\{kind}")]
    assert len(frames) == reference.shape[2] == 32
    assert [frame.slope for frame in frames] == pytest.approx([words["PhilipsRescaleSlope"]] * 32, rel=1e-5)
    assert [frame.intercept for frame in frames] == pytest.approx([words["PhilipsRescaleIntercept"]] * 32)
    stored = dcmread(path).pixel_array[[frame.frame for frame in frames]].transpose(2, 1, 0).astype(float)
    expected = on_grid(reference, stored.shape, affine_of(frames)).astype(float)
    shown = stored * frames[0].slope + frames[0].intercept
    if words["UsePhilipsFloatNotDisplayScaling"]:
        shown /= words["PhilipsRescaleSlope"] * words["PhilipsScaleSlope"]
    assert np.allclose(expected, shown, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
