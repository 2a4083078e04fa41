"""How the slices of a series lie to one another: what the gate judges, and by what the reader puts them in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.cases import Instance
from pipeline.geometry import cross

FloatArray = npt.NDArray[np.float64]

#: Slices may lie off an even grid by this part of the median distance, or this many mm, whichever is more.
STEP_TOLERANCE, STEP_TOLERANCE_MM = 0.02, 0.05
#: Direction cosines may miss unit length and right angles by this much; it is also the shear that is no tilt.
DIRECTION_TOLERANCE = 1e-3
#: Two slices nearer than this are at one position.
SAME_POSITION_MM = 0.01
#: Positions are written with few decimals: a drift below this, over the whole stack, is no tilt.
ROUNDING_MM = 0.05
#: A step of this many usual ones has room for another slice.
GAP_STEPS = 1.75
#: Steps of more than this many usual ones, or of less than its inverse, are not evened out by interpolation.
STEP_RANGE = 3.0


@dataclass(frozen=True)
class Stack:
    """Slices of one orientation, in order along their normal. All vectors are LPS, in mm.

    Attributes:
        row: direction along a row, so from column to column; unit length.
        column: direction along a column, so from row to row; unit length.
        positions: centre of each slice's first pixel, shape (N, 3).
        instances: the slices.
    """

    row: FloatArray
    column: FloatArray
    positions: FloatArray
    instances: Sequence[Instance]

    @cached_property
    def thickness_mm(self) -> FloatArray:
        """SliceThickness (0018,0050) of each slice, NaN where it is missing, shape (N,)."""
        return np.array([number(instance, "SliceThickness") for instance in self.instances])

    @cached_property
    def normal(self) -> FloatArray:
        """Row direction x column direction, unit length. Source: DICOM PS3.3 C.7.6.2.1.1."""
        return _normal(self.row, self.column)

    @cached_property
    def along_mm(self) -> FloatArray:
        """Positions along the normal, shape (N,)."""
        return np.asarray(self.positions @ self.normal)

    @cached_property
    def steps_mm(self) -> FloatArray:
        """Distances of neighbouring slices along the normal, shape (N - 1,)."""
        return np.diff(self.along_mm)

    @property
    def step_mm(self) -> float:
        """The usual distance: their median."""
        return float(np.median(self.steps_mm))

    @property
    def uneven(self) -> bool:
        """Whether a slice lies off the even grid from the first slice to the last.

        Positions are compared, not steps: a rounding in one step moves no slice far, and many steps that are a little
        too long add up.
        """
        even = np.linspace(self.along_mm[0], self.along_mm[-1], len(self.along_mm))
        return float(np.abs(self.along_mm - even).max()) > self.tolerance_mm

    @property
    def tolerance_mm(self) -> float:
        """How far a slice may lie off an even grid."""
        return max(STEP_TOLERANCE * self.step_mm, STEP_TOLERANCE_MM)

    @cached_property
    def sideways_mm(self) -> FloatArray:
        """How far each slice lies beside the normal through the first one: along a row, along a column, (N, 2)."""
        return np.asarray((self.positions - self.positions[0]) @ np.stack([self.row, self.column]).T)

    @cached_property
    def drift(self) -> FloatArray:
        """Sideways mm for each mm along the normal: along a row, along a column.

        The median slope of slices that are half the stack apart: neither one slice that is shifted nor positions
        with few decimals make a drift.
        """
        half = max(1, len(self.positions) // 2)
        along = self.along_mm[half:] - self.along_mm[:-half]
        return np.asarray(np.median((self.sideways_mm[half:] - self.sideways_mm[:-half]) / along[:, None], axis=0))

    @property
    def tilt_deg(self) -> float:
        """The angle between the stack and its slices' normal, 0 where the slices lie straight on one another.

        A gantry tilt shears the stack: the table moves level while the slices lean (DICOM PS3.3 C.8.2.1, Gantry/
        Detector Tilt). Its sign is that of the drift along the columns.
        """
        slope = float(np.linalg.norm(self.drift))
        if slope * self.extent_mm <= max(DIRECTION_TOLERANCE * self.extent_mm, ROUNDING_MM):
            return 0.0
        return float(np.degrees(np.arctan(slope)) * (-1 if self.drift[1] < 0 else 1))

    @property
    def is_slanted(self) -> bool:
        """Whether a straight line from the first slice to the last would shear the grid."""
        return float(np.linalg.norm(self.sideways_mm[-1])) > DIRECTION_TOLERANCE * self.extent_mm

    @property
    def extent_mm(self) -> float:
        """From the first slice to the last, along the normal."""
        return float(self.along_mm[-1] - self.along_mm[0])

    @property
    def stray_mm(self) -> FloatArray:
        """How far each slice lies off the line of the others, in its plane, shape (N,)."""
        beside = self.sideways_mm - (self.along_mm - self.along_mm[0])[:, None] * self.drift
        return np.asarray(np.linalg.norm(beside - np.median(beside, axis=0), axis=1))

    @property
    def missing(self) -> npt.NDArray[np.int64]:
        """How many slices are missing in each step, shape (N - 1,).

        A step that is much longer than the others, or a whole number of the smallest, has room for slices. Where
        the slices' thickness changes along with the step, the scan was planned so: nothing is missing.
        """
        relative = self.steps_mm
        thick = (self.thickness_mm[1:] + self.thickness_mm[:-1]) / 2
        if np.isfinite(thick).all() and np.ptp(self.thickness_mm) > STEP_TOLERANCE * thick.max() and thick.min() > 0:
            relative = self.steps_mm / thick
        else:
            smallest = float(relative.min())
            multiples = relative / smallest
            tolerance = max(2 * STEP_TOLERANCE, 2 * STEP_TOLERANCE_MM / smallest)
            if np.abs(multiples - np.round(multiples)).max() <= tolerance:
                return np.round(multiples).astype(np.int64) - 1
        usual = relative / np.median(relative)
        return np.where(usual >= GAP_STEPS, np.round(usual).astype(np.int64) - 1, 0)


def stack_of(instances: Sequence[Instance]) -> Stack:
    """The stack of instances that have a position and share an orientation, in their order."""
    axes = np.asarray(instances[0].orientation, dtype=np.float64).reshape(2, 3)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    positions = np.array([instance.position for instance in instances], dtype=np.float64)
    return Stack(axes[0], axes[1], positions, instances)


def sorted_stack(instances: Sequence[Instance]) -> Stack:
    """The stack of such instances in order along their normal: their own numbers and file names are not trusted."""
    order = np.argsort(stack_of(instances).along_mm, kind="stable")
    return stack_of([instances[index] for index in order])


def along_mm(instances: Sequence[Instance]) -> FloatArray:
    """Positions along the first one's normal, shape (N,)."""
    return np.array([instance.position for instance in instances], dtype=np.float64) @ normal_of(instances[0])


def normal_of(instance: Instance) -> FloatArray:
    """The unit normal of a slice, LPS: row direction x column direction (DICOM PS3.3 C.7.6.2.1.1)."""
    return _normal(*np.asarray(instance.orientation).reshape(2, 3))


def _normal(row: FloatArray, column: FloatArray) -> FloatArray:
    """The unit vector of row x column."""
    normal = np.array(cross([*row.tolist(), *column.tolist()]))
    return np.asarray(normal / np.linalg.norm(normal))


def is_placed(instance: Instance) -> bool:
    """Whether a slice says where it lies: position, orientation and spacing."""
    return not (instance.position is None or instance.orientation is None or instance.spacing_mm is None)


def frame_uids(instances: Iterable[Instance]) -> set[str]:
    """The frames of reference (0020,0052) that instances name."""
    return {instance.tags.get("FrameOfReferenceUID", "") for instance in instances} - {""}


def number(instance: Instance, keyword: str) -> float:
    """A header value as a number (the first of several); NaN where it is missing or none."""
    try:
        return float(instance.tags.get(keyword, "").split("\\")[0])
    except ValueError:
        return float("nan")
