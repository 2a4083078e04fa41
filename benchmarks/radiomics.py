"""How long the features of one region take: 549,312 voxels (128 x 128 x 64, 1 x 1 x 2 mm, 32 bins), one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.radiomics

It prints seconds of processor time, imports apart, the least of some runs, and the peak of resident memory.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.radiomics import Settings, extract
from pipeline.radiomics.settings import FAMILIES

REPEATS = 3
SHAPE, SPACING_MM, MARGIN = (128, 128, 64), (1.0, 1.0, 2.0), 8
SPACE = ("3D_comb",)


def region() -> npt.NDArray[np.uint8]:
    """An ellipsoid that fills the box, with a margin round it."""
    lines = [(2 * np.arange(size) + 1 - size) / size for size in SHAPE]
    inside = sum(axis**2 for axis in np.meshgrid(*lines, indexing="ij")) <= 1
    return np.pad(inside.astype(np.uint8), MARGIN)


def seconds(image: npt.NDArray[Any], mask: npt.NDArray[Any], **settings: Any) -> float:
    """The least that some extractions took: other programs only ever add to it."""
    found = []
    for _ in range(REPEATS):
        started = time.process_time()
        extract(image, mask, np.diag([*SPACING_MM, 1.0]), Settings(**settings))
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    """Print all tables."""
    mask = region()
    noise = np.random.default_rng(0).normal(size=mask.shape)
    images = {"smooth": ndimage.gaussian_filter(noise, 2), "white noise": noise}
    before = peak_mb()
    rows: dict[str, dict[str, Any]] = {"all features": {}, "3D merged": {"aggregations": SPACE}}
    rows |= {family: {"families": (family,)} for family in FAMILIES}
    print(f"{int(mask.sum())} voxels\n\n| | {' | '.join(images)} |\n|---|{'---|' * len(images)}")
    for name, settings in rows.items():
        print(f"| {name} | {' | '.join(f'{seconds(image, mask, **settings):.2f}' for image in images.values())} |")
    print(f"\nresident memory: {before:.0f} MB before, {peak_mb():.0f} MB at its peak")


def peak_mb() -> float:
    """The most that was resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
