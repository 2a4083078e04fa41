"""Whether an ADC map's values can be in the unit that its role names: headers of MR do not say."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.transforms import MapTransform

#: The highest values of an ADC map lie within this, in mm2/s: free water at 37 degrees has 3e-3, dense tissue 5e-4.
PLAUSIBLE_MM2_S = (1e-4, 2e-2)
#: Most of a map may be air; noise in it has a few voxels above all tissue.
HIGHEST_PERCENTILE = 95
_UNIT = re.compile(r"(?:([\d.]+(?:e-?\d+)?)[ *x]*)?(mm|um|µm|μm)\^?[2²]/s")


def mm2_s(unit: str) -> float | None:
    """What one of a unit such as `1e-6 mm2/s` is in mm2/s; None for a unit that is none of diffusion."""
    found = _UNIT.fullmatch(re.sub(r"10\^?(-\d+)", r"1e\1", unit.strip().lower()))
    return float(found[1] or 1) * (1.0 if found[2] == "mm" else 1e-6) if found else None


class CheckDiffusiond(MapTransform):
    """Flag maps of diffusion whose values cannot be in the unit of their role.

    Args:
        units: role -> its unit; roles of other units are left alone.
    """

    def __init__(self, units: Mapping[str, str]) -> None:
        self.factors = {role: factor for role, unit in units.items() if (factor := mm2_s(unit)) is not None}
        self.units = dict(units)
        super().__init__(list(units), allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case, with N_UNIT_DOUBTFUL among its flags where a map's values are beyond `PLAUSIBLE_MM2_S`."""
        case, flags = dict(data), list(data.get("flags") or ())
        for role, factor in self.factors.items():
            values = np.asarray(case[role].numpy()) if role in case else np.zeros(1)
            shown = values[values > 0]
            high = float(np.percentile(shown, HIGHEST_PERCENTILE)) if len(shown) else 0.0
            if high and not PLAUSIBLE_MM2_S[0] <= high * factor <= PLAUSIBLE_MM2_S[1]:
                flags.append(
                    f"N_UNIT_DOUBTFUL: {role}: values up to {high:.4g}, which no ADC in {self.units[role]} has"
                )
        return {**case, "flags": flags}
