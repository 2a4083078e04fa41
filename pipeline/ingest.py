"""Where ingest's cases come from: a tree of DICOM files, or one of NIfTI files, as the data spec says."""

from __future__ import annotations

from pathlib import Path

from pipeline.dicom.ingest import FindSeries
from pipeline.nifti.ingest import FindFiles
from pipeline.specs import Spec


def find_cases(dataset_dir: str | Path, output_dir: str | Path, spec: Spec) -> FindFiles | FindSeries:
    """What finds the cases of an input folder.

    Args:
        dataset_dir: the input folder.
        output_dir: the run folder.
        spec: with `files` for its roles: NIfTI; without: DICOM.
    """
    return (FindFiles if spec.from_files else FindSeries)(dataset_dir, output_dir, spec)
