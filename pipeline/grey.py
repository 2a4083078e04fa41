"""Grey pictures of 8 or 16 bits: PNG, JPEG, TIFF and BMP as they are meant to be seen, or a reason why not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from pipeline.errors import CaseError
from pipeline.store.files import open_file

Floats = npt.NDArray[np.float32]

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
#: Pixels a side, and in all: less shows nothing, and more is no radiograph but fills the memory.
LEAST_SIDE, MOST_SIDE, MOST_PIXELS = 4, 30_000, 1 << 26
#: Channels of a grey picture that went through JPEG's colours differ by no more, of 255.
ROUNDING = 2
#: A picture with nothing brighter than this part of white was saved in fewer bits than its file has: one of 12 bits in
#: 16 ends at a sixteenth of white.
DARK = 0.1
DARK_NOTE = "N_DARK: no part is brighter than a tenth of white (was it saved in fewer bits than its file has?)"
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
_COLOURED = ("RGB", "P", "LA", "RGBA", "PA")
_NO_GREY = ("CMYK", "YCbCr", "LAB", "HSV")
#: TIFF 6.0, PhotometricInterpretation (262): 0 is white.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_AS_GREY = "Save it as a grey PNG or TIFF of 8 or 16 bits; if it shows text or marks in colours, use the source."


@dataclass(frozen=True)
class Grey:
    """A picture.

    Attributes:
        values: (rows, columns), as stored, 0 is black.
        white: the value that is white: 255 or 65535.
        flags: what was done to it (codes `N_...`).
    """

    values: Floats
    white: float
    flags: tuple[str, ...] = ()


def read_grey(path: str | Path) -> Grey:
    """Read a grey picture; in colours it may be saved, if they are the same.

    It is turned as its EXIF says, and inverted where the file says that 0 is white.

    Raises:
        CaseError: E_PICTURE when it cannot be read, is a DICOM file, has parts that can be seen through, or another
            depth than 8 or 16 bits; E_NOT_SCALAR for colours; E_SIZE for too few or too many pixels; E_MULTIFRAME for
            several pages.
    """
    with _readable(), open_file(Path(path)) as stream:
        start = stream.read(132)
        if start[128:] == b"DICM":
            remedy = "Turn DICOM into images with `tandem ingest`, and name those."
            raise CaseError("E_PICTURE", "Expected a picture, got a DICOM file.", remedy)
        stream.seek(0)
        with Image.open(stream, formats=FORMATS) as image:
            return _read(image)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_many("more than can be counted") from error
    except UnidentifiedImageError as error:
        what = f"Expected a picture ({', '.join(FORMATS)}), got another kind of file."
        raise CaseError("E_PICTURE", what) from error
    except (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:80]
        raise CaseError("E_PICTURE", f"Expected a whole picture, but it cannot be read: {reason}.") from error


def _read(image: Any) -> Grey:
    check_size(image.size)
    if getattr(image, "n_frames", 1) > 1:
        remedy = "Save the page that is meant as a picture of its own."
        raise CaseError("E_MULTIFRAME", f"Expected one picture, got a file with {image.n_frames} pages.", remedy)
    deep = image.mode in _DEEP or (image.mode == "I" and image.format == "PNG")
    if _bits_lost(image, deep):
        raise CaseError("E_PICTURE", "Expected one channel of 16 bits, got several of 16 bits.", _AS_GREY)
    inverted = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    flags: tuple[str, ...] = ("N_INVERTED: 0 was white",) if inverted else ()
    turned = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turned in range(2, 9):
        flags += (f"N_TURNED: as its EXIF says (orientation {turned})",)
    image = image if isinstance(image, TiffImagePlugin.TiffImageFile) else ImageOps.exif_transpose(image)
    values, white = _values(image, deep)
    # of 8 bits Pillow inverts, of 16 it does not
    return Grey(white - values if inverted and deep else values, white, flags)


def check_size(size: tuple[int, int]) -> None:
    """Refuse a picture of (columns, rows) that shows nothing or fills the memory.

    Raises:
        CaseError: E_SIZE.
    """
    columns, rows = size
    if min(size) < LEAST_SIDE:
        what = f"Expected {LEAST_SIDE} pixels a side or more, got {columns} x {rows}."
        raise CaseError("E_SIZE", what, "Use the picture in the size in which it was taken.")
    if max(size) > MOST_SIDE or columns * rows > MOST_PIXELS:
        raise _too_many(f"{columns} x {rows}")


def _too_many(got: str) -> CaseError:
    what = f"Expected {MOST_SIDE} pixels a side and {MOST_PIXELS} in all at most, got {got}."
    return CaseError("E_SIZE", what, "Make it smaller first, or check that it is the picture that is meant.")


def _bits_lost(image: Any, deep: bool) -> bool:
    """Whether Pillow would give 8 bits of channels that have 16: the decoder's own name of them tells."""
    arguments = image.tile[0].args if image.tile else ""
    raw = arguments[0] if isinstance(arguments, tuple) else arguments
    return not deep and "16" in str(raw)


def _values(image: Any, deep: bool) -> tuple[Floats, float]:
    if deep:
        return np.asarray(image, dtype=np.float32), 65535.0
    if image.mode == "L":
        return np.asarray(image, dtype=np.float32), 255.0
    if image.mode in _COLOURED:
        return _of_colours(image), 255.0
    if image.mode in _NO_GREY:
        raise CaseError("E_NOT_SCALAR", f"Expected a grey picture, got the colours {image.mode}.", _AS_GREY)
    raise CaseError("E_PICTURE", f"Expected 8 or 16 bits a pixel, got Pillow's mode {image.mode}.", _AS_GREY)


def _of_colours(image: Any) -> Floats:
    channels = np.asarray(image.convert("RGBA"))
    if (channels[..., 3] < 255).any():
        what = "Expected a picture that covers all it shows, got parts that can be seen through (alpha)."
        raise CaseError("E_PICTURE", what, "Save it without transparency, on the ground that is meant.")
    colours = channels[..., :3]
    if (colours.max(-1) - colours.min(-1) > ROUNDING).any():
        raise CaseError("E_NOT_SCALAR", "Expected a grey picture, got colours.", _AS_GREY)
    return np.asarray(colours.mean(-1, dtype=np.float64), dtype=np.float32)
