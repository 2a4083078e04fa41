"""One whole run of all stages, made once and looked at by every test that needs one.

Its input is what a hospital might export: two sound heads and one that misses a slice (voxels of 3 mm), a small head
(6 mm) on which other tests repeat the work, and a patient with made-up names in every corner of the files.
"""

from __future__ import annotations

import fcntl
import pickle
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom

from pipeline.cases import Record
from pipeline.shipped import shipped
from pipeline.simulation.cohort import Cohort, simulate_cohort
from pipeline.store import records
from pipeline.store.pseudonyms import Pseudonyms
from tests.end_to_end.canaries import LATIN, litter, plant
from tests.tandem_process import Run, started_tandem

SPEC = shipped("data_specs", "ct_mr_head.yaml")
SOUND = 2
#: PatientID of the small head.
SMALL = "SIM-SMALL"


@dataclass(frozen=True)
class WholeRun:
    """What went in and what came out. Nobody changes it, except by running the same again.

    Attributes:
        dicom: the input tree.
        heads: sound ones, and as the last one the faulty one.
        small: one head (`SMALL`) of large voxels, on which a run takes seconds.
        home: the folder of the key.
        out: the run folder.
        run: the process that filled it.
        seconds: how long it took.
    """

    dicom: Path
    heads: Cohort
    small: Cohort
    home: Path
    out: Path
    run: Run
    seconds: float

    def case_of(self, patient_id: str) -> str:
        """The case id of a patient."""
        return Pseudonyms(self.out, self.home).of("case", patient_id)

    @property
    def found(self) -> dict[str, list[Record]]:
        """The records of every case."""
        return records.of_run(self.out)

    @property
    def small_case(self) -> str:
        """The case id of the small head."""
        return self.case_of(SMALL)

    def own_home(self, folder: Path) -> Path:
        """A folder of its own with the same key, under which other run folders give the same names."""
        folder.mkdir()
        shutil.copy(self.home / "key", folder / "key")
        return folder


def made_once(folder: Path) -> WholeRun:
    """The run in a folder that several test processes share: the first one makes it, the others wait for it."""
    folder.mkdir(exist_ok=True)
    kept = folder / "run.pickle"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_file():
            kept.write_bytes(pickle.dumps(_make(folder)))
    return pickle.loads(kept.read_bytes())


def _make(folder: Path) -> WholeRun:
    dicom = folder / "dicom"
    heads = _moved(simulate_cohort(folder / "heads", cases=SOUND + 1, spacing_mm=3.0, faulty=1), dicom / "heads")
    small = _moved(simulate_cohort(folder / "small", cases=1, spacing_mm=6.0, faulty=0, seed=1), dicom / "small")
    _rename(small, SMALL)
    plant(dicom / "hospital", "CT", "ISO_IR 100", LATIN, 1)
    plant(dicom / "hospital", "MR", "ISO_IR 192", LATIN, 2)
    litter(dicom / "hospital")
    home, out, started = folder / "home", folder / "out", time.perf_counter()
    run = started_tandem(home, "run", dicom, "--spec", SPEC, "--out", out, "--jobs", "2")
    return WholeRun(dicom, heads, small, home, out, run, time.perf_counter() - started)


def _moved(cohort: Cohort, dicom: Path) -> Cohort:
    """The cohort with its DICOM at another place."""
    dicom.parent.mkdir(exist_ok=True)
    shutil.move(cohort.dicom, dicom)
    return replace(cohort, dicom=dicom)


def _rename(cohort: Cohort, patient_id: str) -> None:
    """Give the only patient of a cohort another PatientID: that of the simulation is taken."""
    for path in filter(Path.is_file, cohort.dicom.rglob("*")):
        data = pydicom.dcmread(path)
        data.PatientID = patient_id
        data.save_as(path)
