"""Reports: one PDF and one self-contained web page a case, and the page of the cohort. Research use only.

The public names are imported when they are first used, so that `import pipeline.report` costs nothing.
"""

from __future__ import annotations

from typing import Any

from pipeline.lazy import resolve

_HOMES = {
    "CaseContent": "content",
    "Reportd": "transform",
    "alignment_figure": "figures",
    "case_content": "content",
    "case_page": "html",
    "case_pdf": "pdf",
    "case_verdict": "verdict",
    "cohort_page": "cohort",
    "gallery_figure": "figures",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)
