"""Tandem's 482 values beside z-rad's, on real images: brain, breast, and sarcomas in CT, PET and MR.

    TANDEM_DATA=… python -m benchmarks.check_radiomics_zrad --peers FOLDER [--write]

FOLDER is where z-rad is (`pip install --no-deps --target FOLDER z-rad pywavelets`). It prints how many values agree to
a millionth, and the largest difference of those; --write puts them on docs/benchmarks/radiomics.md. z-rad leaves slices
that are narrower than 3 voxels or have less than 9 out of 2D and 2.5D; where there are such, Tandem measures the
others once more, with the same grey levels.
"""

from __future__ import annotations

import os
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import typer

from benchmarks.document import write_section
from benchmarks.radiomics import PAGE, TITLE, measured
from benchmarks.radiomics_peers import BINS
from pipeline.radiomics import Bins, Settings, extract
from pipeline.radiomics.prepare import grey_levels

CLOSE = 1e-6
NARROWEST, FEWEST = 3, 9
TEXTURE = ("cm", "rlm", "szm", "dzm", "ngt", "ngl")
FLAT = ("2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb")
ABOUT = (
    "Made by `python -m benchmarks.check_radiomics_zrad --peers FOLDER --write`: 32 bins, native grids. A value agrees "
    "when it differs by no more than a millionth. In 2D and 2.5D z-rad leaves out slices that are narrower than 3 "
    "voxels or have less than 9; Tandem keeps them, and measures once more without them, with the same grey levels. "
    "z-rad refuses an aggregation by slices where one has a single grey level, so that its correlation is undefined; "
    "Tandem takes the mean of the others. Of levels that are equally frequent z-rad's mode is the first, Tandem's the "
    "nearest to the mean (IBSI, AMMC). Five of Tandem's 487 values z-rad does not have: those of the oriented box and "
    "the least ellipsoid, and the area under the intensity-volume histogram."
)


@dataclass(frozen=True)
class Agreement:
    """How many of z-rad's values are ours, the largest relative difference of those, how many there are, the others."""

    close: int
    largest: float
    number: int
    apart: tuple[str, ...]

    @classmethod
    def of(cls, ours: dict[str, float], theirs: dict[str, float]) -> Agreement:
        """Values by tag."""
        apart = {tag: abs(ours.get(tag, np.inf) - value) / max(abs(value), 1e-12) for tag, value in theirs.items()}
        close = [item for item in apart.values() if item <= CLOSE]
        return cls(len(close), max(close), len(theirs), tuple(tag for tag in apart if not apart[tag] <= CLOSE))

    def __str__(self) -> str:
        return f"{self.close} of {self.number}"


def cases(data: Path) -> dict[str, tuple[Path, Path]]:
    """Image and mask by name."""
    found = {
        name: (data / f"pyradiomics/data/{name}_image.nrrd", data / f"pyradiomics/data/{name}_label.nrrd")
        for name in ("brain1", "breast1")
    }
    for image in sorted(data.glob("sts_nifti/*/*_image.nii.gz")):
        mask = image.with_name(image.name.replace("image", "mask"))
        found[f"{image.parent.name} {image.name.removesuffix('_image.nii.gz')}"] = image, mask
    return found


def without_small_slices(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """A mask (I, J, K) without the slices along K that z-rad leaves out."""
    kept = mask == 1
    for number in np.flatnonzero(kept.any((0, 1))):
        sides = [int(np.ptp(index)) + 1 for index in np.nonzero(kept[:, :, number])]
        if min(sides) < NARROWEST or np.count_nonzero(kept[:, :, number]) < FEWEST:
            kept[:, :, number] = False
    return kept


def of_larger_slices(folder: Path) -> dict[str, float]:
    """Tandem's texture in 2D and 2.5D, of the whole region's grey levels."""
    image, mask = (nib.load(folder / f"{name}.nii") for name in ("image", "mask"))
    values, inside = image.get_fdata(), np.asarray(mask.dataobj) == 1
    levels = np.zeros(values.shape)
    levels[inside] = grey_levels(values[inside], Bins(number=BINS), None)[0]
    settings = Settings(bins=None, families=TEXTURE, aggregations=FLAT)
    found = extract(levels, without_small_slices(inside).astype(np.uint8), image.affine, settings).values
    return {tag: value for tag, value in found.items() if value is not None}


def check(name: str, folder: Path, peers: Path) -> str:
    """A row of the table."""
    ours, theirs = (measured(method, folder, 1, peers) for method in ("tandem", "zrad"))
    if "missing" in theirs:
        raise SystemExit(f"Expected z-rad in {peers}, {theirs['missing']} is not there.")
    first = Agreement.of(ours["values"], theirs["values"])
    again = Agreement.of({**ours["values"], **of_larger_slices(folder)}, theirs["values"])
    voxels = int((np.asarray(nib.load(folder / "mask.nii").dataobj) == 1).sum())
    refused = ", ".join(line.split(":")[0] for line in theirs["said"].splitlines() if "Sigma" in line)
    names = ", ".join(f"`{tag}`" for tag in again.apart)
    cells = f"{first} | {first.largest:.0e} | {again} | {again.largest:.0e} | {names} | {refused}"
    return f"| {name} | {voxels:,} | {cells} |"


def main(
    peers: Annotated[Path, typer.Option(help="Folder with z-rad.")],
    write: Annotated[bool, typer.Option("--write", help="Write the page.")] = False,
) -> None:
    """Print the table."""
    lines = [
        "| image | voxels | agree | largest difference | without small slices | largest difference | apart | refused |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as place:
        for name, (image, mask) in cases(Path(os.environ["TANDEM_DATA"])).items():
            folder = Path(place) / name.replace(" ", "_")
            folder.mkdir()
            for source, kind in ((image, "image"), (mask, "mask")):
                sitk.WriteImage(sitk.ReadImage(str(source)), str(folder / f"{kind}.nii"))
            lines.append(check(name, folder, peers))
            print(lines[-1])
    if write:
        write_section(
            PAGE, TITLE, "agreement", "\n".join(["## Agreement with z-rad", "", textwrap.fill(ABOUT, 120), "", *lines])
        )


if __name__ == "__main__":
    typer.run(main)
