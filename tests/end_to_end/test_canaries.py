"""No name leaves: made-up names in every corner of the input are in no output, in no encoding."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.shipped import shipped
from tests.end_to_end.canaries import JAPANESE, LATIN, PLACES, found_in, litter, plant
from tests.tandem_process import Run, tandem
from tests.whole_run import WholeRun

ALL_OPTIONS = (
    *("--shift-dates", "--retain-patient-characteristics", "--retain-safe-private", "--clean-descriptors"),
    "--clean-structured-content",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT and two MR series of one patient, in three character sets, and litter."""
    root = tmp_path_factory.mktemp("input")
    plant(root, "CT", "ISO_IR 100", LATIN, 1)
    plant(root, "MR", "ISO_IR 192", LATIN, 2)
    plant(root, "MR", "/ISO 2022 IR 87", JAPANESE, 3)
    litter(root)
    return root


def printed(run: Run) -> tuple[str, ...]:
    return run.out, run.err


def test_the_search_finds_every_canary_in_the_input(tree: Path) -> None:
    """Without this the other tests could pass because they are blind."""
    assert set(found_in(tree)) == {*PLACES, "japanese", "latin"}


@pytest.mark.parametrize("options", [(), ALL_OPTIONS])
def test_deidentified_copies_hold_no_canary(
    tree: Path, tmp_path: Path, tandem_home: Path, options: tuple[str, ...]
) -> None:
    run = tandem(tandem_home, "deidentify", tree, "--out", tmp_path / "out", *options)
    assert run.code == 1  # the broken file
    assert "72 copied, 0 quarantined, 1 failed, 1 not DICOM" in run.out, (run.out, run.err)
    assert found_in(tmp_path / "out", printed(run)) == {}


def test_what_is_kept_by_name_is_kept_and_nothing_else(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    options = ("--retain-device", "--retain-institution")
    run = tandem(tandem_home, "deidentify", tree, "--out", tmp_path / "out", *options)
    assert set(found_in(tmp_path / "out", printed(run))) == {"device", "station", "address"}


def test_an_ambiguous_case_lets_no_canary_out(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    spec = shipped("data_specs", "ct_mr_head.yaml")
    run = tandem(tandem_home, "run", tree, "--spec", spec, "--out", tmp_path / "out", "--stages", "ingest")
    assert (tmp_path / "out" / "series.csv").is_file(), (run.out, run.err)
    assert found_in(tmp_path / "out", printed(run)) == {}


@pytest.mark.slow
def test_a_run_over_the_hospitals_files_lets_no_canary_out(whole_run: WholeRun) -> None:
    """All stages of a case whose every file holds every canary."""
    simulated = {whole_run.case_of(patient.patient_id) for patient in whole_run.heads.patients} | {whole_run.small_case}
    (hospital,) = whole_run.found.keys() - simulated
    assert list((whole_run.out / "cases" / hospital).rglob("report_pdf.pdf")), whole_run.run
    assert found_in(whole_run.out, printed(whole_run.run)) == {}


def test_an_ingest_of_every_volume_lets_no_canary_out(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    run = tandem(tandem_home, "ingest", tree, "--out", tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 3, (run.out, run.err)
    assert found_in(tmp_path / "out", printed(run)) == {}
