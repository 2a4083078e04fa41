"""Landmarks: read from the files that other programs write, matched, and the transform that they give alone.

All points are RAS mm, shape (N, 3), once they are read.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from monai.transforms import MapTransform

from pipeline.cases import Document
from pipeline.columns import delimiter_of, find_columns
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import LPS_RAS, FloatArray, apply

Model = Literal["rigid", "affine"]

#: Points whose cloud is thinner than this, measured against its length, lie on a line (or in a plane).
THINNEST = 1e-3
#: An affine map has 12 numbers, a point gives three; a rigid one has six, but two points leave a turn open.
FEWEST: dict[str, int] = {"rigid": 3, "affine": 4}
#: What a file of another kind, or a damaged one, makes the readers below stumble over.
UNREADABLE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, csv.Error)


@dataclass(frozen=True)
class Landmarks:
    """Points of one image.

    Attributes:
        points: RAS mm, shape (N, 3).
        names: one for each point, or empty when the file has none.
    """

    points: FloatArray
    names: tuple[str, ...] = ()


def read_landmarks(path: Path, affine: FloatArray | None) -> Landmarks:
    """Read a file of landmarks by its suffix.

    - `.txt`, `.pts`: elastix' point file; `point` (LPS mm) or `index` (voxels of the image), the number, the points.
    - `.csv`: columns `name,x,y,z` in mm (`name` may be missing), and a column `convention`, or a first line such as
      `# convention: LPS`.
    - `.fcsv`, `.mrk.json`: 3D Slicer's fiducials; the file says its convention.

    Args:
        path: the file.
        affine: of the image that the points belong to, voxel index to RAS mm; used for elastix' `index` files, which
            are refused without it.

    Raises:
        CaseError: E_LANDMARKS when the file cannot be read, does not say its convention, or holds no finite points.
    """
    elastix = partial(_elastix, affine=affine)
    readers: dict[str, Callable[[str], Landmarks]] = {
        **{".txt": elastix, ".pts": elastix},
        **{".csv": _csv, ".fcsv": _fcsv, ".json": _markups},
    }
    if path.suffix.lower() not in readers:
        raise _fault(f"Expected landmarks as {', '.join(readers)}, got a file of type {path.suffix or 'none'}.")
    try:
        found = readers[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
    except UsageError as error:
        raise _fault(error.message) from error
    except UNREADABLE as error:
        raise _fault(f"The landmarks cannot be read ({type(error).__name__}).") from error
    if not len(found.points) or not np.isfinite(found.points).all():
        raise _fault(f"Expected finite landmarks, got {len(found.points)} points.")
    return found


def match(fixed: Landmarks, moving: Landmarks) -> tuple[FloatArray, FloatArray]:
    """Bring the points of two images into one order: by name where both have names, else as they stand.

    Returns:
        The points of the fixed and of the moving image, each (N, 3).

    Raises:
        CaseError: E_LANDMARKS for unequal numbers, names that differ, or a name that stands twice.
    """
    counts = f"{len(fixed.points)} and {len(moving.points)}"
    if len(fixed.points) != len(moving.points):
        raise _fault(f"Expected as many landmarks in both images, got {counts}.")
    if not fixed.names or not moving.names:
        return fixed.points, moving.points
    for names in (fixed.names, moving.names):
        if len(set(names)) < len(names):
            raise _fault("Expected every landmark's name once, got one twice.")
    if set(fixed.names) != set(moving.names):
        raise _fault(f"Expected the same names in both images, got {len(set(fixed.names) ^ set(moving.names))} others.")
    return fixed.points, moving.points[[moving.names.index(name) for name in fixed.names]]


def solve(fixed: FloatArray, moving: FloatArray, model: Model) -> FloatArray:
    """The map that brings landmarks nearest to each other in the least-squares sense.

    Args:
        fixed: (N, 3), mm.
        moving: (N, 3), mm, in the same order.
        model: `rigid` (no mirroring, no scaling) or `affine`.

    Returns:
        4 x 4, from fixed to moving points.

    Raises:
        CaseError: E_LANDMARKS for too few points, points on a line, or (affine) in a plane.

    Source: Kabsch, Acta Crystallogr A 32, 1976; Umeyama, IEEE Trans Pattern Anal Mach Intell 13(4), 1991.
    """
    _require_spread(fixed, moving, model)
    centre, target = fixed.mean(axis=0), moving.mean(axis=0)
    matrix = np.eye(4)
    if model == "affine":
        matrix[:3, :3] = np.linalg.lstsq(fixed - centre, moving - target, rcond=None)[0].T
    else:
        left, _, right = np.linalg.svd((moving - target).T @ (fixed - centre))
        proper = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
        matrix[:3, :3] = left @ proper @ right
    matrix[:3, 3] = target - matrix[:3, :3] @ centre
    return matrix


def residuals_mm(matrix: FloatArray, fixed: FloatArray, moving: FloatArray) -> FloatArray:
    """Distance (mm) of each landmark, shape (N,), after a 4 x 4 map from fixed to moving points."""
    return np.asarray(np.linalg.norm(apply(matrix, fixed) - moving, axis=1))


def left_out_mm(fixed: FloatArray, moving: FloatArray, model: Model) -> float | None:
    """Mean error (mm) at each landmark of the map that all others give; None when too few are left for a map.

    The error at the landmarks that a map was fitted to is smaller than elsewhere; this one is not.

    Source: Fitzpatrick, West and Maurer, IEEE Trans Med Imaging 17(5), 1998.
    """
    errors = []
    for index in range(len(fixed)):
        others = np.arange(len(fixed)) != index
        try:
            matrix = solve(fixed[others], moving[others], model)
        except CaseError:
            return None
        errors.append(residuals_mm(matrix, fixed[index : index + 1], moving[index : index + 1])[0])
    return float(np.mean(errors))


def as_table(landmarks: Landmarks) -> str:
    """Landmarks as the text of a `.csv` file that `read_landmarks` reads, RAS mm."""
    text = io.StringIO()
    text.write("# convention: RAS\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", *"xyz"))
    names = landmarks.names or ("",) * len(landmarks.points)
    writer.writerows((name, *point) for name, point in zip(names, landmarks.points.tolist(), strict=True))
    return text.getvalue()


def write_points(path: Path, points: FloatArray) -> None:
    """Write RAS points as elastix reads them: LPS mm."""
    lines = [" ".join(repr(float(number)) for number in point) for point in apply(LPS_RAS, points)]
    path.write_text("\n".join(["point", str(len(points)), *lines, ""]))


def _require_spread(fixed: FloatArray, moving: FloatArray, model: Model) -> None:
    if fixed.shape != moving.shape:
        raise _fault(f"Expected as many landmarks in both images, got {len(fixed)} and {len(moving)}.")
    if len(fixed) < FEWEST[model]:
        raise _fault(f"Expected at least {FEWEST[model]} landmarks for a {model} map, got {len(fixed)}.")
    for points in (fixed, moving):
        extent = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if extent[1] <= THINNEST * extent[0]:
            raise _fault("Expected landmarks that span a plane, got all of them on one line.")
        if model == "affine" and extent[2] <= THINNEST * extent[0]:
            raise _fault("Expected landmarks that span a volume for an affine map, got all of them in one plane.")


def _fault(message: str) -> CaseError:
    return CaseError("E_LANDMARKS", message)


# ---- the file formats ------------------------------------------------------------------------------------------------


def _elastix(text: str, affine: FloatArray | None) -> Landmarks:
    """Source: elastix manual, section on transformix, `-def`."""
    words = text.split()
    kind = words[0].lower()
    if kind not in ("point", "index"):
        raise _fault("Expected `point` or `index` as the first word of an elastix point file.")
    if kind == "index" and affine is None:
        raise _fault("Expected landmarks in mm (`point`), got voxels (`index`).")
    numbers = np.array([float(word) for word in words[2:]])
    if len(numbers) != 3 * int(words[1]):
        raise _fault(f"Expected {words[1]} points of three numbers, got {len(numbers)} numbers.")
    points = numbers.reshape(-1, 3)
    return Landmarks(apply(LPS_RAS if kind == "point" or affine is None else affine, points))


def _csv(text: str) -> Landmarks:
    lines = text.splitlines()
    stated = [found.group(1) for line in lines if (found := re.match(r"#\s*convention\s*[:=]\s*(\w+)", line))]
    lines = [line for line in lines if line.strip() and not line.startswith("#")] or [""]
    head, *cells = csv.reader(lines, delimiter=delimiter_of(lines[0]))
    if any(len(row) > len(head) for row in cells):
        raise _fault("Expected as many cells as columns in every row, got more (decimal commas?).")
    at = find_columns(head, (*"xyz", "convention", "name"), "the landmarks")
    rows = [{name: row[number].strip() for name, number in at.items() if number < len(row)} for row in cells]
    stated += [row["convention"] for row in rows if row.get("convention")]
    points = np.array([[float(row[axis]) for axis in "xyz"] for row in rows]).reshape(-1, 3)
    names = tuple(row["name"] for row in rows if row.get("name"))
    if names and len(names) < len(points):
        raise _fault(f"Expected a name for every landmark or for none, got {len(names)} for {len(points)}.")
    return Landmarks(_in_ras(points, stated), names)


def _fcsv(text: str) -> Landmarks:
    """3D Slicer's older format: `# CoordinateSystem = LPS` (or 1; RAS is 0), then id, x, y, z, …, label."""
    head = dict(re.findall(r"#\s*(\w+)\s*=\s*(.+)", text))
    system = {"0": "RAS", "1": "LPS"}.get(head["CoordinateSystem"].strip(), head["CoordinateSystem"].strip())
    columns = [name.strip() for name in head["columns"].split(",")]
    rows = list(csv.reader(line for line in text.splitlines() if line.strip() and not line.startswith("#")))
    points = np.array([[float(row[columns.index(axis)]) for axis in "xyz"] for row in rows]).reshape(-1, 3)
    names = tuple(row[columns.index("label")].strip() for row in rows)
    return Landmarks(_in_ras(points, [system]), names if all(names) else ())


def _markups(text: str) -> Landmarks:
    """3D Slicer's markups, one list of control points in mm."""
    (markup,) = json.loads(text)["markups"]
    if markup.get("coordinateUnits", "mm") not in ("mm", ["mm", "UCUM", "millimeter"]):
        raise _fault("Expected landmarks in mm.")
    placed = [point for point in markup["controlPoints"] if point.get("positionStatus", "defined") == "defined"]
    points = np.array([point["position"] for point in placed], float).reshape(-1, 3)
    names = tuple(str(point.get("label", "")).strip() for point in placed)
    return Landmarks(_in_ras(points, [markup.get("coordinateSystem", "")]), names if all(names) else ())


def _in_ras(points: FloatArray, stated: Sequence[str]) -> FloatArray:
    conventions = {text.strip().upper() for text in stated}
    if len(conventions) != 1 or not conventions <= {"RAS", "LPS"}:
        raise _fault("Expected the landmarks' convention, RAS or LPS, to be stated: the file does not say one.")
    return apply(LPS_RAS, points) if conventions == {"LPS"} else points


def landmarks_key(role: str) -> str:
    """The key of a role's landmarks in the case."""
    return f"{role}_landmarks"


def landmark_kinds(roles: Iterable[str]) -> dict[str, str]:
    """What a stage reads, or writes, of landmarks: key -> kind."""
    return {landmarks_key(role): "document?" for role in roles}


class ReadLandmarksd(MapTransform):
    """Read the landmark files of a case: `<role>_landmarks`, a path, becomes a table (`.csv`, RAS mm).

    A landmark's name is somebody's free text, which may say whose it is: each becomes a number, the same in all of a
    case's files, so that landmarks are still matched by name.

    Args:
        roles: whose landmarks; what a case does not have is left out.
    """

    def __init__(self, roles: Iterable[str]) -> None:
        super().__init__([landmarks_key(role) for role in roles], allow_missing_keys=True)

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        return {str(key): "document?" for key in self.keys}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read them.

        Raises:
            CaseError: E_LANDMARKS for a file that cannot be read, or that counts voxels: ingest turns images upright.
        """
        case = dict(data)
        found = {key: read_landmarks(case[key], affine=None) for key in self.key_iterator(case)}
        numbers = {name: str(n) for n, name in enumerate(sorted({n for m in found.values() for n in m.names}), start=1)}
        for key, marks in found.items():
            plain = Landmarks(marks.points, tuple(numbers[name] for name in marks.names))
            case[key] = Document(".csv", as_table(plain).encode())
        return case
