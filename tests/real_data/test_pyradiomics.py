"""PyRadiomics' own baselines: every feature that is named as its equal has its value."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.radiomics import extract, names, preset
from pipeline.volumes import affine_of, from_sitk

#: The baselines were made with 2000 added to every value.
SHIFTED = {"firstorder_Energy", "firstorder_RootMeanSquared"}
#: Where voxels touch at an edge only, its table of triangles joins them otherwise than scikit-image's: brain1 by .5 %.
MESH = {"shape_MeshVolume", "shape_SurfaceArea", "shape_SurfaceVolumeRatio", "shape_Sphericity"}


def baseline(folder: Path, case: str) -> dict[str, float]:
    """PyRadiomics' name -> value, of a case's first configuration."""
    found = {}
    for path in sorted((folder / "baseline").glob("baseline_*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                name = row["featureName"].removeprefix("original_")
                if "diagnostics" not in name and row.get(case):
                    found[name] = float(row[case])
    return found


@pytest.mark.parametrize("case", ["brain1", "breast1"])
def test_names_of_pyradiomics_are_of_equals(real_images: Path, case: str) -> None:
    folder = real_images / "pyradiomics/data"
    image, mask = (from_sitk(sitk.ReadImage(folder / f"{case}_{kind}.nrrd")) for kind in ("image", "label"))
    label = np.asarray(mask.numpy()[0]).astype(np.uint8)
    values = extract(image.numpy()[0], label, affine_of(image), preset("pyradiomics_default")).values
    wanted = baseline(folder, case)
    alike = {name.pyradiomics: values[tag] for tag, name in names().items() if name.pyradiomics and tag in values}
    compared = set(wanted) & set(alike) - SHIFTED
    assert len(compared) == 96
    for name in sorted(compared):
        assert alike[name] == pytest.approx(wanted[name], rel=6e-3 if name in MESH else 1e-6), name
