"""What the stored numbers mean: rescale, unit, photometric interpretation, padding, bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, PositronEmissionTomographyImageStorage

from pipeline.errors import CaseError
from pipeline.simulation.dicom import decimal_string
from tests.phantoms.faults.editing import (
    edit,
    in_order,
    middle,
    seen_at_position,
    set_everywhere,
    set_pixels,
    set_values,
)

#: Where a padded position phantom ends: what lies above this value (HU) holds the padding value instead.
PADDED_ABOVE_HU = 250.0


def changing_rescale(folder: Path) -> list[Path]:
    """Encode each slice with a RescaleSlope and RescaleIntercept of its own; the values they give stay the same.

    Raises:
        CaseError: E_DTYPE when a slice's range does not fit 16 bits at slope 0.25.
    """
    slopes = (1.0, 0.5, 0.25)

    def change(slice_: Dataset) -> None:
        number = int(slice_.InstanceNumber)
        values = slice_.pixel_array * float(slice_.get("RescaleSlope", 1)) + float(slice_.get("RescaleIntercept", 0))
        slope, intercept = slopes[number % 3], np.floor(values.min()) - number % 5
        stored = (values - intercept) / slope
        if stored.max() > np.iinfo(np.int16).max:
            raise CaseError("E_DTYPE", f"Expected a range below 8192 in each slice, got up to {np.ptp(values):g}.")
        set_pixels(slice_, np.rint(stored))
        slice_.RescaleSlope, slice_.RescaleIntercept = f"{slope:g}", f"{intercept:.0f}"

    return edit(in_order(folder), change)


def fractional_rescale(folder: Path) -> list[Path]:
    """Encode each slice of a position phantom but the first with fractions as slope and intercept; the values stay.

    The first one's are whole numbers: a reader that takes its kind of numbers for all of them rounds.
    """

    def change(slice_: Dataset) -> None:
        number = int(slice_.InstanceNumber)
        slope, intercept = (1.0, -1024.0) if number == 1 else (0.1 + 0.013 * (number % 7), -1024.5)
        set_pixels(slice_, np.rint((seen_at_position(slice_) - intercept) / slope))
        slice_.RescaleSlope, slice_.RescaleIntercept = f"{slope:.3f}", f"{intercept:.1f}"

    return edit(in_order(folder), change)


def missing_rescale(folder: Path, everywhere: bool = True) -> list[Path]:
    """Delete RescaleSlope (0028,1053) and RescaleIntercept (0028,1052) from all slices, or from one."""

    def change(slice_: Dataset) -> None:
        del slice_.RescaleSlope, slice_.RescaleIntercept

    return edit(in_order(folder) if everywhere else [middle(folder)], change)


def wrong_intercept(folder: Path, intercept_hu: float = 0.0) -> list[Path]:
    """Write another RescaleIntercept (0028,1052) in one slice; its stored values stay."""
    return edit([middle(folder)], lambda slice_: setattr(slice_, "RescaleIntercept", f"{intercept_hu:g}"))


def zero_slope(folder: Path, everywhere: bool = True) -> list[Path]:
    """Write 0 as RescaleSlope (0028,1053) of all slices, or of one."""
    return edit(
        in_order(folder) if everywhere else [middle(folder)], lambda slice_: setattr(slice_, "RescaleSlope", "0")
    )


def pet(folder: Path) -> list[Path]:
    """Turn the slices of a CT position phantom into PET in Bq/ml, with 0.5 as slope."""
    said: dict[str, object] = {
        "Modality": "PT",
        "SOPClassUID": PositronEmissionTomographyImageStorage,
        "Units": "BQML",
        "SeriesType": ["STATIC", "IMAGE"],
        "CorrectedImage": ["DECY", "ATTN"],
        "DecayCorrection": "START",
        "RescaleSlope": "0.5",
        "RescaleIntercept": "0",
    }

    def change(slice_: Dataset) -> None:
        del slice_.KVP, slice_.ConvolutionKernel, slice_.RescaleType, slice_.WindowCenter, slice_.WindowWidth
        set_values(slice_, said)
        slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID
        set_pixels(slice_, np.rint(seen_at_position(slice_) / 0.5))

    return edit(in_order(folder), change)


def in_unit(folder: Path, factor: float = 1.0, offset: float = 0.0, half: bool = False, **said: str) -> list[Path]:
    """Turn the values of all slices, or of their second half, into another unit by their rescale, and say which.

    Args:
        folder: of a clean series with a rescale; the stored values stay.
        factor: what one of the old unit is in the new one.
        offset: the new unit's value of what was 0.
        half: leave the first half of the slices as they are.
        said: by DICOM keyword, such as Units (0054,1001) or RescaleType (0028,1054); an empty one is left out.
    """
    paths = in_order(folder)

    def change(slice_: Dataset) -> None:
        slice_.RescaleSlope = decimal_string(float(slice_.RescaleSlope) * factor)
        slice_.RescaleIntercept = decimal_string(float(slice_.RescaleIntercept) * factor + offset)
        for keyword in said:
            del slice_[keyword]
        set_values(slice_, {keyword: value for keyword, value in said.items() if value})

    return edit(paths[len(paths) // 2 :] if half else paths, change)


def monochrome1(folder: Path) -> list[Path]:
    """Declare every slice MONOCHROME1: low values white."""
    return set_everywhere(folder, PhotometricInterpretation="MONOCHROME1")


def colour(folder: Path) -> list[Path]:
    """Turn every slice into RGB of 8 bits."""

    def change(slice_: Dataset) -> None:
        grey = np.clip(slice_.pixel_array // 8, 0, 255).astype(np.uint8)
        slice_.SamplesPerPixel, slice_.PlanarConfiguration, slice_.PhotometricInterpretation = 3, 0, "RGB"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 8, 8, 7, 0
        slice_.PixelData = np.repeat(grey[:, :, None], 3, axis=2).tobytes()
        slice_["PixelData"].VR = "OB"

    return edit(in_order(folder), change)


def padded(folder: Path, stored: int, up_to: int | None = None) -> list[Path]:
    """Fill the corner of a position phantom that lies above `PADDED_ABOVE_HU` with PixelPaddingValue (0028,0120).

    Args:
        folder: of a clean series of unsigned values; becomes signed where `stored` is negative.
        stored: the padding value, not rescaled.
        up_to: PixelPaddingRangeLimit (0028,0121); the padding takes all values in between.
    """

    def change(slice_: Dataset) -> None:
        outside = seen_at_position(slice_) > PADDED_ABOVE_HU
        rows = slice_.pixel_array.astype(np.int64)
        limit = stored if up_to is None else up_to
        rows[outside] = np.linspace(stored, limit, int(outside.sum())).round()
        slice_.PixelRepresentation = int(stored < 0)
        set_pixels(slice_, rows)
        kind = "SS" if stored < 0 else "US"
        slice_.add_new("PixelPaddingValue", kind, stored)
        if up_to is not None:
            slice_.add_new("PixelPaddingRangeLimit", kind, up_to)

    return edit(in_order(folder), change)


def twelve_bits(folder: Path, syntax: UID | None = None, high_bit: int = 11, lossy: bool = False) -> list[Path]:
    """Store signed values in 12 of 16 bits, with other bits set beside them, as overlays once were (PS3.5 8.1.2).

    Args:
        folder: of a clean series.
        syntax: compresses all 16 bits.
        high_bit: HighBit (0028,0102).
        lossy: compress with loss (JPEG 2000).
    """

    def change(slice_: Dataset) -> None:
        values = slice_.pixel_array.astype(np.int64) + int(slice_.RescaleIntercept)
        others = (np.indices(values.shape).sum(axis=0) % 16) << 12
        shift = high_bit - 11
        words = (values & 0x0FFF) | others
        slice_.PixelData = ((words << shift | words >> (16 - shift)) & 0xFFFF).astype("<u2").tobytes()
        slice_.PixelRepresentation, slice_.RescaleIntercept = 1, "0"
        if syntax is not None:  # the codec is told of 16 bits, so that it keeps them
            slice_.BitsStored, slice_.HighBit = 16, 15
            settings = {"j2k_psnr": [60]} if lossy else {}
            slice_.compress(syntax, generate_instance_uid=False, encoding_plugin="", **settings)
        slice_.BitsStored, slice_.HighBit = 12, high_bit

    return edit(in_order(folder), change)


def eight_bits(folder: Path) -> list[Path]:
    """Store values in 8 bits, with an intercept of each slice's own."""

    def change(slice_: Dataset) -> None:
        rows = slice_.pixel_array.astype(np.int64)
        slice_.RescaleIntercept = str(int(slice_.RescaleIntercept) + int(rows.min()))
        _store(slice_, rows - rows.min(), "u1")

    return edit(in_order(folder), change)


def thirty_two_bits(folder: Path) -> list[Path]:
    """Store values in 32 bits, unsigned, above 65,535."""

    def change(slice_: Dataset) -> None:
        rows = slice_.pixel_array.astype(np.int64) + 100_000
        slice_.RescaleIntercept = str(int(slice_.RescaleIntercept) - 100_000)
        _store(slice_, rows, "<u4")

    return edit(in_order(folder), change)


def floats(folder: Path, double: bool = False) -> list[Path]:
    """Store a position phantom's values, not rounded, as FloatPixelData (7FE0,0008) or DoubleFloatPixelData."""

    def change(slice_: Dataset) -> None:
        values = seen_at_position(slice_)
        del slice_.PixelData, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation
        slice_.RescaleIntercept = "0"
        slice_.BitsAllocated = 64 if double else 32
        if double:
            slice_.DoubleFloatPixelData = values.astype("<f8").tobytes()
        else:
            slice_.FloatPixelData = values.astype("<f4").tobytes()

    return edit(in_order(folder), change)


def burned_in(folder: Path) -> list[Path]:
    """Declare that text is burned into the pixels: BurnedInAnnotation (0028,0301)."""
    return set_everywhere(folder, BurnedInAnnotation="YES")


def _store(slice_: Dataset, rows: np.ndarray, kind: str) -> None:
    bits = 8 * np.dtype(kind).itemsize
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = bits, bits, bits - 1, 0
    slice_.PixelData = rows.astype(kind).tobytes()
    slice_["PixelData"].VR = "OB" if bits == 8 else "OW"
