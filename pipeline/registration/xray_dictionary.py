"""The alignment with a radiograph as a step of a chain."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from monai.transforms import MapTransform

from pipeline.cases import Verdict
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import LPS_RAS, FloatArray
from pipeline.registration.sections import RANKS
from pipeline.registration.xray import VIEWS, View, XrayLimits, align_radiograph
from pipeline.store.sections import Panel, Picture, Section, Sections, Table
from pipeline.words import in_words, value_text

GEOMETRY = ("view", "detector_spacing_mm", "source_to_detector_mm", "source_to_patient_mm")
RADIOGRAPHS = ("CR", "DX", "RF", "RG", "XA")


class AlignRadiographd(MapTransform):
    """Find the pose of a case's CT in which its projection looks like the case's radiograph `x`.

    Gives `x_transform` and `x_inverse` (from CT points, LPS mm, to the detector's frame and back), `x_projection_of_ct`
    (on the radiograph's grid), `x_quality` (the verdict with its numbers); the numbers go into `measures`, and a
    sentence into `flags` when the verdict is not `pass`.

    Args:
        radiograph: the role of the radiograph.
        volume: the role of the CT.
        modalities: role -> DICOM Modality.
        given: what is known of how the radiograph was taken (fields of `View`, the view as `view`); what is empty or 0
            is left to the header.
        limits: names and values of `XrayLimits`.
        timeout_s: the child process of one alignment is ended after this many seconds.

    Raises:
        UsageError: E_PROJECTION for a volume that is no CT, or a role that is no radiograph; E_CONFIG for limits that
            nobody knows.
    """

    def __init__(
        self,
        radiograph: str,
        volume: str,
        modalities: Mapping[str, str],
        given: Mapping[str, Any] | None = None,
        limits: Mapping[str, float] | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        super().__init__([radiograph, volume])
        if modalities.get(volume) != "CT":
            shown = modalities.get(volume, "no such role")
            raise UsageError("E_PROJECTION", f"Expected a CT to project, got {shown}: only CT has attenuation.")
        if modalities.get(radiograph) not in RADIOGRAPHS:
            shown = modalities.get(radiograph, "no such role")
            raise UsageError("E_PROJECTION", f"Expected a radiograph ({', '.join(RADIOGRAPHS)}), got {shown}.")
        self.radiograph, self.volume = radiograph, volume
        self.given = {name: value for name, value in (given or {}).items() if value}
        self.timeout_s = timeout_s
        try:
            self.limits = XrayLimits(**(limits or {}))
        except TypeError as error:
            raise UsageError("E_CONFIG", f"Expected limits of XrayLimits, got {', '.join(limits or {})}.") from error

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        kinds = {"transform": "transform", "inverse": "transform", "projection_of_ct": "image", "quality": "measure"}
        return {f"{self.radiograph}_{name}": kind for name, kind in kinds.items()}

    def sections(self, case: Mapping[Hashable, Any]) -> Sections:
        """The alignment in numbers; the radiograph and the CT's projection side by side."""
        name, quality = in_words(self.radiograph), case[f"{self.radiograph}_quality"]
        rows = tuple((in_words(key), value_text(value)) for key, value in quality.items() if not isinstance(value, str))
        projected = f"{self.radiograph}_projection_of_ct"
        panels = (
            Panel(name, self.radiograph),
            Panel("Projection of the CT", projected),
            Panel("Checkerboard", self.radiograph, checkered=projected),
        )
        caption = "The CT projected as the radiograph was taken: edges should run on from tile to tile."
        picture = Picture(f"{self.radiograph}_after", f"{name} and CT", caption, panels, rank=RANKS[quality["verdict"]])
        table = Table("", ("Measure", "Value"), rows)
        return Sections((Section(f"CT aligned to {name}", (quality["reason"],), (table,), (picture,)),))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Align one case.

        Args:
            data: MetaTensors under the two roles; under `<radiograph>_projection` the path of what ingest found in the
                header, where it did.

        Raises:
            CaseError: E_PROJECTION when something that says how the radiograph was taken is missing; and what
                `align_radiograph` raises.
        """
        case = dict(data)
        path = case.get(f"{self.radiograph}_projection")
        header = {} if path is None else json.loads(Path(path).read_text())
        view = view_of({**header, **self.given})
        found = align_radiograph(case[self.volume], case[self.radiograph], view, self.limits, self.timeout_s)
        quality, name = found.quality, self.radiograph
        flags, measures = list(case.get("flags", ())), dict(case.get("measures", {}))
        if quality["verdict"] != "pass":
            flags.append(f"{name}: alignment {quality['verdict']}: {quality['reason']}")
        measures |= {f"{name}_{key}": value for key, value in quality.items() if isinstance(value, int | float)}
        return {
            **case,
            f"{name}_transform": to_detector(found.matrix),
            f"{name}_inverse": to_detector(found.matrix).GetInverse(),
            f"{name}_projection_of_ct": found.projection,
            f"{name}_quality": quality,
            "measures": measures,
            "flags": flags,
            "verdict": Verdict(quality["verdict"], (f"Alignment of {in_words(name)}: {quality['reason']}",)),
        }


def view_of(known: Mapping[str, Any]) -> View:
    """How a radiograph was taken.

    Args:
        known: fields of `View`, the view as `view`.

    Raises:
        CaseError: E_PROJECTION when one is missing or cannot be.
    """
    missing = [name for name in GEOMETRY if not known.get(name)]
    if missing:
        raise CaseError("E_PROJECTION", f"Expected {' and '.join(missing)} of the radiograph, got nothing.")
    if known["view"] not in VIEWS:
        raise CaseError("E_PROJECTION", f"Expected a view of {', '.join(VIEWS)}, got another one.")
    spacing = tuple(map(float, known["detector_spacing_mm"]))
    view = View(
        known["view"],
        (spacing[0], spacing[-1]),
        float(known["source_to_detector_mm"]),
        float(known["source_to_patient_mm"]),
    )
    if min(*spacing, view.source_to_patient_mm) <= 0 or view.magnification <= 1:
        raise CaseError("E_PROJECTION", "Expected the patient between source and detector, and pixels of a size.")
    return view


def to_detector(matrix: FloatArray) -> sitk.AffineTransform:
    """A pose (from RAS mm to the detector's frame) as a transform of points of the CT in LPS mm."""
    transform = sitk.AffineTransform(3)
    lps = matrix @ LPS_RAS
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform
