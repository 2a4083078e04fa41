"""Read a NIfTI file that comes from outside: whole, checked, and in one certain place, or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from isal.igzip import IGzipFile
from isal.igzip_lib import IsalError
from monai.data import MetaTensor

from pipeline import volumes
from pipeline.cases import NiftiFile
from pipeline.errors import CaseError, PipelineError, UsageError
from pipeline.nifti.header import Header, parse_header, refusal

#: The most that deflate can pack a byte (zlib's technical notes): a header that promises more lies.
MOST_PACKED = 1032
CHUNK_BYTES = 1 << 20
INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Nifti:
    """A volume as the file says it.

    Attributes:
        values: (I, J, K), real numbers, rescaled.
        affine: 4 x 4, voxel index to RAS mm.
        notes: what was seen and repaired (`N_...`).
    """

    values: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()


def read_nifti(path: Path) -> Nifti:
    """Read a NIfTI-1 or NIfTI-2 volume, packed or not, of any byte order; the whole file, so that its checksum counts.

    Args:
        path: `.nii`, `.nii.gz`, or the `.hdr` of a pair; what the file is, its content says.

    Raises:
        QuarantineError: E_NIFTI when it is damaged, is not one scalar volume, or does not say where that lies.
        CaseError: E_UNREADABLE when the file cannot be opened.
    """
    with _readable(), _opened(path) as stream:
        header = parse_header(stream)
        source = NiftiFile(path).files[-1]
        if header.pair and source == path:
            raise refusal("Expected an .img file beside the .hdr of a NIfTI pair, got none.")
        if header.pair:
            with _opened(source) as voxels:
                stored = _stored(voxels, header, source)
        else:
            stored = _stored(stream, header, path)
    return Nifti(_real(stored, header), header.affine, header.notes)


def read_header(path: Path) -> Header:
    """Read a file's header alone.

    Raises:
        QuarantineError, CaseError: as `read_nifti`.
    """
    with _readable(), _opened(path) as stream:
        return parse_header(stream)


def read_argument(path: Path) -> MetaTensor:
    """Read a NIfTI file that a command names.

    Returns:
        (1, I, J, K), int16 or float32, on its native grid.

    Raises:
        UsageError: E_NIFTI with the path and what is wrong.
    """
    try:
        return image_of(read_nifti(path))
    except PipelineError as error:
        raise UsageError("E_NIFTI", f"{path}: {error.message}") from error


def image_of(volume: Nifti) -> MetaTensor:
    """The volume as an image (1, I, J, K): int16 where every value is a whole number that fits, else float32.

    Raises:
        QuarantineError: E_NIFTI when values are too large for float32.
    """
    values = volume.values
    low, high = float(values.min()), float(values.max())
    if max(-low, high) > float(np.finfo(np.float32).max):
        raise refusal("Expected values that fit float32, got larger ones.")
    if low >= INT16.min and high <= INT16.max and (values.astype(np.int16) == values).all():
        return volumes.volume(values.astype(np.int16), volume.affine)
    return volumes.volume(values.astype(np.float32), volume.affine)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (EOFError, BadGzipFile, zlib.error, IsalError) as error:  # type: ignore[misc]  # wrongly typed in its stub
        raise refusal("The file cannot be read whole: its compressed data are cut or damaged.") from error
    except OSError as error:
        raise CaseError("E_UNREADABLE", f"The file cannot be read ({error.strerror}).") from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file's content, unpacked where it is packed, whatever its name says."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            yield raw
            return
        with IGzipFile(fileobj=raw) as stream:
            yield cast(BinaryIO, stream)


def _stored(stream: BinaryIO, header: Header, path: Path) -> npt.NDArray[Any]:
    """The stored values (I, J, K); what the header promises is checked before memory is taken for it."""
    packed = isinstance(stream, IGzipFile)
    promised, room = header.offset + header.size_bytes, path.stat().st_size * (MOST_PACKED if packed else 1)
    if promised <= room:
        stream.seek(header.offset)
        content = stream.read(header.size_bytes)
        while packed and stream.read(CHUNK_BYTES):  # the checksum stands at the end
            continue
        if len(content) == header.size_bytes:
            return np.frombuffer(content, header.dtype).reshape(header.shape, order="F")
    raise refusal(f"Expected {header.size_bytes} bytes of voxels, as its header says, got fewer.")


def _real(stored: npt.NDArray[Any], header: Header) -> npt.NDArray[Any]:
    values = stored if header.slope is None else stored.astype(np.float64) * header.slope + header.intercept
    if values.dtype.kind == "f":
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        if wrong:
            raise refusal(f"Expected finite values, got {wrong} that are NaN or infinite.")
    return values
