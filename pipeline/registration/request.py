"""What a registration works on: two images with their bodies, checked, and as files for the child process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline.body import body_mask, finite_values
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import FloatArray
from pipeline.registration.coarse import shrink
from pipeline.registration.elastix import POINTS
from pipeline.registration.landmarks import Landmarks, write_points
from pipeline.registration.transforms import AIR_HU
from pipeline.volumes import affine_of, from_sitk, oriented, require_same_grid, to_sitk, volume

#: The metric sees some air around the skin: its edge is the strongest landmark that CT and MR share.
RIM_MM = 10.0
#: Finer voxels are averaged before elastix sees them: they cost time and do not make a rigid pose more exact.
FINEST_MM = 1.0
#: A mask of fewer voxels (of `FINEST_MM` or more) shows nothing that could be aligned.
LEAST_MASK_VOXELS = 64
#: The body is found at about this spacing: its surface to a voxel's fraction, for a fraction of the time.
BODY_MM = 3.0


@dataclass(frozen=True)
class Side:
    """An image to be aligned, and what is known of it.

    Attributes:
        image: (1, I, J, K); HU when its modality is CT.
        modality: DICOM Modality.
        mask: where to look, in the place of the body, on the image's grid: 0 outside, one other value inside.
        landmarks: points in it, or None.
    """

    image: MetaTensor
    modality: str
    mask: MetaTensor | None = None
    landmarks: Landmarks | None = None

    def upright(self) -> Side:
        """The same with its axes to the right, front and head: how a file is stored must not change what is found."""
        return replace(self, image=oriented(self.image), mask=None if self.mask is None else oriented(self.mask))


@dataclass(frozen=True)
class Prepared:
    """A fixed and a moving image, ready to be registered.

    Attributes:
        images: float32, voxels finer than `FINEST_MM` averaged.
        masks: where to look, on the images' grids: the body, or the mask that was given.
        modalities: DICOM Modality.
        rim: whether the metric sees some air around the fixed mask; not around one that was given.
    """

    images: tuple[MetaTensor, MetaTensor]
    masks: tuple[MetaTensor, MetaTensor]
    modalities: tuple[str, str]
    rim: bool


def prepare(fixed: Side, moving: Side) -> Prepared:
    """Check both images and find where to look.

    Raises:
        CaseError: E_BLANK, E_SINGLE_SLICE, E_GRID, E_DTYPE.
    """
    for side in (fixed, moving):
        _require_volume(side)
    images = _working_copy(fixed.image), _working_copy(moving.image)
    masks = _mask(fixed, images[0]), _mask(moving, images[1])
    return Prepared(images, masks, (fixed.modality, moving.modality), rim=fixed.mask is None)


def write_request(
    folder: Path, prepared: Prepared, method: Method, marks: tuple[FloatArray, FloatArray] | None
) -> None:
    """Write what the child process reads: images, masks, parameter maps and landmarks."""
    fixed, moving = (_clipped(*item) for item in zip(prepared.images, prepared.masks, prepared.modalities, strict=True))
    inside = to_sitk(prepared.masks[0]) != 0
    if prepared.rim:
        inside = sitk.SignedMaurerDistanceMap(inside, squaredDistance=False, useImageSpacing=True) <= RIM_MM
    box = _box(inside)
    files = {
        "fixed": sitk.RegionOfInterest(fixed, *box),
        "moving": moving,
        "fixed_mask": sitk.RegionOfInterest(inside, *box),
        "moving_mask": to_sitk(prepared.masks[1]),
    }
    for name, image in files.items():
        sitk.WriteImage(image, str(folder / f"{name}.mha"))
    for number, text in enumerate(method.maps):
        (folder / f"parameters_{number}.txt").write_text(text)
    for name, points in zip(POINTS, marks or (), strict=False):
        write_points(folder / name, points)


def _require_volume(side: Side) -> None:
    finite_values(side.image)
    if min(side.image.shape[1:]) < 2:
        raise CaseError("E_SINGLE_SLICE", f"Expected a volume, got {tuple(side.image.shape[1:])} voxels.")
    if side.mask is None:
        return
    require_same_grid(side.image, side.mask, ("the image", "its mask"))
    values = np.unique(side.mask.numpy())
    if (values == 0).all():
        raise CaseError("E_BLANK", "Expected a mask that shows where to look, got an empty one.")
    if len(values[values != 0]) > 1:
        raise CaseError("E_DTYPE", f"Expected a mask of one value and 0, got {len(values)} values.")


def _working_copy(image: MetaTensor) -> MetaTensor:
    source = sitk.Cast(to_sitk(image), sitk.sitkFloat32)
    return from_sitk(shrink(source, FINEST_MM))


def _mask(side: Side, image: MetaTensor) -> MetaTensor:
    """The given mask on the working copy's grid, or the body.

    Raises:
        CaseError: E_BLANK when there is no body, or next to nothing in the mask.
    """
    if side.mask is None:
        return _body(image, side.modality)
    inside = sitk.Resample(to_sitk(side.mask) != 0, to_sitk(image), sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    covered = int(sitk.GetArrayViewFromImage(inside).sum())
    if covered < LEAST_MASK_VOXELS:
        text = f"Expected a mask of at least {LEAST_MASK_VOXELS} voxels of {FINEST_MM:g} mm or more, got {covered}."
        raise CaseError("E_BLANK", text, "Draw the mask around what both images show.")
    return volume(from_sitk(inside).numpy(), affine_of(image))


def _body(image: MetaTensor, modality: str) -> MetaTensor:
    """The body mask, found at about `BODY_MM` and brought back onto the image's grid."""
    grid = to_sitk(image)
    found = sitk.Cast(to_sitk(body_mask(from_sitk(shrink(grid, BODY_MM)), modality)), sitk.sitkFloat32)
    inside = sitk.Resample(found, grid, sitk.Transform(), sitk.sitkLinear, useNearestNeighborExtrapolator=True) > 0.5
    return volume(from_sitk(inside).numpy(), affine_of(image))


def _clipped(image: MetaTensor, mask: MetaTensor, modality: str) -> sitk.Image:
    """The image without the few extreme values (metal, vessels) that would waste the metric's bins."""
    values = image.numpy()
    low = max(AIR_HU, float(values.min())) if modality == "CT" else float(values.min())
    high = float(np.percentile(values[mask.numpy() > 0], 99.9))
    return to_sitk(volume(np.clip(values, low, high), affine_of(image)))


def _box(mask: sitk.Image) -> tuple[list[int], list[int]]:
    """Size and first index of the box around a mask."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(mask)
    box = statistics.GetBoundingBox(1)
    return list(box[3:]), list(box[:3])


#: What elastix calls the transforms that a map can have.
TRANSFORMS = {
    "EulerTransform": "rigid",
    "AffineTransform": "affine",
    "BSplineTransform": "bspline",
    "RecursiveBSplineTransform": "bspline",
}
#: The alignment that the images' headers give is kept; nothing is searched.
HEADERS = "headers"
#: Maps for the two modalities, in either order; `RIGID` and `BSPLINE` for all others.
RIGID_OF: dict[tuple[str, ...], str] = {("MR", "MR"): "rigid_mr_mr", ("CT", "PT"): "rigid_pet_ct"}
BSPLINE_OF: dict[tuple[str, ...], str] = {("MR", "MR"): "bspline_mr_mr", ("CT", "CT"): "bspline_ct_ct_thorax"}
RIGID, AFFINE, BSPLINE = "rigid_ct_mr", "affine", "bspline_ct_mr"


@dataclass(frozen=True)
class Method:
    """How an alignment is found.

    Attributes:
        transform: `headers`, `rigid`, `affine`, `bspline`, `landmarks_rigid` or `landmarks_affine`.
        maps: texts of elastix parameter maps, run one after the other; the first is rigid. None where the headers or
            landmarks alone decide.
    """

    transform: str
    maps: tuple[str, ...] = ()

    @property
    def refinements(self) -> tuple[str, ...]:
        """The transform of each map after the rigid one."""
        return tuple(transform_of(text) for text in self.maps[1:])


def method(transform: str, modalities: Sequence[str], folder: Path, parameters: str | None = None) -> Method:
    """Choose the maps for a transform.

    Args:
        transform: see `Method`.
        modalities: DICOM Modality of the fixed and of the moving image.
        folder: where the shipped maps lie.
        parameters: a file, or the name of a shipped map, in the place of the transform's own.

    Raises:
        UsageError: E_CONFIG when a map cannot be read, does not have the transform, or has no levels.
    """
    if transform == HEADERS or transform.startswith("landmarks_"):
        if parameters:
            raise UsageError("E_CONFIG", f"Expected no elastix parameters for {transform}, got {parameters}.")
        return Method(transform)
    names = _names(transform, tuple(sorted(modalities)))
    texts = [_read(_path(name, folder)) for name in names[:-1]]
    texts.append(_checked(_read(_path(parameters or names[-1], folder)), transform))
    return Method(transform, tuple(texts))


def transform_of(text: str) -> str:
    """The transform of a parameter map: `rigid`, `affine` or `bspline`; empty for another one."""
    found = re.search(r'^\s*\(\s*Transform\s+"(\w+)"', text, re.MULTILINE)
    return TRANSFORMS.get(found.group(1), "") if found else ""


def _names(transform: str, pair: tuple[str, ...]) -> list[str]:
    rigid, bspline = RIGID_OF.get(pair, RIGID), BSPLINE_OF.get(pair, BSPLINE)
    if transform == "bspline":
        # Lungs and abdomens of two breaths differ in size; CT of one body part else needs no affine map.
        return [rigid, AFFINE, bspline] if pair == ("CT", "CT") else [rigid, bspline]
    return [rigid, AFFINE] if transform == "affine" else [rigid]


def _path(name: str, folder: Path) -> Path:
    shipped = folder / f"{name.removesuffix('.txt')}.txt"
    return shipped if "/" not in name and shipped.is_file() else Path(name)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = (
            "Give a path that holds from this folder; the shipped ones lie in configs/ of the bundle (--bundle_root)."
        )
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError("E_CONFIG", f"Expected an elastix parameter file, got {path} ({reason}).", remedy) from error


def _checked(text: str, transform: str) -> str:
    if transform_of(text) != transform:
        found = transform_of(text) or "another one"
        raise UsageError("E_CONFIG", f"Expected an elastix parameter map of a {transform} transform, got {found}.")
    levels = re.search(r"^\s*\(\s*NumberOfResolutions\s+(\d+)", text, re.MULTILINE)
    if levels is None or int(levels.group(1)) < 1:
        raise UsageError("E_CONFIG", "Expected NumberOfResolutions of 1 or more in the parameter map.")
    return text
