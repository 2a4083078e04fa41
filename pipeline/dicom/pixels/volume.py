"""Read the pixels of a series that has passed the geometry gate, as a volume or as a radiograph."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from pipeline import geometry, volumes
from pipeline.cases import Series
from pipeline.dicom.pixels.projection import geometry_of, read_projection
from pipeline.dicom.pixels.resample import even_out, straighten
from pipeline.dicom.pixels.rescale import outside_value, read_slices
from pipeline.dicom.series.radiograph import is_radiograph
from pipeline.dicom.series.stack import stack_of
from pipeline.spec.spec import kinds


@dataclass(frozen=True)
class Reading:
    """A series that was read.

    Attributes:
        image: see `read`.
        notes: what the pixels showed (codes `N_...`), beside the notes of the series.
        measures: what was repaired, in numbers: `tilt_deg`, `step_mm`.
        projection: of a radiograph: how it was taken (see `geometry_of`).
    """

    image: MetaTensor
    notes: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    projection: Mapping[str, Any] | None = None


def read(series: Series) -> Reading:
    """Read a series that the gate has put in order as a volume, in real-world values (HU for CT).

    Returns:
        The volume, and what was seen and repaired: (1, columns, rows, slices) on the native grid, int16 where every
        value is a whole number that fits, else float32; RAS affine in mm. A leaning or unevenly spaced series is on an
        upright, even grid. A radiograph is (1, columns, rows, 1).

    Raises:
        QuarantineError: the series' own fault; E_DECODE, E_PIXEL_LENGTH, E_LIMIT or E_CRASH when a slice's pixels
            cannot be read; E_RESCALE when they do not fit their rescale.
    """
    if series.fault is not None:
        raise series.fault.as_error()
    if is_radiograph(series):
        image, notes = read_projection(series.instances[0])
        return Reading(image, notes, projection=geometry_of(series.instances[0]))
    values, notes = read_slices(series)
    stack, first = stack_of(series.instances), series.instances[0]
    spacing_mm = first.spacing_mm or (0.0, 0.0)
    corner, measures = stack.positions[0], {}
    upright = stack.is_slanted
    if "N_TILT_CORRECTED" in series.notes:
        values, corner = straighten(values, stack, spacing_mm, outside_value(series))
        measures["tilt_deg"] = round(stack.tilt_deg, 2)
    if "N_RESAMPLED" in series.notes:
        values, upright = even_out(values, stack), True
        measures["step_mm"] = round(stack.extent_mm / (len(values) - 1), 4)
    last = corner + stack.normal * stack.extent_mm if upright else stack.positions[-1]
    affine = geometry.affine_from_dicom(
        first.orientation or (), spacing_mm, corner.tolist(), last.tolist(), len(values)
    )
    image = volumes.volume(torch.from_numpy(values).permute(2, 1, 0), affine)
    return Reading(image, notes, measures)


class ReadSeriesd(MapTransform):
    """Read the series of a case's roles; a case that the selection has set aside is refused with its reason.

    Args:
        keys: the roles; one that a case lacks is left out, as its absence was judged before.
        needed: those of them that every case has.
    """

    def __init__(self, keys: Sequence[str] | str, needed: Collection[str] = ()) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.needed = frozenset(needed) & {*map(str, self.keys)}

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        return kinds(map(str, self.keys), "image", self.needed) | {f"{key}_projection": "measure?" for key in self.keys}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each role's `Series` by its volume; add what was seen to `flags` and `measures`.

        Of a radiograph, `<role>_projection` says how it was taken.
        """
        case = dict(data)
        if case.get("fault") is not None:
            raise case["fault"].as_error()
        flags, measures = list(case.get("flags", ())), dict(case.get("measures", {}))
        for key in self.key_iterator(case):
            found = read(case[key])
            case[key] = found.image
            if found.projection is not None:
                case[f"{key}_projection"] = found.projection
            flags += [f"{key}: {note}" for note in found.notes]
            measures |= {f"{key}_{name}": value for name, value in found.measures.items()}
        return {**case, "flags": flags, "measures": measures}
