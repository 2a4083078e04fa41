from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import NOTES, REMEDIES, CaseError, QuarantineError, UsageError, pipeline_cause

SOURCES = Path(__file__).parent.parent / "pipeline"


def codes_in_the_source() -> set[str]:
    texts = [path.read_text() for path in SOURCES.rglob("*.py") if path.name != "errors.py"]
    of_causes = re.findall(r'Error\("(E_[A-Z_]+)"', (SOURCES / "errors.py").read_text())
    return {code for text in texts for code in re.findall(r'"(E_[A-Z_]+)"', text)} | {*of_causes}


def test_every_note_that_is_used_is_explained_and_every_explained_one_is_used() -> None:
    texts = [path.read_text() for path in SOURCES.rglob("*.py") if path.name != "errors.py"]
    used = {code for text in texts for code in re.findall(r'"(N_[A-Z]+(?:_[A-Z]+)*)', text)}
    assert used == set(NOTES)


def test_every_code_that_is_used_has_a_remedy_and_every_remedy_is_used() -> None:
    assert codes_in_the_source() == set(REMEDIES)


def test_every_code_is_documented() -> None:
    page = (SOURCES.parent / "docs" / "reference" / "errors.md").read_text()
    rows = dict(re.findall(r"^\| `(E_[A-Z_]+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows == REMEDIES, "run scripts/write_error_page.py"
    notes = dict(re.findall(r"^\| `(N_[A-Z_]+)` \| (.*) \|$", page, re.MULTILINE))
    assert notes == NOTES, "run scripts/write_error_page.py"


def test_an_error_says_code_sentence_and_remedy() -> None:
    error = UsageError("E_EMPTY", "Expected DICOM files, got none.")
    assert str(error) == f"E_EMPTY: Expected DICOM files, got none. {REMEDIES['E_EMPTY']}"
    assert str(UsageError("E_EMPTY", "None.", "Look again.")) == "E_EMPTY: None. Look again."


def test_unknown_codes_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        CaseError("E_NO_SUCH_CODE", "x")


def test_the_cause_is_found_behind_wrappers() -> None:
    inner = QuarantineError("E_GAP", "3 slices are missing.")
    try:
        try:
            raise inner
        except QuarantineError as error:
            raise RuntimeError("applying transform <…>") from error
    except RuntimeError as wrapped:
        assert pipeline_cause(wrapped) is inner
    assert pipeline_cause(ValueError("x")) is None
