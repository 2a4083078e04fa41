from __future__ import annotations

import numpy as np
import pytest

from pipeline import volumes
from pipeline.dicom.pixels.diffusion import CheckDiffusiond, mm2_s


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        *(("mm2/s", 1.0), ("1e-6 mm2/s", 1e-6), ("1e-3 mm2/s", 1e-3), ("10^-6 mm^2/s", 1e-6), ("um2/s", 1e-6)),
        *(("µm2/s", 1e-6), ("HU", None), ("a.u.", None), ("mm", None)),
    ],
)
def test_units_of_diffusion(unit: str, factor: float | None) -> None:
    assert mm2_s(unit) == factor


@pytest.mark.parametrize(
    ("scale", "unit", "flagged"),
    [
        *((1.0, "1e-6 mm2/s", False), (1e-3, "1e-6 mm2/s", True), (1e-6, "1e-6 mm2/s", True)),
        *((1e-3, "1e-3 mm2/s", False), (1.0, "mm2/s", True), (1e-6, "mm2/s", False), (1e-6, "a.u.", False)),
    ],
)
def test_a_map_that_cannot_be_in_its_unit_is_flagged(scale: float, unit: str, flagged: bool) -> None:
    """Tissue of 800 to 2200 in 1e-6 mm2/s within air that shows noise."""
    values = np.random.default_rng(3).uniform(0, 60, (12, 12, 8))
    values[3:9, 3:9, 2:6] = np.random.default_rng(4).uniform(800, 2200, (6, 6, 4))
    case = {"adc": volumes.volume((values * scale).astype(np.float32), np.eye(4)), "flags": ["x"]}
    found = CheckDiffusiond({"adc": unit, "t2": "a.u."})(case)
    assert found["flags"][0] == "x" and len(found["flags"]) == 1 + flagged
    assert all(flag.startswith("N_UNIT_DOUBTFUL: adc: ") for flag in found["flags"][1:])
