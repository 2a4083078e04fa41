"""Decode compressed pixels. Runs in a process of its own (`pipeline.dicom.sandbox`): codecs crash on broken streams."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels import get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from pipeline.cases import Pixels
from pipeline.dicom.headers.encoding import open_dataset
from pipeline.dicom.pixels.native import read_frame

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Frames:
    """Some frames of one file.

    Attributes:
        path: the file.
        pixels: how they lie in it.
        rows: of a stored frame.
        columns: of a stored frame.
        numbers: which frames, from 0.
    """

    path: Path
    pixels: Pixels
    rows: int
    columns: int
    numbers: tuple[int, ...]


def decode(frames: Frames) -> Array:
    """The stored values of frames, (frames, rows, columns); pydicom tries each of its plugins until one succeeds.

    Raises:
        Exception: of many kinds, when none can.
    """
    pixels = frames.pixels
    with frames.path.open("rb") as file:
        if pixels.syntax == DeflatedExplicitVRLittleEndian:
            stream = open_dataset(file).stream
            return np.stack([read_frame(stream, pixels, frames.rows, frames.columns, n) for n in frames.numbers])
        file.seek(pixels.offset)
        encoded = io.BytesIO(file.read())
    options = {
        "rows": frames.rows,
        "columns": frames.columns,
        "number_of_frames": pixels.frames,
        "samples_per_pixel": pixels.samples,
        "photometric_interpretation": pixels.photometric,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": int(pixels.signed),
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(UID(pixels.syntax))
    found = decoder.iter_array(encoded, indices=frames.numbers, raw=True, **options)  # type: ignore[arg-type]
    return np.stack([values for values, _ in found])
