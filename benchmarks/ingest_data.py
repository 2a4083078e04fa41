"""The data of ingest.py: one large CT series, and a tree of many small files.

.venv/bin/python -m benchmarks.ingest_data SERIES TREE SIZE SLICES FILES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline import volumes
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.phantom import position_phantom

FloatArray = npt.NDArray[np.float64]

SPACING_MM = (0.7, 0.7, 1.0)
SMALL_SHAPE = (16, 16, 60)


def write_ct(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write a CT of a smooth body in air, with the noise of a scanner, so that it compresses as a real one does."""
    random = np.random.default_rng(512)
    image = np.empty(shape, dtype=np.float32)
    x, y = np.meshgrid(*(np.linspace(-1, 1, number) for number in shape[:2]), indexing="ij")
    texture = ndimage.gaussian_filter(random.normal(size=shape[:2]), 12, mode="wrap")
    for k in range(shape[2]):
        image[:, :, k] = body(x, y, k / shape[2], texture) + random.normal(scale=12.0, size=shape[:2])
    affine = np.diag([*SPACING_MM, 1.0])
    write_series(volumes.volume(np.clip(image, -1024, 3000), affine), folder)


def body(x: FloatArray, y: FloatArray, height: float, texture: FloatArray) -> FloatArray:
    """One axial slice in HU: air, an ellipse of soft tissue, two lungs, a spine."""
    wide = 0.75 + 0.05 * np.sin(6 * height)
    inside = (x / wide) ** 2 + (y / 0.6) ** 2 < 1
    lungs = ((np.abs(x) - 0.35) / 0.22) ** 2 + ((y + 0.05) / (0.35 * (1 - height) + 0.05)) ** 2 < 1
    spine = x**2 + (y - 0.42) ** 2 < 0.008
    soft = 40 + 600 * np.roll(texture, int(100 * height), axis=0)
    return np.where(spine, 700.0, np.where(lungs & inside, -820.0, np.where(inside, soft, -1000.0)))


def write_tree(root: Path, files: int) -> None:
    """Write a tree of small series."""
    image = position_phantom(SMALL_SHAPE)
    for number in range(files // SMALL_SHAPE[2]):
        header = SeriesHeader(patient_id=f"SIM-{number:04d}", series_number=number)
        write_series(image, root / f"{number:04d}", header)


if __name__ == "__main__":
    size, slices, files = (int(argument) for argument in sys.argv[3:])
    write_ct(Path(sys.argv[1]), (size, size, slices))
    write_tree(Path(sys.argv[2]), files)
