"""Bits of the pixels that no stored value needs: an overlay of before, with a name in it, can lie there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import FileDataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import _get_jpg_parameters, get_j2k_parameters
from pydicom.uid import UID, ExplicitVRBigEndian, JPEG2000TransferSyntaxes, RLELossless

from pipeline.cases import Instance, Pixels
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.pixels.pixels import padding_of, stored_values
from pipeline.errors import QuarantineError

Array = npt.NDArray[Any]


def clear_unused_bits(dataset: FileDataset, path: Path, syntax: UID) -> None:
    """Clear the bits outside BitsStored (0028,0101) of plain pixels, in place; signs run on, and padding stays.

    Raises:
        QuarantineError: E_BURNED_IN when compressed pixels have such bits; what reading them raises.

    Source: DICOM PS3.5 8.1.1 (unused bits of a cell); PS3.5-2004 8.1.2 (overlays in them).
    """
    pixels = _pixels(dataset, syntax)
    if pixels is None or pixels.bits_stored >= pixels.bits_allocated:
        return
    texts = {name: str(dataset.get(name, "")) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")}
    image = Instance(path, "", None, None, None, 0, 0, None, None, texts, pixels=pixels)
    if syntax.is_compressed and syntax.is_encapsulated:
        if any(_cleared(values, pixels, padding_of(image)) is not None for values in _decoded(dataset, path, pixels)):
            raise QuarantineError("E_BURNED_IN", "Unused bits of the compressed pixels hold something, as overlays do.")
        return
    width = pixels.bits_allocated // 8
    kind = f"{'>' if syntax == ExplicitVRBigEndian else '<'}{'i' if pixels.signed else 'u'}{width}"
    raw = dataset.PixelData or b""
    whole = len(raw) // width * width
    cleared = _cleared(np.frombuffer(raw[:whole], kind), pixels, padding_of(image))
    if cleared is not None:
        dataset.PixelData = cleared.astype(kind).tobytes() + raw[whole:]


def _pixels(dataset: FileDataset, syntax: UID) -> Pixels | None:
    """How the values lie in their cells, or None where there are none of whole bytes."""
    allocated, stored = (int(dataset.get(name) or 0) for name in ("BitsAllocated", "BitsStored"))
    if "PixelData" not in dataset or allocated not in (8, 16, 32) or stored < 1:
        return None
    high = int(dataset.get("HighBit") or 0)
    high = high if stored - 1 <= high < allocated else stored - 1
    return Pixels(0, None, str(syntax), allocated, stored, high, dataset.get("PixelRepresentation") == 1)


def _cleared(values: Array, pixels: Pixels, padding: tuple[int, int] | None) -> Array | None:
    """The values without unused bits; None where they have none: all are 0, or all continue the sign."""
    above, below = pixels.bits_allocated - 1 - pixels.high_bit, pixels.high_bit + 1 - pixels.bits_stored
    cleared = np.asarray(values << above >> (above + below) << below)
    zeros = cleared & ((1 << (pixels.high_bit + 1)) - 1)
    kept = np.zeros(values.shape, bool) if padding is None else (values >= padding[0]) & (values <= padding[1])
    if ((cleared == values) | kept).all() or ((zeros == values) | kept).all():
        return None
    cleared[kept] = values[kept]
    return cleared


def _decoded(dataset: FileDataset, path: Path, pixels: Pixels) -> Iterator[Array]:
    """The values of compressed pixels that may have unused bits; nothing where the codec itself knows fewer bits."""
    if pixels.syntax == RLELossless:
        options: dict[str, Any] = {"raw": True, "correct_unused_bits": False, "decoding_plugin": "pydicom"}
        yield from (values for values, _ in get_decoder(RLELossless).iter_array(dataset, **options))
        return
    frames = generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    parameters = get_j2k_parameters if pixels.syntax in JPEG2000TransferSyntaxes else _get_jpg_parameters
    if all(0 < parameters(frame).get("precision", 0) <= pixels.bits_stored for frame in frames):
        return
    every_bit = {"bits_stored": pixels.bits_allocated, "high_bit": pixels.bits_allocated - 1}
    found = [image for image in read_header(path).instances if image.pixels is not None]
    yield from (v for _, v in stored_values([replace(i, pixels=replace(i.pixels, **every_bit)) for i in found]))  # type: ignore[type-var]
