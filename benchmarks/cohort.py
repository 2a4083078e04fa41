"""How exact the alignment of a simulated cohort is, and what its verdict says: the table of docs/benchmarks/cohort.md.

.venv/bin/python -m benchmarks.cohort [--cases 8] [--spacing-mm 3] [--max-angle-deg 10] [--max-shift-mm 15]
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import typer

from pipeline.commands.demo import SPEC, alignment_errors
from pipeline.run import batch
from pipeline.shipped import shipped
from pipeline.simulation.cohort import simulate_cohort


def main(cases: int = 8, spacing_mm: float = 3.0, max_angle_deg: float = 10.0, max_shift_mm: float = 15.0) -> None:
    """Simulate a cohort and one faulty patient more, run ingest and register, and compare with the truth."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TANDEM_HOME"] = str(Path(folder) / "home")
        cohort, out = Path(folder) / "cohort", Path(folder) / "out"
        simulate_cohort(cohort, cases + 1, spacing_mm, faulty=1, max_angle_deg=max_angle_deg, max_shift_mm=max_shift_mm)
        found = batch.run(batch.Plan(cohort / "dicom", out, shipped(*SPEC), stages=("ingest", "register")))
        errors = alignment_errors(cohort, out)
        print(f"{cases} heads at {spacing_mm:g} mm, turned by up to {max_angle_deg:g} degrees about each axis and")
        print(f"shifted by up to {max_shift_mm:g} mm along each; one more with a missing slice.\n")
        print(
            "| case | mean TRE (mm) | max TRE (mm) | verdict | starts apart (mm) | seconds |\n|---|---|---|---|---|---|"
        )
        for number, (case_id, error) in enumerate(errors.items(), start=1):
            measures = next(record for record in found[case_id] if record.stage == "register").measures
            quality, seconds = measures["mr_quality"], measures["seconds"]
            apart = quality["start_disagreement_mm"]
            row = f"{error.mean_mm:.3f} | {error.max_mm:.3f} | {quality['verdict']} | {apart:.3f} | {seconds:.1f}"
            print(f"| {number} | {row} |")
        codes = [record.error.code for case in found.values() for record in case if record.error]
        print(f"\nMean {np.mean([error.mean_mm for error in errors.values()]):.3f} mm; set aside: {', '.join(codes)}.")


if __name__ == "__main__":
    typer.run(main)
