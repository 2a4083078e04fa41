"""What goes wrong on the way out: grids that do not match, labels that are no labels, names that clash or run.

Numbers as in `tests.phantoms.fault_table`; 37, labels that only go by nearest neighbour, stands in
tests/registration/test_resample.py, and hostile text in pages in tests/report/test_documents.py.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.run import batch
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.volumes import affine_of, require_same_grid, volume
from tests.phantoms.oracle import Truth, judge_volumes
from tests.phantoms.phantom import position_phantom

SMALL = (12, 10, 6)


def other_grid(shift_mm: float = 0.0, mirror: bool = False) -> np.ndarray:
    affine = affine_of(position_phantom(SMALL))
    if mirror:
        affine[:3, 3] += (SMALL[0] - 1) * affine[:3, 0]
        affine[:3, 0] *= -1
    affine[2, 3] += shift_mm
    return affine


@pytest.mark.parametrize("affine", [other_grid(40.0), other_grid(0.1), other_grid(mirror=True)])
def test_35_channels_on_other_grids_are_refused(affine: np.ndarray) -> None:
    image = position_phantom(SMALL)
    require_same_grid(image, image, ("ct", "mr"))
    with pytest.raises(CaseError, match="E_GRID"):
        require_same_grid(image, volume(image.numpy(), affine), ("ct", "mr"))


def test_39_equal_file_names_of_two_patients_do_not_meet(tmp_path: Path) -> None:
    """Both series are files IM0001 to IM0006 in a folder of one name; their values differ."""
    truths = []
    for number, patient in enumerate(("A", "B")):
        image = position_phantom(SMALL, origin_mm=(-31.7 - 7 * number, 12.3, 44.1))
        write_series(image, tmp_path / "in" / patient / "CT", SeriesHeader(patient_id=patient))
        truths.append(Truth(SMALL, affine_of(image)))
    batch.run(batch.Plan(tmp_path / "in", tmp_path / "out", stages=("ingest",)))
    files = sorted((tmp_path / "out" / "cases").rglob("*.nii.gz"))
    assert len(files) == 2 == len({path.parents[1].name for path in files})
    volumes = [(nib.load(path).get_fdata(), nib.load(path).affine) for path in files]
    assert judge_volumes(volumes, truths) == "right"


HOSTILE = ("../../../OUTSIDE", "=HYPERLINK(1)", "<script>alert(1)</script>", "a/b\\c", "-1+1|' /C calc'!A0")


def test_40_hostile_identifiers_name_no_path_and_no_cell(tmp_path: Path) -> None:
    for number, text in enumerate(HOSTILE):
        header = SeriesHeader(patient_id=text, patient_name=text, series_number=number, series_description=text)
        write_series(position_phantom(SMALL), tmp_path / "in" / str(number), header)
    before = {path for path in tmp_path.rglob("*") if path.is_relative_to(tmp_path / "in")}
    batch.run(batch.Plan(tmp_path / "in", tmp_path / "deep" / "out", stages=("ingest",)))
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(tmp_path / "deep") or path.is_relative_to(tmp_path / "home") for path in made)
    cases = list((tmp_path / "deep" / "out" / "cases").iterdir())
    assert len(cases) == len(HOSTILE)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", case.name) for case in cases)
    tables = [path for path in made if path.suffix == ".csv"]
    assert tables
    for table in tables:
        with table.open(newline="") as stream:
            cells = [cell for row in csv.reader(stream) for cell in row]
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")], table.name
    public = [path for path in made if path.is_relative_to(tmp_path / "deep") and path.suffix in (".csv", ".json")]
    for path in public:
        assert not any(text in path.read_text() for text in HOSTILE), path.name
