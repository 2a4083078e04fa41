"""How long filters take on an image of 256 x 256 x 256 voxels, beside z-rad, one thread, each in a process of its own.

    OMP_NUM_THREADS=1 python -m benchmarks.radiomics_filters          (--write for docs/benchmarks/radiomics-filters.md)

z-rad comes without its interface by `pip install --no-deps z-rad pywavelets opencv-python-headless`.
"""

from __future__ import annotations

import os
import tempfile
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.document import write_section
from benchmarks.radiomics_peers import peak_mb

PAGE = Path("docs/benchmarks/radiomics-filters.md")
SIZE = 256
Image = npt.NDArray[np.float64]
Job = tuple[str, dict[str, Any]]
BANDS = ["".join(letters) for letters in product("LH", repeat=3)]
#: What is measured: filters of Tandem's settings, and z-rad's classes with their arguments.
JOBS: dict[str, tuple[list[dict[str, Any]], list[Job]]] = {
    "LoG, 3 mm": (
        [{"kind": "log", "sigma_mm": 3}],
        [("LoG", {"padding_type": "reflect", "sigma_mm": 3.0, "cutoff": 4, "dimensionality": "3D"})],
    ),
    "Gabor, 12 angles, three planes": (
        [{"kind": "gabor", "sigma_mm": 5, "wavelength_mm": 2, "gamma": 1.5, "step_deg": 30, "cutoff_sigma": 3.5}],
        [
            (
                "Gabor",
                {
                    "padding_type": "reflect",
                    "res_mm": 1.0,
                    "sigma_mm": 5.0,
                    "lambda_mm": 2.0,
                    "gamma": 1.5,
                    "theta": np.pi / 6,
                    "rotation_invariance": True,
                    "orthogonal_planes": True,
                },
            )
        ],
    ),
    "8 wavelets, db3": (
        [{"kind": "wavelet", "wavelet": "db3", "bands": bands} for bands in BANDS],
        [
            (
                "Wavelets3D",
                {"wavelet_type": "db3", "padding_type": "reflect", "response_map": bands, "decomposition_level": 1},
            )
            for bands in BANDS
        ],
    ),
    "1 wavelet, db3, all turns averaged": (
        [{"kind": "wavelet", "wavelet": "db3", "bands": "LHL", "rotations": "average"}],
        [
            (
                "Wavelets3D",
                {
                    "wavelet_type": "db3",
                    "padding_type": "reflect",
                    "response_map": "LHL",
                    "decomposition_level": 1,
                    "rotation_invariance": True,
                },
            )
        ],
    ),
    "Simoncelli, level 1": (
        [{"kind": "simoncelli"}],
        [("Simoncelli", {"padding_type": "periodic", "decomposition_level": 1})],
    ),
}
ABOUT = (
    "Made by `OMP_NUM_THREADS=1 python -m benchmarks.radiomics_filters --write` beside z-rad {}. An image of "
    f"{SIZE} x {SIZE} x {SIZE} voxels of 1 mm, white noise, mirrored at its edges (Simoncelli: periodic), all of it, "
    "in double precision, one thread, each in a process of its own. Seconds are those of the processor after import; "
    "memory is the peak above what was there with the image; the difference is a part of the response's range. z-rad's "
    "Gabor kernel is two voxels narrower, and in single precision. Of a region only the part that a filter reaches is "
    "computed. No GPU was at hand: `device` goes to torch, and is not measured."
)


class Taken(NamedTuple):
    """Seconds of processor time after import, and memory at the peak above what was there before, MB."""

    seconds: float
    memory_mb: float


def image() -> Image:
    """White noise, 1 mm."""
    return np.random.default_rng(0).normal(0, 100, (SIZE, SIZE, SIZE))


def taken(call: Callable[[Image], Image], count: int, path: Path) -> Taken:
    """What some calls take; the last one's response is kept."""
    values = image()
    call(values[:32, :32, :32].copy())
    before, started, found = peak_mb(), time.process_time(), values
    for _ in range(count):
        found = call(values)
    seconds = time.process_time() - started
    memory = peak_mb() - before
    np.save(path, found.astype(np.float32))
    return Taken(seconds, memory)


def tandem(name: str, path: Path) -> Taken:
    """Of Tandem's filters."""
    from pipeline.radiomics import Settings
    from pipeline.radiomics.filters import filtered

    chosen = [item for plain in JOBS[name][0] if (item := Settings.read({"filter": plain}).filter)]
    waiting = iter([chosen[0], *chosen])  # the first warms up
    return taken(lambda values: filtered(values, np.ones(3), next(waiting)), len(chosen), path)


def z_rad(name: str, path: Path) -> Taken:
    """Of z-rad's."""
    import cv2
    import zrad.filtering
    from zrad.image import Image as Picture

    cv2.setNumThreads(1)
    jobs = JOBS[name][1]
    waiting = iter([jobs[0], *jobs])

    def call(values: Image) -> Image:
        kind, arguments = next(waiting)
        turned = values.transpose(2, 1, 0)
        picture = Picture(turned, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), np.eye(3).ravel(), values.shape)
        return np.asarray(getattr(zrad.filtering, kind)(**arguments).apply(picture).array).transpose(2, 1, 0)

    return taken(call, len(jobs), path)


def in_a_child(job: Callable[[str, Path], Taken], name: str, path: Path) -> Taken:
    """A job in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(job, name, path).result()


def row(name: str, place: Path) -> str:
    """One filter of both."""
    ours, theirs = (in_a_child(job, name, place / f"{job.__name__}.npy") for job in (tandem, z_rad))
    found, wanted = (np.load(place / f"{job.__name__}.npy") for job in (tandem, z_rad))
    apart = 100 * float(np.abs(found - wanted).max() / np.ptp(wanted))
    return (
        f"| {name} | {ours.seconds:.1f} | {theirs.seconds:.1f} | {theirs.seconds / ours.seconds:.1f} "
        f"| {ours.memory_mb:.0f} | {theirs.memory_mb:.0f} | {apart:.4f} |"
    )


def table() -> str:
    """All filters, as Markdown."""
    with tempfile.TemporaryDirectory() as place:
        rows = [row(name, Path(place)) for name in JOBS]
    return "\n".join(
        [
            "## Filters",
            "",
            textwrap.fill(ABOUT.format(version("z_rad")), 120),
            "",
            "| filter | Tandem (s) | z-rad (s) | ratio | Tandem (MB) | z-rad (MB) | largest difference (%) |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def main(write: bool = False) -> None:
    """Print the table, and write it to its page."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise typer.BadParameter("Expected OMP_NUM_THREADS=1, so that both use one thread.")
    text = table()
    if write:
        write_section(PAGE, "Radiomics: filters", "filters", text)
    print(text)


if __name__ == "__main__":
    typer.run(main)
