"""From stored values to real-world values: each slice by its own rescale, padding set to what lies outside a body."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.cases import Instance, Series
from pipeline.dicom.pixels.pixels import padding_of, stored_values
from pipeline.dicom.series.units import is_hounsfield
from pipeline.errors import QuarantineError

Array = npt.NDArray[Any]

INT16 = np.iinfo(np.int16)
#: A slope or intercept beyond this may overflow whole numbers: it is reckoned with as a float.
WHOLE_LIMIT = 2**30
#: What a voxel outside the scanned field is set to.
AIR_HU = -1000.0
#: Padding whose value would be one of tissue is not trusted: it is left as it is.
TISSUE_HU = (-900.0, 3000.0)
#: Fat and air lie below this. Source: fat -120 to -60 HU, air -1000 HU.
FAT_HU, LEAST_AIR_OR_FAT = -30.0, 1e-3


def outside_value(series: Series) -> float:
    """What lies outside the scanned field: air in CT that is in HU, 0 elsewhere."""
    return AIR_HU if is_hounsfield(series) else 0.0


def read_slices(series: Series) -> tuple[Array, tuple[str, ...]]:
    """Read a series' values, in the order of its instances.

    Every slice is rescaled by its own slope and intercept, in float64: a reader that takes the first slice's for all,
    or rounds, is silently wrong where they differ (DICOM PS3.3 C.11.1.1.2).

    Returns:
        (slices, rows, columns), int16 where every value is a whole number that fits, else float32; and what was
        repaired or looks wrong (codes `N_...`).

    Raises:
        QuarantineError: as `stored_values`; E_RESCALE when the rescale of a slice cannot be right.
    """
    instances, first = series.instances, series.instances[0]
    whole = all(_is_whole(instance) for instance in instances)
    values: Array = np.empty((len(instances), first.rows, first.columns), np.int16 if whole else np.float32)
    padded, low, hounsfield = False, 0, is_hounsfield(series)
    for index, stored in stored_values(instances):
        real = rescaled(stored, instances[index])
        padded = _set_outside(real, stored, instances[index], hounsfield) or padded
        if values.dtype == np.int16 and (real.min() < INT16.min or real.max() > INT16.max):
            values = values.astype(np.float32)
        values[index] = real
        if values.dtype == np.float32 and not np.isfinite(values[index]).all():
            raise QuarantineError("E_RESCALE", f"Slice {index + 1} holds values that are not finite.")
        low += int(np.count_nonzero(real < FAT_HU)) if hounsfield else 0
    _require_matching_rescale(values, instances)
    no_air = hounsfield and low < LEAST_AIR_OR_FAT * values.size
    return values, (*(("N_PADDING",) if padded else ()), *(("N_NO_AIR",) if no_air else ()))


def rescaled(stored: Array, instance: Instance) -> Array:
    """Real-world values of one slice: int32 or int64 where slope and intercept are whole numbers, else float64."""
    slope, intercept = rescale_of(instance)
    if _is_whole(instance) and stored.dtype.kind in "iu":
        kind = np.int32 if stored.dtype.itemsize <= 2 and abs(slope) < 2**14 and abs(intercept) < 2**30 else np.int64
        real = stored.astype(kind)
        if slope != 1:
            np.multiply(real, kind(slope), out=real)
        return np.add(real, kind(intercept), out=real)
    return np.asarray(stored * np.float64(slope) + intercept)


def rescale_of(instance: Instance) -> tuple[float, float]:
    """Slope and intercept of a slice; 1 and 0 where it names none."""
    slope = 1.0 if instance.slope is None else instance.slope
    return slope, 0.0 if instance.intercept is None else instance.intercept


def _is_whole(instance: Instance) -> bool:
    whole = all(number == round(number) and abs(number) < WHOLE_LIMIT for number in rescale_of(instance))
    return whole and not (instance.pixels is not None and instance.pixels.floating)


def _set_outside(real: Array, stored: Array, instance: Instance, hounsfield: bool) -> bool:
    """Set padding in `real` to air or 0; whether that changed anything."""
    limits = padding_of(instance)
    if limits is None:
        return False
    slope, intercept = rescale_of(instance)
    ends = np.sort(np.multiply(limits, slope) + intercept)
    if hounsfield and TISSUE_HU[0] < ends[1] and ends[0] < TISSUE_HU[1]:
        return False
    outside = AIR_HU if hounsfield else 0.0
    padding = (stored >= limits[0]) & (stored <= limits[1])
    changed = bool((real[padding] != outside).any())
    real[padding] = outside
    return changed


def _require_matching_rescale(values: Array, instances: Sequence[Instance]) -> None:
    """Refuse a series in which a slice would fit its neighbours better with the rescale of most others than its own.

    Where every slice has a rescale of its own, as in PET, there is none of most others to compare with.

    Raises:
        QuarantineError: E_RESCALE.
    """
    pairs = [rescale_of(instance) for instance in instances]
    (usual, count), *others = Counter(pairs).most_common()
    if not others or count <= len(pairs) / 2:
        return
    usual_at = np.array([index for index, pair in enumerate(pairs) if pair == usual])
    for index in (index for index, pair in enumerate(pairs) if pair != usual):
        nearest = usual_at[np.argsort(np.abs(usual_at - index), kind="stable")[:2]]
        beside = values[nearest].astype(np.float64).mean(axis=0)
        own = values[index].astype(np.float64)
        as_usual = (own - pairs[index][1]) / pairs[index][0] * usual[0] + usual[1]
        if np.abs(as_usual - beside).mean() < np.abs(own - beside).mean():
            raise QuarantineError("E_RESCALE", f"Slice {index + 1} of {len(pairs)} does not fit its own rescale.")
