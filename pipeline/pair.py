"""Align one image with another, without a cohort: the `register` bundle on a pair of paths."""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline import batch, records, specs
from pipeline.cases import Record
from pipeline.errors import UsageError
from pipeline.nifti import check_nifti
from pipeline.specs import Register, Role, Spec
from pipeline.storage import run_lock

CASE_ID = "pair"
Image = tuple[Path, str]


def register_pair(fixed: Image, moving: Image, out: Path, overwrite: bool = False) -> dict[str, list[Record]]:
    """Register one pair of images.

    Args:
        fixed: the path of a NIfTI file or of a folder with one DICOM series, and the modality of a NIfTI file.
        moving: likewise.
        out: the run folder.
        overwrite: do the work again even where it is done.

    Returns:
        The records, by case id.

    Raises:
        UsageError: E_NIFTI, E_AMBIGUOUS or what ingest raises when an image cannot be used; E_OUT, E_BUSY.
    """
    images = {"fixed": _volume(*fixed, out / "input_fixed"), "moving": _volume(*moving, out / "input_moving")}
    roles = {name: Role(modality=(modality,)) for name, (_, modality) in images.items()}
    register = Register(fixed="fixed", moving=("moving",))
    spec = Spec(name="pair", description="One pair of images.", roles=roles, register=register)
    plan = batch.Plan(out, out, overwrite=overwrite)
    with run_lock(out):
        specs.save(spec, out)
        stage = batch.load("register", plan).stage
        stage.run([{"case_id": CASE_ID, **{name: path for name, (path, _) in images.items()}}])
        records.write_table(out)
    return records.of_run(out)


def _volume(path: Path, modality: str, ingested: Path) -> Image:
    """A NIfTI file as it is; a DICOM folder as the one volume that ingest makes of it."""
    if not path.is_dir():
        check_nifti(path)
        return path, modality
    found = batch.run(batch.Plan(path, ingested, stages=("ingest",)))
    done = [case[0] for case in found.values() if case[0].status == "done"]
    if len(done) != 1:
        raise UsageError("E_AMBIGUOUS", f"Expected one volume in {path}, got {len(done)}.", "Name the series' folder.")
    with (ingested / "series.csv").open(newline="") as table:
        modality = next(row["modality"] for row in csv.DictReader(table) if row["case_id"] == done[0].case_id)
    return ingested / done[0].artifacts[0].path, modality
