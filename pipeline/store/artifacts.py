"""How each kind of output is written, read back by an independent reader, and described."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import SimpleITK as sitk
from isal.igzip import IGzipFile
from isal.isal_zlib import error as IsalError  # noqa: N812 - the class, under its own name
from monai.data import MetaTensor

from pipeline import geometry, volumes
from pipeline.cases import Artifact, Geometry
from pipeline.columns import escape_cell
from pipeline.errors import CaseError
from pipeline.store.files import full_disk_named, write_atomic
from pipeline.store.plain import measure

Array = npt.NDArray[Any]

#: Of isal, from 0 to 3: about five times as fast as zlib, for files that are some percent larger.
GZIP_LEVEL = 2
#: A NIfTI-1 file's voxels start here when it has no extensions. Source: NIfTI-1, vox_offset.
NIFTI_HEADER_BYTES = 352
CHUNK_BYTES = 1 << 20
_ITK_TYPES = {
    "uint8": "8-bit unsigned integer",
    "int16": "16-bit signed integer",
    "uint16": "16-bit unsigned integer",
    "float32": "32-bit float",
}
#: Transforms with fewer numbers than this are stored as they are.
LEAST_PACKED = 1000


@dataclass(frozen=True)
class Format:
    """A kind's file format: how a value is prepared, written and checked against what is on the disk.

    Attributes:
        suffix: of the file's name; empty: the value's own.
    """

    suffix: str
    prepare: Callable[[Any], Any]
    write: Callable[[Any, Path], object]
    check: Callable[[Any, Path], None]


def save(key: str, kind: str, value: Any, folder: Path) -> tuple[Path, Artifact]:
    """Write one output, verified and atomically.

    Args:
        key: its key in the case dictionary; also its file name.
        kind: see `pipeline.cases.Kind`.
        value: a MetaTensor, transform, table, measure or document, as the kind asks.
        folder: the stage's folder of the case.

    Returns:
        The path and its description (with the file's name as path).

    Raises:
        CaseError: E_DTYPE when the value does not fit the kind, E_VERIFY when the disk does not hold what was written.
    """
    if kind not in FORMATS:
        raise CaseError("E_CONFIG", f"Expected one of {', '.join(FORMATS)} as the kind of {key}, got {kind}.")
    form = FORMATS[kind]
    prepared = form.prepare(value)
    path = folder / f"{key}{form.suffix or value.suffix}"
    digest = write_atomic(path, lambda p: form.write(prepared, p), lambda p: form.check(prepared, p))
    return path, Artifact(key, kind, path.name, digest, _geometry(value))


def _geometry(value: Any) -> Geometry | None:
    if not isinstance(value, MetaTensor):
        return None
    affine = volumes.affine_of(value)
    return Geometry(tuple(value.shape[1:]), tuple(tuple(float(number) for number in row) for row in affine))


# ---- volumes ---------------------------------------------------------------------------------------------------------


def _volume(image: Any, array: Array) -> MetaTensor:
    made = volumes.volume(array, volumes.affine_of(image))
    if volumes.WHITE in image.meta:
        made.meta[volumes.WHITE] = image.meta[volumes.WHITE]
    return made


def _array(image: Any) -> Array:
    if not isinstance(image, MetaTensor) or image.ndim != 4:
        raise CaseError("E_DTYPE", f"Expected a MetaTensor (C, I, J, K), got {type(image).__name__}.")
    array = image.detach().cpu().numpy()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CaseError("E_DTYPE", f"Expected finite values, got {int((~np.isfinite(array)).sum())} that are not.")
    return np.asarray(array)


def _image(image: Any) -> MetaTensor:
    array = _array(image)
    whole = array.dtype.kind in "iub"
    fits = whole and array.min() >= -32768 and array.max() <= 32767
    return _volume(image, array.astype(np.int16 if fits else np.float32, copy=False))


def _label(image: Any) -> MetaTensor:
    array = _array(image)
    if (array != np.round(array)).any() or array.min() < 0 or array.max() > 65535:
        raise CaseError("E_DTYPE", f"Expected labels 0 to 65535, got values from {array.min()} to {array.max()}.")
    return _volume(image, array.astype(np.uint8 if array.max() <= 255 else np.uint16, copy=False))


def _probability(image: Any) -> MetaTensor:
    array = _array(image).astype(np.float32, copy=False)
    if array.min() < 0 or array.max() > 1:
        raise CaseError("E_DTYPE", f"Expected probabilities, got values from {array.min()} to {array.max()}.")
    return _volume(image, array)


def _write_nifti(image: MetaTensor, path: Path) -> None:
    array = image.numpy()
    stored = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    affine = volumes.affine_of(image)
    nifti = nib.Nifti1Image(stored, affine)
    nifti.header.set_xyzt_units("mm")
    nifti.header["cal_max"] = image.meta.get(volumes.WHITE, 0.0)
    nifti.set_sform(affine, code=1)
    nifti.set_qform(affine, code=1)
    # no time and no name in the gzip header: the same image gives the same bytes
    with path.open("wb") as raw, IGzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as stream:
        nifti.to_stream(stream)


def _check_nifti(image: MetaTensor, path: Path) -> None:
    """Compare every voxel with the bytes on the disk, and the geometry with what SimpleITK, another library, reads."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        same = _holds(path, image, reader.GetPixelID())
    except (RuntimeError, OSError, EOFError, IsalError) as error:  # type: ignore[misc]  # the stub has no class
        raise CaseError("E_VERIFY", f"The file {path.name} cannot be read back.") from error
    if not same:
        raise CaseError("E_VERIFY", f"The file {path.name} does not hold the values that were written.")
    if np.abs(_affine_held(reader) - volumes.affine_of(image)).max() > 1e-3:
        raise CaseError("E_VERIFY", f"The file {path.name} does not hold the geometry that was written.")


def _holds(path: Path, image: MetaTensor, pixel_id: int) -> bool:
    """Whether the file's voxels are the image's, in type, number and value; never holds the file in memory."""
    array = image.numpy()
    voxels = np.ascontiguousarray(array.transpose(0, 3, 2, 1)).reshape(-1)
    if sitk.GetPixelIDValueAsString(pixel_id) != _ITK_TYPES[array.dtype.name]:
        return False
    expected = memoryview(voxels.view(np.uint8).data)
    with IGzipFile(path, "rb") as stream:
        stream.read(NIFTI_HEADER_BYTES)
        for start in range(0, len(expected), CHUNK_BYTES):
            if stream.read(CHUNK_BYTES) != expected[start : start + CHUNK_BYTES]:
                return False
        return stream.read(1) == b""


def _affine_held(reader: sitk.ImageFileReader) -> Array:
    """The RAS affine that a file's header gives; of its first three axes where it has four."""
    size = reader.GetDimension()
    affine = np.eye(4)
    axes = np.asarray(reader.GetDirection()).reshape(size, size)[:3, :3]
    affine[:3, :3] = axes * np.asarray(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    return geometry.LPS_RAS @ affine


# ---- transforms, tables, measures, documents -------------------------------------------------------------------------


def _write_transform(transform: sitk.Transform, path: Path) -> None:
    """ITK's HDF5 file without what changes from run to run: its time stamps, and the system that wrote it."""
    raw = path.with_name(f"{path.stem}-itk{path.suffix}")
    try:
        with full_disk_named(path):  # before the raw file is taken away
            sitk.WriteTransform(transform, str(raw))
            with h5py.File(raw) as source, h5py.File(path, "w") as target:
                parts = source["TransformGroup"]
                parts.visititems(lambda name, item: _copy_part(f"TransformGroup/{name}", item, target))
    finally:
        raw.unlink(missing_ok=True)


def _copy_part(name: str, item: Any, target: h5py.File) -> None:
    if isinstance(item, h5py.Group):
        target.create_group(name)
        return
    packed = {"compression": "gzip", "shuffle": True} if item.size >= LEAST_PACKED else {}
    target.create_dataset(name, data=item[()], dtype=item.dtype, track_times=False, **packed)


def _check_transform(transform: sitk.Transform, path: Path) -> None:
    """Compare every number with what SimpleITK, which did not write the file, reads."""
    try:
        stored = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise CaseError("E_VERIFY", f"The file {path.name} cannot be read back.") from error
    same = np.array_equal(stored.GetParameters(), transform.GetParameters())
    if not same or not np.array_equal(stored.GetFixedParameters(), transform.GetFixedParameters()):
        raise CaseError("E_VERIFY", f"The file {path.name} does not hold the transform that was written.")


def _check_table(table: pd.DataFrame, path: Path) -> None:
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))
    if rows[:1] != [list(map(str, table.columns))] or len(rows) != len(table) + 1:
        raise CaseError("E_VERIFY", f"The file {path.name} does not hold the table that was written.")


def _write_bytes(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _check_bytes(data: bytes, path: Path) -> None:
    if path.read_bytes() != data:
        raise CaseError("E_VERIFY", f"The file {path.name} does not hold the bytes that were written.")


FORMATS: Mapping[str, Format] = {
    "image": Format(".nii.gz", _image, _write_nifti, _check_nifti),
    "label": Format(".nii.gz", _label, _write_nifti, _check_nifti),
    "probability": Format(".nii.gz", _probability, _write_nifti, _check_nifti),
    "transform": Format(".h5", lambda transform: transform, _write_transform, _check_transform),
    "table": Format(
        ".csv",
        lambda table: table.map(escape_cell),
        lambda table, path: table.to_csv(path, index=False),
        _check_table,
    ),
    "measure": Format(".json", lambda value: measure(value).encode(), _write_bytes, _check_bytes),
    "document": Format("", attrgetter("data"), _write_bytes, _check_bytes),
}
