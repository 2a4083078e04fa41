"""The landmarks of a case's images, read with the images and kept in one plain form."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from monai.transforms import MapTransform

from pipeline.cases import Document
from pipeline.registration.landmarks import Landmarks, as_table, read_landmarks


class ReadLandmarksd(MapTransform):
    """Read the landmark files of a case: `<role>_landmarks`, a path, becomes a table (`.csv`, RAS mm).

    A landmark's name is somebody's free text, which may say whose it is: each becomes a number, the same in all of a
    case's files, so that landmarks are still matched by name.

    Args:
        roles: whose landmarks; what a case does not have is left out.
    """

    def __init__(self, roles: Iterable[str]) -> None:
        super().__init__([f"{role}_landmarks" for role in roles], allow_missing_keys=True)

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
