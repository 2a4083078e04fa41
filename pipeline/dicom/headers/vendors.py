"""What vendors write into private elements: b-values of diffusion images, and how a Siemens mosaic is unpacked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pipeline.cases import Instance
from pipeline.dicom.headers.values import BadNumberError, numbers
from pipeline.errors import QuarantineError
from pipeline.geometry import cross, moved

#: Element, the element that names its owner, and that name. Source: the DICOM conformance statements of Siemens MR
#: (syngo VB/VD), GE Signa (DV) and Philips Achieva (R5).
_PRIVATE = (
    (0x0019100C, 0x00190010, "SIEMENS MR HEADER"),
    (0x00431039, 0x00430010, "GEMS_PARM_01"),
    (0x20011003, 0x20010010, "Philips Imaging DD 001"),
)
#: What has to be read of a file to know its b-value.
DIFFUSION_TAGS = tuple(tag for element, owner, _ in _PRIVATE for tag in (element, owner))

#: GE adds this to the b-values of some sequences.
_GE_OFFSET = 1_000_000_000


def private_b_value(dataset: Dataset) -> str:
    """The b-value in s/mm2 as text, as DiffusionBValue (0018,9087) would have it.

    Args:
        dataset: the header's values, `DIFFUSION_TAGS` among them.

    Returns:
        Empty where no private element of a known owner holds a number.
    """
    for element, owner, name in _PRIVATE:
        if _has(dataset, element, owner, name):
            number = _first_number(dataset[element].value)
            if number is not None and 0 <= number < 2 * _GE_OFFSET:
                return f"{number % _GE_OFFSET:g}"
    return ""


def _first_number(value: Any) -> float | None:
    """The first of a value's numbers; some archives keep private numbers as plain bytes."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")
    first = next(iter(value), None) if isinstance(value, list | MultiValue) else value
    try:
        return float(str(first).strip(" \0"))
    except ValueError:
        return None


_CREATORS = {0x00190010: "SIEMENS MR HEADER", 0x00290010: "SIEMENS CSA HEADER"}
_TILE_COUNT, _CSA_IMAGE = 0x0019100A, 0x00291010
#: What has to be read of a file beside its values to unpack a mosaic.
MOSAIC_TAGS = (*_CREATORS, _TILE_COUNT, _CSA_IMAGE)

_MOST_TILES = 1024


def is_mosaic(image: Instance) -> bool:
    """Whether a file's image is a mosaic by its ImageType."""
    return "MOSAIC" in image.tags["ImageType"].split("\\")


def tiles_of(base: Instance, dataset: Dataset) -> tuple[Instance, ...]:
    """One instance for each tile that holds a slice, in the order of the slices.

    The header's position is that of the mosaic's first pixel as if the whole mosaic were one slice about the slice's
    centre; a tile's is found by going from there to the centre and back by half a tile. The slices follow each other
    along the normal that the private header names, which may be opposite to the cross product of the axes.

    Args:
        base: the file as one image.
        dataset: its values, `MOSAIC_TAGS` among them.

    Raises:
        QuarantineError: E_MOSAIC when the number, the normal or the distance of the slices is not certain.

    Source: nibabel's documentation of Siemens mosaics (nipy.org/nibabel/dicom/dicom_mosaic.html).
    """
    csa = _csa(dataset)
    count = _count(dataset, csa)
    side = math.ceil(math.sqrt(count))
    if base.pixels is None or base.pixels.frames != 1 or base.rows % side or base.columns % side:
        raise _unsure(f"its size does not divide into {side} x {side} tiles")
    normal, step = _normal(base, csa), _step_mm(base)
    rows, columns = base.rows // side, base.columns // side
    first = _first_position(base, base.rows - rows, base.columns - columns)
    tile = replace(base, rows=rows, columns=columns, pixels=replace(base.pixels, tiles=side))
    return tuple(replace(tile, frame=k, position=moved(first, normal, k * step)) for k in range(count))


def _unsure(why: str) -> QuarantineError:
    return QuarantineError("E_MOSAIC", f"A Siemens mosaic cannot be unpacked: {why}.")


def _csa(dataset: Dataset) -> dict[str, Any]:
    """The tags of the private image header; empty where there is none."""
    if not _has(dataset, _CSA_IMAGE, 0x00290010, _CREATORS[0x00290010]):
        return {}
    from nibabel.nicom import csareader

    try:
        return dict(csareader.read(dataset[_CSA_IMAGE].value)["tags"])
    except Exception as error:  # the private header may be broken in any way
        raise _unsure("its private header cannot be read") from error


def _has(dataset: Dataset, tag: int, creator: int, name: str) -> bool:
    """Whether a private element is there and is the one of its creator."""
    return tag in dataset and creator in dataset and str(dataset[creator].value).strip() == name


def _items(csa: dict[str, Any], name: str) -> list[Any]:
    return list(csa.get(name, {}).get("items", ()))


def _count(dataset: Dataset, csa: dict[str, Any]) -> int:
    """How many tiles hold a slice: where both places say it, they have to agree."""
    counts = {int(number) for number in _items(csa, "NumberOfImagesInMosaic")[:1]}
    if _has(dataset, _TILE_COUNT, 0x00190010, _CREATORS[0x00190010]):
        value = dataset[_TILE_COUNT].value
        counts.add(int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value))
    if len(counts) != 1 or not 1 <= min(counts) <= _MOST_TILES:
        raise _unsure("the number of its slices is not certain")
    return counts.pop()


def _normal(base: Instance, csa: dict[str, Any]) -> tuple[float, float, float]:
    """The direction in which the slices follow each other: along the slices' normal, or opposite to it."""
    if base.orientation is None or base.position is None or base.spacing_mm is None:
        raise _unsure("it has no position, orientation or spacing")
    normal = cross(base.orientation)
    named = _items(csa, "SliceNormalVector")
    if len(named) != 3:
        raise _unsure("the direction of its slices is not named")
    along = sum(x * float(y) for x, y in zip(normal, named, strict=True))
    if abs(abs(along) - 1) > 1e-3:
        raise _unsure("the direction of its slices is not normal to them")
    sign = 1.0 if along > 0 else -1.0
    return (sign * normal[0], sign * normal[1], sign * normal[2])


def _step_mm(base: Instance) -> float:
    try:
        step = numbers(base.tags["SpacingBetweenSlices"], 1)
    except BadNumberError:
        step = None
    if not step or step[0] <= 0:
        raise _unsure("the distance of its slices is missing")
    return step[0]


def _first_position(base: Instance, rows: int, columns: int) -> tuple[float, float, float]:
    """The mosaic's position moved by half of so many rows and columns."""
    row, column = (base.orientation or ())[:3], (base.orientation or ())[3:]
    between_rows, between_columns = base.spacing_mm or (0.0, 0.0)
    x, y, z = (
        start + right * between_columns * columns / 2 + down * between_rows * rows / 2
        for start, right, down in zip(base.position or (), row, column, strict=True)
    )
    return (x, y, z)
