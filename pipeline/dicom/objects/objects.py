"""Read a DICOM object that has passed the scan: its whole data set, without trust in what its header declares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ImplicitVRLittleEndian

from pipeline.dicom.headers.encoding import open_dataset
from pipeline.dicom.headers.values import names_of
from pipeline.errors import QuarantineError

_FIRST_PIXEL_TAG = 0x7FE00008
_UNDEFINED = 0xFFFFFFFF


def read_object(path: Path, tags: Sequence[str] | None = None, pixels: bool = False) -> Dataset:
    """Read a file's data set.

    Args:
        path: a DICOM file, with or without preamble; a deflated one is inflated as far as the scan allows.
        tags: the keywords that are wanted; None for all.
        pixels: read the pixel data too.

    Raises:
        NotDicomError, TooLargeError: see `open_dataset`.
        EOFError: an element is shorter than it says: pydicom would give a part of the contours, silently.
        Exception: of many kinds, when the data set is cut or broken.
    """
    with path.open("rb") as file:
        encoded = open_dataset(file)
        try:
            stop = None if pixels else _at_pixels
            dataset = read_dataset(
                encoded.stream,
                encoded.implicit,
                encoded.little,
                stop_when=stop,
                specific_tags=None if tags is None else [BaseTag(tag) for tag in names_of(tags)],
            )
        finally:
            encoded.stream.close()
    _require_whole(dataset)
    found = Dataset(dataset)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = UID(encoded.declared or ImplicitVRLittleEndian)
    return found


def referenced_series(structures: Dataset) -> Iterator[tuple[str, Dataset]]:
    """The series that a structure set refers to, each with the UID of the frame of reference that it says it has.

    Source: DICOM PS3.3 C.8.8.5 (Structure Set Module).
    """
    for frame in structures.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            for series in study.get("RTReferencedSeriesSequence", []):
                yield str(frame.get("FrameOfReferenceUID", "")), series


@contextmanager
def refused_if_broken(what: str) -> Iterator[None]:
    """Within the block, what pydicom raises on a broken file is E_MASK; what the disk does is not.

    Raises:
        QuarantineError: E_MASK.
    """
    try:
        yield
    except QuarantineError:
        raise
    except Exception as error:  # of many kinds, OSError without a number among them
        if getattr(error, "errno", None):
            raise
        raise QuarantineError("E_MASK", f"The {what} cannot be read ({type(error).__name__}).") from error


def _require_whole(dataset: Dataset) -> None:
    """Elements of undefined length are parsed at once, and pydicom raises at their end; the others stay raw."""
    for tag in dataset.keys():  # noqa: SIM118 - a Dataset itself iterates over converted elements
        raw = dataset.get_item(tag)
        held = raw.value if isinstance(raw, RawDataElement) else None
        if isinstance(raw, RawDataElement) and held is not None and raw.length != _UNDEFINED and len(held) < raw.length:
            raise EOFError


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag >= _FIRST_PIXEL_TAG
