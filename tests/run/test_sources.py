"""The run folder shows the patients that the input holds: one who was withdrawn is named as such, and comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import UsageError
from pipeline.run import batch, loading
from pipeline.run.sources import find_cases
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import Role, Spec, every_volume, save_spec
from pipeline.store import records, upkeep
from tests.phantoms.phantom import position_phantom

SMALL = position_phantom(shape=(12, 10, 6))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for patient in ("A1", "B1"):
        write_series(SMALL, tmp_path / "in" / patient, SeriesHeader(seed=patient, patient_id=patient))
    save_spec(Spec(name="x", description="x", roles={"ct": Role(modality="CT")}), tmp_path / "spec")
    return tmp_path / "in"


def run(root: Path, *stages: str) -> dict[str, str]:
    """The code of each case, or that it is done."""
    out = root.parent / "out"
    found = batch.run(batch.Plan(root, out, root.parent / "spec" / "spec.yaml", stages))
    return {case: done[0].error.code if done[0].error else done[0].status for case, done in found.items()}


@pytest.mark.parametrize(("jobs", "readers"), [(1, 0), (3, 3)])
def test_jobs_say_how_many_processes_read_headers(tree: Path, tmp_path: Path, jobs: int, readers: int) -> None:
    """By default as many as there are cores."""
    find = loading.load("ingest", batch.Plan(tree, tmp_path / "out", jobs=jobs)).find_cases
    assert find.finder.readers == readers  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="E_OPTION: Expected `readers` of 0 or more, got -1"):
        find_cases(tree, tmp_path / "out", every_volume(), -1)


def test_a_patient_whose_folder_cannot_be_read_is_not_withdrawn(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link to nowhere stands for what cannot be opened. Nothing that was made is given up, and `clean` lists none."""
    first, out = run(tree, "ingest"), tmp_path / "out"
    shutil.move(tree / "B1", tmp_path / "B1")
    (tree / "B1").symlink_to(tmp_path / "nowhere")
    assert run(tree, "ingest") == first
    assert "1 case of an earlier run stay as they are" in capsys.readouterr().err
    assert upkeep.strays(out) == []
    (tree / "B1").unlink()
    assert sorted(run(tree, "ingest").values()) == ["E_WITHDRAWN", "done"]
    assert "1 case of an earlier run withdrawn" in capsys.readouterr().err


def test_a_role_may_be_missing_because_it_cannot_be_read(tree: Path, tmp_path: Path) -> None:
    wanted = {"ct": Role(modality="CT"), "mr": Role(modality="MR")}
    save_spec(Spec(name="x", description="x", roles=wanted), tmp_path / "spec")
    assert set(run(tree, "ingest").values()) == {"E_MISSING_ROLE"}
    (tree / "A1" / "mr").symlink_to(tmp_path / "nowhere")
    assert set(run(tree, "ingest").values()) == {"E_MISSING_ROLE"}
    (case, *_) = records.of_run(tmp_path / "out").values()
    assert case[0].error is not None and case[0].error.remedy.startswith("Look at these first. Add the missing")
    assert case[0].error.message.endswith("among what could not be read: 1 file or folder.")


def test_the_page_is_never_older_than_the_table(tree: Path, tmp_path: Path) -> None:
    run(tree, "ingest", "report")
    next((tree / "B1").iterdir()).unlink()
    assert sorted(run(tree, "ingest").values()) == ["E_GAP", "done"]
    assert "E_GAP" in (tmp_path / "out" / "report.html").read_text()


def test_a_withdrawn_patient_is_set_aside_and_comes_back(tree: Path, tmp_path: Path) -> None:
    first, out = run(tree, "ingest", "report"), tmp_path / "out"
    assert set(first.values()) == {"done"}
    shutil.move(tree / "B1", tmp_path / "B1")
    second = run(tree, "ingest", "report")
    assert sorted(second.values()) == ["E_WITHDRAWN", "done"]
    (gone,) = [case for case, code in second.items() if code == "E_WITHDRAWN"]
    rows = pd.read_csv(out / "cases.csv", index_col="case_id", keep_default_na=False)
    assert (rows.ingest[gone], rows.code[gone]) == ("quarantined", "E_WITHDRAWN")
    assert [case["case_id"] for case in records.FindCases(out, {"ct": "image"})()] == sorted({*second} - {gone})
    page = (out / "report.html").read_text()
    place = page.index(f">{gone}")
    assert "E_WITHDRAWN" in page[place - 500 : place + 1500] and page.count("E_WITHDRAWN") == 1
    assert (out / "cases" / gone / "ingest" / "ct.nii.gz").is_file()
    shutil.move(tmp_path / "B1", tree / "B1")
    assert run(tree, "ingest") == first
