"""The transform that reports a case, whatever became of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import MapTransform

from pipeline.cases import Document
from pipeline.report.content import case_content
from pipeline.report.html import case_page
from pipeline.report.pdf import case_pdf
from pipeline.report.pictures import SOFT_TISSUE


class Reportd(MapTransform):
    """Add a case's report to its dictionary.

    Sets `report_pdf` and `report_page`; for every moving role that has the images `<role>_before`, `<role>_after` and
    `<role>_thumbnail` (PNG). A case without images is reported, too.

    Args:
        fixed: role of the image that gives the grid.
        moving: roles of the images that were aligned to it.
        modalities: role -> DICOM Modality.
        ct_window: level and width in HU for showing CT.
    """

    def __init__(
        self,
        fixed: str,
        moving: Sequence[str],
        modalities: Mapping[str, str],
        ct_window: Sequence[float] = SOFT_TISSUE,
    ) -> None:
        super().__init__((fixed, *moving), allow_missing_keys=True)
        self.fixed = fixed
        self.moving = tuple(moving)
        self.modalities = dict(modalities)
        self.ct_window = (float(ct_window[0]), float(ct_window[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Report a case.

        Args:
            data: see `pipeline.report.content.case_content`.

        Returns:
            The case with its documents.

        Raises:
            CaseError: E_GRID when an aligned image is not on the fixed image's grid.
        """
        case = dict(data)
        content = case_content(case, self.fixed, self.moving, self.modalities, self.ct_window)  # type: ignore[arg-type]
        for picture in content.pictures:
            if not picture.key.startswith("gallery_"):
                case[picture.key] = Document(".png", picture.png)
        case["report_pdf"] = Document(".pdf", case_pdf(content))
        case["report_page"] = Document(".html", case_page(content))
        return case
