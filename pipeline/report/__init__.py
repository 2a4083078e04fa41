"""Reports: one PDF and one self-contained web page a case, and the page of the cohort. Research use only.

The public names are imported when they are first used, so that `import pipeline.report` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
