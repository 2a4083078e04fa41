"""Checks the features of `pipeline.radiomics` against the reference values of IBSI-1.

    TANDEM_DATA=… python -m benchmarks.check_ibsi OUT       (or --write for docs/reference/ibsi.md)

The digital phantom, and the configurations A to D of the CT phantom; configuration E's values are not among the files.
"""

from __future__ import annotations

import csv
import os
import textwrap
import time
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import typer
from scipy import ndimage

from benchmarks.document import put_page
from pipeline.geometry import spacing_mm
from pipeline.radiomics import Bins, Name, Settings, extract, names
from pipeline.radiomics.prepare import Grid, Region, prepared

PAGE = Path("docs/reference/ibsi.md")
#: IBSI prints so many digits.
DIGITS = 3
FLAT = ("2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb")
SPACE = ("3D_avg", "3D_comb")
CT = "ibsi_ct_phantom"
FAMILY_NAMES = {
    "morph": "morphology",
    "loc": "local peaks",
    "stat": "statistics",
    "ih": "intensity histogram",
    "ivh": "intensity-volume histogram",
    "cm": "co-occurrence (GLCM)",
    "rlm": "run length (GLRLM)",
    "szm": "size zone (GLSZM)",
    "dzm": "distance zone (GLDZM)",
    "ngt": "tone difference (NGTDM)",
    "ngl": "dependence (NGLDM)",
    "diagnostics": "diagnostics",
}
ABOUT = (
    "Made by `python -m benchmarks.check_ibsi --write`. A value is right when it is within the tolerance of the Image "
    "Biomarker Standardisation Initiative, or within half a unit of the last of the three digits that it prints, "
    "whichever is more. Phantoms and values: the initiative's data sets; Zwanenburg et al., Radiology 295, 2020. The "
    "oriented box, the least ellipsoid and the area under the intensity-volume histogram have no agreed values. "
    "Configuration E's values are not among the published files used here."
)


@dataclass(frozen=True)
class Configuration:
    """What is measured on which phantom, and the file of its values."""

    title: str
    phantom: str
    file: str
    settings: Settings


CONFIGURATIONS = (
    Configuration("phantom", "ibsi1_digital_phantom", "dig_phantom", Settings(bins=None, ivh_bins=None)),
    Configuration(
        "A", CT, "chest_config_a", Settings(range=(-500, 400), bins=Bins(width=25), ivh_bins=None, aggregations=FLAT)
    ),
    Configuration(
        "B",
        CT,
        "chest_config_b",
        Settings(
            spacing_mm=(2, 2, None),
            whole_numbers=True,
            range=(-500, 400),
            bins=Bins(number=32),
            ivh_bins=None,
            aggregations=FLAT,
        ),
    ),
    Configuration(
        "C",
        CT,
        "chest_config_c",
        Settings(
            spacing_mm=(2, 2, 2),
            whole_numbers=True,
            range=(-1000, 400),
            bins=Bins(width=25),
            ivh_bins=Bins(width=2.5),
            aggregations=SPACE,
        ),
    ),
    Configuration(
        "D",
        CT,
        "chest_config_d",
        Settings(
            spacing_mm=(2, 2, 2),
            whole_numbers=True,
            outliers_sd=3,
            bins=Bins(number=32),
            ivh_bins=None,
            aggregations=SPACE,
        ),
    ),
)


@dataclass(frozen=True)
class Row:
    """One value of IBSI's and ours."""

    configuration: str
    family: str
    tag: str
    reference: str
    tolerance: str
    value: float | None

    @property
    def is_right(self) -> bool:
        """Within the tolerance, or half a unit of the last digit."""
        wanted = Decimal(self.reference)
        digits = max(DIGITS, len(wanted.normalize().as_tuple().digits))
        last = wanted.adjusted() - digits + 1
        if self.family == "diagnostics":  # printed in full
            last = int(wanted.as_tuple().exponent)
        half = Decimal(5).scaleb(last - 1) if wanted else Decimal(0)
        allowed = float(max(Decimal(self.tolerance), half))
        # what a decimal of the file becomes as a float is no miss
        return self.value is not None and abs(self.value - float(wanted)) <= allowed * (1 + 1e-9)


def check(data: Path) -> list[Row]:
    """Every value of IBSI's files, in their order."""
    return [row for configuration in CONFIGURATIONS for row in check_one(data, configuration)]


def check_one(data: Path, configuration: Configuration) -> list[Row]:
    """The values of one file."""
    image, mask, affine = phantom(data / configuration.phantom / "nifti")
    found: dict[str, float | None] = dict(extract(image, mask, affine, configuration.settings).values)
    found |= diagnostics(image, mask == 1, spacing_mm(affine), configuration.settings)
    path = data / f"ibsi1_reference/ibsi_1_reference_values/ibsi_1_{configuration.file}.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file, delimiter=";"))[1:]
    return [
        Row(configuration.title, family_of(tag), tag, reference, tolerance, found.get(tag))
        for reference, tolerance, tag in lines
        if reference
    ]


@cache
def phantom(folder: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Image, mask and affine."""
    image, mask = nib.load(folder / "image/phantom.nii.gz"), nib.load(folder / "mask/mask.nii.gz")
    return image.get_fdata(), np.asarray(mask.dataobj), image.affine


def family_of(tag: str) -> str:
    """The family that a tag names; all others are diagnostics."""
    family = tag.split("_")[0]
    return family if tag in names() and family in FAMILY_NAMES else "diagnostics"


def diagnostics(image: npt.NDArray[Any], mask: npt.NDArray[Any], spacing: Any, settings: Settings) -> dict[str, float]:
    """What IBSI tells of image and region before and after interpolation, and after resegmentation."""
    grid = Grid.of(image.shape, spacing, settings)
    whole = tuple(slice(0, size) for size in grid.new_shape)
    new = np.rint(grid.resampled(image, whole, 1)) if settings.whole_numbers else image
    region = prepared(image, mask, spacing, settings)
    before = Region(region.image, region.shape_mask, region.shape_mask, region.spacing_mm)
    first = Region(image, mask, mask, spacing)
    return {
        **_image("init", image, spacing),
        **_image("interp", new, grid.wanted_mm),
        **_region("init", first, image.shape),
        **_region("interp", before, new.shape),
        **_region("reseg", region, new.shape),
    }


def _image(stage: str, image: npt.NDArray[Any], spacing: Any) -> dict[str, float]:
    sizes = {f"img_dim_{axis}_{stage}_img": size for axis, size in zip("xyz", image.shape, strict=True)}
    steps = {f"vox_dim_{axis}_{stage}_img": float(step) for axis, step in zip("xyz", spacing, strict=True)}
    return {**sizes, **steps, **_values(f"{{}}_int_{stage}_img", image)}


def _region(stage: str, region: Region, shape: tuple[int, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind, mask in (("int", region.value_mask), ("morph", region.shape_mask)):
        (box,) = ndimage.find_objects(mask.astype(np.uint8))
        sides = {
            f"{kind}_mask_bb_dim_{axis}_{stage}_roi": side.stop - side.start
            for axis, side in zip("xyz", box, strict=True)
        }
        found |= {**sides, f"{kind}_mask_vox_count_{stage}_roi": int(mask.sum())}
    sizes = {f"int_mask_dim_{axis}_{stage}_roi": size for axis, size in zip("xyz", shape, strict=True)}
    return {**found, **sizes, **_values(f"int_mask_{{}}_int_{stage}_roi", region.values)}


def _values(name: str, values: npt.NDArray[Any]) -> dict[str, float]:
    numbers = {"mean": values.mean(), "min": values.min(), "max": values.max()}
    return {name.format(key): float(number) for key, number in numbers.items()}


def as_page(rows: list[Row], seconds: float) -> str:
    """Counts by family and configuration, what is missed, and the features' names."""
    titles = [item.title for item in CONFIGURATIONS]
    every = Counter((row.family, row.configuration) for row in rows)
    right = Counter((row.family, row.configuration) for row in rows if row.is_right)
    features = [row for row in rows if row.family != "diagnostics"]
    others = [row for row in rows if row.family == "diagnostics"]
    missed = [row for row in rows if not row.is_right]
    return "\n".join(
        [
            "# IBSI",
            "",
            textwrap.fill(ABOUT, 120),
            "",
            f"**{_count(features)} values of features are right**, and {_count(others)} diagnostic values, in "
            f"{seconds:.0f} s of processor time.",
            "",
            f"| family | {' | '.join(titles)} |",
            f"|---|{'---|' * len(titles)}",
            *(
                f"| {words} | {' | '.join(_cell(right, every, (family, title)) for title in titles)} |"
                for family, words in FAMILY_NAMES.items()
            ),
            "",
            "## Missed",
            "",
            *(
                f"- {row.configuration}, `{row.tag}`: {row.value}, should be {row.reference} ± {row.tolerance}"
                for row in missed
            ),
            *([] if missed else ["Nothing."]),
            "",
            *_names(),
        ]
    )


def _count(rows: list[Row]) -> str:
    return f"{sum(row.is_right for row in rows):,} of {len(rows):,}"


def _cell(right: Counter[tuple[str, str]], every: Counter[tuple[str, str]], key: tuple[str, str]) -> str:
    return f"{right[key]} of {every[key]}" if every[key] else "–"


def _names() -> list[str]:
    first: dict[tuple[str, str, str], list[Name]] = {}
    for name in names().values():
        family, code = name.tag.split("_")[0], name.code
        first.setdefault((family, code, name.tag.removesuffix(_suffix(name.tag))), []).append(name)
    lines = ["## Names", "", textwrap.fill(NAMES, 120), "", "| tag | code | unit | PyRadiomics |", "|---|---|---|---|"]
    for (_, code, tag), same in first.items():
        alike = next((name.pyradiomics for name in same if name.pyradiomics), "")
        lines.append(f"| `{tag}` | {code} | {same[0].unit} | {alike} |")
    lines += ["", "Left out, since PyRadiomics defines them otherwise or IBSI does not know them:", ""]
    return [*lines, *(f"- `{name}`: {why}" for name, why in NOT_IBSI.items()), ""]


_BY_NUMBER = "the spread is divided by n; IBSI's values need n - 1"
#: What PyRadiomics measures by another definition, or what IBSI does not know: name -> why.
NOT_IBSI: dict[str, str] = {
    "firstorder_Kurtosis": "a normal distribution has 3; in IBSI it has 0",
    "firstorder_TotalEnergy": "energy times a voxel's volume; not in IBSI",
    "glcm_MCC": "not in IBSI",
    "shape_MajorAxisLength": _BY_NUMBER,
    "shape_MinorAxisLength": _BY_NUMBER,
    "shape_LeastAxisLength": _BY_NUMBER,
    "shape_Maximum2DDiameterSlice": "not in IBSI",
    "shape_Maximum2DDiameterColumn": "not in IBSI",
    "shape_Maximum2DDiameterRow": "not in IBSI",
}
NAMES = (
    "The unit x is the image's. Tags of texture end in the aggregation: `2D_avg`, `2D_comb`, `2_5D_avg`, `2_5D_comb`, "
    "`3D_avg`, `3D_comb`, or `2D`, `2_5D`, `3D` where there are no directions. PyRadiomics' names are given where the "
    "definition is equal; of texture they are those of `3D_avg` or `3D`. Its mesh joins voxels that touch at an edge "
    "only in another way, by which volume and area may differ by some tenths of a percent."
)


def _suffix(tag: str) -> str:
    return next((f"_{kind}" for kind in (*FLAT, *SPACE, "2_5D", "2D", "3D") if tag.endswith(f"_{kind}")), "")


def main(out: Annotated[Path | None, typer.Argument()] = None, write: bool = False) -> None:
    """Check all values, and write the page."""
    started = time.process_time()
    rows = check(Path(os.environ["TANDEM_DATA"]))
    page = as_page(rows, time.process_time() - started)
    put_page(page, PAGE, out, write)
    print(page.split("## Names")[0])


if __name__ == "__main__":
    typer.run(main)
