"""From scanned series to volumes that can play a role: taken apart, put together, judged."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.cases import Series
from pipeline.dicom.series.gate import judge
from pipeline.dicom.series.merge import merge
from pipeline.dicom.series.split import split


def candidates(series: Iterable[Series]) -> list[Series]:
    """Every volume (or radiograph) of a tree, with its verdict.

    Args:
        series: as scanned.

    Returns:
        One series a volume: the parts of a series that held several (`Series.part`), one for several series that
        held one volume; each with its instances in order of position, or with the fault that makes it unfit.
    """
    return [judge(part) for part in merge([part for item in series for part in split(item)])]
