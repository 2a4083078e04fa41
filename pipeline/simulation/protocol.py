"""What is scanned of a simulated patient: a CT examination and, in a frame of reference of its own, an MR one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from pipeline import volumes
from pipeline.simulation.dicom import SeriesHeader
from pipeline.simulation.subject import Subject
from pipeline.simulation.tissues import T1_WEIGHTED, T2_WEIGHTED
from pipeline.simulation.tissues import Sequence as Weighting

FloatArray = npt.NDArray[np.float64]

#: Directions of columns, rows and slices (as matrix columns) in RAS of the planes as radiologists look at them.
PLANES: Mapping[str, FloatArray] = {
    "axial": np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]]),
    "sagittal": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]]),
}

_CT_FIELD_MM = (256.0, 256.0, 195.0)
_T1_FIELD_MM = (250.0, 250.0, 204.0)
_T2_FIELD_MM = (240.0, 240.0, 170.0)
_LOCALIZER_FIELD_MM = (260.0, 260.0, 8.0)
# Voxel sizes in units of the cohort's spacing, and of the localizer in mm.
_T1_VOXEL = (1.1, 1.0, 1.2)
_T2_VOXEL = (1.0, 1.0, 2.0)
_LOCALIZER_VOXEL_MM = (5.0, 5.0, 8.0)
# How far fields of view are off the head's middle, and MR slices off the scanner's axes.
_OFF_CENTRE_MM = 6.0
_OBLIQUE_DEG = 8.0


@dataclass(frozen=True)
class Scan:
    """One image (1, I, J, K) and the header with which it is written."""

    image: MetaTensor
    header: SeriesHeader


@dataclass(frozen=True)
class Examination:
    """Everything that was scanned of a patient.

    Attributes:
        ct: the axial CT of the head.
        mr: the sagittal T1-weighted MR.
        others: what a selection must leave aside: topogram, localizers, T2-weighted MR.
    """

    ct: Scan
    mr: Scan
    others: tuple[Scan, ...]

    @property
    def scans(self) -> tuple[Scan, ...]:
        """All of them."""
        return (self.ct, self.mr, *self.others)


def examine(subject: Subject, header: SeriesHeader, spacing_mm: float, rng: np.random.Generator) -> Examination:
    """Scan a patient, whose header gets each series' own attributes.

    `spacing_mm` is the voxel size of the CT; the MR's follow from it.
    """
    ct_header = replace(header, modality="CT", study="CT", frame="CT", study_description="CT HEAD")
    mr_header = replace(header, modality="MR", study="MR", frame="MR", study_description="MR HEAD", time="143000")
    ct = _ct(subject, ct_header, spacing_mm, rng)
    oblique_deg = rng.uniform(-_OBLIQUE_DEG, _OBLIQUE_DEG, 3).tolist()
    mr = _t1(subject, mr_header, spacing_mm, oblique_deg, rng)
    others = (
        _topogram(ct),
        _t2(subject, mr_header, spacing_mm, oblique_deg, rng),
        *_localizers(subject, mr_header, rng),
    )
    return Examination(ct, mr, others)


def scan_pair(subject: Subject, spacing_mm: float, rng: np.random.Generator) -> tuple[MetaTensor, MetaTensor]:
    """The CT and the T1-weighted MR of `examine` alone, without headers; other noise and places than there."""
    ct = _ct(subject, SeriesHeader(), spacing_mm, rng)
    oblique_deg = rng.uniform(-_OBLIQUE_DEG, _OBLIQUE_DEG, 3).tolist()
    return ct.image, _t1(subject, SeriesHeader(), spacing_mm, oblique_deg, rng).image


def grid(
    plane: str,
    field_mm: Sequence[float],
    voxel_mm: Sequence[float],
    centre_mm: npt.ArrayLike,
    angles_deg: Sequence[float] = (0.0, 0.0, 0.0),
) -> tuple[tuple[int, int, int], FloatArray]:
    """Lay a grid: shape and 4 x 4 RAS affine in mm.

    Args:
        plane: key of `PLANES`.
        field_mm: field of view along columns, rows, slices.
        voxel_mm: voxel size along them.
        centre_mm: RAS position of the grid's middle.
        angles_deg: how the grid is turned about the x, y, z axes.
    """
    i, j, k = (max(1, round(field / voxel)) for field, voxel in zip(field_mm, voxel_mm, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = (
        Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() @ PLANES[plane] * np.asarray(voxel_mm)
    )
    affine[:3, 3] = np.asarray(centre_mm) - affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2.0)
    return (i, j, k), affine


def _ct(subject: Subject, header: SeriesHeader, spacing_mm: float, rng: np.random.Generator) -> Scan:
    shape, affine = grid("axial", _CT_FIELD_MM, [spacing_mm] * 3, _beside(subject.centre_ct, rng))
    image = subject.scan_ct(shape, affine, rng)
    return Scan(image, replace(header, series_number=2, series_description=f"HEAD {spacing_mm:.1f} Br38"))


def _t1(
    subject: Subject, header: SeriesHeader, spacing_mm: float, oblique_deg: list[float], rng: np.random.Generator
) -> Scan:
    voxel_mm = [size * spacing_mm for size in _T1_VOXEL]
    shape, affine = grid("sagittal", _T1_FIELD_MM, voxel_mm, _beside(subject.centre_mr, rng), oblique_deg)
    own = _mr_series(replace(header, scanning_sequence="GR"), 3, "t1_mprage_sag", ("M", "ND", "NORM"), T1_WEIGHTED)
    return Scan(subject.scan_mr(shape, affine, T1_WEIGHTED, rng), own)


def _t2(
    subject: Subject, header: SeriesHeader, spacing_mm: float, oblique_deg: list[float], rng: np.random.Generator
) -> Scan:
    voxel_mm = [size * spacing_mm for size in _T2_VOXEL]
    shape, affine = grid("axial", _T2_FIELD_MM, voxel_mm, _beside(subject.centre_mr, rng), oblique_deg)
    own = _mr_series(header, 4, "T2 TSE axial", ("M", "ND"), T2_WEIGHTED)
    return Scan(subject.scan_mr(shape, affine, T2_WEIGHTED, rng), own)


def _localizers(subject: Subject, header: SeriesHeader, rng: np.random.Generator) -> tuple[Scan, ...]:
    """Three crossing slices in one series."""
    own = _mr_series(header, 1, "localizer", ("LOCALIZER",), T1_WEIGHTED)
    scans = []
    for number, plane in enumerate(PLANES, start=1):
        shape, affine = grid(plane, _LOCALIZER_FIELD_MM, _LOCALIZER_VOXEL_MM, subject.centre_mr)
        scans.append(Scan(subject.scan_mr(shape, affine, T1_WEIGHTED, rng), replace(own, first_instance=number)))
    return tuple(scans)


def _mr_series(
    header: SeriesHeader, number: int, description: str, kind: tuple[str, ...], weighting: Weighting
) -> SeriesHeader:
    own = replace(header, series_number=number, series_description=description)
    return replace(own, image_type=("ORIGINAL", "PRIMARY", *kind), tr_ms=weighting.tr_ms, te_ms=weighting.te_ms)


def _topogram(ct: Scan) -> Scan:
    """The CT seen from the front, averaged along the rays: one slice."""
    affine = volumes.affine_of(ct.image)
    _, rows, slices = ct.image.shape[1:]
    front = affine.copy()
    front[:3, 1] = -affine[:3, 2]  # from head to foot
    front[:3, 2] = affine[:3, 1] * rows
    front[:3, 3] += affine[:3, 1] * (rows - 1) / 2.0 + affine[:3, 2] * (slices - 1)
    projection = ct.image.numpy()[0].mean(axis=1)[:, ::-1, None]
    own = replace(
        ct.header,
        series_number=1,
        series_description="Topogram 0.6 T20f",
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
        kernel="T20f",
    )
    return Scan(volumes.volume(projection, front), own)


def _beside(centre_mm: FloatArray, rng: np.random.Generator) -> FloatArray:
    return centre_mm + rng.uniform(-_OFF_CENTRE_MM, _OFF_CENTRE_MM, 3)
