"""How long the features of one region take, beside other libraries; each in a process of its own, on one thread.

    TANDEM_DATA=… python -m benchmarks.radiomics [--peers FOLDER] [--python312 PYTHON] [--write]
    python -m benchmarks.radiomics --maps [--write]         # maps of features instead

FOLDER is where z-rad, MIRP and PyRadiomics are (`pip install --no-deps --target FOLDER …`); PYTHON is an interpreter
with pictologics. What is not there is a row that says so. It prints seconds of the processor, loading apart, the least
of some runs, and the peak of memory; --write puts them on docs/benchmarks/radiomics.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import typer
from scipy import ndimage

from benchmarks.document import write_section
from benchmarks.radiomics_peers import MAPPED

PAGE, TITLE = Path("docs/benchmarks/radiomics.md"), "Radiomics"
REPEATS, MARGIN = 3, 8
SHAPE, SPACING_MM = (128, 128, 64), (1.0, 1.0, 2.0)
#: An ellipsoid in it has five million voxels.
LARGE = (268, 268, 134)
#: An ellipsoid in it has 99,908 voxels.
MAP_SHAPE = (60, 60, 53)
PATIENT = "STS_031"
MAPS = (
    "Made by `python -m benchmarks.radiomics --maps --write`. A feature at each of 99,908 voxels of white noise, in "
    "the cube of 3 x 3 x 3 voxels around it, 32 bins of the whole region: the dearest image there is, since hardly two "
    "pairs are alike. One thread; seconds are the processor's, the peak is the whole process'."
)
#: Row, method, and the one of Tandem's that does as much.
WAYS = (
    ("Tandem, all aggregations", "tandem", "tandem"),
    ("Tandem, 3D merged", "tandem_space", "tandem_space"),
    ("z-rad, all aggregations", "zrad", "tandem"),
    ("z-rad, 3D averaged", "zrad_space", "tandem_space"),
    ("MIRP, 3D merged", "mirp", "tandem_space"),
    ("PyRadiomics, 3D averaged", "pyradiomics", "tandem_space"),
    ("pictologics, 3D merged", "pictologics", "tandem_space"),
)
ABOUT = (
    "Made by `python -m benchmarks.radiomics --peers FOLDER --python312 PYTHON --write`. One region of 549,312 voxels "
    "(an ellipsoid in 128 x 128 x 64, 1 x 1 x 2 mm, smooth noise), and the tumour of a CT (STS_031); 32 bins. "
    "Each library runs in a process of its own, on one thread; seconds are the processor's, the least of three runs, "
    "with loading apart; memory is the process' peak. Ratios are to Tandem doing as much: all aggregations, or three "
    "dimensions only. MIRP reads the files itself, and draws the pairs of Moran's I and Geary's C at random. "
    "pictologics compiles itself when it is loaded for the first time after its installation, which took 353 s of the "
    "processor (`time PYTHON -c 'import pictologics'`); it "
    "is measured afterwards."
)
Answer = dict[str, Any]


def ellipsoid(shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """An ellipsoid that fills a box, with a margin round it."""
    lines = [(2 * np.arange(size) + 1 - size) / size for size in shape]
    inside = sum(axis**2 for axis in np.meshgrid(*lines, indexing="ij", sparse=True)) <= 1
    return np.pad(inside.astype(np.uint8), MARGIN)


def save_scene(folder: Path, image: npt.NDArray[Any], mask: npt.NDArray[Any], affine: npt.NDArray[Any]) -> Path:
    """Write what `radiomics_peers.py` reads."""
    folder.mkdir(parents=True)
    for name, array in (("image", image.astype(np.float32)), ("mask", mask.astype(np.uint8))):
        nib.save(nib.Nifti1Image(array, affine), folder / f"{name}.nii")
    return folder


def noise_scene(folder: Path, shape: tuple[int, int, int], smooth: float) -> Path:
    """Noise from a seed in an ellipsoid."""
    mask = ellipsoid(shape)
    image = np.random.default_rng(0).normal(size=mask.shape)
    return save_scene(folder, ndimage.gaussian_filter(image, smooth), mask, np.diag([*SPACING_MM, 1.0]))


def patient_scene(folder: Path) -> Path:
    """A tumour in CT."""
    source = Path(os.environ["TANDEM_DATA"]) / "sts_nifti" / PATIENT
    image, mask = (nib.load(source / f"CT_{name}.nii.gz") for name in ("image", "mask"))
    return save_scene(folder, image.get_fdata(), np.asarray(mask.dataobj), image.affine)


def measured(method: str, folder: Path, repeats: int, peers: Path | None, python: Path | None = None) -> Answer:
    """The answer of `radiomics_peers.py`, with what it said beside it."""
    own = [str(python or sys.executable), "-m", "benchmarks.radiomics_peers", method, str(folder), str(repeats)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PICTOLOGICS_NUM_THREADS"), "1")
    command = [*own, *([str(peers.resolve())] if peers else [])]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads}, check=False)
    if done.returncode:
        raise SystemExit(f"{method}: {done.stderr[-2000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "said": done.stderr}


def row(name: str, answer: Answer, beside: Answer) -> str:
    """Of the table of libraries."""
    if "missing" in answer:
        return f"| {name} | not installed | | | | |"
    ratio = answer["seconds"] / beside["seconds"]
    numbers = f"{len(answer['values'])} | {answer['seconds']:.2f} | {ratio:.1f} | {answer['import_s']:.1f}"
    return f"| {name} | {numbers} | {answer['peak_mb']:.0f} |"


def beside_peers(folder: Path, peers: Path | None, python312: Path | None) -> list[str]:
    """A table of all ways on one scene."""
    lines = ["| | values | seconds | times Tandem's | loading, s | peak, MiB |", "|---|---|---|---|---|---|"]
    found: dict[str, Answer] = {}
    for name, method, same in WAYS:
        if method == "pictologics":
            answer = measured(method, folder, REPEATS, None, python312)
        else:
            answer = measured(method, folder, REPEATS, peers)
        found[method] = answer
        lines.append(row(name, answer, found[same]))
        print(lines[-1])
    return lines


def alone(scenes: dict[str, Path]) -> list[str]:
    """A table of Tandem on several scenes; ratios are to the first."""
    lines = ["| | all, s | times | peak, MiB | 3D merged, s | times |", "|---|---|---|---|---|---|"]
    first: list[float] = []
    for name, folder in scenes.items():
        every, space = (measured(method, folder, REPEATS, None) for method in ("tandem", "tandem_space"))
        first = first or [every["seconds"], space["seconds"]]
        cells = [
            f"{item['seconds']:.2f} | {item['seconds'] / one:.1f}"
            for item, one in zip((every, space), first, strict=True)
        ]
        lines.append(f"| {name} | {cells[0]} | {every['peak_mb']:.0f} | {cells[1]} |")
        print(lines[-1])
    return lines


def maps(folder: Path) -> list[str]:
    """A table of maps."""
    lines = ["| feature | seconds | peak, MiB |", "|---|---|---|"]
    for tag in MAPPED:
        answer = measured(f"map_{tag}", folder, 1, None)
        lines.append(f"| `{tag}` | {answer['seconds']:.1f} | {answer['peak_mb']:.0f} |")
        print(lines[-1])
    return lines


def main(
    peers: Annotated[Path | None, typer.Option(help="Folder of other libraries.")] = None,
    python312: Annotated[Path | None, typer.Option(help="Interpreter with pictologics.")] = None,
    only_maps: Annotated[bool, typer.Option("--maps", help="Measure maps instead.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the page.")] = False,
) -> None:
    """Print all tables."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if only_maps:
            lines = maps(noise_scene(place / "small", MAP_SHAPE, 0))
            if write:
                write_section(PAGE, TITLE, "maps", "\n".join(["## Maps", "", textwrap.fill(MAPS, 120), "", *lines]))
            return
        smooth, patient = noise_scene(place / "smooth", SHAPE, 2), patient_scene(place / "patient")
        scenes = {
            "the region": smooth,
            "white noise": noise_scene(place / "noise", SHAPE, 0),
            "five million voxels": noise_scene(place / "large", LARGE, 2),
        }
        parts = [
            *("## Beside other libraries", "", textwrap.fill(ABOUT, 120), "", "The region:", ""),
            *(*beside_peers(smooth, peers, python312), "", f"The CT of {PATIENT}:", ""),
            *(*beside_peers(patient, peers, python312), "", "Tandem alone, on other images:", ""),
            *alone(scenes),
        ]
    if write:
        write_section(PAGE, TITLE, "cost", "\n".join(parts))


if __name__ == "__main__":
    typer.run(main)
