"""Read a NIfTI file that comes from outside: whole, checked, and in one certain place, or not at all.

Readers differ on what a header leaves open, and keep silent. Source: nifti1.h and nifti2.h
(https://nifti.nimh.nih.gov); field names are theirs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal.igzip import IGzipFile
from isal.igzip_lib import IsalError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError

from pipeline import geometry
from pipeline.cases import NiftiFile
from pipeline.errors import CaseError, PipelineError, QuarantineError, UsageError
from pipeline.store.files import open_file, require_given

if TYPE_CHECKING:
    from monai.data import MetaTensor

#: How far apart (mm) sform, qform and pixdim may put a corner voxel.
AFFINE_TOLERANCE_MM = 0.1
#: What the longest side of a volume of a patient, an animal or a specimen can measure, in mm.
EXTENT_MM = (1.0, 10_000.0)

#: xyzt_units & 7 -> the unit's name and its length in mm; what does not say its unit is in mm by custom.
_UNITS = {0: ("mm", 1.0), 1: ("metres", 1000.0), 2: ("mm", 1.0), 3: ("microns", 0.001)}
_SINGLE = (b"n+1\0", b"n+2\0\r\n\x1a\n")
_PAIR = (b"ni1\0", b"ni2\0\r\n\x1a\n")
_CODES = range(6)


@dataclass(frozen=True)
class Header:
    """What is needed of a header to read the volume.

    Attributes:
        shape: voxels along I, J, K.
        dtype: of the stored values, with their byte order.
        offset: where the voxels start, in bytes, in the file that holds them.
        slope: the stored values are multiplied by it, or None where they are not scaled.
        intercept: added after that.
        affine: 4 x 4, voxel index to RAS mm.
        pair: the voxels lie in a file of their own (`.img`).
        notes: what was seen and repaired (`N_...`).
        channels: how many volumes stand behind each other along K.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float | None
    intercept: float
    affine: npt.NDArray[np.float64]
    pair: bool
    notes: tuple[str, ...] = ()
    channels: int = 1

    @property
    def size_bytes(self) -> int:
        """How many bytes the voxels take, in whole numbers that do not overflow."""
        return self.shape[0] * self.shape[1] * self.shape[2] * self.dtype.itemsize


def refusal(message: str) -> QuarantineError:
    """The error of a file that cannot be used."""
    return QuarantineError("E_NIFTI", message)


def parse_header(stream: BinaryIO, channels: bool = False) -> Header:
    """Read a header from the start of a stream, and refuse what does not say one thing.

    Args:
        stream: the file's bytes.
        channels: the fourth axis, where there is one, is channels; `shape` then has them behind each other along K.

    Returns:
        The header; the stream stands behind its 348 (NIfTI-1) or 540 (NIfTI-2) bytes.

    Raises:
        QuarantineError: E_NIFTI.
    """
    fields, pair = _fields(stream)
    count = int(fields["dim"][4]) if channels and int(fields["dim"][0]) == 4 else 1
    if count > 1:
        fields["dim"][4] = 1
    shape, dtype = _shape(fields), _dtype(fields)
    slope, intercept = _scaling(fields)
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers are refused, not warned of
        affine, notes = _affine(fields, shape)
    shape = (shape[0], shape[1], shape[2] * count)
    return Header(shape, dtype, _offset(fields, pair), slope, intercept, affine, pair, notes, count)


def _fields(stream: BinaryIO) -> tuple[Any, bool]:
    """The raw fields as nibabel's header, without its corrections: they would hide what is wrong."""
    block = stream.read(348)
    sizes = {struct.unpack(f"{order}i", block[:4])[0] for order in "<>"} if len(block) == 348 else set()
    if 540 in sizes:
        block += stream.read(540 - 348)
        magic, kind = block[4:12], nib.Nifti2Header
    elif 348 in sizes:
        magic, kind = block[344:348], nib.Nifti1Header
    else:
        raise refusal("Expected a NIfTI header, got another format (such as NRRD or MGZ) or less than 348 bytes.")
    if magic not in (*_SINGLE, *_PAIR):
        raise refusal("Expected NIfTI, got an Analyze header: it does not say where the volume lies.")
    if len(block) != kind.sizeof_hdr:
        raise refusal("Expected a NIfTI header, got one that is cut.")
    return kind(block, check=False), magic in _PAIR


def _shape(fields: Any) -> tuple[int, int, int]:
    count, *sizes = (int(size) for size in fields["dim"])
    shape = tuple(sizes[:count])
    if not 3 <= count <= 7 or min(shape) < 1 or max((*shape[3:], 1)) > 1:
        single = "; one slice has a third axis of 1" if count == 2 else ""
        raise refusal(f"Expected one volume, got an image of shape {shape}{single}.")
    return shape[0], shape[1], shape[2]


def _dtype(fields: Any) -> np.dtype[Any]:
    try:
        dtype = np.dtype(fields.get_data_dtype())
        label = fields.get_value_label("datatype")
    except (KeyError, HeaderDataError) as error:
        raise refusal(f"Expected scalar voxels, got the unknown data type {int(fields['datatype'])}.") from error
    if dtype.kind not in "iuf":
        raise refusal(f"Expected scalar voxels, got {label}.")
    return dtype


def _offset(fields: Any, pair: bool) -> int:
    start = float(fields["vox_offset"])
    least = 0 if pair else int(fields["sizeof_hdr"]) + 4
    if not np.isfinite(start) or start != int(start) or (start and start < least):
        raise refusal(f"Expected vox_offset to be a whole number of {least} or more, got {start:g}.")
    return int(start) or least


def _scaling(fields: Any) -> tuple[float | None, float]:
    """Slope and intercept; a slope of 0 (the standard) or NaN (nibabel's files) says that nothing is scaled."""
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return None, 0.0
    if not np.isfinite((slope, intercept)).all():
        raise refusal(f"Expected finite scl_slope and scl_inter, got {slope:g} and {intercept:g}.")
    return (None, 0.0) if (slope, intercept) == (1.0, 0.0) else (slope, intercept)


def _affine(fields: Any, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    code = int(fields["xyzt_units"]) & 7
    if code not in _UNITS:
        raise refusal(f"Expected lengths in mm, metres or microns, got the unit code {code}.")
    unit, length_mm = _UNITS[code]
    notes = () if unit == "mm" else (f"N_UNITS: lengths in {unit} were turned into mm",)
    affine = _certain(fields, shape, np.diag([length_mm] * 3 + [1.0]))
    longest = float((geometry.spacing_mm(affine) * shape).max())
    if not EXTENT_MM[0] <= longest <= EXTENT_MM[1]:
        raise refusal(f"Expected a volume of {EXTENT_MM[0]:g} to {EXTENT_MM[1]:g} mm, got {longest:g} mm: wrong units?")
    return affine, notes


def _certain(fields: Any, shape: tuple[int, ...], to_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The affine in mm on which all readers agree."""
    sizes_mm = np.asarray(fields["pixdim"][1:4], dtype=np.float64) * to_mm[0, 0]
    if not np.isfinite(sizes_mm).all() or sizes_mm.min() <= 0:
        raise refusal(f"Expected voxel sizes above 0 in pixdim, got {_words(fields['pixdim'][1:4])}.")
    scode, qcode = int(fields["sform_code"]), int(fields["qform_code"])
    if scode not in _CODES or qcode not in _CODES:
        raise refusal(f"Expected codes of 0 to 5 for sform and qform, got {scode} and {qcode}.")
    if not scode and not qcode:
        raise refusal("Neither sform nor qform says where the volume lies: both codes are 0.")
    candidates = {}
    if scode:
        candidates["sform"] = _usable("sform", to_mm @ np.asarray(fields.get_sform(), dtype=np.float64))
    if qcode:
        candidates["qform"] = _usable("qform", to_mm @ _qform(fields))
    if len(candidates) == 2:
        corners = [geometry.corners(shape, affine) for affine in candidates.values()]
        apart = float(np.linalg.norm(corners[0] - corners[1], axis=1).max())
        if apart > AFFINE_TOLERANCE_MM:
            raise refusal(f"Its sform (code {scode}) and qform (code {qcode}) differ by {apart:.1f} mm.")
    name, affine = next(iter(candidates.items()))
    held = geometry.spacing_mm(affine)
    if (np.abs(held - sizes_mm) * np.maximum(np.asarray(shape) - 1, 1)).max() > AFFINE_TOLERANCE_MM:
        raise refusal(f"Its {name} has voxels of {_words(held)} mm, its pixdim of {_words(sizes_mm)} mm.")
    return affine


def _qform(fields: Any) -> npt.NDArray[np.float64]:
    factor = float(fields["pixdim"][0])
    quaternion = [float(fields[f"quatern_{letter}"]) for letter in "bcd"]
    if not np.isfinite([factor, *quaternion]).all() or np.linalg.norm(quaternion) > 1 + 1e-5:
        raise refusal("Expected a rotation in the qform, got numbers that are none.")
    # nifti1.h: pixdim[0] is -1 or 1, and whatever else stands there counts as 1
    fields["pixdim"][0] = -1.0 if factor < 0 else 1.0
    return np.asarray(fields.get_qform(), dtype=np.float64)


def _usable(name: str, affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    try:
        return geometry.check_affine(affine)
    except PipelineError as error:
        raise refusal(f"Its {name} cannot be used. {error.message}") from error


def _words(numbers: npt.ArrayLike) -> str:
    return " x ".join(f"{number:g}" for number in np.asarray(numbers, dtype=np.float64))


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
    return read_channels(path, channels=False)[0]


def read_channels(path: Path, channels: bool = True) -> list[Nifti]:
    """Read a NIfTI file like `read_nifti`; its fourth axis may be channels of one scene, each of which is a volume.

    Raises:
        QuarantineError, CaseError: as `read_nifti`.
    """
    with _readable(), _opened(path) as stream:
        header = parse_header(stream, channels)
        source = NiftiFile(path).files[-1]
        if header.pair and source == path:
            raise refusal("Expected an .img file beside the .hdr of a NIfTI pair, got none.")
        if header.pair:
            with _opened(source) as voxels:
                stored = _stored(voxels, header, source)
        else:
            stored = _stored(stream, header, path)
    parts = np.split(_real(stored, header), header.channels, axis=2)
    return [Nifti(part, header.affine, header.notes) for part in parts]


def read_header(path: Path) -> Header:
    """Read a file's header alone.

    Raises:
        QuarantineError, CaseError: as `read_nifti`.
    """
    with _readable(), _opened(path) as stream:
        return parse_header(stream)


def canonical(volume: Nifti) -> Nifti:
    """The volume with its axes nearest to right, front and head: turned and swapped, never resampled."""
    turn = io_orientation(volume.affine)
    affine = volume.affine @ inv_ornt_aff(turn, volume.values.shape)
    return Nifti(apply_orientation(volume.values, turn), affine, volume.notes)


def read_argument(path: Path) -> MetaTensor:
    """Read a NIfTI file that a command names.

    Returns:
        (1, I, J, K), int16 or float32, on its native grid.

    Raises:
        UsageError: E_NIFTI with the path and what is wrong; E_INPUT, E_UNREADABLE when it cannot be opened.
    """
    require_given(path, "a NIfTI file")
    try:
        return image_of(read_nifti(path))
    except PipelineError as error:
        raise UsageError(error.code, f"{path}: {error.message}", error.remedy) from error


def image_of(volume: Nifti) -> MetaTensor:
    """The volume as an image (1, I, J, K): int16 where every value is a whole number that fits, else float32.

    Raises:
        QuarantineError: E_NIFTI when values are too large for float32.
    """
    from pipeline import volumes  # and torch: who wants arrays alone goes without

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
    with open_file(path) as raw:
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
