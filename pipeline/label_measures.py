"""What is measured of the labels of a label image: size, and the image's values inside; and how a report says it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from monai.transforms import Transform
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from pipeline.cases import Record
from pipeline.geometry import orientation_of, spacing_mm
from pipeline.store.sections import Answer, Display, Regions, Section, Sections, Table
from pipeline.volumes import affine_of
from pipeline.words import NOT_AVAILABLE, clean, in_words, number_text, with_unit

PERCENTILES = (5, 25, 50, 75, 95)
#: Radius of a sphere of 1 ml. Source: SUVpeak, Wahl et al., PERCIST 1.0, J Nucl Med 50 Suppl 1, 2009.
PEAK_RADIUS_MM = (3 * 1000 / (4 * np.pi)) ** (1 / 3)
#: The tumour is where SUV is at least this part of its maximum. Source: Boellaard et al., EANM guideline 2.0, 2015.
MTV_PART = 0.41
#: Each voxel's part of the sphere is counted in so many points along each axis.
_PARTS = 5
SUV = "SUVbw"
HELP = {
    "Long axis": "The longest distance within one piece of the region in one axial slice, between voxel centres.",
    "Mean ± SD": "Mean and standard deviation of the image's values in the region.",
    "5 to 95 %": "The 5th and the 95th percentile of the values in the region.",
    "SUVpeak": "The highest mean over a sphere of 1 ml whose centre lies in the region.",
    "MTV": f"Volume of the part of the region with at least {MTV_PART:.0%} of its highest SUV.",
    "TLG": "Mean SUV of that part times its volume.",
}

Mask = npt.NDArray[np.bool_]
Measures = dict[str, float | None]


def label_measures(name: str, image: MetaTensor, values: Mapping[str, int], source: str) -> dict[str, Any]:
    """The measures of a label image.

    Args:
        name: its key in the case.
        image: (1, I, J, K), whole numbers, RAS mm.
        values: label name -> value.
        source: where it comes from, such as `RTSTRUCT`.

    Returns:
        `<name>_source`, `<name>_labels` (`1 tumour, 2 lymph_nodes`); of each label `<name>_<label>_volume_ml`, and
        `<name>_<label>_long_axis_mm`, which is None where the label has no voxel.
    """
    voxel_ml = abs(float(np.linalg.det(affine_of(image)[:3, :3]))) / 1000
    array = image.numpy()[0]
    regions = {label: array == value for label, value in values.items()}
    return {
        f"{name}_source": source,
        f"{name}_labels": ", ".join(f"{value} {label}" for label, value in values.items()),
        **{f"{name}_{label}_volume_ml": round(int(region.sum()) * voxel_ml, 6) for label, region in regions.items()},
        **{f"{name}_{label}_long_axis_mm": long_axis_mm(region, affine_of(image)) for label, region in regions.items()},
    }


def recorded_labels(name: str, records: Iterable[Record]) -> dict[str, int]:
    """The labels of a label image that a stage has recorded, as `label_measures` has written them: name -> value."""
    key = f"{name}_labels"
    texts = [str(record.measures[key]) for record in records if key in record.measures]
    pairs = [item.split(" ", 1) for item in texts[-1].split(", ")] if texts and texts[-1] else []
    return {label: int(value) for value, label in pairs}


def long_axis_mm(region: Mask, affine: npt.ArrayLike) -> float | None:
    """The longest distance within one piece of a region in one axial slice, between voxel centres; None if empty.

    Args:
        region: (I, J, K).
        affine: 4 x 4, RAS mm.

    Source: RECIST 1.1, Eisenhauer et al., Eur J Cancer 45, 2009 (longest diameter in the axial plane).
    """
    axis = next(number for number, letter in enumerate(orientation_of(affine)) if letter in "SI")
    sides = np.delete(spacing_mm(affine), axis)
    planes = np.moveaxis(region, axis, 0)
    longest: float | None = None
    for piece in (piece for plane in planes for piece in _pieces(plane)):
        # a piece cannot be longer than its box: specks, of which there may be thousands, are passed over
        if longest is None or float(np.linalg.norm((np.array(piece.shape) - 1) * sides)) > longest:
            longest = max(longest or 0.0, _longest(np.argwhere(piece) * sides))
    return None if longest is None else round(longest, 3)


def _pieces(plane: Mask) -> Iterator[Mask]:
    """The parts of a slice (I, J) that touch no other part, not even at a corner; each cut out."""
    numbers, _ = ndimage.label(plane, np.ones((3, 3)))
    yield from (numbers[box] == number for number, box in enumerate(ndimage.find_objects(numbers), start=1))


def _longest(points: npt.NDArray[np.float64]) -> float:
    """The largest distance between points (N, 2)."""
    try:
        points = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):  # on one line, or too few: all of them are corners
        points = points[[*np.lexsort(points.T)[[0, -1]], *np.lexsort(points.T[::-1])[[0, -1]]]]
    return float(pdist(points).max()) if len(points) > 1 else 0.0


def value_measures(image: MetaTensor, region: Mask, unit: str) -> Measures:
    """The values of an image in a region.

    Args:
        image: (1, I, J, K).
        region: (I, J, K) on its grid.
        unit: of the values: `HU`, `SUVbw` or another.

    Returns:
        `mean`, `sd` (of the population), `min`, `max` and `p<percentile>` with `_hu` behind them for HU; for SUV
        `suv_mean`, `suv_sd` … and `suv_peak`, `mtv_ml`, `tlg_g`. None of each where the region is empty.
    """
    values = np.asarray(image.numpy()[0], np.float64)[region]
    statistics: dict[str, Callable[..., Any]] = {"mean": np.mean, "sd": np.std, "min": np.min, "max": np.max}
    statistics |= {f"p{rank}": partial(np.percentile, q=rank) for rank in PERCENTILES}
    found: Measures = {name: round(float(of(values)), 6) if values.size else None for name, of in statistics.items()}
    if unit == SUV:
        return {f"suv_{name}": value for name, value in found.items()} | _tumour(image, region, values)
    return {f"{name}_hu" if unit == "HU" else name: value for name, value in found.items()}


def _tumour(image: MetaTensor, region: Mask, values: npt.NDArray[np.float64]) -> Measures:
    """SUVpeak, metabolic tumour volume and total lesion glycolysis."""
    if not values.size:
        return {"suv_peak": None, "mtv_ml": None, "tlg_g": None}
    voxel_ml = abs(float(np.linalg.det(affine_of(image)[:3, :3]))) / 1000
    active = values[values >= MTV_PART * values.max()]
    mtv_ml = active.size * voxel_ml
    peak = round(suv_peak(np.asarray(image.numpy()[0], np.float64), region, spacing_mm(affine_of(image))), 6)
    return {"suv_peak": peak, "mtv_ml": round(mtv_ml, 6), "tlg_g": round(float(active.mean()) * mtv_ml, 6)}


def suv_peak(values: npt.NDArray[np.float64], region: Mask, sides_mm: npt.NDArray[np.float64]) -> float:
    """The highest mean over a sphere of 1 ml whose centre is a voxel of the region; beyond the edge counts as the edge.

    Args:
        values: (I, J, K), SUV.
        region: (I, J, K), not empty.
        sides_mm: of a voxel, (3,).
    """
    kernel = sphere_parts(sides_mm)
    margin = np.array(kernel.shape) // 2
    where = np.argwhere(region)
    low, high = where.min(0) - margin, where.max(0) + margin + 1
    pad = [(int(max(0, -a)), int(max(0, b - size))) for a, b, size in zip(low, high, values.shape, strict=True)]
    box = tuple(slice(int(max(0, a)), int(min(b, size))) for a, b, size in zip(low, high, values.shape, strict=True))
    means = ndimage.correlate(np.pad(values[box], pad, mode="edge"), kernel, mode="nearest")
    return float(means[np.pad(region[box], pad)].max())


def sphere_parts(sides_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The part that each voxel has in a sphere of 1 ml round the middle one; the parts sum to 1."""
    reach = np.ceil(PEAK_RADIUS_MM / sides_mm + 0.5).astype(int)
    axes = [
        (np.arange(-(n * _PARTS + _PARTS // 2), n * _PARTS + _PARTS // 2 + 1) / _PARTS) * side
        for n, side in zip(reach, sides_mm, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside = (x**2 + y**2 + z**2 <= PEAK_RADIUS_MM**2).astype(float)
    blocks = [part for n in reach for part in (2 * n + 1, _PARTS)]
    parts = inside.reshape(blocks).sum(axis=(1, 3, 5))
    return np.asarray(parts / parts.sum())


class MeasureRegionsd(Transform):
    """Measure the values of images in the regions of label images, and say how images and regions are shown.

    `measures` gain `<mask>_<label>_<image>_<measure>` (see `value_measures`).

    Args:
        masks: key of a label image -> its labels and their values.
        over: key of a label image -> key, or keys, of images on whose grid it lies; what a case lacks is left out.
        displays: key of an image -> how it is shown; its unit says what is measured.
    """

    def __init__(
        self,
        masks: Mapping[str, Mapping[str, int]],
        over: Mapping[str, str | Sequence[str]],
        displays: Mapping[str, Display],
    ) -> None:
        self.masks = {name: dict(values) for name, values in masks.items()}
        self.over = {name: (at,) if isinstance(at, str) else tuple(at) for name, at in over.items() if name in masks}
        self.displays = dict(displays)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Measure the case's label images (1, I, J, K) and images (1, I, J, K)."""
        measures: dict[str, Any] = dict(data.get("measures") or {})
        for name, image, label, value in self._pairs(data):
            found = value_measures(data[image], data[name].numpy()[0] == value, self.displays[image].unit)
            measures |= {f"{name}_{label}_{image}_{key}": number for key, number in found.items()}
        return {**data, "measures": measures}

    def sections(self, case: Mapping[Hashable, Any]) -> Sections:
        """A table of the regions, an answer for each, and how images and regions are shown."""
        displays = tuple(display for key, display in self.displays.items() if key in case)
        regions = tuple(
            Regions(name, tuple(image for image in self.over[name] if image in case), names_of(name, values))
            for name, values in self.masks.items()
            if name in case
        )
        rows = tuple(self._row(case["measures"], *pair) for pair in self._pairs(case))
        tables = (Table("", ("Region", "Image", *_COLUMNS), rows, HELP),)
        sections = (Section("Regions", (), tables),) if rows else ()
        return Sections(sections, tuple(self._answers(case)), displays, regions)

    def _pairs(self, case: Mapping[Hashable, Any]) -> list[tuple[str, str, str, int]]:
        """Key of a label image, key of an image on its grid, label and value, for all that the case has."""
        return [
            (name, image, label, value)
            for name, values in self.masks.items()
            if name in case
            for image in self.over[name]
            if image in case
            for label, value in values.items()
        ]

    def _row(self, measures: Mapping[str, Any], name: str, image: str, label: str, _: int) -> tuple[str, ...]:
        unit, key = self.displays[image].unit, f"{name}_{label}_{image}"
        suffix, prefix = ("_hu", "") if unit == "HU" else ("", "suv_" if unit == SUV else "")
        parts = ("mean", "sd", "p5", "p95", "max")
        mean, sd, low, high, top = (measures[f"{key}_{prefix}{part}{suffix}"] for part in parts)
        return (
            _region_name(name, label),
            clean(self.displays[image].name),
            _text(measures.get(f"{name}_{label}_volume_ml"), "mL"),
            _text(measures.get(f"{name}_{label}_long_axis_mm"), "mm"),
            NOT_AVAILABLE if mean is None else f"{number_text(mean)} ± {_text(sd, unit)}",
            NOT_AVAILABLE if low is None else f"{number_text(low)} to {_text(high, unit)}",
            _text(top, unit),
            *(_text(measures.get(f"{key}_{part}"), what) for part, what in _OF_SUV),
        )

    def _answers(self, case: Mapping[Hashable, Any]) -> Iterator[Answer]:
        measures = case.get("measures") or {}
        for name, label in ((name, label) for name, values in self.masks.items() if name in case for label in values):
            volume, axis = (measures.get(f"{name}_{label}_{part}") for part in ("volume_ml", "long_axis_mm"))
            if volume is not None:
                size = _text(volume, "mL") + (f", long axis (axial) {_text(axis, 'mm')}" if axis is not None else "")
                yield Answer(_region_name(name, label), size, self._means(case, name, label))

    def _means(self, case: Mapping[Hashable, Any], name: str, label: str) -> str:
        """What the images say in a region, such as `CT 43.2 ± 12.1 HU, highest 96 HU`."""
        pairs = [pair for pair in self._pairs(case) if (pair[0], pair[2]) == (name, label)]
        rows = [self._row(case["measures"], *pair) for pair in pairs]
        return "; ".join(f"{row[1]} {row[4]}, highest {row[6]}" for row in rows if row[4] != NOT_AVAILABLE)


_OF_SUV = (("suv_peak", SUV), ("mtv_ml", "mL"), ("tlg_g", "g"))
_COLUMNS = ("Volume", "Long axis", "Mean ± SD", "5 to 95 %", "Highest", "SUVpeak", "MTV", "TLG")


def _region_name(name: str, label: str) -> str:
    return in_words(name) if name == label else f"{in_words(name)}: {clean(label).replace('_', ' ')}"


def _text(value: float | None, unit: str) -> str:
    return "–" if value is None else with_unit(number_text(value), unit)


def names_of(name: str, values: Mapping[str, int]) -> dict[int, str]:
    """Value -> what a reader calls the region of a label image, such as `Tumour CT: gtv`."""
    return {value: _region_name(name, label) for label, value in values.items()}
