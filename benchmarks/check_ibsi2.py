"""Checks the filters of `pipeline.radiomics` against the response maps and the values of IBSI-2.

    TANDEM_DATA=… python -m benchmarks.check_ibsi2 OUT       (or --write for docs/reference/ibsi2.md)

Every voxel of the maps of digital phantoms, and statistics of the filtered CT phantom.
"""

from __future__ import annotations

import csv
import os
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import typer
import yaml

from benchmarks.check_ibsi import CT, Row, phantom
from benchmarks.document import put_page
from pipeline.geometry import spacing_mm
from pipeline.radiomics import Settings, extract
from pipeline.radiomics.filters import KINDS, filtered

PAGE = Path("docs/reference/ibsi2.md")
#: A voxel may be off by so much of the map's range. Source: IBSI-2's reference data.
ALLOWED = 0.01
Plain = dict[str, Any]
ABOUT = (
    "Made by `python -m benchmarks.check_ibsi2 --write`. A map is right when each of its voxels is within 1 % of the "
    "reference map's range, a value when it is within its tolerance. Maps, values and phantoms: the data sets of the "
    "Image Biomarker Standardisation Initiative; Whybra et al., Radiology 310, 2024. The filters are the "
    "configurations of the reference manual (the data sets do not hold them), as `filter` of the settings takes them."
)
ZERO, PERIODIC = {"boundary": "zero"}, {"boundary": "periodic"}
FLAT, TURNED = {"dimensions": "2D"}, {"rotations": "average"}
LEVEL_EDGE: Plain = {"kind": "laws", "kernels": ["E5", "L5", "S5"], **ZERO}
EDGE_WAVE: Plain = {"kind": "laws", "kernels": ["E3", "W5", "R5"]}
LEVEL_SPOT: Plain = {"kind": "laws", "kernels": ["L5", "S5"], **FLAT}
HIGHEST, ENERGY = {"rotations": "max"}, {"rotations": "max", "energy_voxels": 7}
NARROW: Plain = {"kind": "gabor", "sigma_mm": 10, "wavelength_mm": 4, "gamma": 0.5, **ZERO}
WIDE: Plain = {"kind": "gabor", "sigma_mm": 20, "wavelength_mm": 8, "gamma": 2.5}
DB2: Plain = {"kind": "wavelet", "wavelet": "db2", "bands": "LHL", **ZERO}
COIF1: Plain = {"kind": "wavelet", "wavelet": "coif1", "bands": "HHL", **PERIODIC}
HAAR: Plain = {"kind": "wavelet", "wavelet": "haar", "level": 2, **TURNED}
DB3: Plain = {"kind": "wavelet", "wavelet": "db3", **TURNED}
GABOR: Plain = {"kind": "gabor", "sigma_mm": 5, "wavelength_mm": 2, "gamma": 1.5, "step_deg": 22.5}
#: Test -> phantom and filter.
MAPS: dict[str, tuple[str, Plain]] = {
    "1_a_1": ("checkerboard", {"kind": "mean", "size": 15, **ZERO}),
    "1_a_2": ("checkerboard", {"kind": "mean", "size": 15, "boundary": "nearest"}),
    "1_a_3": ("checkerboard", {"kind": "mean", "size": 15, **PERIODIC}),
    "1_a_4": ("checkerboard", {"kind": "mean", "size": 15}),
    "1_b_1": ("impulse", {"kind": "mean", "size": 15, **FLAT, **ZERO}),
    "2_a": ("impulse", {"kind": "log", "sigma_mm": 3, **ZERO}),
    "2_b": ("checkerboard", {"kind": "log", "sigma_mm": 5}),
    "2_c": ("checkerboard", {"kind": "log", "sigma_mm": 5, **FLAT}),
    "3_a_1": ("impulse", LEVEL_EDGE),
    "3_a_2": ("impulse", LEVEL_EDGE | HIGHEST),
    "3_a_3": ("impulse", LEVEL_EDGE | ENERGY),
    "3_b_1": ("checkerboard", EDGE_WAVE),
    "3_b_2": ("checkerboard", EDGE_WAVE | HIGHEST),
    "3_b_3": ("checkerboard", EDGE_WAVE | ENERGY),
    "3_c_1": ("checkerboard", LEVEL_SPOT),
    "3_c_2": ("checkerboard", LEVEL_SPOT | HIGHEST),
    "3_c_3": ("checkerboard", LEVEL_SPOT | ENERGY),
    "4_a_1": ("impulse", {**NARROW, "theta_deg": 60, **FLAT}),
    "4_a_2": ("impulse", {**NARROW, "step_deg": 45}),
    "4_b_1": ("sphere", {**WIDE, "theta_deg": 225, **FLAT}),
    "4_b_2": ("sphere", {**WIDE, "step_deg": 22.5}),
    "5_a_1": ("impulse", DB2),
    "5_a_2": ("impulse", DB2 | TURNED),
    "6_a_1": ("sphere", COIF1),
    "6_a_2": ("sphere", COIF1 | TURNED),
    "7_a_1": ("checkerboard", {**HAAR, "bands": "LLL"}),
    "7_a_2": ("checkerboard", {**HAAR, "bands": "HHH"}),
    "8_a_1": ("checkerboard", {"kind": "simoncelli", "level": 1}),
    "8_a_2": ("checkerboard", {"kind": "simoncelli", "level": 2}),
    "8_a_3": ("checkerboard", {"kind": "simoncelli", "level": 3}),
    "9_a": ("impulse", {"kind": "log", "sigma_mm": 3, "riesz": {"order": [1, 0, 0]}, **ZERO}),
    "9_b_1": ("sphere", {"kind": "log", "sigma_mm": 3, "riesz": {"order": [0, 2, 0]}, **ZERO}),
    "10_b_1": ("pattern_1", {"kind": "simoncelli", "level": 1, "riesz": {"order": [0, 2, 0]}}),
}
#: Test -> filter of the CT phantom: A in slices, B in the volume.
VALUES: dict[str, Plain | None] = {
    "1.A": None,
    "1.B": None,
    "2.A": {"kind": "mean", "size": 5, **FLAT},
    "2.B": {"kind": "mean", "size": 5},
    "3.A": {"kind": "log", "sigma_mm": 1.5, **FLAT},
    "3.B": {"kind": "log", "sigma_mm": 1.5},
    "4.A": {"kind": "laws", "kernels": ["L5", "E5"], **ENERGY, **FLAT},
    "4.B": {"kind": "laws", "kernels": ["L5", "E5", "E5"], **ENERGY},
    "5.A": GABOR | FLAT,
    "5.B": GABOR,
    "6.A": {**DB3, "bands": "LH", **FLAT},
    "6.B": {**DB3, "bands": "LLH"},
    "7.A": {**DB3, "bands": "HH", "level": 2, **FLAT},
    "7.B": {**DB3, "bands": "HHH", "level": 2},
    "8.A": {"kind": "simoncelli", "level": 1, **FLAT},
    "8.B": {"kind": "simoncelli", "level": 1},
    "9.A": {"kind": "simoncelli", "level": 2, **FLAT},
    "9.B": {"kind": "simoncelli", "level": 2},
}
#: What is done before: A keeps the voxels, B makes them 1 mm.
BEFORE: dict[str, Plain] = {
    "A": {"range": (-1000, 400), "families": ("stat",)},
    "B": {
        "range": (-1000, 400),
        "families": ("stat",),
        "spacing_mm": (1, 1, 1),
        "interpolation": "cubic",
        "whole_numbers": True,
    },
}


@dataclass(frozen=True)
class Map:
    """One response map of IBSI's and the largest distance of ours, as a part of its range."""

    test: str
    phantom: str
    chosen: Plain
    deviation: float

    @property
    def is_right(self) -> bool:
        """Each voxel within what is allowed."""
        return self.deviation <= ALLOWED


@dataclass(frozen=True)
class Value(Row):
    """One value of IBSI's and ours."""

    @property
    def is_right(self) -> bool:
        """Within the tolerance."""
        return self.value is not None and abs(self.value - float(self.reference)) <= float(self.tolerance)


def check_maps(data: Path) -> Iterator[Map]:
    """Every response map."""
    for test, (name, chosen) in MAPS.items():
        (path,) = (data / f"ibsi2_digital_phantom/{name}/image").glob("*.nii.gz")
        image = nib.load(path)
        settings = Settings.read({"filter": chosen}).filter
        assert settings is not None
        found = filtered(image.get_fdata(), spacing_mm(image.affine), settings)
        wanted = nib.load(data / f"ibsi2_reference/response_maps/{test}-ValidCRM.nii.gz").get_fdata()
        yield Map(test, name, chosen, float(np.abs(found - wanted).max() / np.ptp(wanted)))


def check_values(data: Path) -> Iterator[Value]:
    """Every value on which IBSI agrees."""
    with (data / "ibsi2_reference/reference_values.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter=";"))
    image, mask, affine = phantom(data / CT / "nifti")
    for test, chosen in VALUES.items():
        settings = Settings.read({**BEFORE[test[-1]], "filter": chosen})
        found = extract(image, mask, affine, settings).values
        for line in lines:
            if line["filter_id"] == test and line["consensus_value"]:
                tag = line["feature_tag"]
                yield Value(test, "stat", tag, line["consensus_value"], line["tolerance"], found.get(tag))


def as_page(maps: list[Map], values: list[Value], seconds: float) -> str:
    """Deviations of maps, counts of values, what is missed, and the keys of filters."""
    counts = Counter(row.configuration for row in values)
    right = Counter(row.configuration for row in values if row.is_right)
    missed = [f"- map {item.test}: {100 * item.deviation:.2f} % of its range" for item in maps if not item.is_right]
    missed += [
        f"- {row.configuration}, `{row.tag}`: {row.value}, should be {row.reference} ± {row.tolerance}"
        for row in values
        if not row.is_right
    ]
    return "\n".join(
        [
            "# IBSI-2: filters",
            "",
            textwrap.fill(ABOUT, 120),
            "",
            f"**{sum(item.is_right for item in maps)} of {len(maps)} response maps and {sum(right.values())} of "
            f"{len(values)} values are right**, in {seconds:.0f} s of processor time.",
            "",
            *(part for text in NOTES for part in (textwrap.fill(text, 120), "")),
            "## Missed",
            "",
            *(missed or ["Nothing."]),
            "",
            "## Response maps",
            "",
            "| test | phantom | filter | largest deviation, % of the range |",
            "|---|---|---|---|",
            *(f"| {m.test} | {m.phantom} | {_shown(m.chosen)} | {100 * m.deviation:.4f} |" for m in maps),
            "",
            "## Values of the CT phantom",
            "",
            "| test | filter | right |",
            "|---|---|---|",
            *(f"| {test} | {_shown(VALUES[test])} | {right[test]} of {count} |" for test, count in counts.items()),
            "",
            *_keys(),
        ]
    )


NOTES = (
    "A in slices, with the image's voxels; B in the volume, with voxels of 1 mm (cubic, rounded). Both keep -1000 to "
    "400 HU of the unfiltered image. The coefficient of dispersion of 8.B has no agreed value. There are no agreed "
    "maps of steered Riesz transforms (9.b.2, 10.b.2) nor of 10.a: the first are tested on waves and turned images. "
    "Their directions are those of the filtered image.",
    "The whole image is interpolated, rounded and filtered, and then the region, made of the unfiltered image, is "
    "measured; shape, with what it weighs by intensities, is that of the unfiltered image. Only the part that a filter "
    "reaches from the region is computed; Simoncelli's and decimated wavelets and Riesz transforms reach everywhere. "
    "A response has no range: bins of a fixed width begin at its least value.",
    "Axes I, J, K of kernels, bands and orders are the image's, slices last. LoG's kernel is cut at 4 sigma and not "
    "made to sum to 0; Simoncelli's frequencies run from -1 to 1 with both ends, as in the reference maps. Responses "
    "are computed in double precision.",
)


def _shown(chosen: Plain | None) -> str:
    if chosen is None:
        return "none"
    return f"`{yaml.safe_dump(chosen, default_flow_style=True, sort_keys=False, width=1000).strip()}`"


def _keys() -> list[str]:
    lines = ["## Keys", "", "| kind | key | default |", "|---|---|---|"]
    for kind, model in KINDS.items():
        for key, field in model.model_fields.items():
            if key != "kind":
                lines.append(f"| {kind} | `{key}` | {'needed' if field.is_required() else _default(field.default)} |")
    return [*lines, ""]


def _default(value: Any) -> str:
    return "none" if value is None else str(value)


def main(out: Annotated[Path | None, typer.Argument()] = None, write: bool = False) -> None:
    """Check all maps and values, and write the page."""
    data, started = Path(os.environ["TANDEM_DATA"]), time.process_time()
    maps, values = list(check_maps(data)), list(check_values(data))
    page = as_page(maps, values, time.process_time() - started)
    put_page(page, PAGE, out, write)
    print(page.split("## Keys")[0])


if __name__ == "__main__":
    typer.run(main)
