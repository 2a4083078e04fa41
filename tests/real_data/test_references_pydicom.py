"""pydicom's collection of strange files: nothing crashes, and every file is accounted for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.dicom.headers.scan import Scan, scan
from pipeline.errors import REMEDIES
from tests.real_data.references import parts_of


@pytest.fixture(scope="module")
def found(real_images: Path) -> Scan:
    return scan(real_images / "pydicom_test_files")


def test_every_file_is_in_the_account_once(real_images: Path, found: Scan) -> None:
    """Series, rejected, unreadable, not DICOM: the four together are all files of the folder."""
    total = sum(path.is_file() for path in (real_images / "pydicom_test_files").rglob("*"))
    of_series = [{instance.path for instance in (*item.instances, *item.rejected)} for item in found.series]
    lost = [{item.path for item in (*found.rejected, *found.unreadable)}, {item.path for item in found.others}]
    count = Counter(path for group in (*of_series, *lost) for path in group)
    assert sum(count.values()) == len(count) == total == 195


def test_every_series_is_read_or_has_a_reason(real_images: Path, found: Scan) -> None:
    """Volumes of two slices and more, single radiographs, and refusals: nothing else; every value is finite."""
    parts = parts_of(real_images / "pydicom_test_files")
    assert len(parts) >= len(found.series) > 50
    for part in parts:
        if part.volume is None:
            assert part.code in REMEDIES
        else:
            slices = 1 if part.series.modality == "CR" else 2
            assert np.isfinite(part.volume.values).all() and len(part.series.instances) >= slices


def test_directories_are_no_images(found: Scan) -> None:
    names = [item.path.name for item in found.others]
    assert sum(name.startswith("DICOMDIR") for name in names) >= 6


def test_the_cut_file_is_rejected(found: Scan) -> None:
    rejected = {file.path.name: file.fault.code for item in found.series for file in item.rejected if file.fault}
    assert rejected["MR_truncated.dcm"] == "E_PIXEL_LENGTH"
