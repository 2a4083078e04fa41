"""`tandem demo`: a small simulated cohort with known truth, from DICOM to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline import batch
from pipeline.progress import say
from pipeline.shipped import shipped
from pipeline.storage import writable_folder

SPEC = ("data_specs", "ct_mr_head.yaml")


def run_demo(out: Path, cases: int, jobs: int) -> int:
    """Simulate a cohort whose last patient is faulty, run all stages on it, and say where the report is.

    Returns:
        0 when the faulty case, and no other, was quarantined with the expected code; else 1.

    Raises:
        UsageError: E_EXTRA when the extra `demo` is not installed, E_OUT, E_BUSY.
    """
    from pipeline.simulation.cohort import simulate_cohort

    cohort = writable_folder(out) / "cohort"
    if not (cohort / "truth" / "cohort.json").is_file():
        say(f"Simulating {cases} patients (CT and MR of the head) as DICOM in {cohort / 'dicom'} …")
        simulate_cohort(cohort, cases=cases, faulty=1)
    expected = json.loads((cohort / "truth" / "cohort.json").read_text())
    plan = batch.Plan(cohort / "dicom", out / "run", shipped(*SPEC), jobs=jobs)
    found = batch.run(plan)
    faults = [record.error.code for case in found.values() for record in case if record.error]
    planted = _planted(expected)
    say(f"{len(found)} cases; quarantined: {', '.join(faults) or 'none'} (planted: {', '.join(planted) or 'none'})")
    say(f"Report: {(out / 'run' / 'report.html').resolve()}")
    return int(faults != planted)


def _planted(cohort: dict[str, Any]) -> list[str]:
    return [patient["expected_code"] for patient in cohort["patients"] if patient.get("expected_code")]
