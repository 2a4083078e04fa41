"""Which elastix parameter maps make a transform for a pair of modalities: files beside the bundle, chosen here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError

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
        raise UsageError("E_CONFIG", f"Expected an elastix parameter file, got {path}.") from error


def _checked(text: str, transform: str) -> str:
    if transform_of(text) != transform:
        found = transform_of(text) or "another one"
        raise UsageError("E_CONFIG", f"Expected an elastix parameter map of a {transform} transform, got {found}.")
    levels = re.search(r"^\s*\(\s*NumberOfResolutions\s+(\d+)", text, re.MULTILINE)
    if levels is None or int(levels.group(1)) < 1:
        raise UsageError("E_CONFIG", "Expected NumberOfResolutions of 1 or more in the parameter map.")
    return text
