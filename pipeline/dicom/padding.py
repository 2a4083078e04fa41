"""Padding: stored values that stand for no measurement, where the scanned field does not fill the picture."""

from __future__ import annotations

from pipeline.cases import Instance, Pixels


def padding_of(instance: Instance) -> tuple[int, int] | None:
    """The first and last stored value that are padding, or None where the header names none.

    Source: DICOM PS3.3 C.7.5.1.1.2: PixelPaddingValue (0028,0120), alone or up to PixelPaddingRangeLimit (0028,0121).
    """
    if instance.pixels is None or instance.pixels.floating:
        return None
    first = _stored_number(instance.tags.get("PixelPaddingValue", ""), instance.pixels)
    last = _stored_number(instance.tags.get("PixelPaddingRangeLimit", ""), instance.pixels)
    if first is None:
        return None
    return min(first, first if last is None else last), max(first, first if last is None else last)


def _stored_number(text: str, pixels: Pixels) -> int | None:
    """A header's stored value, read as the pixels are: 63536 in a signed image of 16 bits is -2000."""
    try:
        number = int(text) % (1 << pixels.bits_allocated)
    except ValueError:
        return None
    return number - (1 << pixels.bits_allocated) if pixels.signed and number >> (pixels.bits_allocated - 1) else number
