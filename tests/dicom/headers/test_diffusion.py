"""b-values in private elements: each vendor's own place, and only where the element's owner is named."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from pipeline.dicom.headers.vendors import private_b_value


def header(group: int, element: int, owner: str, vr: str, value: Any) -> Dataset:
    dataset = Dataset()
    dataset.add_new((group, 0x0010), "LO", owner)
    dataset.add_new((group, element), vr, value)
    return dataset


@pytest.mark.parametrize(
    ("dataset", "wanted"),
    [
        (header(0x0019, 0x100C, "SIEMENS MR HEADER", "IS", "800"), "800"),
        (header(0x0019, 0x100C, "SIEMENS MR HEADER", "OB", b"50"), "50"),
        (header(0x0019, 0x100C, "SIEMENS MR HEADER", "OB", b"400 "), "400"),
        (header(0x0043, 0x1039, "GEMS_PARM_01", "IS", ["1000", "8", "0", "0"]), "1000"),
        (header(0x0043, 0x1039, "GEMS_PARM_01", "IS", ["1000000700", "8", "0", "0"]), "700"),
        (header(0x0043, 0x1039, "GEMS_PARM_01", "UN", rb"0\8\0\0"), "0"),
        (header(0x2001, 0x1003, "Philips Imaging DD 001", "FL", 1400.0), "1400"),
    ],
)
def test_each_vendors_place_is_known(dataset: Dataset, wanted: str) -> None:
    assert private_b_value(dataset) == wanted


@pytest.mark.parametrize(
    "dataset",
    [
        Dataset(),
        header(0x0019, 0x100C, "SOMEBODY ELSE", "IS", "800"),
        header(0x0019, 0x100C, "SIEMENS MR HEADER", "OB", b"\x9a\x99"),
        header(0x0019, 0x100C, "SIEMENS MR HEADER", "IS", "-1"),
        header(0x0043, 0x1039, "GEMS_PARM_01", "IS", []),
    ],
)
def test_what_is_not_certain_is_no_b_value(dataset: Dataset) -> None:
    assert private_b_value(dataset) == ""
