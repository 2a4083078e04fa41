"""Series with a known fault: how they are written, and which volumes they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from monai.data import MetaTensor
from pydicom import dcmread
from pydicom.uid import UID

from pipeline.cases import Series
from pipeline.dicom.series.units import unit_fault
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.roles import Role
from pipeline.volumes import affine_of, volume
from tests.phantoms import faults
from tests.phantoms.enhanced import Layout, write_enhanced
from tests.phantoms.oracle import Truth
from tests.phantoms.phantom import position_phantom
from tests.phantoms.unknown import write_unknown

Verdict = Literal["refused", "fixed", "read"]
Plant = Callable[[Path], Sequence[Path]]
Write = Callable[[Path], tuple[Truth, ...]]
Truths = Callable[[MetaTensor, list[Path], Sequence[Path]], tuple[Truth, ...]]

MR = SeriesHeader(modality="MR", series_description="t1_se")
#: The unit of the volumes that a series holds; MR's values have none.
ROLES = {"CT": Role(modality=("CT",), unit="HU"), "PT": Role(modality=("PT",), unit="Bq/ml")}


@dataclass(frozen=True)
class Planted:
    """A series with a known fault, or with none.

    Attributes:
        row: the number of its kind.
        name: what is wrong with it, in words.
        verdict: `refused`: no volume may come of it; `fixed`: read right, and a note says what was done; `read`: read
            right.
        codes: all codes and notes that it has to get; `N_NO_AIR` is not asked for, as most phantoms hold none.
        write: writes it into a folder, and says which volumes it holds.
    """

    row: int
    name: str
    verdict: Verdict
    codes: frozenset[str]
    write: Write

    @property
    def title(self) -> str:
        """Number and name."""
        return f"{self.row} {self.name}"


# Which volumes a series holds: of the clean image, the files as first written, and those that the fault has changed


def as_written(image: MetaTensor, _originals: list[Path], _changed: Sequence[Path]) -> tuple[Truth, ...]:
    """The clean image."""
    return (_truth(image),)


def several(image: MetaTensor, _originals: list[Path], _changed: Sequence[Path], count: int = 2) -> tuple[Truth, ...]:
    """The clean image, and further ones on its grid, each 100 HU brighter than the one before."""
    return tuple(replace(_truth(image), offset_hu=100.0 * number) for number in range(count))


def as_moved(_image: MetaTensor, originals: list[Path], _changed: Sequence[Path]) -> tuple[Truth, ...]:
    """What the slices that are left show, where they lie now."""
    return (_held_by([path for path in originals if path.exists()]),)


def as_sheared(image: MetaTensor, originals: list[Path], changed: Sequence[Path]) -> tuple[Truth, ...]:
    """The same where a repaired grid may mix the outermost voxels with what lies outside."""
    return tuple(replace(truth, border_voxels=1.0) for truth in as_moved(image, originals, changed))


def both_blocks(_image: MetaTensor, originals: list[Path], changed: Sequence[Path]) -> tuple[Truth, ...]:
    """Two stacks: the files as first written, and those that were added."""
    return _held_by(originals), _held_by(changed)


def with_padding(image: MetaTensor, _o: list[Path], _c: Sequence[Path], padding: float = -1000.0) -> tuple[Truth, ...]:
    """The clean image with air, or another value, where the padding is."""
    return (replace(_truth(image), padded_above_hu=faults.PADDED_ABOVE_HU, padding=padding),)


def _truth(image: MetaTensor) -> Truth:
    i, j, k = image.shape[1:]
    return Truth((i, j, k), affine_of(image))


def _held_by(paths: Sequence[Path]) -> Truth:
    """The grid from the first to the last of a stack's files, by their positions along the normal."""
    slices = [dcmread(path, stop_before_pixels=True) for path in paths]
    row, column = np.asarray(slices[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    normal = np.cross(row, column)
    positions = np.array([slice_.ImagePositionPatient for slice_ in slices], dtype=float)
    positions = positions[np.argsort(positions @ normal)]
    lps = np.eye(4)
    lps[:3, 0] = row * float(slices[0].PixelSpacing[1])
    lps[:3, 1] = column * float(slices[0].PixelSpacing[0])
    lps[:3, 2] = normal * float(slices[0].SliceThickness)
    if len(slices) > 1:
        lps[:3, 2] = (positions[-1] - positions[0]) / (len(slices) - 1)
    lps[:3, 3] = positions[0]
    return Truth((slices[0].Columns, slices[0].Rows, len(slices)), np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)


def in_unit_of_role(series: Series) -> Series:
    """The series, set aside where its headers say another unit than its role, as selection does."""
    role = ROLES.get(series.modality)
    if series.fault is not None or role is None:
        return series
    return replace(series, fault=unit_fault(series, role))


# How a series is written

#: Files of the clean series that were written: name -> bytes, in the order of K.
_KEPT: dict[str, dict[str, bytes]] = {}


def phantom(
    *plants: Plant,
    truths: Truths = as_written,
    header: SeriesHeader | None = None,
    image: Callable[[], MetaTensor] = position_phantom,
) -> Write:
    """Write a position phantom and plant faults in it, one after the other."""

    def write(folder: Path) -> tuple[Truth, ...]:
        clean = image()
        originals = _written(clean, folder, header)
        changed: Sequence[Path] = []
        for plant in plants:
            changed = plant(folder)
        return truths(clean, originals, changed)

    return write


def _written(image: MetaTensor, folder: Path, header: SeriesHeader | None) -> list[Path]:
    """As `write_series`, which most faults ask for the same series: the bytes of each are kept."""
    key = f"{header} {affine_of(image).tobytes().hex()} {sha256(image.numpy().tobytes()).hexdigest()}"
    if key not in _KEPT:
        paths = write_series(image, folder, header)
        _KEPT[key] = {path.name: path.read_bytes() for path in paths}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in _KEPT[key].items():
        (folder / name).write_bytes(data)
    return [folder / name for name in _KEPT[key]]


def volumes(count: int = 2, header: SeriesHeader | None = None, **values: Sequence[object]) -> Write:
    """Write several volumes at the same positions; each DICOM keyword has one value a volume."""
    plant = partial(faults.several_volumes, values=values)
    return phantom(plant, truths=partial(several, count=count), header=header)


def enhanced(layout: Layout, header: SeriesHeader | None = None, volumes: int = 1, unknown: bool = False) -> Write:
    """Write one enhanced file: further volumes are brighter, or another stack of another orientation.

    With `unknown` its sequences, the frames' places among them, have no VR.
    """

    def write(folder: Path) -> tuple[Truth, ...]:
        images = [position_phantom()]
        truths = several(images[0], [], [], volumes)
        if volumes > 1 and layout.apart == "stack":
            images.append(position_phantom(angles_deg=(70.0, 8.0, 17.0), origin_mm=(-31.7, 2.3, 24.1)))
            truths = (truths[0], _truth(images[1]))
        else:
            images += [_brighter(images[0], truth.offset_hu) for truth in truths[1:]]
        path = write_enhanced(images, folder / "ENHANCED", header, layout)
        if unknown:
            write_unknown(path)
        return truths

    return write


def _brighter(image: MetaTensor, by: float) -> MetaTensor:
    return volume(image.numpy() + np.float32(by), affine_of(image))


def turned(angles_deg: tuple[float, float, float]) -> Write:
    """Write a clean phantom, turned about x, y and z (RAS)."""
    return phantom(image=partial(position_phantom, angles_deg=angles_deg))


def declared(uid: str, *before: Plant, image: Callable[[], MetaTensor] = position_phantom) -> Write:
    """Write a phantom under a transfer syntax in which it is not."""
    return phantom(*before, partial(faults.declared_syntax, uid=uid), image=image)


def compressed(uid: UID) -> Plant:
    """Compress the slices."""
    return partial(faults.compressed, syntax=uid)


def planted(row: int, name: str, verdict: Verdict, codes: str, write: Write) -> Planted:
    """An entry of the table; the codes stand in one text, with spaces between them."""
    return Planted(row, name, verdict, frozenset(codes.split()), write)
