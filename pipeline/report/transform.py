"""The transform that reports a case, whatever became of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from monai.transforms import Transform

from pipeline.cases import Document
from pipeline.report.content import case_content
from pipeline.report.html import case_page
from pipeline.report.pdf import case_pdf


class Reportd(Transform):
    """Add a case's report to its dictionary: what its stages say, drawn and laid out.

    Args:
        dataset_dir: the run folder in which the outputs of the stages lie.
    """

    def __init__(self, dataset_dir: str | Path) -> None:
        self.dataset_dir = Path(dataset_dir)

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind. `pictures` are documents by their keys, and `thumbnail`."""
        return {"report_pdf": "document", "report_page": "document", "pictures": "documents?"}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Report a case.

        Args:
            data: `case_id`; `records`: one `Record` a stage, in order; `found`: rows of `series.csv`; paths of images
                that no stage has made.

        Raises:
            CaseError: see `pipeline.report.content.case_content`.
        """
        given = {str(key): path for key, path in data.items() if isinstance(path, Path)}
        records, found = data.get("records") or (), data.get("found") or ()
        content = case_content(data["case_id"], records, self.dataset_dir, date.today(), given, found)
        case = {
            **data,
            "report_pdf": Document(".pdf", case_pdf(content)),
            "report_page": Document(".html", case_page(content)),
        }
        pictures = {picture.key: Document(".png", picture.png) for picture in content.pictures}
        if content.first:
            pictures["thumbnail"] = Document(".png", content.first.thumbnail)
        return {**case, "pictures": pictures} if pictures else case
