"""The page about DICOM says what the tests have found, and names no code that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import NOTES, REMEDIES
from tests.real_data.catalogue import table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "dicom.md"


def test_the_page_holds_the_catalogue() -> None:
    assert table() in PAGE.read_text()


def test_every_code_of_the_page_exists() -> None:
    named = set(re.findall(r"`([EN]_[A-Z_]+)`", PAGE.read_text()))
    assert len(named) > 30 and named <= {*REMEDIES, *NOTES}
