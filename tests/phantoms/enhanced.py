"""Write volumes as one enhanced multi-frame file, as scanners do since 2004."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

from pipeline import geometry, volumes
from pipeline.simulation.dicom import CT_INTERCEPT_HU, SeriesHeader, decimal_string, identity, make_uid

_STORAGE = {"CT": EnhancedCTImageStorage, "MR": EnhancedMRImageStorage}


@dataclass(frozen=True)
class Layout:
    """How the frames of an enhanced file are laid out.

    Attributes:
        shuffled: the frames stand in another order than their positions.
        own_rescale: each frame has a slope and intercept of its own, else all share one.
        apart: what tells the volumes apart: `stack` (StackID), `time` (TemporalPositionIndex), `echo`
            (EffectiveEchoTime).
    """

    shuffled: bool = False
    own_rescale: bool = False
    apart: str = "stack"


@dataclass(frozen=True)
class _Frame:
    volume: int  # from 0
    number: int  # along K, from 0
    values: npt.NDArray[np.float64]  # (rows, columns), real-world values
    lps: geometry.FloatArray  # of its volume


def write_enhanced(
    images: Sequence[MetaTensor], path: Path, header: SeriesHeader | None = None, layout: Layout | None = None
) -> Path:
    """Write one enhanced CT or MR file, explicit VR little endian, 16 bits unsigned.

    Args:
        images: volumes (1, I, J, K) of one shape and spacing, RAS; HU for CT.
        path: the file.
        header: what the header says beside the geometry.
        layout: how the frames are laid out.

    Returns:
        The path.

    Source: DICOM PS3.3 A.36 (MR), A.38 (CT), C.7.6.16 (Multi-frame Functional Groups Module).
    """
    header, layout = header or SeriesHeader(), layout or Layout()
    frames = [frame for number, image in enumerate(images) for frame in _frames(image, number)]
    if layout.shuffled:
        frames = [frames[index] for index in np.random.default_rng(28).permutation(len(frames))]
    image_type = (*header.image_type[:2], "VOLUME", "NONE")
    uid = make_uid(header.series_uid, "enhanced")
    file = identity(replace(header, image_type=image_type), uid, 1, _STORAGE[header.modality])
    file.NumberOfFrames = len(frames)
    file.DimensionOrganizationSequence, file.DimensionIndexSequence = _dimensions(layout, uid)
    file.SharedFunctionalGroupsSequence = [_shared(frames[0], header, layout)]
    pixels, groups = zip(*(_encoded(frame, header, layout) for frame in frames), strict=True)
    file.PerFrameFunctionalGroupsSequence = list(groups)
    _add_pixels(file, np.stack(pixels))
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def _frames(image: MetaTensor, volume: int) -> list[_Frame]:
    values = np.asarray(image.numpy()[0], dtype=np.float64)
    lps = geometry.LPS_RAS @ volumes.affine_of(image)
    return [_Frame(volume, k, values[:, :, k].T, lps) for k in range(values.shape[2])]


def _dimensions(layout: Layout, uid: str) -> tuple[list[Dataset], list[Dataset]]:
    """The index of a frame is its volume, then its place in it. Source: DICOM PS3.3 C.7.6.17."""
    organisation = make_uid(uid, "dimensions")
    frame_content = 0x00209111
    volume = {
        "stack": (0x00209056, frame_content),
        "time": (0x00209128, frame_content),
        "echo": (0x00189082, 0x00189114),
    }
    pointers = (volume[layout.apart], (0x00209057, frame_content))
    indices = [
        _item(DimensionOrganizationUID=organisation, DimensionIndexPointer=what, FunctionalGroupPointer=group)
        for what, group in pointers
    ]
    return [_item(DimensionOrganizationUID=organisation)], indices


def _shared(frame: _Frame, header: SeriesHeader, layout: Layout) -> Dataset:
    spacing = geometry.spacing_mm(frame.lps)
    measures = _item(
        PixelSpacing=[decimal_string(spacing[1]), decimal_string(spacing[0])],
        SliceThickness=decimal_string(spacing[2]),
        SpacingBetweenSlices=decimal_string(spacing[2]),
    )
    shared = _item(PixelMeasuresSequence=[measures])
    kind = [*header.image_type[:2], "VOLUME", "NONE"]
    if header.modality == "CT":
        shared.CTImageFrameTypeSequence = Items([_item(FrameType=kind)])
        shared.CTReconstructionSequence = Items([_item(ConvolutionKernel=header.kernel)])
    else:
        shared.MRImageFrameTypeSequence = Items([_item(FrameType=kind)])
    if not layout.own_rescale:
        shared.PixelValueTransformationSequence = Items([_rescale(1.0, _intercept(header))])
    return shared


def _encoded(frame: _Frame, header: SeriesHeader, layout: Layout) -> tuple[npt.NDArray[np.uint16], Dataset]:
    """A frame's stored values, (rows, columns), and its functional groups."""
    slope, intercept = 1.0, _intercept(header)
    if layout.own_rescale:
        slope, intercept = (1.0, 0.5, 0.25)[frame.number % 3], float(np.floor(frame.values.min()) - frame.number % 5)
    stored = np.rint((frame.values - intercept) / slope).astype("<u2")
    spacing = geometry.spacing_mm(frame.lps)
    axes = frame.lps[:3, :3] / spacing
    position = frame.lps[:3, 3] + frame.number * frame.lps[:3, 2]
    content = {"DimensionIndexValues": [frame.volume + 1, frame.number + 1], "InStackPositionNumber": frame.number + 1}
    content["StackID"] = str(frame.volume + 1) if layout.apart == "stack" else "1"
    if layout.apart == "time":
        content["TemporalPositionIndex"] = frame.volume + 1
    cosines = [decimal_string(value) for value in (*axes[:, 0], *axes[:, 1])]
    group = _item(
        FrameContentSequence=[_item(**content)],
        PlanePositionSequence=[_item(ImagePositionPatient=[decimal_string(value) for value in position])],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=cosines)],
    )
    if header.modality == "MR":
        echo_ms = header.te_ms * (frame.volume + 1 if layout.apart == "echo" else 1)
        group.MREchoSequence = Items([_item(EffectiveEchoTime=echo_ms)])
    if layout.own_rescale:
        group.PixelValueTransformationSequence = Items([_rescale(slope, intercept)])
    return stored, group


def _intercept(header: SeriesHeader) -> float:
    return float(CT_INTERCEPT_HU) if header.modality == "CT" else 0.0


def _rescale(slope: float, intercept: float) -> Dataset:
    return _item(RescaleSlope=f"{slope:g}", RescaleIntercept=f"{intercept:g}", RescaleType="HU")


def _add_pixels(file: Dataset, stored: npt.NDArray[np.uint16]) -> None:
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = stored.shape[1:]
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.PixelData = np.ascontiguousarray(stored).tobytes()


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
