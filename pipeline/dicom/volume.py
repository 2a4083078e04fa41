"""Read the pixels of a series that has passed the geometry gate."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from monai.data import MetaTensor
from monai.transforms import MapTransform

from pipeline import geometry
from pipeline.cases import Fault, Instance, Series
from pipeline.errors import QuarantineError

INT16 = np.iinfo(np.int16)


def read_volume(series: Series) -> MetaTensor:
    """Read a series as a volume, in real-world values (HU for CT).

    Every slice is rescaled by its own slope and intercept, in float64: a reader that takes the first slice's for all,
    or rounds, is silently wrong where they differ (DICOM PS3.3 C.11.1.1.2).

    Args:
        series: with its instances in order of position.

    Returns:
        (1, columns, rows, slices) on the native grid, int16 where every value is a whole number that fits, else
        float32; RAS affine in mm.

    Raises:
        QuarantineError: E_DECODE or E_PIXEL_LENGTH when a slice's pixels cannot be read, or the series' own fault.
    """
    if series.fault is not None:
        raise _as_error(series.fault)
    first, last = series.instances[0], series.instances[-1]
    values = np.empty((len(series.instances), first.rows, first.columns), dtype=np.float32)
    whole = all(_is_whole(instance.slope) and _is_whole(instance.intercept) for instance in series.instances)
    for index, instance in enumerate(series.instances):
        values[index] = _rescaled(instance)
    if whole and values.min() >= INT16.min and values.max() <= INT16.max:
        values = values.astype(np.int16)
    affine = geometry.affine_from_dicom(
        first.orientation or (), first.spacing_mm or (), first.position or (), last.position or (), len(values)
    )
    return geometry.volume(values.transpose(2, 1, 0), affine)


def _rescaled(instance: Instance) -> npt.NDArray[np.float64]:
    """The real-world values of one slice, (rows, columns)."""
    try:
        pixels = pydicom.dcmread(instance.path, force="N_NO_PREAMBLE" in instance.notes).pixel_array
    except Exception as error:  # the codecs raise many kinds; all mean that the pixels are not to be had
        reason = f"{type(error).__name__}".removesuffix("Error")
        syntax = pydicom.uid.UID(instance.tags["TransferSyntaxUID"]).name
        raise QuarantineError("E_DECODE", f"A slice's pixels ({syntax}) cannot be decoded: {reason}.") from error
    if pixels.shape != (instance.rows, instance.columns):
        raise QuarantineError("E_PIXEL_LENGTH", f"Expected {(instance.rows, instance.columns)}, got {pixels.shape}.")
    slope = 1.0 if instance.slope is None else instance.slope
    intercept = 0.0 if instance.intercept is None else instance.intercept
    return np.asarray(pixels * slope + intercept)


def _is_whole(number: float | None) -> bool:
    return number is None or number == round(number)


def _as_error(fault: Fault) -> QuarantineError:
    return QuarantineError(fault.code, fault.message, fault.remedy)


class ReadSeriesd(MapTransform):
    """Read the series of a case's roles; a case that the selection has set aside is refused with its reason.

    Args:
        keys: the roles.
        allow_missing_keys: go on where a role has no series.
    """

    def __init__(self, keys: Sequence[str] | str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each role's `Series` by its volume."""
        case = dict(data)
        if case.get("fault") is not None:
            raise _as_error(case["fault"])
        for key in self.key_iterator(case):
            case[key] = read_volume(case[key])
        return case
