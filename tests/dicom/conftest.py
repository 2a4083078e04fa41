from __future__ import annotations

from pathlib import Path

import pytest

from tests.dicom.confidentiality.deidentified import write


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two patients, one with CT and MR; names of files and folders say who they are."""
    root = tmp_path / "Doe" / "dicom"
    write(root / "John" / "ct", patient_id="P1", patient_name="Doe^John", date="20240228")
    mr = {"modality": "MR", "series_number": 3, "study": "2", "date": "20240301"}
    write(root / "John" / "mr", patient_id="P1", patient_name="Doe^John", **mr)
    write(root / "Jane" / "ct", patient_id="P2", patient_name="Roe^Jane")
    return root
